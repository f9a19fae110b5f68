"""Encodes results of a pipeline or of a user's code as JSON."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Set, ValuesView
from dataclasses import asdict, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson

MOST_ITEMS = 1_000_000
"""Most values read from an iterator in a result: an endless one would fill the memory."""

_LARGEST_WHOLE = 10**18
"""Whole decimals below this are written as integers: JSON parsers can hold that many digits."""


def encode_json(value: Any) -> bytes:
    """Return a result as JSON bytes. It may hold numpy values, tensors and images; NaN becomes null."""
    try:
        # Embeddings can have 100,000 numbers: the json module takes ten times as long, while the model waits.
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        # orjson rejects keys that are not strings, integers of more than 64 bits, and lone surrogates. A byte-level
        # tokenizer can produce lone surrogates, which UTF-8 cannot encode.
        return json.dumps(tidy(value), allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")


class Encoded:
    """A part of a result that is JSON already: `encode_json` copies it."""

    __slots__ = ("data",)

    def __init__(self, value: Any) -> None:
        self.data = encode_json(value)


def is_image(value: Any) -> bool:
    """Whether a value is a PIL image; PIL need not be installed."""
    return hasattr(value, "save") and hasattr(value, "mode")


def png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, Encoded):
        return orjson.Fragment(value.data)
    if hasattr(value, "tolist"):  # numpy arrays and scalars, tensors
        return value.tolist()
    if is_image(value):
        return base64.b64encode(png(value)).decode()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, (PurePath, UUID)):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "items"):
        return dict(value.items())
    if hasattr(value, "model_dump"):  # pydantic models
        return value.model_dump()
    if isinstance(value, (Iterator, Set, ValuesView, range, deque)):
        return listed(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def listed(values: Iterable[Any]) -> list[Any]:
    """Read an iterator into a list; raise `TypeError` for more than `MOST_ITEMS` values."""
    found = list(itertools.islice(values, MOST_ITEMS + 1))
    if len(found) > MOST_ITEMS:
        raise TypeError(f"a {type(values).__name__} has more than {MOST_ITEMS:,} values")
    return found


def _number(value: Decimal) -> int | float | None:
    """Return a JSON number, exact for whole numbers below `_LARGEST_WHOLE`; None for NaN and infinity."""
    if not value.is_finite():
        return None
    return int(value) if value == value.to_integral_value() and abs(value) < _LARGEST_WHOLE else float(value)


def tidy(value: Any) -> Any:
    """Convert to types that the json module writes: keys become strings, NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): tidy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tidy(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, Encoded):
        return json.loads(value.data)
    return tidy(_plain(value))
