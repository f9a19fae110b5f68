"""Parameters beside a raw body: the custom attributes header, which SageMaker passes on as it is (1024 characters)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from ..errors import RequestError

HEADER = "x-amzn-sagemaker-custom-attributes"

# AWS's own example of a use: an id by which the caller finds the request again. It holds no parameters.
TRACKING_ID = re.compile(r"[\w.:/+-]+")

_HINT = 'send a JSON object such as {"language": "de"}, or pairs such as language=de;max_new_tokens=32'

MOST_VALUES = 1_000_000
"""Most commas, lines, lists and objects of a document: 25 MB of prose have a quarter of that."""

_BYTES_OF_CHARACTER, _BYTES_OF_ESCAPE = 4, 12
"""Most bytes of a character in the usual charsets, and as JSON may escape it."""

_MOST_LOOKS = 20_000
"""Ends of texts that are looked for, in a few milliseconds."""


ALWAYS_KNOWN = frozenset({"route", "stream"})
"""Attributes that are no parameters of a model, and mean something to this server."""


def parse_attributes(value: str, known: Collection[str]) -> dict[str, Any]:
    """What this server knows of the header: a JSON object, or `name=value` pairs with semicolons between them.

    All else is passed over, for the header is AWS's field for whatever callers want to find again: ids of traces,
    `accept_eula=true`.
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
    """The document; `ValueError` or `RecursionError` for none, 413 for one of too many values."""
    check_values(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # what is no JSON, and what json takes besides, such as NaN
        document = json.loads(text)
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair such as \\ud83d is no character") from None
    return document


def check_values(text: str) -> None:
    """413 for a text whose values would be many times its size.

    Parsers hold the interpreter, and the garbage collector looks at all lists again and again: 25 MB of empty ones
    would become 560 MB and keep `/ping` waiting for seconds.
    """
    if len(text) > MOST_VALUES and sum(map(text.count, ",\n[{")) > MOST_VALUES:
        raise RequestError(
            413,
            "body-too-large",
            f"the body has more than {MOST_VALUES:,} commas, lines, lists and objects: send less at once",
        )


def refuse_long_texts(body: bytes, delimiter: bytes, most: int) -> None:
    """400 for a body with a text of more characters than the model can read, before it is parsed.

    To decode and parse 25 MB holds the interpreter for a tenth of a second, in which nobody else is answered; to look
    for the ends of its texts takes a hundredth of that.
    """
    if len(body) <= _BYTES_OF_CHARACTER * most:
        return
    start = text = 0
    for _ in range(_MOST_LOOKS):
        end = body.find(delimiter, start)
        end = len(body) if end < 0 else end
        escaped = body.find(b"\\", text, end) >= 0
        if end - text > (_BYTES_OF_ESCAPE if escaped else _BYTES_OF_CHARACTER) * most:
            raise RequestError(
                400,
                "inputs-too-long",
                f"the body has a text of more than {most} characters, which is more than the model can read: send less",
            )
        if end == len(body):
            return
        start = end + 1
        if body[end - 1 : end] != b"\\":  # an escaped quote is no end
            text = start


def parse_value(text: str) -> Any:
    """A value that arrives as text: JSON where it is JSON (32, true, ["a"]), otherwise the text itself."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return text


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both sets of parameters; one that stands in both, with two values, is nobody's to choose."""
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
