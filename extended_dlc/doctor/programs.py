"""Runs other programs with a timeout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from extended_dlc.running import run

SECONDS = 5.0
"""Timeout of a program."""


class NoAnswer(Exception):
    """The program could not be run or did not end in time; the message tells which."""


@dataclass(frozen=True)
class Answer:
    """The output and the exit status of a program."""

    code: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """The last line of its errors or output, which names the reason of a failure."""
        lines = [line.strip() for line in (self.errors or self.output).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.code}"


def ask(command: Sequence[str], *, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Answer:
    try:
        done = run(command, folder=folder, environment={**os.environ, **(environment or {})}, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{' '.join(command[:2])} gave no answer in {SECONDS:g} s") from None
    except OSError as error:
        raise NoAnswer(f"{command[0]} cannot be run: {error.strerror}") from None
    return Answer(done.returncode, done.stdout.strip(), done.stderr.strip())
