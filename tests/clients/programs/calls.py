"""Shared by the programs of calls, which run in environments with only a client's packages.

A program reads one line of JSON (`Asked`) for each round. To the file descriptor CALLS_OUTPUT it writes one line for
each call, and an empty line at the round's end.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PORT, INVOKE, ROUTE, OPENAI = "port", "invoke", "route", "openai"


@dataclass
class Asked:
    """The inputs of a round."""

    aws: str
    """The embedded AWS's URL."""

    region: str
    token: str
    """A bearer token for SageMaker's OpenAI path."""

    ports: dict[str, int] = field(default_factory=dict)
    """Endpoint to the port of its container."""

    release: str = ""
    """The transformers release of the server."""

    reason: str = ""
    """The FailureReason of an endpoint that must fail."""

    def container_url(self, endpoint: str) -> str:
        """The URL of an endpoint's container."""
        return f"http://127.0.0.1:{self.ports[endpoint]}"

    def openai(self, endpoint: str) -> str:
        """The base URL of SageMaker's OpenAI path."""
        return f"{self.aws}/endpoints/{endpoint}/openai/v1"


class Calls:
    """Makes calls of one client, and reports their outcomes."""

    def __init__(self, client: str) -> None:
        self._client = client

    def try_it(
        self, call: str, way: str, made: Callable[..., object], *given: Any, refused: str = "", why: str = ""
    ) -> None:
        """Make a call. `refused` is what its error must say, where it must fail; `why` is the table's reason."""
        try:
            made(*given)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if refused and re.search(refused, text):
                self._tell(call, way, "refused", why)
            else:
                self._tell(call, way, "wrong", " ".join(text.split())[:500])
        else:
            if refused:
                self._tell(call, way, "wrong", f"answered, though expected: {refused}")
            else:
                self._tell(call, way, "right", "")

    def not_so(self, call: str, way: str, why: str) -> None:
        """Report a way in which a call is not possible."""
        self._tell(call, way, "none", why)

    def _tell(self, call: str, way: str, outcome: str, reason: str) -> None:
        line = {"client": self._client, "call": call, "way": way, "outcome": outcome, "reason": reason}
        print(json.dumps(line), file=_OUTPUT, flush=True)


def check(truth: Any, found: object) -> None:
    """Raise an error with the found value unless `truth` holds."""
    if not truth:
        raise AssertionError(f"not what was expected: {found!r}")


def main(program: Callable[[Asked], None]) -> None:
    """Run the program for each line of standard input."""
    for line in sys.stdin:
        program(Asked(**json.loads(line)))
        print(file=_OUTPUT, flush=True)


# some clients print to standard output, so the results have their own file descriptor
_OUTPUT = os.fdopen(int(os.environ["CALLS_OUTPUT"]), "w")

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SAID = "Hello you, and good day."
ORDER = {
    "type": "object",
    "properties": {"city": {"enum": ["Köln", "Bonn"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def check_order(text: str) -> None:
    """Check that a text satisfies the schema."""
    made = json.loads(text)
    check(set(made) == {"city", "days"} and made["city"] in ("Köln", "Bonn") and made["days"] in range(1, 10), made)


def tone(seconds: float = 1, rate: int = 16_000) -> bytes:
    """A WAV file of a sine tone."""
    import io
    import math
    import struct
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(rate)
        values = (int(16_000 * math.sin(2 * math.pi * 440 * index / rate)) for index in range(int(seconds * rate)))
        audio.writeframes(b"".join(struct.pack("<h", value) for value in values))
    return file.getvalue()
