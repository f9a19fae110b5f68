"""What each part of the start took: whoever waits for an endpoint reads in one line where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_BEGAN = time.monotonic()
"""The process has just begun: nothing large is imported yet."""

_parts: dict[str, float] = {}
"""Part -> seconds. A start has one, and its parts follow each other."""


@contextmanager
def part_of_start(name: str) -> Iterator[None]:
    """What is done inside counts to this part; a part that is done again, as with another precision, is added."""
    began = time.monotonic()
    try:
        yield
    finally:
        _parts[name] = _parts.get(name, 0) + time.monotonic() - began


def described() -> str:
    """The whole, and its parts in the order in which they came."""
    whole = time.monotonic() - _BEGAN
    parts = {**_parts, "other": max(0.0, whole - sum(_parts.values()))}
    return f"the start took {whole:.1f} s: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
