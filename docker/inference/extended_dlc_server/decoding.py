"""An HTTP body into what the pipeline takes. Nothing in a body is ever opened as a file or fetched as a URL."""

from __future__ import annotations

import base64
import binascii
import functools
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .attributes import check_values, merge, parse_attributes, parse_json, parse_value
from .audio import decode_audio
from .errors import RequestError
from .forms import Part, malformed, parse_form
from .images import ImageDecoder
from .negotiation import Form, choose_form, offers
from .tasks import Kind
from .tokens import Tokens

_RAW_AUDIO = ("audio/", "video/")
_OBJECT_TASKS = ("question-answering", "table-question-answering", "text-classification")
"""Text tasks whose single input may be an object, such as a question with its context or a pair of texts."""
_CSV_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "question-answering": ("question", "context"),
    "text-classification": ("text", "text_pair"),
}
_RESPONSE_FORMATS: Mapping[str, Form] = {"json": Form.JSON, "text": Form.TEXT, "verbose_json": Form.VERBOSE}
_FIELDS = frozenset({"inputs", "parameters", "stream"})
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


@dataclass(kw_only=True, slots=True)
class Decoded:
    """A request that is ready for the model."""

    inputs: Any
    """What the pipeline gets as its first argument."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What the pipeline gets as keyword arguments, not yet checked against it."""

    form: Form = Form.JSON
    """How the answer is to be written."""

    tokens: Tokens = field(default_factory=Tokens, compare=False)
    """What the answer took, for the log: filled in by the model."""


def decode(
    body: bytes, content_type: str | None, expected: Expected, *, attributes: str = "", accept: str = ""
) -> Decoded:
    """Decode by content type (JSON where none is given), with what the headers say."""
    beside = parse_attributes(attributes)
    form = choose_form(accept, expected.task)
    media, _ = parse_content_type(content_type)
    if media == "multipart/form-data":
        decoded = _decode_form(body, content_type or "", expected, form)
    else:
        decoded = _decode_body(body, content_type, expected)
        decoded.form = form
    if beside:
        decoded.parameters = merge(decoded.parameters, beside)
    if "stream" in decoded.parameters:
        _stream_or_not(decoded, expected)
    return decoded


def _stream_or_not(decoded: Decoded, expected: Expected) -> None:
    """Events where `stream` says so, which stands in the body or beside it; otherwise the form that was chosen."""
    decoded.parameters = dict(decoded.parameters)
    stream = decoded.parameters.pop("stream")
    if stream not in (None, True, False):
        raise RequestError(400, "bad-parameters", "'stream' must be true or false")
    if not stream:
        return
    if Form.EVENTS not in offers(expected.task):
        raise RequestError(400, "cannot-stream", f"{expected.task} has no answer in parts: leave 'stream' away")
    decoded.form = Form.EVENTS


def _decode_body(body: bytes, content_type: str | None, expected: Expected) -> Decoded:
    media, charset = parse_content_type(content_type)
    if not body or body.isspace():
        raise RequestError(400, "empty-body", f"the body is empty: {_how_to_ask(expected)}")
    if media == "application/json" or (media.startswith("application/") and media.endswith("+json")):
        return _decode_json(body, charset, expected)
    if expected.kind is Kind.TEXT and media == "text/plain":
        return Decoded(inputs=_text(body, charset))
    if expected.kind is Kind.TEXT and media == "text/csv":
        return Decoded(inputs=_decode_csv(_text(body, charset), expected))
    if expected.kind is Kind.AUDIO and (media.startswith(_RAW_AUDIO) or media in _BYTES):
        return Decoded(inputs=_audio(body, expected))
    if expected.kind is Kind.IMAGE and (media.startswith("image/") or media == "application/octet-stream"):
        return Decoded(inputs=ImageDecoder().decode(body))
    raise RequestError(
        415, "unsupported-content-type", f"content type '{content_type}' is not known here: {_how_to_ask(expected)}"
    )


