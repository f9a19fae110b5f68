"""`code/requirements.txt` of the model archive, installed once, before anything else is imported."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
from importlib import invalidate_caches
from importlib.metadata import distributions
from pathlib import Path

from .errors import StartError

log = logging.getLogger(__name__)

# Compiled against each other and against the instance's driver: replacing one breaks the others.
_PROTECTED = re.compile(r"torch|torchvision|torchaudio|triton|nvidia[-_].*|cuda[-_].*", re.IGNORECASE)

_NO_NETWORK = ("Failed to establish a new connection", "name resolution", "Network is unreachable", "timed out")


def install_requirements(file: Path) -> None:
    """Run pip; what is there already needs no network. A failure says what to change."""
    pinned = [
        f"{found.metadata['Name']}=={found.version}"
        for found in distributions()
        if _PROTECTED.fullmatch(found.metadata["Name"] or "")
    ]
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
        done = subprocess.run(  # noqa: S603 - no shell, own arguments
            command, cwd=file.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    for line in done.stdout.splitlines():
        log.info("pip: %s", line)
    if done.returncode != 0:
        raise StartError(f"{file} cannot be installed: {_reason(done.stdout)}")
    invalidate_caches()


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
