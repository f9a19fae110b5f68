"""Validation of `inputs` for each task and at every depth: no string in it is used as a file name or a URL.

Each field is text, a file in base64, or plain data that is not opened. All other fields are rejected.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from ..machine.ending import check
from .audio import decode_audio
from .image_tokens import MOST_IMAGES
from .images import ImageDecoder, Opened
from .roles import KNOWN, check_message
from .tasks import EMBEDDING_TASKS, Kind

if TYPE_CHECKING:
    from ..machine.memory import Share

MAX_DEPTH = 16
"""Maximum nesting of lists and objects in `inputs`."""

MOST_PLACES = 64
"""Maximum references to images in a decision's texts: each reference adds the image's tokens to the prompt."""

MOST_WORDS = 10_000
"""Maximum words of a document: each has a list for its box."""

MOST_CELLS = 2_000
"""Maximum cells of a table: each has at least a token, and models read 512 or 1024. TAPAS takes 1 ms for a cell."""

MOST_QUERIES = 100
"""Maximum questions about a table: the model reads the whole table for each."""

_BOX_SIDE = 1000
"""Boxes are in thousandths of the page: models have no larger positions."""

_OBJECT_TASKS = ("text-classification", "text-generation", "text-to-audio")
"""Text tasks that accept text pairs or chats; `chats.py` validates messages for text-generation."""

_FILES_IN_CHATS = {"any-to-any": ("image", "audio"), "image-text-to-text": ("image",)}
"""Task -> kinds of files that a message may have, beside text."""

_LONGEST_HEAD = 256
"""Maximum length of the header of a `data:` URI."""

_OF_URLS = str.maketrans("-_", "+/")
"""Converts URL-safe base64 to standard base64."""

_TEXTS_OF_A_MESSAGE = ("name", "tool_call_id", "reasoning_content")
_QUESTION_TYPES = ("noul", "choice", "score")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The properties of the loaded model that decoding needs."""

    task: str

    kind: Kind
    """The kind of `inputs`."""

    sampling_rate: int = 16_000

    max_audio_seconds: int = 3600

    parameters: frozenset[str] = frozenset()

    roles: frozenset[str] = KNOWN
    """The roles that messages may have."""

    most_characters: int | None = None
    """Maximum characters of a text, to be read or truncated; None for a model without a tokenizer."""


def read_inputs(inputs: Any, expected: Expected, share: Share | None = None) -> Any:
    """Decode images and audio, and validate everything else. `bytes` are a file that was sent as the body."""
    if inputs is None or (isinstance(inputs, (list, dict)) and not inputs):
        raise RequestError(400, "missing-inputs", f"'inputs' is empty: {how_to_ask(expected)}")
    if isinstance(inputs, str) and expected.kind is Kind.TEXT and not expected.task.endswith("question-answering"):
        return inputs  # a fast path for most requests
    return _Reader(expected, share).read(inputs)


class _Fields:
    """What the fields of all tasks share."""

    def __init__(self, expected: Expected, share: Share | None) -> None:
        self._expected, self._share, self._images = expected, share, ImageDecoder(share, expected.task)

    def _object(self, value: Any, where: str, needed: Collection[str], more: Collection[str] = ()) -> None:
        """400 if the value is not an object, or has other keys."""
        if not isinstance(value, dict):
            raise self._bad(f"'{where}' must be an object with {_listed(needed)}")
        for name in value:
            if name not in needed and name not in more:
                raise self._bad(f"{shown(name)} is not taken in '{where}', which has {_listed({*needed, *more})}")
        missing = sorted(needed - value.keys())
        if missing:
            raise self._bad(f"'{where}' lacks {_listed(missing)}")

    def _each(self, value: Any, where: str, read: Callable[[Any, str], Any]) -> Any:
        """Read one value, or each of a list."""
        if not isinstance(value, list):
            return read(value, where)
        if not value:
            raise self._bad(f"'{where}' is an empty list")
        return [read(item, where) for item in value]

    def _image(self, value: Any, where: str) -> Opened:
        return self._images.open(_file(value, where, "an image"))

    def _audio(self, value: Any, where: str) -> dict[str, Any]:
        rate = self._expected.sampling_rate
        data = _file(value, where, "audio")
        samples = decode_audio(data, rate=rate, max_seconds=self._expected.max_audio_seconds, share=self._share)
        return {"raw": samples, "sampling_rate": rate}

    def _raw_audio(self, value: Any, where: str) -> Any:
        return self._audio(value, where)["raw"]

    def _bad(self, problem: str) -> RequestError:
        return RequestError(400, "bad-inputs", f"{problem}: {how_to_ask(self._expected)}")


