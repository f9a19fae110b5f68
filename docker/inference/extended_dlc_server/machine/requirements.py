"""`code/requirements.txt` of the model archive, installed once, before anything else is imported."""

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
"""Lines of pip's output in which the reason of a failure is looked for."""

_LAST_SECONDS = 5
"""How long pip's last lines may take to arrive."""

log = logging.getLogger(__name__)

_PROTECTED = "protected.txt"
"""The list that the build has kept to: beside the package in a checkout, among the build's files in an image."""

_NO_NETWORK = ("Failed to establish a new connection", "name resolution", "Network is unreachable", "timed out")


def install_requirements(file: Path) -> None:
    """Run pip; what is there already needs no network. A failure says what to change."""
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
        # in its folder, so that it may name files beside it
        code, output = _run(command, file.parent)
    if code != 0:
        raise StartError(f"{file} cannot be installed: {_reason(output)}")
    invalidate_caches()


def _protected() -> Iterator[tuple[str, str]]:
    """What is installed of the packages that nothing may replace, with its releases."""
    beside = Path(__file__).parents[2]
    lists = [each for each in (beside / "build" / _PROTECTED, beside / _PROTECTED) if each.is_file()]
    lines = [line for line in lists[0].read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    names = re.compile("|".join(lines))
    for found in distributions():
        name = found.metadata["Name"] or ""
        if names.fullmatch(re.sub(r"[-_.]+", "-", name).lower()):
            yield name, found.version


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Its exit code and the last of what it printed, each line of which is logged as it comes."""
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
    reader.join(_LAST_SECONDS)  # what a build has left running may hold the pipe for ever
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
