"""The pictures in docs/pictures: terminal sessions, the benchmarks' figures, and what is deployed.

`python benchmarks/pictures.py` writes them anew, and `make docs` calls it. Each is made from what is committed: `plan`
is run in a pseudo-terminal, the rehearsal's report is shown from the steps that one left (`--rehearsal FILE` takes
those of another, which `extended-dlc rehearse --json FILE` wrote), the bars are of serving.json, and the boxes are the
resources of the template.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from serving_table import NAMES, compare, targets  # noqa: E402

from extended_dlc.rehearsal.report import Report, Step  # noqa: E402
from tests.support.terminal import played  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
STEPS = PICTURES / "rehearsal.json"
COLUMNS = 110
INK, GREY, BLUE, GREEN, ORANGE, PAPER = "#1f2328", "#59636e", "#0969da", "#1a7f37", "#bc4c00", "#ffffff"


def pictures() -> Mapping[str, str]:
    """Each picture by its file's name."""
    return {
        "plan.svg": session("extended-dlc plan", ["-m", "extended_dlc", "plan"]),
        "rehearsal.svg": session("extended-dlc rehearse", [__file__, "--replay"]),
        "throughput.svg": throughput(),
        "start-and-memory.svg": start_and_memory(),
        "architecture.svg": architecture(template()),
    }


# -- terminals ---------------------------------------------------------------------------------------------------------


def session(title: str, arguments: list[str]) -> str:
    """What a terminal shows of a command, as rich draws terminals."""
    from rich.console import Console
    from rich.text import Text

    with TemporaryDirectory() as folder:
        (Path(folder) / "cdk.json").write_text((ROOT / "cdk.json").read_text())
        output = played([sys.executable, *arguments], Path(folder), COLUMNS).decode().replace("\r\n", "\n")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), legacy_windows=False)
    console.print(Text.from_ansi(f"\x1b[1m$ {title}\x1b[0m\n{output}"), soft_wrap=True)
    svg = console.export_svg(title=title, unique_id=re.sub(r"\W", "-", title))
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # the font would be fetched from another site


class Replay(Report):
    """A report whose clock shows the seconds that the steps took."""

    def elapsed(self) -> float:
        """Seconds of the steps so far."""
        return sum(step.seconds + step.download_seconds for step in self.steps)


def replay() -> None:
    """Print the recorded rehearsal's report."""
    report = Replay()
    for recorded in json.loads(STEPS.read_text())["steps"]:
        report.begin(recorded["name"])
        report.steps.append(Step(**recorded))
        report.end(report.steps[-1])
    from extended_dlc.terminal import Screen

    Screen().line(f"the rehearsal passed in {report.seconds:.0f} s", "ok")


# -- bars --------------------------------------------------------------------------------------------------------------


def _rows() -> Iterator[Mapping[str, Any]]:
    stages = json.loads((ROOT / "benchmarks" / "serving.json").read_text())["stages"]
    yield from (row for stage in stages.values() for row in stage.get("rows", ()))


def _measured() -> str:
    """The releases, the machine and the day of the measurement."""
    stages = json.loads((ROOT / "benchmarks" / "serving.json").read_text())["stages"]
    stage = stages["start"]
    return f"transformers {stage['release']}, {stage['machine']['cores']} shared cores, {stage['machine']['date']}"


def throughput() -> str:
    """How many times as much ours answers as the stock server, with 16 clients or with sound."""
    bars = []
    for row in _rows():
        if row["unit"] not in ("requests/s", "audio s/s"):
            continue
        beside = next((each for each in targets(row) if each.beside == "tuned" and compare(row, each)), None)
        beside = beside or next((each for each in targets(row) if each.beside == "stock" and compare(row, each)), None)
        if beside is not None and (found := compare(row, beside)) is not None:
            bars.append((row["name"], found, f"{NAMES[beside.beside]}"))
    title = "Answers in the same time, as a multiple of the stock server's"
    below = f"{_measured()}; median of five rounds, with the least and the most of them"
    return _bars(title, below, bars, mark=1.0)


def start_and_memory() -> str:
    """Start and memory as a part of the stock server's."""
    bars = []
    for row in _rows():
        if row["name"].startswith(("start", "memory")) and "stock" in row["values"]:
            beside = next(each for each in targets(row) if each.beside == "stock")
            found = compare(row, beside)
            assert found is not None
            median = statistics.median(row["values"]["ours"])
            number = f"{median:.1f}" if median < 100 else f"{median:.0f}"
            bars.append((row["name"], found, f"{number} {row['unit']}"))
    return _bars("Start and memory, as a part of the stock server's", f"{_measured()}; less is better", bars, mark=1.0)


