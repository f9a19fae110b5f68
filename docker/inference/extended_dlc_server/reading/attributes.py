"""Parameters in the custom attributes header, which SageMaker passes on unchanged (at most 1024 characters)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from ..errors import RequestError

HEADER = "x-amzn-sagemaker-custom-attributes"

# AWS's example for this header: an id to trace the request. It holds no parameters.
TRACKING_ID = re.compile(r"[\w.:/+-]+")

_HINT = 'send a JSON object such as {"language": "de"}, or pairs such as language=de;max_new_tokens=32'

MOST_VALUES = 1_000_000
"""Maximum number of commas, lines, lists and objects in a body: 25 MB of prose have a quarter of that."""

_BYTES_OF_CHARACTER, _BYTES_OF_ESCAPE = 4, 12
"""Maximum bytes of a character in the usual charsets, and of a JSON escape."""

_MOST_LOOKS = 20_000
"""Maximum number of delimiters to search for, which takes a few milliseconds."""


ALWAYS_KNOWN = frozenset({"route", "stream"})
"""Attributes for the server, which are not parameters of a model."""


def parse_attributes(value: str, known: Collection[str]) -> dict[str, Any]:
    """Return the known names of the header: a JSON object, or `name=value` pairs separated by semicolons.

    Other names are ignored, since AWS offers the header for any data of the caller: trace ids, `accept_eula=true`.
    """
    value = value.strip()
    if not value or TRACKING_ID.fullmatch(value):
        return {}
    if value.startswith("{"):
        try:
            document: dict[str, Any] = parse_json(value)
        except (ValueError, RecursionError) as error:
            raise _malformed(f"are not valid JSON ({error})") from None
        return {name: given for name, given in document.items() if name in known or name in ALWAYS_KNOWN}
    parameters: dict[str, Any] = {}
    for pair in value.split(";"):
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or (name not in known and name not in ALWAYS_KNOWN):
            continue
        if name in parameters:
            raise _malformed(f"give '{name[:100]}' twice")
        parameters[name] = parse_value(text)
    return parameters


def parse_json(text: str) -> Any:
    """Parse JSON; `ValueError` or `RecursionError` if it is invalid, 413 if it has too many values."""
    check_values(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # invalid JSON, or extensions that only `json` accepts, such as NaN
        document = json.loads(text)
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair such as \\ud83d is no character") from None
    return document


def check_values(text: str) -> None:
    """413 for a text whose parsed values would take many times its size.

    Parsers hold the GIL, and the garbage collector visits all lists again and again: 25 MB of empty lists would become
    560 MB and delay `/ping` by seconds.
    """
    if len(text) > MOST_VALUES and sum(map(text.count, ",\n[{")) > MOST_VALUES:
        raise RequestError(
            413,
            "body-too-large",
            f"the body has more than {MOST_VALUES:,} commas, lines, lists and objects: send less at once",
        )


def refuse_long_texts(body: bytes, delimiter: bytes, most: int) -> None:
    """400 for a body with a text of more characters than the model can read, before the body is parsed.

    Decoding and parsing 25 MB holds the GIL for a tenth of a second, in which no other request is answered; searching
    for the ends of the texts takes a hundredth of that.
    """
    if len(body) <= _BYTES_OF_CHARACTER * most:
        return
    start = text = 0
    escaped = False
    for _ in range(_MOST_LOOKS):
        end = body.find(delimiter, start)
        end = len(body) if end < 0 else end
        escaped = escaped or body.find(b"\\", start, end) >= 0
        if end - text > (_BYTES_OF_ESCAPE if escaped else _BYTES_OF_CHARACTER) * most:
            raise RequestError(
                400,
                "inputs-too-long",
                f"the body has a text of more than {most} characters, which is more than the model can read: send less",
            )
        if end == len(body):
            return
        start = end + 1
        if body[end - 1 : end] != b"\\":  # an escaped quote does not end a text
            text, escaped = start, False


def parse_value(text: str) -> Any:
    """Parse a value as JSON (32, true, ["a"]), or return the text if it is not JSON."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return text


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Merge parameters; 400 if one has different values in both."""
    for name in first.keys() & second.keys():
        if first[name] != second[name]:
            raise RequestError(
                400,
                "bad-parameters",
                f"parameter '{name[:100]}' is given twice, in the body and beside it: give it once",
            )
    return {**first, **second}


def _malformed(problem: str) -> RequestError:
    return RequestError(400, "malformed-attributes", f"the custom attributes {problem}: {_HINT}")
