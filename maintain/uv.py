"""Environments that uv makes below .cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

UV = str(Path(sys.executable).parent / "uv")


def make_environment(folder: Path, python: str, *install: str) -> Path:
    """The Python of an environment in a folder, which is made at the first call.

    :param python: The Python that it is made of.
    :param install: Arguments of `uv pip install`, which runs at each call.
    """
    found = folder / "bin" / "python"
    if not found.exists():
        subprocess.run([UV, "venv", "--quiet", "--python", python, str(folder)], check=True)  # noqa: S603 - own arguments
    subprocess.run([UV, "pip", "install", "--quiet", f"--python={found}", *install], check=True)  # noqa: S603 - as above
    return found
