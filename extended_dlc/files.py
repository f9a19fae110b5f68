"""Files that are written whole or not at all: a full disk or Ctrl-C leaves the old content."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write(file: Path, content: str | bytes) -> None:
    """Write a file atomically, with the rights of the file that it replaces.

    Devices, pipes, and files in a folder that takes no other file are written in place.

    Raises `OSError` with the file's name.
    """
    data = content.encode() if isinstance(content, str) else content
    file = Path(os.path.realpath(file))  # what a link points to, and not the link, is replaced
    if file.exists() and not (file.is_file() and os.access(file.parent, os.W_OK)):
        file.write_bytes(data)
        return
    part = file.with_name(f".{file.name[:100]}.{os.getpid()}")
    try:
        part.write_bytes(data)
        if file.exists():
            part.chmod(file.stat().st_mode & 0o7777)
        _replace(part, file)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(file), None
        raise


def _replace(part: Path, file: Path) -> None:
    try:
        os.replace(part, file)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        file.write_bytes(part.read_bytes())  # a file that is mounted, as into a container, cannot be replaced
        part.unlink()


def read_json(file: Path) -> Any:
    """The content of a JSON file; None where it is missing or invalid."""
    try:
        return json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return None
