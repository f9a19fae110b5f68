"""The limits of SageMaker and CloudFormation, each with its source (`data/limits.json`)."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from extended_dlc.facts._tables import did_you_mean, table


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit: a minimum, a maximum, or both."""

    limit: str
    """Its name, such as `serverless.memory_mb`; a limit of all hosting kinds has no prefix."""

    min: int | None
    max: float | None
    unit: str
    source: str
    checked: str


@functools.cache
def limits() -> dict[str, Limit]:
    """All limits by their names."""
    return {row["limit"]: Limit(**row) for row in table("limits")["limits"]}


def limit(name: str) -> Limit:
    """The limit of this name; raises `KeyError`, because names come from this code and not from users."""
    known = limits()
    if name not in known:
        raise KeyError(f"no limit is called '{name}'{did_you_mean(name, known)}")
    return known[name]


def most(name: str) -> int:
    """The maximum of a limit, in whole units."""
    return int(limit(name).max or 0)


def check_limit(name: str, value: float) -> None:
    """Refuse a value outside a limit; the error has both ends and the source."""
    found = limit(name)
    low, high = found.min, found.max
    if (low is None or value >= low) and (high is None or value <= high):
        return
    if low is not None and high is not None:
        ends = f"from {low} to {high:g}" if high < 1e6 else f"from {low} to {high:.0f}"
    else:
        ends = f"at least {low}" if high is None else f"at most {high:.0f}"
    raise ValueError(f"must be {ends} {found.unit} ({found.source})")
