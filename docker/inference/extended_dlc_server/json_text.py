"""JSON of whatever a model or a user's code returns."""

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
"""Most values of a result that is made while it is read: one that never ends would fill the memory."""

_LARGEST_WHOLE = 10**18
"""Whole numbers below it need no more digits than JSON's readers have."""


def encode_json(value: Any) -> bytes:
    """JSON bytes of a result with numpy values, tensors or images in it; not-a-number becomes null."""
    try:
        # features are a hundred thousand numbers: json takes ten times as long, and the model waits meanwhile
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        # keys that are not text, numbers of more than 64 bits, or lone surrogates, which a byte-level tokenizer can
        # produce and UTF-8 does not have
        return json.dumps(tidy(value), allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")


def is_image(value: Any) -> bool:
    """Whether a value is an image of PIL."""
    return hasattr(value, "save") and hasattr(value, "mode")


def png(image: Any) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _plain(value: Any) -> Any:
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
    if hasattr(value, "model_dump"):  # of pydantic
        return value.model_dump()
    if isinstance(value, (Iterator, Set, ValuesView, range, deque)):
        return listed(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def listed(values: Iterable[Any]) -> list[Any]:
    """What is made while it is read; `TypeError` where that has no end in sight."""
    found = list(itertools.islice(values, MOST_ITEMS + 1))
    if len(found) > MOST_ITEMS:
        raise TypeError(f"a {type(values).__name__} has more than {MOST_ITEMS:,} values")
    return found


def _number(value: Decimal) -> int | float | None:
    """A number that JSON has, with all digits where it is a whole one."""
    if not value.is_finite():
        return None
    return int(value) if value == value.to_integral_value() and abs(value) < _LARGEST_WHOLE else float(value)


def tidy(value: Any) -> Any:
    """The value in the types of `json`: keys are texts, and not-a-number is None."""
    if isinstance(value, dict):
        return {str(key): tidy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tidy(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return tidy(_plain(value))
