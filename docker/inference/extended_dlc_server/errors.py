"""What can go wrong, each with the words for whoever can put it right."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST_SHOWN = 80
"""Characters of what a caller sent that a message repeats."""

_REPR = reprlib.Repr()


class StartError(Exception):
    """The server cannot start as configured: the message names the setting, its value, the rule and the way out."""


class CannotAnswerError(StartError):
    """The model is loaded and fails at its first inference."""


class RequestError(Exception):
    """A request gets no result: an HTTP status, a code for programs and a message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Keep the three parts; `status` is 4xx for what the caller can change and 5xx for what only we can."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> dict[str, dict[str, str]]:
        """The one shape of every error body."""
        return {"error": {"code": self.code, "message": self.message}}


class ModelFailedError(RequestError):
    """The model itself failed on a request: most often the request's fault, and if it goes on, the model's."""


@contextmanager
def panics_are_errors() -> Iterator[None]:
    """A panic of a library in Rust, such as tokenizers, as an error: it is no `Exception` and would end the process."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"a library gave up: {error}") from error


def shown(value: Any) -> str:
    """What a caller sent, for a message: on one line, and cut where it is long."""
    if isinstance(value, str):
        text = f"'{json.dumps(value[: MOST_SHOWN + 1])[1:-1]}'"
    elif isinstance(value, (list, dict)):
        text = _REPR.repr(value)  # which looks at the first few values only
    else:
        text = json.dumps(value) if isinstance(value, (bool, int, float, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def shown_text(error: Exception) -> str:
    """The words of an exception, on one line, cut where they are long."""
    return " ".join(str(error)[:1000].split())[:300]
