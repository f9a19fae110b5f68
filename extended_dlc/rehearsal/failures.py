"""The failures on request as options of `extended-dlc rehearse`, and how often each came up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_OPTIONS = {
    "silent_rollbacks": ("--silent-rollbacks", "no update failed", "the container's log has the reason"),
    "shortages": ("--shortage", "nothing asked for the type", "take another instance type, or try again later"),
    "quotas": ("--quota", "the endpoints stayed within it", "ask AWS for a higher quota, or take fewer instances"),
    "throttled": ("--throttle", "nobody called it", "callers repeat what is throttled"),
    "role_seconds": ("--role-seconds", "no role was new when it was needed", "CloudFormation waits for its roles"),
    "container_seconds": ("--container-seconds", "no container was in service for so long", "SageMaker starts another"),
}
"""A scenario's field (`embedded/scenarios.py`), its option, the reason for which it does not come up, and what helps
where it does."""


def came_up(asked: Mapping[str, Any], met: Mapping[str, int]) -> Iterator[str]:
    """A line for each failure that was asked for: how often it came up, or the reason for which it did not."""
    for field, value in asked.items():
        option, why_not, way_out = _OPTIONS[field]
        for name, shown in _parts(value):
            count = met.get(f"{field}: {name}" if name else field, 0)
            times = "once" if count == 1 else f"{count} times"
            yield (
                f"{option}{shown} came up {times}: {way_out}"
                if count
                else f"{option}{shown} did not come up: {why_not}"
            )


def _parts(value: Any) -> Iterator[tuple[str, str]]:
    """The types or operations of a scenario, each as its option has it; an empty name where there are none."""
    if isinstance(value, Mapping):
        yield from ((name, f" {name}={count}") for name, count in value.items())
    elif isinstance(value, list):
        yield from ((name, f" {name}") for name in value)
    else:
        yield "", "" if value is True else f" {value:g}"