def _bars(title: str, below: str, bars: Sequence[tuple[str, tuple[float, float, float], str]], *, mark: float) -> str:
    """Horizontal bars, each with the spread of its rounds; a line at `mark`."""
    left, wide, high, top = 420, 420, 24, 74
    most = max(max(high_end for _, (_, _, high_end), _ in bars), mark)
    scale = wide / most
    parts = [_text(20, 30, title, size=18, weight="bold"), _text(20, 52, below, colour=GREY)]
    for number, (name, (middle, least, greatest), note) in enumerate(bars):
        y = top + number * high
        parts += [
            _text(left - 10, y + 14, name, anchor="end", size=12),
            f'<rect x="{left}" y="{y + 3}" width="{middle * scale:.1f}" height="14" rx="2" fill="{BLUE}"/>',
            f'<path d="M{left + least * scale:.1f} {y + 10}H{left + greatest * scale:.1f}" stroke="{INK}"/>',
            _text(left + greatest * scale + 8, y + 14, f"{middle:.2f}×  ({note})", size=12, colour=GREY),
        ]
    bottom = top + len(bars) * high
    at = left + mark * scale
    parts.append(f'<path d="M{at:.1f} {top - 4}V{bottom}" stroke="{ORANGE}" stroke-dasharray="4 3"/>')
    return _svg(left + wide + 240, bottom + 20, title, parts)


# -- what is deployed --------------------------------------------------------------------------------------------------


def template() -> dict[str, Any]:
    """The template of the shipped settings."""
    with TemporaryDirectory() as folder:
        context = json.dumps(json.loads((ROOT / "cdk.json").read_text())["context"])
        variables = {
            "CDK_OUTDIR": folder,
            "CDK_CONTEXT_JSON": context,
            "PYTHONPATH": str(ROOT),
            "CDK_VALIDATION": "false",
        }
        subprocess.run(
            [sys.executable, "app.py"], cwd=ROOT, env={**os.environ, **variables}, check=True, capture_output=True
        )
        found: dict[str, Any] = json.loads((Path(folder) / "EndpointStack.template.json").read_text())
        return found


_LEFT_OUT = ("AWS::IAM::Policy", "AWS::CDK::Metadata")
"""Types that are not drawn, because they belong to another resource, as a policy to its role."""

_WHAT = {
    "AWS::ECR::Repository": "ECR repository",
    "Custom::CDKECRDeployment": "the image's copy",
    "AWS::IAM::Role": "role",
    "AWS::Logs::LogGroup": "log group",
    "AWS::Lambda::Function": "function",
    "AWS::SageMaker::Model": "SageMaker Model",
    "AWS::SageMaker::EndpointConfig": "EndpointConfig",
    "AWS::SageMaker::Endpoint": "Endpoint",
    "Custom::ExtendedDlcProof": "check",
}
_COLOURS = {"AWS::ECR": ORANGE, "AWS::SageMaker": GREEN, "AWS::IAM": GREY, "AWS::Logs": GREY}


def architecture(content: Mapping[str, Any]) -> str:
    """Draw the template's resources, each to the right of those that it refers to."""
    resources = {key: each for key, each in content["Resources"].items() if each["Type"] not in _LEFT_OUT}
    needs = {key: _references(each) & set(resources) - {key} for key, each in resources.items()}
    labels = {key: _label(key, each) for key, each in resources.items()}
    for key, each in resources.items():  # and the boxes that are not in the template
        if each["Type"] == "Custom::CDKECRDeployment":
            needs[key].add("build")
            labels["build"] = ("docker build, here", "the CDK's asset repository", BLUE)
        hub = each.get("Properties", {}).get("PrimaryContainer", {}).get("Environment", {}).get("HF_MODEL_ID")
        if each["Type"] == "AWS::SageMaker::Model" and hub:
            name = f"hub {hub}"
            labels[name] = ("Hugging Face Hub", hub, BLUE)
            needs[key].add(name)
    needs |= {key: set() for key in labels if key not in needs}
    return _draw("What cdk deploy makes of the shipped settings", labels, _reduced(needs))


def _references(value: Any) -> set[str]:
    """The resources that a part of a template refers to."""
    if isinstance(value, dict):
        found = {value["Ref"]} if isinstance(value.get("Ref"), str) else set()
        got = value.get("Fn::GetAtt")
        found |= {got[0]} if isinstance(got, list) else set()
        after = value.get("DependsOn", ())
        found |= {after} if isinstance(after, str) else set(after) if isinstance(after, list) else set()
        return found.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()


