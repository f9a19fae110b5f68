"""The figures that SageMaker and CloudFormation keep to, each with its source (`data/limits.json`)."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from extended_dlc.facts._tables import did_you_mean, table


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One figure: the least, the most, or both."""

    limit: str
    """Its name here, as `serverless.memory_mb`; a figure of all hosting kinds has no first part."""

    min: int | None
    max: float | None
    unit: str
    source: str
    checked: str


@functools.cache
def limits() -> dict[str, Limit]:
    """Every figure by its name."""
    return {row["limit"]: Limit(**row) for row in table("limits")["limits"]}


def limit(name: str) -> Limit:
    """The figure of this name; a `KeyError` where there is none, since names are written by us."""
    known = limits()
    if name not in known:
        raise KeyError(f"no limit is called '{name}'{did_you_mean(name, known)}")
    return known[name]


def most(name: str) -> int:
    """The upper end of a limit that has one in whole units."""
    return int(limit(name).max or 0)


def check_limit(name: str, value: float) -> None:
    """Refuse a value outside a limit, with both ends and the source."""
    found = limit(name)
    low, high = found.min, found.max
    if (low is None or value >= low) and (high is None or value <= high):
        return
    if low is not None and high is not None:
        ends = f"from {low} to {high:g}" if high < 1e6 else f"from {low} to {high:.0f}"
    else:
        ends = f"at least {low}" if high is None else f"at most {high:.0f}"
    raise ValueError(f"must be {ends} {found.unit} ({found.source})")
