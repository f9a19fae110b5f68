"""What a pipeline returns, in the form that was asked for."""

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

from .negotiation import Form, not_acceptable

MOST_ITEMS = 1_000_000
"""Most values of a result that is made while it is read: one that never ends would fill the memory."""

_LARGEST_WHOLE = 10**18
"""Whole numbers below it need no more digits than JSON's readers have."""

_TEXT_KEYS = ("text", "generated_text", "summary_text", "translation_text")


def encode(result: Any, form: Form, task: str) -> bytes:
    """The bytes of an answer; 406 for a result that this form cannot hold."""
    if form is Form.TEXT:
        return _one_text(result, task).encode("utf-8", "replace")
    if form is Form.CSV:
        return _table(result, task).encode("utf-8", "replace")
    if form is Form.PNG:
        return _png(_one_image(result, task))
    if form is Form.NPY:
        return _npy(result, task)
    if form is Form.HUB:
        result = _labels(result)
    return encode_json(_of_32_bits(result) if task == "feature-extraction" else result)


def encode_json(value: Any) -> bytes:
    """JSON bytes of a result with numpy values, tensors or images in it; not-a-number becomes null."""
    try:
        # features are a hundred thousand numbers: json takes ten times as long, and the model waits meanwhile
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        # keys that are not text, numbers of more than 64 bits, or lone surrogates, which a byte-level tokenizer can
        # produce and UTF-8 does not have
        return json.dumps(_tidy(value), allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")


def _labels(result: Any) -> Any:
    """Two lists side by side as the Hub's API has them: a label with its score each, of one text or of several."""
    if isinstance(result, list):
        return [_labels(one) for one in result]
    return [{"label": label, "score": score} for label, score in zip(result["labels"], result["scores"], strict=True)]


def _one_image(result: Any, task: str) -> Any:
    """The image of an answer that has one."""
    while isinstance(result, list) and len(result) == 1:
        result = result[0]
    image = result.get("depth") if isinstance(result, dict) else result
    if not _is_image(image):
        raise not_acceptable("there is more than one image in this answer", task)
    return image


def _is_image(value: Any) -> bool:
    return hasattr(value, "save") and hasattr(value, "mode")


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _npy(result: Any, task: str) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    try:
        np.save(buffer, np.asarray(result, np.float32), allow_pickle=False)
    except ValueError:
        raise not_acceptable(
            "texts of several lengths make rows of several lengths, which are no array", task
        ) from None
    return buffer.getvalue()


def _of_32_bits(features: Any) -> Any:
    """Arrays: of a number that was made of 32 bits, half of the digits of a Python number say nothing."""
    import numpy as np

    try:
        return [np.asarray(rows, np.float32) for rows in features] if isinstance(features, list) else features
    except ValueError:  # rows of several lengths
        return features


def _one_text(result: Any, task: str) -> str:
    """The text of a result that is one; of a chat, what the model said last."""
    while isinstance(result, list) and len(result) == 1:
        result = result[0]
    if isinstance(result, dict):
        text = next((result[key] for key in _TEXT_KEYS if key in result), None)
        if isinstance(text, list) and text and isinstance(text[-1], dict):
            text = text[-1].get("content")
        if isinstance(text, str):
            return text
    raise not_acceptable("there is more than one text in this answer", task)


def _table(result: Any, task: str) -> str:
    """A header and a row for each answer; the first column numbers the inputs where there were several."""
    import csv

    rows: list[dict[str, Any]] = []
    for number, item in enumerate(result if isinstance(result, list) else [result]):
        several = isinstance(item, list) or (isinstance(item, dict) and isinstance(item.get("labels"), list))
        for row in _rows(item):
            if not isinstance(row, dict):
                raise not_acceptable("this answer has no rows", task)
            rows.append({"input": number, **row} if several and isinstance(result, list) else row)
    out = io.StringIO(newline="")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _rows(item: Any) -> list[Any]:
    if isinstance(item, dict) and isinstance(item.get("labels"), list):  # zero-shot: two lists side by side
        pairs = zip(item["labels"], item["scores"], strict=True)
        return [{"sequence": item.get("sequence"), "label": label, "score": score} for label, score in pairs]
    return item if isinstance(item, list) else [item]


def _cell(value: Any) -> Any:
    tidy = _tidy(value)
    return json.dumps(tidy, ensure_ascii=False) if isinstance(tidy, (dict, list)) else tidy


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy arrays and scalars, tensors
        return value.tolist()
    if _is_image(value):
        return base64.b64encode(_png(value)).decode()
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


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _tidy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tidy(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return _tidy(_plain(value))
