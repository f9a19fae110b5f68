"""Request bodies for texts, chats, JSON, audio and images."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extended_dlc.asking.errors import AskError

_ATTRIBUTES = 1024
"""Longest CustomAttributes that SageMaker takes, in characters."""

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(?: *; *[\w.+-]+=[\w.+\"-]+)*", re.ASCII)
"""A media type with its parameters; it goes into a header."""

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (6, b"\0\0\0\0", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3\x02", "audio/mpeg"),
    (0, b"ID3\x03", "audio/mpeg"),
    (0, b"ID3\x04", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf2", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"\x1aE\xdf\xa3", "audio/webm"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heif"),
    (4, b"ftyp", "video/mp4"),
)
"""Offset, bytes at the offset, and media type of such a file."""

_CONTAINERS = {"image/bmp": b"BM", "image/webp": b"RIFF", "audio/wav": b"RIFF"}
"""Media type -> further bytes at the start of such a file."""

_EXTENSIONS = {
    ".aac": "audio/aac",
    ".amr": "audio/amr",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".csv": "text/csv",
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".heic": "image/heif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".wav": "audio/wav",
    ".webm": "audio/webm",
    ".webp": "image/webp",
    ".wma": "audio/x-ms-wma",
}


@dataclass(frozen=True, kw_only=True)
class Content:
    """The user's input: a text, or bytes with a content type."""

    text: str | None = None
    data: bytes = b""
    content_type: str = "application/json"


@dataclass(frozen=True, kw_only=True)
class Body:
    """The body and the headers of a request."""

    data: bytes
    content_type: str
    attributes: str | None = None
    """Parameters for CustomAttributes, if the body is not JSON."""

    streams: bool = False
    """Whether to request a response stream."""

    accept: str | None = None


def media_type(data: bytes, name: str = "") -> str | None:
    """The media type of a file by its first bytes, or by its extension; None if neither is known."""
    for offset, signature, found in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature and data.startswith(_CONTAINERS.get(found, b"")):
            return found
    return _EXTENSIONS.get(Path(name).suffix.lower())


_TEXTS = (".htm", ".html", ".jsonl", ".md", ".pdf", ".text", ".tsv", ".txt", ".xml", ".yaml", ".yml")
"""Extensions of files that are read as texts, or that nothing here reads."""


def looks_like_a_file(given: str) -> bool:
    """Whether a text is one word with a file's extension, or a path: a mistyped one is not asked as a question."""
    if not given or any(each.isspace() for each in given):
        return False
    path = Path(given)
    return path.suffix.lower() in {*_EXTENSIONS, *_TEXTS} or given.startswith(("./", "../", "~/", "/dev/", "/tmp/"))  # noqa: S108


def of_text(given: str, name: str = "the text") -> Content:
    """The content of a text; a JSON object is sent unchanged."""
    if not given:
        raise AskError(f"{name} is empty, and an empty request has no answer", "give a text, a file, or --sample")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise AskError("the text is not in UTF-8", "give it in UTF-8, or as a file with --content-type") from None
    return Content(data=given.encode()) if _is_object(given) else Content(text=given)


def of_bytes(data: bytes, name: str, *, content_type: str | None) -> Content:
    """The content of a file, by its first bytes and its name."""
    if content_type is not None and not _MEDIA_TYPE.fullmatch(content_type):
        raise AskError(f"'--content-type' ({content_type[:100]!r}) is no media type", "write it as audio/wav")
    if not data:
        raise AskError(f"'{name}' is empty, and an empty request has no answer", "see that it was written")
    kind = content_type or media_type(data, name)
    if kind is not None and _is_json(kind):
        _require_json(data, name)
    if kind is not None and not kind.startswith("text/plain"):
        return Content(data=data, content_type=kind)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise AskError(f"'{name}' is text in UTF-16", "save it in UTF-8") from None
        raise AskError(
            f"'{name}' is neither text in UTF-8 nor a sound or picture that its first bytes or its name tell",
            "say what it is, as --content-type audio/wav",
        ) from None
    if content_type:
        return Content(data=data, content_type=content_type)
    return of_text(text.strip("\n"), f"'{name}'")