def _label(key: str, resource: Mapping[str, Any]) -> tuple[str, str, str]:
    """A resource's type in words, its path in the app, and its colour."""
    kind = resource["Type"]
    path = resource.get("Metadata", {}).get("aws:cdk:path", key).removeprefix("EndpointStack/")
    label = re.sub(r"[0-9a-f]{20,}\w*|[0-9A-F]{8}$", "", path.removesuffix("/Resource").removesuffix("/Default"))
    colour = next((each for prefix, each in _COLOURS.items() if kind.startswith(prefix)), INK)
    return _WHAT.get(kind, kind), label.replace("CustomResource", "").rstrip("/"), colour


def _reduced(needs: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The dependencies without those that follow from others (transitive reduction)."""

    def above(key: str) -> set[str]:
        return set().union(*({each, *above(each)} for each in needs[key])) if needs[key] else set()

    return {key: {one for one in all_ if not any(one in above(other) for other in all_)} for key, all_ in needs.items()}


def _columns(keys: Mapping[str, object], needs: Mapping[str, set[str]]) -> dict[str, int]:
    """The column of each resource: one to the right of its dependencies."""
    column: dict[str, int] = {}

    def column_of(key: str) -> int:
        if key not in column:
            column[key] = 1 + max(map(column_of, needs[key]), default=-1)
        return column[key]

    for key in keys:
        column_of(key)
    for key in keys:  # a resource without dependencies is drawn beside the first that depends on it
        users = [column[other] for other in keys if key in needs[other]]
        if not needs[key] and users:
            column[key] = min(users) - 1
    return column


def _draw(title: str, labels: Mapping[str, tuple[str, str, str]], needs: Mapping[str, set[str]]) -> str:
    """Draw boxes in columns: each to the right of its dependencies, and as near to them as there is room."""
    column = _columns(labels, needs)
    wide, high, gap, top = 172, 46, 40, 60
    rows: dict[str, float] = {}
    by_column: dict[int, list[str]] = defaultdict(list)
    for key in labels:
        by_column[column[key]].append(key)
    for number in sorted(by_column):

        def middle(key: str) -> float:
            return statistics.mean(rows[each] for each in needs[key]) if needs[key] else 99.0

        for row, key in enumerate(sorted(by_column[number], key=middle)):
            rows[key] = row
    parts = [_text(20, 32, title, size=18, weight="bold")]

    def corner(key: str) -> tuple[float, float]:
        return 20 + column[key] * (wide + gap), top + rows[key] * (high + 18)

    for key, before in needs.items():
        x, y = corner(key)
        for each in sorted(before):
            a, b = corner(each)
            a, b, y1 = a + wide, b + high / 2, y + high / 2
            half = (x - a) / 2
            parts.append(
                f'<path d="M{a:.0f} {b:.0f}C{a + half:.0f} {b:.0f} {x - half:.0f} {y1:.0f} {x - 6:.0f} {y1:.0f}" '
                f'fill="none" stroke="{GREY}" stroke-opacity=".6" marker-end="url(#end)"/>'
            )
    for key, (what, where, colour) in labels.items():
        x, y = corner(key)
        parts += [
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide}" height="{high}" rx="6" fill="{PAPER}" stroke="{colour}" '
            'stroke-width="1.5"/>',
            _text(x + 10, y + 19, what, weight="bold", colour=colour, size=13),
            _text(x + 10, y + 36, where if len(where) < 27 else f"{where[:25]}…", colour=GREY, size=11),
        ]
    most = max(map(len, by_column.values()))
    return _svg(20 + len(by_column) * (wide + gap) - gap + 20, top + most * (high + 18) + 10, title, parts)


# -- SVG ---------------------------------------------------------------------------------------------------------------


def _text(
    x: float, y: float, text: str, *, size: int = 13, colour: str = INK, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
            'font-family="system-ui, sans-serif">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="end" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker></defs>',
            f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearsal", type=Path, help="what extended-dlc rehearse --json wrote")
    parser.add_argument("--replay", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay:
        replay()
        return
    if options.rehearsal:
        content = json.loads(options.rehearsal.read_text())
        for step in content["steps"]:
            step["log"] = None  # a path of this machine
        STEPS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    for name, svg in pictures().items():
        (PICTURES / name).write_text(svg)
        print(PICTURES / name)


if __name__ == "__main__":
    main()