class _Texts(_Fields):
    """The inputs of the tasks with text alone."""

    def _texts(self, inputs: Any) -> Any:
        task = self._expected.task
        if task == "table-question-answering":
            return self._each(inputs, "inputs", self._table_question)
        if task in EMBEDDING_TASKS:
            return self._texts_to_embed(inputs)
        if task == "question-answering":
            return self._each(inputs, "inputs", self._question)
        if not _is_text(inputs, 0, objects=task in _OBJECT_TASKS):
            raise self._bad("'inputs' must be text or a list of texts")
        if isinstance(inputs, dict) and task != "text-classification":
            raise self._bad("'inputs' must be text or a list of texts or messages")
        if task == "text-classification":
            return self._pairs(inputs)
        return inputs

    def _texts_to_embed(self, inputs: Any) -> Any:
        """Read one text or several; or an object with a sentence and those to compare it with."""
        if isinstance(inputs, dict):
            self._object(inputs, "inputs", {"source_sentence", "sentences"})
            source, others = inputs["source_sentence"], inputs["sentences"]
            if not isinstance(others, list):
                raise self._bad("'inputs.sentences' must be a list of texts")
            inputs = {
                "source_sentence": _string(source, "inputs.source_sentence"),
                "sentences": _strings(others, "inputs.sentences"),
            }
        elif not _is_text(inputs, 0, objects=False):
            raise self._bad("'inputs' must be text or a list of texts")
        elif self._expected.task == "sentence-embeddings":
            _strings(inputs, "inputs")
        return inputs

    def _pairs(self, inputs: Any) -> Any:
        if isinstance(inputs, list):
            return [self._pairs(item) for item in inputs]
        if isinstance(inputs, dict):
            self._object(inputs, "inputs", {"text"}, {"text_pair"})
            return {name: _string(value, f"inputs.{name}") for name, value in inputs.items()}
        return inputs

    def _question(self, value: Any, where: str) -> Any:
        self._object(value, where, {"question", "context"})
        question, context = value["question"], value["context"]
        if isinstance(question, list) != isinstance(context, list) or (
            isinstance(question, list) and len(question) != len(context)
        ):
            raise self._bad(f"'{where}' must have a context for each question: two texts, or two lists of one length")
        return {name: _strings(text, f"{where}.{name}", empty=False) for name, text in value.items()}

    def _table_question(self, value: Any, where: str) -> Any:
        self._object(value, where, {"table", "query"})
        table = value["table"]
        if isinstance(table, list):
            table = self._columns(table, f"{where}.table")
        if not isinstance(table, dict) or not table:
            raise self._bad(f"'{where}.table' must be an object of columns, or a list of objects, one for each row")
        lengths = {len(cells) if isinstance(cells, list) else 0 for cells in table.values()}
        if len(lengths) != 1 or lengths == {0}:
            raise self._bad(f"'{where}.table' must have a list of cells for each column, all of one length")
        if len(table) * max(lengths) > MOST_CELLS:
            raise self._bad(f"'{where}.table' may have at most {MOST_CELLS:,} cells: send the rows that matter")
        if isinstance(value["query"], list) and len(value["query"]) > MOST_QUERIES:
            raise self._bad(f"'{where}.query' may be at most {MOST_QUERIES} questions: send the others after them")
        cells = {
            _string(name, f"{where}.table"): [_cell(cell, f"{where}.table") for cell in cells]
            for name, cells in table.items()
        }
        return {"table": cells, "query": _strings(value["query"], f"{where}.query", empty=False)}

    def _columns(self, rows: list[Any], where: str) -> dict[str, list[Any]]:
        names = list(rows[0]) if rows and isinstance(rows[0], dict) else []
        if any(not isinstance(row, dict) or row.keys() != rows[0].keys() for row in rows):
            raise self._bad(f"'{where}' must have rows with the same columns")
        return {name: [row[name] for row in rows] for name in names}


