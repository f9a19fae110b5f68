"""The user's folders of code and of weights: which of their files are packed, and whether their Python compiles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def packed_files(folder: str | Path) -> Iterator[tuple[str, Path]]:
    """The path in the archive of each file, and the file: neither hidden ones nor Python's caches."""
    folder = Path(folder)
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        if file.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in path.parts):
            yield path.as_posix(), file


def parsed(file: Path) -> ast.Module:
    """A Python file; ValueError where it does not compile."""
    source = file.read_bytes()
    try:
        tree = ast.parse(source, str(file))
        compile(source, str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ValueError(f"{file}{line} does not compile ({error.args[0]}): correct it before it is deployed") from None
    return tree
