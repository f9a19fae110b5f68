"""Files of the state, which a killed program leaves as they were or as they were to be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(file: Path, text: str) -> None:
    """Write a file all at once."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text)
    os.replace(part, file)


def read_json(file: Path) -> Any:
    """What a file holds; None where there is none, or where it cannot be read, which counts as none."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
