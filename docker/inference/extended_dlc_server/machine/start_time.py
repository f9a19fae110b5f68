"""Measures the parts of the start, so that one log line tells where the time until an endpoint is ready goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_BEGAN = time.monotonic()
"""Nearly the start of the process: this module is imported before any large one."""

_parts: dict[str, float] = {}
"""Seconds by name of the part. Parts do not overlap."""


@contextmanager
def part_of_start(name: str) -> Iterator[None]:
    """Add the block's duration to this part. A part can repeat, for example with another precision."""
    began = time.monotonic()
    try:
        yield
    finally:
        _parts[name] = _parts.get(name, 0) + time.monotonic() - began


def described() -> str:
    """Return the log line with the total and the parts, in the order in which they ran."""
    whole = time.monotonic() - _BEGAN
    parts = {**_parts, "other": max(0.0, whole - sum(_parts.values()))}
    return f"the start took {whole:.1f} s: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
