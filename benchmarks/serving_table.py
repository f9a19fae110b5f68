"""The table of the serving figures: each with its spread, and with the target that it has to meet."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

README = Path(__file__).parent / "README.md"
NAMES = {
    "ours": "ours",
    "stock": "stock, default",
    "tuned": "stock, best tuning",
    "direct": "direct",
    "batched": "direct, batched",
}


@dataclass(frozen=True)
class Target:
    """The target of our figure beside another candidate's: a ratio, or a difference."""

    beside: str
    limit: float
    at_most: bool = False
    difference: bool = False

    def __str__(self) -> str:
        """The target as it is written in the table."""
        sign = "≤" if self.at_most else "≥"
        return f"{sign} {self.limit:g} ms above" if self.difference else f"{sign} {self.limit:g}×"

    def met(self, value: float) -> bool:
        """Whether the value meets the target."""
        return value <= self.limit if self.at_most else value >= self.limit


def targets(row: Mapping[str, Any]) -> list[Target]:
    """What issue and README promise for a row."""
    name: str = row["name"]
    if name.startswith("start"):
        return [Target("direct", 1.15, at_most=True), Target("stock", 0.5, at_most=True)]
    if name.startswith("memory"):
        return [Target("direct", 1.1, at_most=True), Target("stock", 0.5, at_most=True)]
    if row["unit"] == "ms":
        return [Target("direct", 3 if name.endswith("p50") else 10, at_most=True, difference=True)]
    if row["unit"] == "audio s/s":
        return [Target("stock", 1.0)]
    limit = Target("batched", 0.9)
    if "text-generation" in name:
        return [Target("stock", 3), Target("tuned", 2), limit]
    return [Target("stock", 3), limit] if "tiny" in name else [Target("tuned", 0.95), limit]


def compare(row: Mapping[str, Any], target: Target) -> tuple[float, float, float] | None:
    """Median, least and most of the rounds' ratios (or differences); None where the other was not measured."""
    mine, theirs = row["values"]["ours"], row["values"].get(target.beside)
    if theirs is None:
        return None
    each = [a - b if target.difference else a / b for a, b in zip(mine, theirs, strict=True)]
    middle = statistics.median(each)
    if target.difference:  # quantiles of all requests together
        middle = row["all"]["ours"] - row["all"][target.beside]
    return middle, min(each), max(each)


def table(rows: list[Mapping[str, Any]]) -> list[str]:
    """The lines of the table in Markdown."""
    lines = ["| | ours | beside | target | measured | |", "|---|---|---|---|---|---|"]
    for row in rows:
        mine = row["values"]["ours"]
        first = f"{row['name']}{' (unsteady)' if row['unsteady'] else ''}"
        ours = f"{_short(statistics.median(mine))} {row['unit']} ({_short(min(mine))} to {_short(max(mine))})"
        for target in targets(row):
            compared = compare(row, target)
            if compared is None:
                continue
            theirs = f"{NAMES[target.beside]}: {_short(statistics.median(row['values'][target.beside]))}"
            if target.beside == "tuned":
                theirs += " ({} × {})".format(*row["tuning"])
            unit = " ms" if target.difference else "×"
            middle, least, most = (f"{value:.2f}" for value in compared)
            met = "met" if target.met(compared[0]) else "**missed**"
            lines.append(f"| {first} | {ours} | {theirs} | {target} | {middle}{unit} ({least} to {most}) | {met} |")
            first = ours = ""
    return lines


def print_table(rows: list[Mapping[str, Any]]) -> None:
    """Print the table during a run."""
    print("\n".join(table(rows) if rows else []), flush=True)


def write_table(figures: Mapping[str, Any]) -> None:
    """Write the table into README.md, between its marks."""
    parts: list[str] = []
    done = [stage for stage in figures["stages"].values() if "rows" in stage]
    for release in dict.fromkeys(stage["release"] for stage in done):
        rows = [row for stage in done if stage["release"] == release for row in stage["rows"]]
        parts += [f"With transformers {release}:", "", *table(rows), ""]
    write_between("serving", parts)


def write_between(mark: str, lines: Sequence[str]) -> None:
    """Replace what is between the marks in README.md."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, rest = README.read_text().split(begin)
    README.write_text("\n".join([head + begin, "", *lines, "", end + rest.split(end)[1]]))


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
