"""Writes the refreshed tables: one row per line, never with fewer rows than before, and atomically."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from extended_dlc.facts._tables import DATA, FOLDER, refreshed
from extended_dlc.refresh._pip import Json, RefreshError


def read(name: str) -> Json | None:
    """The current table; None if there is none yet."""
    for folder in (refreshed(), DATA):
        file = folder / f"{name}.json"
        if file.exists():
            found: Json = json.loads(file.read_text("utf-8"))
            return found
    return None


def write(name: str, content: Json, *, may_lose: int = 0) -> tuple[int, bool]:
    """Replace the refreshed table; refuse one with more than `may_lose` fewer rows than the current one.

    Returns the number of rows, and whether anything changed.
    """
    file = refreshed() / f"{name}.json"
    rows = content[name]
    before = read(name)
    if before is not None and len(rows) < len(before[name]) - may_lose:
        raise RefreshError(
            f"{file.name} would shrink from {len(before[name])} to {len(rows)} rows: look into the source "
            f"({content['source']}) and delete the file first if that is right"
        )
    text = layout(content) + "\n"
    changed = before is None or layout(before) + "\n" != text
    if changed:
        half = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            half.write_text(text)
            half.replace(file)
        except OSError as error:
            raise RefreshError(
                f"{file} cannot be written: {error.strerror}; name a folder that can be with {FOLDER}"
            ) from None
        finally:
            with suppress(OSError):
                half.unlink(missing_ok=True)
    return len(rows), changed


def layout(content: Json) -> str:
    """JSON with one row per line, so that a refresh makes a readable diff."""

    def block(value: Any) -> str:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return json.dumps(value)
        if isinstance(value, dict):
            lines = [f"    {json.dumps(key)}: {json.dumps(row)}" for key, row in value.items()]
            return "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"
        if isinstance(value, list):
            lines = [f"    {json.dumps(row)}" for row in value]
            return "[\n" + ",\n".join(lines) + "\n  ]" if lines else "[]"
        return json.dumps(value)

    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {block(value)}" for key, value in content.items()) + "\n}"
