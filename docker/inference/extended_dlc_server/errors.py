"""The server's exceptions, each with a message for the person who can fix the problem."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MOST_SHOWN = 80
"""Most characters of a caller's value that an error message repeats."""

_REPR = reprlib.Repr()


class StartError(Exception):
    """The server cannot start as configured. The message names the setting, its value, the rule and the fix."""


class CannotAnswerError(StartError):
    """The model is loaded and fails at its first inference."""


class RequestError(Exception):
    """A request fails, with an HTTP status, a code for programs and a message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """`status` is 4xx where the caller can fix the request, and 5xx where only the server's side can."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> dict[str, dict[str, str]]:
        """Return the JSON body that all error responses share."""
        return {"error": {"code": self.code, "message": self.message}}


class TakesLongError(Exception):
    """Another process has to do a part of a request's preparation first, and others must not wait for it."""

    def __init__(self, work: Callable[[], object]) -> None:
        """After `work`, which runs on any thread but the event loop's, the request is prepared again."""
        super().__init__()
        self.work = work


class ModelFailedError(RequestError):
    """The model failed on a request. One failure is most often the request's fault, repeated ones the model's."""


@contextmanager
def panics_are_errors() -> Iterator[None]:
    """Turn a panic of a Rust library, such as tokenizers, into a `RuntimeError`.

    PyO3's PanicException does not derive from `Exception`, so it would end the process.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"a library gave up: {error}") from error


def shown(value: Any) -> str:
    """Format a caller's value for an error message: on one line, shortened to `MOST_SHOWN` characters."""
    if isinstance(value, str):
        text = f"'{json.dumps(value[: MOST_SHOWN + 1])[1:-1]}'"
    elif isinstance(value, (list, dict)):
        text = _REPR.repr(value)  # reprlib reads the first few values only
    else:
        text = json.dumps(value) if isinstance(value, (bool, int, float, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def shown_text(error: Exception) -> str:
    """Return the message of an exception on one line of at most 300 characters."""
    return " ".join(str(error)[:1000].split())[:300]
