"""The results of checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from extended_dlc.doctor.target import Target


@dataclass(frozen=True)
class Ok:
    """The check found no problem."""

    message: str
    """The observed state."""


@dataclass(frozen=True)
class Problem:
    """A problem that would make a deployment fail."""

    message: str
    remedy: str
    """The next command to run, or the next step."""


@dataclass(frozen=True)
class Unknown:
    """The check has no result, which is not a problem."""

    message: str
    """The reason."""


Finding: TypeAlias = Ok | Problem | Unknown


@dataclass(frozen=True)
class Check:
    """A named check of the machine or the account."""

    name: str
    ask: Callable[[Target], Finding]

    def __call__(self, target: Target) -> Finding:
        """Run the check; an exception in it is Unknown, because it must not stop a working deployment."""
        try:
            return self.ask(target)
        except Exception as error:
            return Unknown(f"the check itself failed: {type(error).__name__}: {error}")
