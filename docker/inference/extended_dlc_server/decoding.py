"""An HTTP body into what the pipeline takes. Nothing in a body is ever opened as a file or fetched as a URL."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .attributes import merge, parse_attributes
from .audio import decode_audio
from .errors import RequestError
from .tasks import Kind

_RAW_AUDIO = ("audio/", "video/")
_OBJECT_TASKS = ("question-answering", "table-question-answering", "text-classification")
"""Text tasks whose single input may be an object, such as a question with its context or a pair of texts."""
_BYTES = ("application/octet-stream", "application/ogg")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the loaded model takes, as far as decoding has to know it."""

    task: str
    """The task, for messages and for the forms that only some tasks have."""

    kind: Kind
    """What `inputs` is."""

    sampling_rate: int = 16_000
    """Samples a second of the model's audio."""

    max_audio_seconds: int = 3600
    """The longest audio of one request."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A request that is ready for the model."""

    inputs: Any
    """What the pipeline gets as its first argument."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What the pipeline gets as keyword arguments, not yet checked against it."""


def decode(body: bytes, content_type: str | None, expected: Expected, attributes: str = "") -> Decoded:
    """Decode by content type (JSON where none is given, as the stock server does), with the custom attributes."""
    beside = parse_attributes(attributes)
    decoded = _decode_body(body, content_type, expected)
    return replace(decoded, parameters=merge(decoded.parameters, beside)) if beside else decoded


def _decode_body(body: bytes, content_type: str | None, expected: Expected) -> Decoded:
    media, charset = parse_content_type(content_type)
    if not body or body.isspace():
        raise RequestError(400, "empty-body", f"the body is empty: {_how_to_ask(expected)}")
    if media == "application/json" or (media.startswith("application/") and media.endswith("+json")):
        return _decode_json(body, charset, expected)
    if expected.kind is Kind.TEXT and media == "text/plain":
        return Decoded(inputs=_text(body, charset))
    if expected.kind is Kind.AUDIO and (media.startswith(_RAW_AUDIO) or media in _BYTES):
        return Decoded(inputs=_audio(body, expected))
    if expected.kind is Kind.IMAGE and (media.startswith("image/") or media == "application/octet-stream"):
        return Decoded(inputs=_image(body))
    raise RequestError(
        415, "unsupported-content-type", f"content type '{content_type}' is not known here: {_how_to_ask(expected)}"
    )


def parse_content_type(value: str | None) -> tuple[str, str]:
    """Media type in lower case and charset (UTF-8 unless given); other parameters do not matter."""
    media, *parameters = (value or "application/json").split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, given = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = given.strip().strip('"') or charset
    return media.strip().lower(), charset


def _decode_json(body: bytes, charset: str, expected: Expected) -> Decoded:
    try:
        document = json.loads(_text(body, charset))
    except RecursionError:
        raise RequestError(400, "malformed-json", "the JSON is nested too deeply: flatten it") from None
    except ValueError as error:
        raise RequestError(
            400, "malformed-json", f"the body is not valid JSON ({error}): {_how_to_ask(expected)}"
        ) from None
    if not isinstance(document, dict) or "inputs" not in document:
        raise RequestError(400, "missing-inputs", f"the JSON must be an object with 'inputs': {_how_to_ask(expected)}")
    extra = sorted(document.keys() - {"inputs", "parameters"})
    if extra:
        raise RequestError(
            400,
            "unknown-field",
            f"'{extra[0]}' is not a field of the request, only 'inputs' and 'parameters' are: "
            "put options of the model into 'parameters'",
        )
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise RequestError(400, "bad-parameters", "'parameters' must be an object such as {\"max_new_tokens\": 32}")
    return Decoded(inputs=_check_inputs(document["inputs"], expected), parameters=parameters)


