"""Reads the generated tables in `data/`."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


@functools.cache
def table(name: str) -> dict[str, Any]:
    """The content of `data/<name>.json`: `source` says where it is from, the other keys hold the rows."""
    content: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return content


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: `; did you mean 'x'?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
