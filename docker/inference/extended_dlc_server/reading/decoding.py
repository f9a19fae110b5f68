"""Decodes an HTTP body to the pipeline's inputs. Nothing in a body is opened as a file or fetched as a URL."""

from __future__ import annotations

import codecs
import functools
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from .attributes import check_values, merge, parse_attributes, parse_json, parse_value, refuse_long_texts
from .forms import Part, malformed, parse_form
from .inputs import Expected, how_to_ask, read_inputs
from .negotiation import Form, choose_form, offers
from .parameter_table import VECTORS
from .tasks import EMBEDDING_TASKS, Kind
from .tgi import Wishes
from .tokens import Tokens

if TYPE_CHECKING:
    from ..machine.memory import Share

__all__ = ["Decoded", "Expected", "decode"]

_RAW_AUDIO = ("audio/", "video/")
_CSV_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "question-answering": ("question", "context"),
    "text-classification": ("text", "text_pair"),
}
_JSON_TEXT_TASKS = ("question-answering", "table-question-answering")
_FIELDS = frozenset({"inputs", "parameters", "stream", "options"})
"""`options` are for the queue and cache of Hugging Face's own service, and do not change an answer."""
_UNTYPED = ("", "application/x-www-form-urlencoded", "binary/octet-stream", "file-path/raw-bytes")
"""Content types that curl, S3 and the SageMaker SDK send for unknown bytes."""
_BYTE_ORDER_MARK = "\ufeff"
"""Windows programs begin a file with it, such as Excel's CSV; JSON parsers refuse it."""
_LOOK = 64
"""Number of bytes in which the first character of JSON is searched."""
_ABOUT_IMAGES = ("document-question-answering", "visual-question-answering")
_BYTES = ("application/octet-stream", "application/ogg")
_IMAGE_BYTES = ("application/octet-stream", "application/x-image")
_CHARSETS = re.compile(
    r"utf-(8|8-sig|16|16-[bl]e|32|32-[bl]e)|ascii|iso8859-\d+|cp\d+|koi8-\w|mac-\w+|(shift_jis|euc_|big5|gb)\w*|tis-620"
    r"|iso2022_\w+"
)
"""Names of the accepted codecs for text. Python has others too: punycode takes hours for a megabyte."""


@dataclass(kw_only=True, slots=True)
class Decoded:
    """A decoded request."""

    inputs: Any
    """The first argument of the pipeline."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The keyword arguments of the pipeline, not yet validated."""

    form: Form = Form.JSON
    """The format of the response."""

    tokens: Tokens = field(default_factory=Tokens, compare=False)
    """The numbers of tokens, for the log; set by the model."""

    arguments: dict[str, Any] | None = field(default=None, compare=False)
    """The validated parameters; set by `Model.prepare`."""

    wishes: Wishes = field(default_factory=Wishes)
    """The parameters that this server implements beside the pipeline; set by `Model.prepare`."""

    write: Callable[[Any, Any], bytes] | None = field(default=None, compare=False)
    """Encodes the result, given with the model, for another API. Default: `form`."""

    cut: int = 0
    """Estimate of the tokens that were truncated, if the request allows truncation."""


def decode(
    body: bytes,
    content_type: str | None,
    expected: Expected,
    *,
    attributes: str = "",
    accept: str = "",
    share: Share | None = None,
    parsed: Callable[[], Any] | None = None,
) -> Decoded:
    """Decode a body by its content type (default: JSON) and other headers.

    `share` is the request's share of the memory for pixels and samples; `parsed` returns the JSON of the body, if it is
    parsed already.
    """
    beside = parse_attributes(attributes, expected.parameters)
    beside.pop("route", None)  # routing is done already
    form = choose_form(accept, expected.task)
    media, _ = parse_content_type(content_type)
    if media == "multipart/form-data":
        decoded = _decode_form(body, content_type or "", expected, form, share)
    else:
        decoded = _decode_body(body, content_type, expected, share, parsed)
        decoded.form = form
    if beside:
        decoded.parameters = merge(decoded.parameters, beside)
    if "stream" in decoded.parameters:
        _stream_or_not(decoded, expected)
    return decoded


def _stream_or_not(decoded: Decoded, expected: Expected) -> None:
    """Choose server-sent events if `stream`, in the body or the header, is true."""
    decoded.parameters = dict(decoded.parameters)
    stream = decoded.parameters.pop("stream")
    if stream not in (None, True, False):
        raise RequestError(400, "bad-parameters", "'stream' must be true or false")
    if not stream:
        return
    if Form.EVENTS not in offers(expected.task):
        raise RequestError(400, "cannot-stream", f"{expected.task} has no answer in parts: leave 'stream' away")
    decoded.form = Form.EVENTS


