"""Files of the state folder, written atomically: a killed program leaves the old or the new content."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(file: Path, text: str) -> None:
    """Write a file atomically."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text)
    os.replace(part, file)


def read_json(file: Path) -> Any:
    """The content of a JSON file; None where it is missing or invalid."""
    try:
        return json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return None
