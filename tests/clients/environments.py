"""The clients' virtual environments, several because their requirements conflict: made by uv in `.cache/clients`.

    python -m tests.clients.environments      locks the newest releases again: requirements/NAME.in into NAME.txt

llama-index's package for SageMaker requires llama-cpp-python, which compiles for many minutes, for two functions that
write prompts. It is left out: by requirements/overrides.txt, and by `--no-deps` at the install, since a lock is
complete. programs/stubs has the one name that the package around it imports.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = Path(__file__).with_name("requirements")
KEPT = ROOT / ".cache" / "clients"
UV = [sys.executable, "-m", "uv"]
NAMES = ("openai", "agents", "sagemaker2", "sagemaker3")


def made(name: str) -> Path:
    """The Python of an environment; it is made where it is missing or its lock has changed."""
    lock, folder = LOCKS / f"{name}.txt", KEPT / name
    python, stamp = folder / "bin" / "python", folder / "made-of.txt"
    if not stamp.is_file() or stamp.read_text() != lock.read_text():
        subprocess.run([*UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([*UV, "pip", "install", "--quiet", "--no-deps", "--python", python, "-r", lock], check=True)
        stamp.write_text(lock.read_text())
    return python


def lock(name: str) -> None:
    """Lock the newest releases that are compatible."""
    options = ["--quiet", "--upgrade", "--universal", "--python-version", "3.10", "--no-header", "--no-emit-index-url"]
    files = ["--override", LOCKS / "overrides.txt", LOCKS / f"{name}.in", "--output-file", LOCKS / f"{name}.txt"]
    subprocess.run([*UV, "pip", "compile", *options, "--no-annotate", *files], check=True)


if __name__ == "__main__":
    for each in NAMES:
        lock(each)