def _decode_body(
    body: bytes,
    content_type: str | None,
    expected: Expected,
    share: Share | None,
    parsed: Callable[[], Any] | None = None,
) -> Decoded:
    media, charset = media_of(body, content_type, expected)
    if is_json(media):
        document = parsed() if parsed else parse_document(body, content_type, expected)
        return _decode_document(document, expected, share)
    _check_body(body, media, expected)
    if expected.kind is Kind.TEXT and media == "text/plain":
        return Decoded(inputs=read_inputs(_text(body, charset), expected))
    if expected.kind is Kind.TEXT and media == "text/csv":
        return Decoded(inputs=read_inputs(_decode_csv(_text(body, charset), expected), expected))
    if expected.kind is Kind.AUDIO and (media.startswith(_RAW_AUDIO) or media in _BYTES):
        return Decoded(inputs=read_inputs(body, expected, share))
    if expected.kind is Kind.IMAGE and (media.startswith("image/") or media in _IMAGE_BYTES):
        return Decoded(inputs=read_inputs(body, expected, share))
    raise RequestError(
        415,
        "unsupported-content-type",
        f"content type {shown(content_type)} is not known here: {how_to_ask(expected)}",
    )


def _check_body(body: bytes, media: str, expected: Expected) -> None:
    """400 for an empty body, and for one with a text that is far too long."""
    if not body or body.isspace():
        raise RequestError(400, "empty-body", f"the body is empty: {how_to_ask(expected)}")
    if expected.kind is Kind.TEXT and expected.most_characters:
        refuse_long_texts(body, b"\n" if media == "text/csv" else b'"', expected.most_characters)


@functools.lru_cache(maxsize=64)
def parse_content_type(value: str | None) -> tuple[str, str]:
    """Return the media type in lower case and the charset (default: UTF-8); other parameters are ignored."""
    media, *parameters = (value or "application/json").split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, given = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = given.strip().strip('"') or charset
    return media.strip().lower(), charset


def media_of(body: bytes, content_type: str | None, expected: Expected) -> tuple[str, str]:
    """Return media type and charset; without a content type, the first character tells JSON from a media file."""
    media, charset = parse_content_type(content_type)
    if content_type is None or media in _UNTYPED:
        begins = body[:_LOOK].removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        is_file = expected.kind in (Kind.AUDIO, Kind.IMAGE) and begins not in (b"{", b"[", b'"', b"")
        media = _BYTES[0] if is_file else "application/json"
    return media, charset


def is_json(media: str) -> bool:
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def parse_document(body: bytes, content_type: str | None, expected: Expected) -> Any:
    """Parse a JSON body; 400 if it is invalid."""
    media, charset = media_of(body, content_type, expected)
    _check_body(body, media, expected)
    try:
        return parse_json(_text(body, charset, expected))
    except RecursionError:
        raise RequestError(400, "malformed-json", "the JSON is nested too deeply: flatten it") from None
    except ValueError as error:
        raise RequestError(
            400, "malformed-json", f"the body is not valid JSON ({error}): {how_to_ask(expected)}"
        ) from None


def _decode_document(document: Any, expected: Expected, share: Share | None) -> Decoded:
    if not isinstance(document, dict) or "inputs" not in document:
        raise RequestError(400, "missing-inputs", f"the JSON must be an object with 'inputs': {how_to_ask(expected)}")
    if expected.task in _ABOUT_IMAGES:
        document = _about_image(document)
    clients_send = VECTORS if expected.task in EMBEDDING_TASKS else {}
    beside = {name: document[name] for name in clients_send.keys() & document.keys()}
    extra = document.keys() - _FIELDS - beside.keys()
    if extra:
        raise RequestError(
            400,
            "unknown-field",
            f"{shown(min(extra))} is not a field of the request, only 'inputs', 'parameters' and 'stream' are: "
            "put options of the model into 'parameters'",
        )
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise RequestError(400, "bad-parameters", "'parameters' must be an object such as {\"max_new_tokens\": 32}")
    if "stream" in document:
        beside["stream"] = document["stream"]
    if beside:
        parameters = merge(parameters, beside)
    return Decoded(inputs=read_inputs(document["inputs"], expected, share), parameters=parameters)


def _about_image(document: dict[str, Any]) -> dict[str, Any]:
    """Move `question` and `word_boxes` into `inputs`: the Hub's clients send them beside it and in `parameters`."""
    document = dict(document)
    inputs, parameters = document["inputs"], document.get("parameters")
    if "question" in document and not isinstance(inputs, dict):
        inputs = {"image": document.pop("image", inputs), "question": document.pop("question")}
    if isinstance(parameters, dict) and "word_boxes" in parameters and isinstance(inputs, dict):
        document["parameters"] = {name: value for name, value in parameters.items() if name != "word_boxes"}
        inputs = {**inputs, "word_boxes": parameters["word_boxes"]}
    return {**document, "inputs": inputs}