class _Reader(_Texts):
    """The inputs of one request: audio, images, text, or several of them."""

    def read(self, inputs: Any) -> Any:
        match self._expected.kind:
            case Kind.AUDIO:
                return self._audio(inputs, "inputs")
            case Kind.IMAGE:
                read = self._each(inputs, "inputs", self._image)
            case Kind.IMAGE_AND_TEXT:
                read = self._with_images(inputs)
            case Kind.TEXT:
                read = self._texts(inputs)
                speaks = self._expected.task == "text-to-audio" and isinstance(inputs, list)
                return self._chats(inputs, "inputs") if speaks and isinstance(inputs[0], (dict, list)) else read
        self._images.load()
        return _filled(read)

    def _with_images(self, inputs: Any) -> Any:
        task = self._expected.task
        if task == "decision":
            return self._each(inputs, "inputs", self._decision)
        if task in ("document-question-answering", "visual-question-answering"):
            return self._each(inputs, "inputs", self._question_about_image)
        if isinstance(inputs, list) and _is_chat(inputs):
            return self._chats(inputs, "inputs")
        if task == "any-to-any":
            return self._each(inputs, "inputs", self._prompt)
        return self._prompt(inputs, "inputs")

    def _question_about_image(self, value: Any, where: str) -> Any:
        boxes = {"word_boxes"} if self._expected.task == "document-question-answering" else set()
        image_is_optional = isinstance(value, dict) and bool(boxes & value.keys())
        needed, more = ({"question"}, {"image"}) if image_is_optional else ({"image", "question"}, set())
        self._object(value, where, needed, more | boxes)
        read: dict[str, Any] = {"question": _string(value["question"], f"{where}.question", empty=False)}
        if "image" in value:
            read["image"] = self._image(value["image"], f"{where}.image")
        if "word_boxes" in value:
            read["word_boxes"] = self._word_boxes(value["word_boxes"], f"{where}.word_boxes")
        return read

    def _word_boxes(self, value: Any, where: str) -> list[tuple[str, list[int]]]:
        if not isinstance(value, list) or not 0 < len(value) <= MOST_WORDS:
            raise self._bad(f"'{where}' must be a list of 1 to {MOST_WORDS:,} words with their boxes")
        boxes = []
        for pair in value:
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], list) or len(pair[1]) != 4:
                raise self._bad(f"'{where}' must hold pairs such as [\"word\", [left, top, right, bottom]]")
            left, top, right, bottom = box = [_thousandth(number, where) for number in pair[1]]
            if left > right or top > bottom:
                raise self._bad(f"'{where}' has a box whose right or bottom lies before its left or top")
            boxes.append((_string(pair[0], where), box))
        return boxes

    def _prompt(self, value: Any, where: str) -> Any:
        """Read text with images, and audio for any-to-any; or a chat with images in its messages."""
        sound = {"audio"} if self._expected.task == "any-to-any" else set()
        self._object(value, where, {"text"}, {"images"} | sound)
        text = value["text"]
        if isinstance(text, list) and _is_chat(text):
            if len(value) > 1:
                raise self._bad(f"'{where}' has a chat in 'text': its images stand in its messages")
            return self._chats(text, f"{where}.text")
        read = {"text": _strings(text, f"{where}.text")}
        if "images" in value:
            read["images"] = self._each(value["images"], f"{where}.images", self._images_of_one)
        if "audio" in value:
            read["audio"] = self._each(value["audio"], f"{where}.audio", self._raw_audio)
        return read

    def _images_of_one(self, value: Any, where: str) -> Any:
        return self._each(value, where, self._image)

    def _chats(self, value: list[Any], where: str) -> list[Any]:
        """Read a list of messages, or a list of such lists."""
        if isinstance(value[0], list):
            if not all(isinstance(chat, list) and chat and isinstance(chat[0], dict) for chat in value):
                raise self._bad(f"'{where}' must be a chat, or a list of chats")
            return [self._chats(chat, where) for chat in value]
        return [self._message(message, where) for message in value]

    def _message(self, value: Any, where: str) -> dict[str, Any]:
        self._object(value, where, {"role", "content"}, {"tool_calls", *_TEXTS_OF_A_MESSAGE})
        read: dict[str, Any] = {"role": _string(value["role"], f"{where}.role")}
        content = value["content"]
        if isinstance(content, list):
            read["content"] = [self._part(part, f"{where}.content") for part in content]
        else:
            read["content"] = "" if content is None else _string(content, f"{where}.content")
        for name in _TEXTS_OF_A_MESSAGE:
            if value.get(name) is not None:
                read[name] = _string(value[name], f"{where}.{name}")
        if value.get("tool_calls") is not None:
            read["tool_calls"] = _plain(value["tool_calls"], f"{where}.tool_calls", 0)
        check_message(read, self._expected.roles, speaks=self._expected.task == "text-to-audio")
        return read

    def _part(self, value: Any, where: str) -> dict[str, Any]:
        kind = value.get("type", "text" if "text" in value else None) if isinstance(value, dict) else None
        if kind == "text":
            self._object(value, where, {"text"}, {"type"})
            return {"type": "text", "text": _string(value["text"], f"{where}.text")}
        kinds = _FILES_IN_CHATS.get(self._expected.task, ())
        if kind not in kinds:
            known = " or ".join(f"'{name}'" for name in ["text", *kinds])
            raise self._bad(f"'{where}' must hold objects whose 'type' is {known}, and not {shown(kind)}")
        self._object(value, where, {"type"}, {kind, "base64", "url", "path"})
        given = [value[name] for name in (kind, "base64", "url", "path") if name in value]
        if len(given) != 1:
            raise self._bad(f"'{where}' must have '{kind}' with the file in base64 beside 'type', and nothing else")
        if kind == "audio":
            return {"type": kind, kind: self._raw_audio(given[0], f"{where}.{kind}")}
        return {"type": kind, kind: self._image(given[0], f"{where}.{kind}")}

    def _decision(self, value: Any, where: str) -> dict[str, Any]:
        """Read `state`, plain data; `questions` of three types; and `assets`, images by the names in the texts."""
        self._object(value, where, {"state", "questions"}, {"assets"})
        questions = value["questions"]
        if not isinstance(questions, dict) or not questions:
            raise self._bad(f"'{where}.questions' must be an object with a question by each name")
        read = {
            "state": _plain(value["state"], f"{where}.state", 0),
            "questions": {
                _string(name, f"{where}.questions"): self._decision_question(question, f"{where}.questions")
                for name, question in questions.items()
            },
        }
        assets = value.get("assets")
        if assets is not None:
            read["assets"] = self._assets(assets, f"{where}.assets", read)
        return read

    def _decision_question(self, value: Any, where: str) -> Any:
        self._object(value, where, {"type"}, {"instructions", "criteria"})
        if value["type"] not in _QUESTION_TYPES:
            raise self._bad(f"'{where}' must have a type of {', '.join(_QUESTION_TYPES)}, not {shown(value['type'])}")
        criteria = value.get("criteria")
        if criteria is not None and not isinstance(criteria, list if value["type"] == "score" else dict):
            raise self._bad(f"'{where}' must have criteria in a list for 'score', otherwise in an object")
        return _plain(value, where, 0)

    def _assets(self, value: Any, where: str, beside: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or "" in value:
            raise self._bad(f"'{where}' must be an object with images in base64, by the names that stand for them")
        if len(value) > MOST_IMAGES:
            raise self._bad(f"'{where}' has {len(value)} images, and at most {MOST_IMAGES} may be")
        references = 0
        for text in strings_in(beside):
            check()
            references += sum(map(text.count, value))
        if references > MOST_PLACES:
            raise self._bad(
                f"the names in '{where}' stand in {references} places, and at most {MOST_PLACES} may be images"
            )
        read = {}
        for name, given in value.items():
            if isinstance(given, dict):
                self._object(given, where, {"data_base64"})
                given = given["data_base64"]
            read[_string(name, where)] = self._image(given, where)
        return read


def _filled(value: Any) -> Any:
    """Replace each `Opened` by its image."""
    if isinstance(value, Opened):
        return value.image
    if isinstance(value, dict):
        return {name: _filled(item) for name, item in value.items()}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def _is_text(inputs: Any, depth: int, *, objects: bool) -> bool:
    """Whether the inputs are text or nested lists of texts; with `objects`, of messages or text pairs too."""
    if isinstance(inputs, str):
        return True
    if not isinstance(inputs, list):
        return objects and isinstance(inputs, dict) and _is_plain(inputs, depth)
    kinds = {type(item) for item in inputs}
    return kinds == {str} or (
        len(kinds) == 1 and depth < MAX_DEPTH and all(_is_text(item, depth + 1, objects=objects) for item in inputs)
    )


def _is_chat(value: list[Any]) -> bool:
    """Whether a list holds messages, or non-empty lists."""
    first = value[0] if value else None
    return (isinstance(first, dict) and "role" in first) or (isinstance(first, list) and bool(first))


def _string(value: Any, where: str, *, empty: bool = True) -> str:
    if not isinstance(value, str):
        raise RequestError(400, "bad-inputs", f"'{where}' must be text, not {shown(value)}")
    if not (empty or value.strip()):
        raise RequestError(400, "bad-inputs", f"'{where}' is empty: send a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RequestError(
                400, "bad-inputs", f"'{where}' has half of a surrogate pair, which is no character: send UTF-8"
            ) from None
    return value


def _strings(value: Any, where: str, *, empty: bool = True) -> Any:
    """Validate one text, or a non-empty list of texts."""
    if not isinstance(value, list):
        return _string(value, where, empty=empty)
    if not value:
        raise RequestError(400, "bad-inputs", f"'{where}' is an empty list: send a text")
    return [_string(item, where, empty=empty) for item in value]


def _cell(value: Any, where: str) -> str:
    """Convert a cell to text, since the tokenizers accept nothing else."""
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return str(value)
    return _string(value, where)


def _thousandth(value: Any, where: str) -> int:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _BOX_SIDE:  # this rejects NaN too
        raise RequestError(
            400,
            "bad-inputs",
            f"'{where}' has {shown(value)} in a box: its numbers are thousandths of the page, from 0 to {_BOX_SIDE}",
        )
    number: int = round(value)
    return number


def _plain(value: Any, where: str, depth: int) -> Any:
    """Validate data of any structure, which goes into a prompt unchanged; names of files in it are not opened."""
    if isinstance(value, str):
        return _string(value, where)
    if isinstance(value, (list, dict)) and depth >= MAX_DEPTH:
        raise RequestError(400, "bad-inputs", f"'{where}' is nested deeper than {MAX_DEPTH} levels: flatten it")
    if isinstance(value, list):
        return [_plain(item, where, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_string(name, where): _plain(item, where, depth + 1) for name, item in value.items()}
    return value


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is nested at most `MAX_DEPTH` levels deep."""
    if not isinstance(value, (list, dict)):
        return True
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return depth < MAX_DEPTH and all(_is_plain(item, depth + 1) for item in items)


def strings_in(value: Any) -> Iterator[str]:
    """Yield every string, at any depth, except the keys of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)


def names_in(value: Any) -> Iterator[str]:
    """Yield the keys of all objects, at any depth."""
    if isinstance(value, dict):
        yield from (name for name in value if isinstance(name, str))
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from names_in(item)


def _file(value: Any, where: str, what: str) -> bytes:
    """Decode base64, also from a `data:` URI; return `bytes` unchanged."""
    if isinstance(value, bytes):
        return value
    hint = (
        f"'{where}' must be {what} in base64; URLs and paths are not fetched. "
        "Send the file's bytes as the body with its own content type, or base64 in 'inputs'"
    )
    if not isinstance(value, str) or not value.isascii():
        raise RequestError(400, "bad-inputs", hint)
    head, comma, rest = value[:_LONGEST_HEAD].partition(",")
    is_uri = comma and head[:5].lower() == "data:" and head[-7:].lower() == ";base64"
    encoded = rest + value[_LONGEST_HEAD:] if is_uri else value
    encoded = "".join(encoded.split()).translate(_OF_URLS)
    if len(encoded) % 4 > 1 and not encoded.endswith("="):  # URL-safe base64 often has no padding
        encoded += "=" * (-len(encoded) % 4)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, "bad-inputs", hint) from None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def how_to_ask(expected: Expected) -> str:
    """Describe the accepted requests in one sentence, for error messages."""
    form = "multipart/form-data with 'file'"
    forms: Mapping[Kind, Iterable[str]] = {
        Kind.TEXT: ('application/json with {"inputs": "text", "parameters": {}}', "text/plain", "text/csv"),
        Kind.AUDIO: ("the bytes of an audio file as audio/*", 'application/json with {"inputs": "<base64>"}', form),
        Kind.IMAGE: ("the bytes of an image file as image/*", 'application/json with {"inputs": "<base64>"}', form),
        Kind.IMAGE_AND_TEXT: ('application/json with {"inputs": {...}} and images in base64', form),
    }
    return f"this endpoint serves {expected.task}, send {' or '.join(forms[expected.kind])}"