def parameters(given: Sequence[str]) -> dict[str, Any]:
    """The values of `-p`, parsed as JSON if they are JSON, else texts; a dot in a name makes a nested object."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        path = name.split(".")
        if not equals or not all(path):
            raise AskError(f"'-p' ('{each[:100]}') is no pair", "write it as -p NAME=VALUE, as -p max_new_tokens=50")
        parent = found
        for key in path[:-1]:
            parent = parent.setdefault(key, {})
            if not isinstance(parent, dict):
                raise AskError(f"'-p' ('{each[:100]}') goes below '{key}', which has a value already", "give one")
        if path[-1] in parent:
            raise AskError(f"'-p' ('{each[:100]}') is given twice", "give one")
        parent[path[-1]] = _value(value)
    return found


def _value(text: str) -> Any:
    """JSON, or the text itself; what is too large for a number (1e999) has no JSON, and stays a text."""
    try:
        value = _loads(text)
        json.dumps(value, allow_nan=False)
    except ValueError:
        return text
    return value


def _loads(text: str | bytes) -> Any:
    """Parse JSON; `ValueError` also for what Python reads beyond it (NaN), and for what is nested too deeply."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def plain(content: Content, values: Mapping[str, Any], *, stream: bool) -> Body:
    """The body in the format of this project's server, the stock server and TGI."""
    if content.text is not None:
        body: dict[str, Any] = {"inputs": content.text, **({"parameters": dict(values)} if values else {})}
        # This project's server streams if its task supports it, and otherwise answers with JSON.
        accept = "text/event-stream, application/json;q=0.9" if stream else None
        return Body(data=_json(body), content_type="application/json", streams=stream, accept=accept)
    if _is_json(content.content_type):
        return _given(content.data, values, stream=stream)
    attributes = json.dumps(dict(values)) if values else None
    if attributes is not None and len(attributes) > _ATTRIBUTES:
        raise AskError(
            f"'-p' has {len(attributes)} characters in all, and beside a file SageMaker takes {_ATTRIBUTES}",
            "give fewer or shorter ones",
        )
    return Body(data=content.data, content_type=content.content_type, attributes=attributes)


def chat(content: Content, values: Mapping[str, Any], *, stream: bool) -> Body:
    """A chat completion request in OpenAI's format, with one message."""
    message = {"role": "user", "content": _require_text(content)}
    body = {"messages": [message], **values, **({"stream": True} if stream else {})}
    return Body(data=_json(body), content_type="application/json", streams=stream)


def completion(content: Content, values: Mapping[str, Any], *, stream: bool) -> Body:
    """A completion request in OpenAI's format, which vLLM takes for models without a chat template."""
    body = {"prompt": _require_text(content), **values, **({"stream": True} if stream else {})}
    return Body(data=_json(body), content_type="application/json", streams=stream)


def _require_text(content: Content) -> str:
    if content.text is None:
        raise AskError(
            f"a chat is a text here, and this is {content.content_type}",
            "leave --chat out, or write the whole body as JSON, with the picture as a data: URL in its messages",
        )
    return content.text


def _given(data: bytes, values: Mapping[str, Any], *, stream: bool) -> Body:
    """The user's JSON, with the parameters below `parameters` if it has `inputs`, else at the top level."""
    content = _loads(data)
    is_object = isinstance(content, dict)
    if values:
        if not is_object:
            raise AskError("'-p' goes into an object, and this JSON is none", "write the parameters into the JSON")
        if "inputs" in content:
            content["parameters"] = {**(content.get("parameters") or {}), **values}
        else:
            content |= values
        data = _json(content)
    return Body(
        data=data, content_type="application/json", streams=stream and is_object and content.get("stream") is True
    )


def _json(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _is_object(text: str) -> bool:
    try:
        return isinstance(_loads(text), dict)
    except ValueError:
        return False


def _require_json(data: bytes, name: str) -> None:
    try:
        _loads(data)
    except ValueError as error:
        raise AskError(f"'{name}' is not JSON ({error})", "correct it, or name it .txt to send it as a text") from None