def _check_inputs(inputs: Any, expected: Expected) -> Any:
    if inputs is None or inputs in ([], {}):
        raise RequestError(400, "missing-inputs", f"'inputs' is empty: {_how_to_ask(expected)}")
    if expected.kind is Kind.AUDIO:
        return _audio(_from_base64(inputs, "audio"), expected)
    if expected.kind is Kind.IMAGE:
        return _image(_from_base64(inputs, "an image"))
    if expected.kind is Kind.IMAGE_AND_TEXT:
        return _images_within(inputs)
    if not _is_text(inputs) or (isinstance(inputs, dict) and expected.task not in _OBJECT_TASKS):
        raise RequestError(400, "bad-inputs", f"'inputs' must be text or a list of texts: {_how_to_ask(expected)}")
    return inputs


def _is_text(inputs: Any) -> bool:
    """Text, several texts, or an object (a chat message, a question with its context); chats may be lists of lists."""
    if isinstance(inputs, list):
        return all(map(_is_text, inputs)) and len({type(item) for item in inputs}) == 1
    return isinstance(inputs, (str, dict))


def _images_within(inputs: Any) -> Any:
    """The same structure with each base64 image decoded: an object, a list, or chat messages."""
    if isinstance(inputs, list):
        return [_images_within(item) for item in inputs]
    if not isinstance(inputs, dict):
        return inputs
    if inputs.get("type") == "image":
        given = [inputs[key] for key in ("image", "base64", "url", "path") if key in inputs]
        return {"type": "image", "image": _image(_from_base64(given[0] if given else None, "an image"))}
    if inputs.get("type") not in (None, "text"):
        raise RequestError(
            400, "bad-inputs", f"content of type '{inputs['type']}' is not taken: send 'text' and 'image'"
        )
    return {
        key: _decode_images(value) if key in ("image", "images") else _images_within(value)
        for key, value in inputs.items()
    }


def _decode_images(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode_images(item) for item in value]
    return _image(_from_base64(value, "an image"))


def _text(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset)
    except LookupError:
        raise RequestError(415, "unsupported-content-type", f"charset '{charset}' is not known: send UTF-8") from None
    except ValueError:
        raise RequestError(400, "malformed-text", f"the body is not valid {charset}: send UTF-8 text") from None


def _from_base64(value: Any, what: str) -> bytes:
    """Bytes of a base64 string, also in a `data:` URI."""
    hint = (
        f"'inputs' must be {what} in base64; URLs and paths are not fetched. "
        "Send the file's bytes as the body with its own content type, or base64 in 'inputs'"
    )
    if not isinstance(value, str):
        raise RequestError(400, "bad-inputs", hint)
    head, comma, rest = value.partition(",")
    encoded = rest if comma and head.startswith("data:") and head.endswith(";base64") else value
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, "bad-inputs", hint) from None


def _audio(data: bytes, expected: Expected) -> Any:
    samples = decode_audio(data, rate=expected.sampling_rate, max_seconds=expected.max_audio_seconds)
    return {"raw": samples, "sampling_rate": expected.sampling_rate}


def _image(data: bytes) -> Any:
    from PIL import Image  # an image task loads it anyway, other tasks never pay for it

    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(
            400, "undecodable-image", f"the image cannot be decoded ({error}): send a PNG or JPEG file"
        ) from None


def _how_to_ask(expected: Expected) -> str:
    """One sentence on what this endpoint takes."""
    forms: dict[Kind, Iterable[str]] = {
        Kind.TEXT: ('application/json with {"inputs": "text", "parameters": {}}', "text/plain"),
        Kind.AUDIO: ("the bytes of an audio file as audio/*", 'application/json with {"inputs": "<base64>"}'),
        Kind.IMAGE: ("the bytes of an image file as image/*", 'application/json with {"inputs": "<base64>"}'),
        Kind.IMAGE_AND_TEXT: ('application/json with {"inputs": {...}} and images in base64',),
    }
    return f"this endpoint serves {expected.task}, send {' or '.join(forms[expected.kind])}"
