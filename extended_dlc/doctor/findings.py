"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from extended_dlc.doctor.target import Target


@dataclass(frozen=True)
class Ok:
    """Nothing is wrong."""

    message: str
    """What was seen."""


@dataclass(frozen=True)
class Problem:
    """Something is known to be wrong, and a deployment would fail by it."""

    message: str
    remedy: str
    """The next command to type, or the next thing to do."""


@dataclass(frozen=True)
class Unknown:
    """It could not be found out; that is not wrong."""

    message: str
    """Why not."""


Finding: TypeAlias = Ok | Problem | Unknown


@dataclass(frozen=True)
class Check:
    """A named question about the machine or the account."""

    name: str
    ask: Callable[[Target], Finding]

    def __call__(self, target: Target) -> Finding:
        """What it finds; a fault of its own is unknown, since a doctor must not stop a healthy deployment."""
        try:
            return self.ask(target)
        except Exception as error:
            return Unknown(f"the check itself failed: {type(error).__name__}: {error}")
