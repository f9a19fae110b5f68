"""Encodes a pipeline's result in the requested format."""

from __future__ import annotations

import io
import json
from typing import Any

from ..json_text import encode_json, is_image, png, tidy
from ..reading.negotiation import Form, not_acceptable

_TEXT_KEYS = ("text", "generated_text", "summary_text", "translation_text")


def encode(result: Any, form: Form, task: str) -> bytes:
    """Encode a result; 406 if this format cannot represent it."""
    if form is Form.TEXT:
        return _one_text(result, task).encode("utf-8", "replace")
    if form is Form.CSV:
        return _table(result, task).encode("utf-8", "replace")
    if form is Form.PNG:
        return png(_one_image(result, task))
    if form is Form.NPY:
        return _npy(result, task)
    if form is Form.HUB:
        result = _labels(result)
    return encode_json(_of_32_bits(result) if task == "feature-extraction" else result)


def _labels(result: Any) -> Any:
    """Convert the lists of labels and scores, of one text or several, to the Hub's list of labels with scores."""
    if isinstance(result, list):
        return [_labels(one) for one in result]
    return [{"label": label, "score": score} for label, score in zip(result["labels"], result["scores"], strict=True)]


def _one_image(result: Any, task: str) -> Any:
    """Return the image of a result with exactly one."""
    while isinstance(result, list) and len(result) == 1:
        result = result[0]
    image = result.get("depth") if isinstance(result, dict) else result
    if not is_image(image):
        raise not_acceptable("there is more than one image in this answer", task)
    return image


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
    """Convert features to float32 arrays: as Python floats, half of the digits written would be meaningless."""
    import numpy as np

    try:
        return [np.asarray(rows, np.float32) for rows in features] if isinstance(features, list) else features
    except ValueError:  # rows of different lengths
        return features


def _one_text(result: Any, task: str) -> str:
    """Return the text of a result with exactly one; for a chat, the last message."""
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
    """Write CSV with a header and a row for each answer; with several inputs, the first column is their index."""
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
    plain = tidy(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, (dict, list)) else plain