@functools.lru_cache(maxsize=64)
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
        document = parse_json(_text(body, charset))
    except RecursionError:
        raise RequestError(400, "malformed-json", "the JSON is nested too deeply: flatten it") from None
    except ValueError as error:
        raise RequestError(
            400, "malformed-json", f"the body is not valid JSON ({error}): {_how_to_ask(expected)}"
        ) from None
    if not isinstance(document, dict) or "inputs" not in document:
        raise RequestError(400, "missing-inputs", f"the JSON must be an object with 'inputs': {_how_to_ask(expected)}")
    extra = document.keys() - _FIELDS
    if extra:
        raise RequestError(
            400,
            "unknown-field",
            f"'{min(extra)}' is not a field of the request, only 'inputs', 'parameters' and 'stream' are: "
            "put options of the model into 'parameters'",
        )
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise RequestError(400, "bad-parameters", "'parameters' must be an object such as {\"max_new_tokens\": 32}")
    if "stream" in document:
        parameters = merge(parameters, {"stream": document["stream"]})
    return Decoded(inputs=_check_inputs(document["inputs"], expected), parameters=parameters)


def _decode_csv(text: str, expected: Expected) -> list[Any]:
    """Texts of a column `inputs`, or objects of the columns that the task takes; the first line names them."""
    import csv

    check_values(text)
    columns: tuple[str, ...] = ("inputs",)
    try:
        head, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (csv.Error, ValueError) as error:
        raise RequestError(
            400, "malformed-csv", f"the body is not valid CSV ({error}): {_how_to_ask(expected)}"
        ) from None
    if expected.task in _CSV_COLUMNS and "inputs" not in head:
        columns = _CSV_COLUMNS[expected.task]
    if sorted(head) != sorted(columns) or not rows or any(len(row) != len(head) for row in rows):
        raise RequestError(
            400,
            "malformed-csv",
            f"the CSV must have a first line with the columns {', '.join(columns)}, no others, and a line for each "
            f"input: {_how_to_ask(expected)}",
        )
    return [row[0] for row in rows] if columns == ("inputs",) else [dict(zip(head, row, strict=True)) for row in rows]


