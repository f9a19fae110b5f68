"""Installs `code/requirements.txt` of the model archive once, before torch and transformers are imported."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from importlib import invalidate_caches
from importlib.metadata import distributions
from pathlib import Path

from ..errors import StartError
from .log import LONGEST_RECORD, hide_credentials

_KEPT_LINES = 1000
"""Number of pip's last lines that are searched for the reason of a failure."""

_LAST_SECONDS = 5
"""How long to wait for pip's last lines after it has ended."""

log = logging.getLogger(__name__)

_PROTECTED = "protected.txt"
"""The list of protected packages, as in the image build: beside this package, or in the folder `build` of an image."""

_NO_NETWORK = ("Failed to establish a new connection", "name resolution", "Network is unreachable", "timed out")


def install_requirements(file: Path) -> None:
    """Run pip. Requirements that are already installed need no network. The error message says what to change."""
    pinned = [f"{name}=={release}" for name, release in _protected()]
    log.info("installing %s", file)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pinned))
        constraints.flush()
        command = [
            *(sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir"),
            *("--root-user-action=ignore", "--retries=2", "--progress-bar=off", "--constraint", constraints.name),
            *("--requirement", str(file)),
        ]
        # Run in the file's folder, so that its relative paths work.
        code, output = _run(command, file.parent)
    if code != 0:
        raise StartError(f"{file} cannot be installed: {_reason(output)}")
    invalidate_caches()


def _protected() -> Iterator[tuple[str, str]]:
    """Yield name and version of the installed packages that requirements may not replace, such as torch."""
    beside = Path(__file__).parents[2]
    lists = [each for each in (beside / "build" / _PROTECTED, beside / _PROTECTED) if each.is_file()]
    lines = [line for line in lists[0].read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    names = re.compile("|".join(lines))
    for found in distributions():
        name = found.metadata["Name"] or ""
        if names.fullmatch(re.sub(r"[-_.]+", "-", name).lower()):
            yield name, found.version


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Run a command and log each line as it is printed; return the exit code and the last lines."""
    process = subprocess.Popen(  # noqa: S603 - no shell, own arguments
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last: deque[str] = deque(maxlen=_KEPT_LINES)

    def read() -> None:
        for line in process.stdout or ():
            said = hide_credentials(line.rstrip())
            last.append(said[:LONGEST_RECORD])
            log.info("pip: %s", said)

    reader = threading.Thread(target=read, name="pip", daemon=True)
    reader.start()
    code = process.wait()
    reader.join(_LAST_SECONDS)  # a process that a build left running may hold the pipe open for ever
    return code, "\n".join(list(last))


def _reason(output: str) -> str:
    if any(words in output for words in _NO_NETWORK):
        return (
            "the package index cannot be reached. In an isolated network, build the packages into the image and set "
            "EXTENDED_DLC_INSTALL_REQUIREMENTS to 'false', or set PIP_INDEX_URL to an index that it can reach"
        )
    if "ResolutionImpossible" in output or "conflict" in output:
        return "it asks for another torch or CUDA than the image has, which may not be replaced: loosen it"
    lines = [line for line in output.splitlines() if line.startswith("ERROR")]
    return f"pip says: {lines[0] if lines else output[-300:]}"