def _decode_csv(text: str, expected: Expected) -> list[Any]:
    """Decode CSV with a header: texts from a column `inputs`, or objects from the columns of the task."""
    import csv

    check_values(text)
    columns: tuple[str, ...] = ("inputs",)
    try:
        head, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (csv.Error, ValueError) as error:
        raise RequestError(
            400, "malformed-csv", f"the body is not valid CSV ({error}): {how_to_ask(expected)}"
        ) from None
    if expected.task in _CSV_COLUMNS and "inputs" not in head:
        columns = _CSV_COLUMNS[expected.task]
    if sorted(head) != sorted(columns) or not rows or any(len(row) != len(head) for row in rows):
        raise RequestError(
            400,
            "malformed-csv",
            f"the CSV must have a first line with the columns {', '.join(columns)}, no others, and a line for each "
            f"input: {how_to_ask(expected)}",
        )
    return [row[0] for row in rows] if columns == ("inputs",) else [dict(zip(head, row, strict=True)) for row in rows]


def _decode_form(body: bytes, content_type: str, expected: Expected, form: Form, share: Share | None) -> Decoded:
    """Decode a form with a file, or a field `inputs`, and a field for each parameter."""
    inputs: Part | None = None
    texts: dict[str, str] = {}
    lists: dict[str, list[Any]] = {}
    for part in parse_form(body, content_type):
        if part.is_file or part.name == "inputs":
            if inputs is not None:
                raise malformed("it has more than one file")
            inputs = part
            continue
        name = part.name.removesuffix("[]")
        text = _text(part.data, parse_content_type(part.content_type)[1])
        if name != part.name:
            lists.setdefault(name, []).append(parse_value(text))
        elif name in texts:
            raise malformed(f"it has more than one field {shown(name)}")
        else:
            texts[name] = text
    if texts.keys() & lists.keys():
        raise malformed(f"it has a field {shown(min(texts.keys() & lists.keys()))} with '[]' and without")
    if inputs is None:
        raise RequestError(400, "missing-inputs", f"the form has neither 'file' nor 'inputs': {how_to_ask(expected)}")
    read = _form_inputs(inputs, texts, expected, share)
    fields = {**{name: parse_value(text) for name, text in texts.items()}, **lists}
    parameters = fields.pop("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(400, "bad-parameters", "the field 'parameters' must hold a JSON object")
    if expected.task == "automatic-speech-recognition":
        fields = _as_openai_means(fields)
    return Decoded(inputs=read, parameters=merge(parameters, fields), form=form)


def _form_inputs(part: Part, texts: dict[str, str], expected: Expected, share: Share | None) -> Any:
    """Read the file of any field name and content type (clients guess it by the file name), or `inputs` as in JSON.

    Fields that belong to the inputs are removed from `texts`.
    """
    if not part.is_file:
        text = _text(part.data, parse_content_type(part.content_type)[1])
        is_json = expected.kind is Kind.IMAGE_AND_TEXT or expected.task in _JSON_TEXT_TASKS
        return read_inputs(parse_value(text) if is_json else text, expected, share)
    if not part.data:
        raise RequestError(400, "empty-body", f"the file is empty: {how_to_ask(expected)}")
    if expected.kind in (Kind.AUDIO, Kind.IMAGE):
        return read_inputs(part.data, expected, share)
    if expected.kind is Kind.IMAGE_AND_TEXT:
        key, question = ("image", "question") if expected.task.endswith("question-answering") else ("images", "text")
        if question not in texts:
            raise RequestError(400, "missing-inputs", f"the form has no field '{question}' beside its file")
        read = {key: part.data, question: texts.pop(question)}
        if "word_boxes" in texts:
            read["word_boxes"] = parse_value(texts.pop("word_boxes"))
        return read_inputs(read, expected, share)
    return _decode_body(part.data, part.content_type or "text/plain", expected, share).inputs


def _as_openai_means(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert fields of OpenAI's transcription request to parameters of the pipeline."""
    fields = {name: value for name, value in fields.items() if name != "model"}  # only one model is served
    temperature = fields.pop("temperature", None)
    if temperature is not None:
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature <= 2:
            raise RequestError(
                400, "bad-parameters", f"temperature ({shown(temperature)}) must be a number from 0 to 2"
            )
        if temperature > 0:  # 0 means greedy decoding, which is the default
            fields.update(temperature=float(temperature), do_sample=True)
    return fields


def _text(body: bytes, charset: str, expected: Expected | None = None) -> str:
    if not _is_known(charset):
        raise RequestError(415, "unsupported-content-type", f"charset {shown(charset)} is not known: send UTF-8")
    try:
        return body.decode(charset).removeprefix(_BYTE_ORDER_MARK)
    except ValueError:
        hint = how_to_ask(expected) if expected and expected.kind is not Kind.TEXT else "send UTF-8 text"
        raise RequestError(400, "malformed-text", f"the body is not valid {shown(charset)}: {hint}") from None


@functools.lru_cache(maxsize=64)
def _is_known(charset: str) -> bool:
    try:
        return _CHARSETS.fullmatch(codecs.lookup(charset).name) is not None
    except (LookupError, ValueError):
        return False
