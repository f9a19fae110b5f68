"""What a pipeline returns, as JSON."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any


def encode_json(value: Any) -> bytes:
    """JSON bytes of a result with numpy values, tensors or images in it; not-a-number becomes null."""
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):  # keys that are not text, or numbers that JSON does not have
        text = json.dumps(_tidy(value), allow_nan=False, ensure_ascii=False)
    # lone surrogates, which a byte-level tokenizer can produce, do not encode
    return text.encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy arrays and scalars, tensors
        return value.tolist()
    if hasattr(value, "save") and hasattr(value, "mode"):  # an image
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        return base64.b64encode(buffer.getvalue()).decode()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if hasattr(value, "items"):
        return dict(value.items())
    raise TypeError(f"the pipeline returned a {type(value).__name__}, which has no JSON form")


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