def _decode_form(body: bytes, content_type: str, expected: Expected, form: Form) -> Decoded:
    """A file (or `inputs`) and a field for each parameter."""
    inputs: Part | None = None
    fields: dict[str, Any] = {}
    for part in parse_form(body, content_type):
        if part.is_file or part.name == "inputs":
            if inputs is not None:
                raise malformed("it has more than one file")
            inputs = part
            continue
        name = part.name.removesuffix("[]")
        value = parse_value(_text(part.data, parse_content_type(part.content_type)[1]))
        if name != part.name:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            raise malformed(f"it has more than one field '{name}'")
        else:
            fields[name] = value
    if inputs is None:
        raise RequestError(400, "missing-inputs", f"the form has neither 'file' nor 'inputs': {_how_to_ask(expected)}")
    parameters = fields.pop("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(400, "bad-parameters", "the field 'parameters' must hold a JSON object")
    if expected.task == "automatic-speech-recognition":
        fields, form = _as_openai_means(fields, form)
    decoded = _form_inputs(inputs, fields, expected)
    return Decoded(inputs=decoded, parameters=merge(parameters, fields), form=form)


def _form_inputs(part: Part, fields: dict[str, Any], expected: Expected) -> Any:
    """The file whatever its sender calls it (that is a guess by its name), or `inputs` as it is in JSON."""
    if not part.is_file:
        text = _text(part.data, parse_content_type(part.content_type)[1])
        return _check_inputs(parse_value(text) if expected.kind is Kind.IMAGE_AND_TEXT else text, expected)
    if not part.data:
        raise RequestError(400, "empty-body", f"the file is empty: {_how_to_ask(expected)}")
    if expected.kind is Kind.AUDIO:
        return _audio(part.data, expected)
    if expected.kind is Kind.IMAGE:
        return ImageDecoder().decode(part.data)
    if expected.kind is Kind.IMAGE_AND_TEXT:
        key, question = ("image", "question") if expected.task.endswith("question-answering") else ("images", "text")
        if question not in fields:
            raise RequestError(400, "missing-inputs", f"the form has no field '{question}' beside its file")
        return {key: ImageDecoder().decode(part.data), question: str(fields.pop(question))}
    return _decode_body(part.data, part.content_type or "text/plain", expected).inputs


def _as_openai_means(fields: dict[str, Any], form: Form) -> tuple[dict[str, Any], Form]:
    """Fields of OpenAI's transcription request under the names of a pipeline's parameters."""
    fields = {name: value for name, value in fields.items() if name != "model"}  # there is one, which is served
    wanted = fields.pop("response_format", None)
    if wanted is not None:
        if wanted not in _RESPONSE_FORMATS:
            raise RequestError(
                400, "bad-parameters", f"response_format ('{wanted}') must be one of: {', '.join(_RESPONSE_FORMATS)}"
            )
        form = _RESPONSE_FORMATS[wanted]
    if form is Form.VERBOSE:
        fields.setdefault("return_timestamps", True)
    temperature = fields.pop("temperature", None)
    if temperature is not None:
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature <= 2:
            raise RequestError(400, "bad-parameters", f"temperature ('{temperature}') must be a number from 0 to 2")
        if temperature > 0:  # 0 is the model's most likely text, which it gives anyway
            fields.update(temperature=float(temperature), do_sample=True)
    return fields, form


def _check_inputs(inputs: Any, expected: Expected) -> Any:
    if inputs is None or inputs in ([], {}):
        raise RequestError(400, "missing-inputs", f"'inputs' is empty: {_how_to_ask(expected)}")
    if expected.kind is Kind.AUDIO:
        return _audio(_from_base64(inputs, "audio"), expected)
    if expected.kind is Kind.IMAGE:
        images = ImageDecoder()
        if isinstance(inputs, list):
            return [images.decode(_from_base64(item, "an image")) for item in inputs]
        return images.decode(_from_base64(inputs, "an image"))
    if expected.kind is Kind.IMAGE_AND_TEXT:
        return _Media(expected).within(inputs)
    if not _is_text(inputs) or (isinstance(inputs, dict) and expected.task not in _OBJECT_TASKS):
        raise RequestError(400, "bad-inputs", f"'inputs' must be text or a list of texts: {_how_to_ask(expected)}")
    return inputs


def _is_text(inputs: Any) -> bool:
    """Text, several texts, or an object (a chat message, a question with its context); chats may be lists of lists."""
    if isinstance(inputs, list):
        return all(map(_is_text, inputs)) and len({type(item) for item in inputs}) == 1
    return isinstance(inputs, (str, dict))


class _Media:
    """Objects, lists of them, or chat messages, with each image and audio in base64 decoded.

    Other fields than these are refused: a pipeline would fetch a string that stands in one of its own (`videos`).
    """

    def __init__(self, expected: Expected) -> None:
        self._expected, self._images = expected, ImageDecoder()

    def within(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.within(item) for item in value]
        if not isinstance(value, dict):
            raise RequestError(400, "bad-inputs", f"'inputs' must be an object: {_how_to_ask(self._expected)}")
        kind = value.get("type")
        if kind in ("image", "audio"):
            given = [value[key] for key in (kind, "base64", "url", "path") if key in value]
            return {"type": kind, kind: self._field(kind, given[0] if given else None)}
        if kind not in (None, "text"):
            raise RequestError(400, "bad-inputs", f"content of type '{kind}' is not taken: send 'text' and 'image'")
        return {key: self._field(key, field) for key, field in value.items()}

    def _field(self, key: str, value: Any) -> Any:
        if key in ("image", "images", "audio") and isinstance(value, list):
            return [self._field(key, item) for item in value]
        if key in ("image", "images"):
            return self._images.decode(_from_base64(value, "an image"))
        if key == "audio" and self._expected.task == "any-to-any":
            return _audio(_from_base64(value, "audio"), self._expected)["raw"]
        if key == "assets" and isinstance(value, dict):  # images by name, beside the questions of a decision
            given = {name: one.get("data_base64") if isinstance(one, dict) else one for name, one in value.items()}
            return {name: self._images.decode(_from_base64(one, "an image")) for name, one in given.items()}
        if key == "content" and isinstance(value, list):
            return self.within(value)
        if key in ("text", "content", "question", "role", "type", "word_boxes", "state", "questions"):
            return value
        raise RequestError(400, "bad-inputs", f"'{key}' is not taken in 'inputs': {_how_to_ask(self._expected)}")


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


def _how_to_ask(expected: Expected) -> str:
    """One sentence on what this endpoint takes."""
    form = "multipart/form-data with 'file'"
    forms: dict[Kind, Iterable[str]] = {
        Kind.TEXT: ('application/json with {"inputs": "text", "parameters": {}}', "text/plain", "text/csv"),
        Kind.AUDIO: ("the bytes of an audio file as audio/*", 'application/json with {"inputs": "<base64>"}', form),
        Kind.IMAGE: ("the bytes of an image file as image/*", 'application/json with {"inputs": "<base64>"}', form),
        Kind.IMAGE_AND_TEXT: ('application/json with {"inputs": {...}} and images in base64', form),
    }
    return f"this endpoint serves {expected.task}, send {' or '.join(forms[expected.kind])}"
