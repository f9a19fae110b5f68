"""Reads the generated tables in `data/`."""

from __future__ import annotations

import difflib
import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
"""The tables that this release ships."""

FOLDER = "EXTENDED_DLC_FACTS"
"""Name of the environment variable for a folder with newer tables."""


def refreshed() -> Path:
    """The folder that `extended-dlc catalog refresh` writes to; its tables take precedence over the shipped ones.

    It is the folder of `EXTENDED_DLC_FACTS`; without it the shipped tables' folder in a checkout, and otherwise a
    folder in the user's home per release, because another release may need other columns.
    """
    named = os.environ.get(FOLDER)
    if named:
        return Path(named).expanduser().absolute()
    if (DATA.parents[2] / "pyproject.toml").is_file():
        return DATA
    from extended_dlc import __version__

    home = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "extended-dlc" / f"facts-{__version__}"


@functools.cache
def table(name: str) -> dict[str, Any]:
    """The content of a table: `source` names its source, the other keys hold the rows.

    Raises `ValueError` where a refreshed table cannot be read.
    """
    file = refreshed() / f"{name}.json"
    if not file.is_file():
        file = DATA / f"{name}.json"
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if not isinstance(content, dict) or "source" not in content:
            raise ValueError("it is no table with a source")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the table '{file}' cannot be read ({error}): delete it, or run 'extended-dlc catalog refresh'"
        ) from None
    return content


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: `; did you mean 'x'?`, or empty if no known name is similar."""
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
