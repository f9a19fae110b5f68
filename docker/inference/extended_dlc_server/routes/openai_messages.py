"""Converts chat messages from OpenAI's format to that of chat templates."""

from __future__ import annotations

import json
from typing import Any

from ..errors import RequestError, shown
from ..reading.chats import MOST_MESSAGES
from ..reading.openai_errors import BadFieldError
from ..reading.parameter_types import Json
from ..reading.roles import ROLES

_TEXTS = ("name", "tool_call_id", "reasoning_content")
_IGNORED = ("annotations", "audio", "refusal", "provider_specific_fields")
"""Fields of OpenAI's responses that clients send back with the messages."""
_MOST_CALLS = 128


def read_messages(value: Any, *, has_images: bool, knows_developer: bool) -> list[dict[str, Any]]:
    """Return the messages in the format of chat templates; raise 400 that names an invalid one.

    `has_images`: the model's messages are lists of parts. `knows_developer`: the template has the role developer.
    """
    if not isinstance(value, list) or not 0 < len(value) <= MOST_MESSAGES:
        raise _bad("messages", f"must be a list of 1 to {MOST_MESSAGES} messages")
    return [
        _message(message, f"messages[{index}]", has_images=has_images, knows_developer=knows_developer)
        for index, message in enumerate(value)
    ]


def _message(value: Any, where: str, *, has_images: bool, knows_developer: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(where, "must be an object with 'role' and 'content'")
    role = value.get("role")
    if role not in ROLES:
        raise _bad(f"{where}.role", f"({shown(role)}) must be one of: {', '.join(ROLES)}")
    if role == "developer" and not knows_developer:
        role = "system"  # OpenAI renamed the role system to developer in 2025
    message: dict[str, Any] = {"role": role}
    for name, given in value.items():
        if given is None or name in ("role", "content", "tool_calls", *_IGNORED):
            continue
        name = "reasoning_content" if name == "reasoning" else name
        if name not in _TEXTS:
            raise _bad(f"{where}.{name[:100]}", "is not known: a message has 'role', 'content' and 'tool_calls'")
        message[name] = _text(given, f"{where}.{name}")
    if value.get("tool_calls"):
        message["tool_calls"] = _calls(value["tool_calls"], f"{where}.tool_calls")
    content = value.get("content")
    if content is None and role == "assistant":
        content = value.get("refusal")  # OpenAI's responses have it in place of a content
    if content is None and not message.get("tool_calls"):
        raise _bad(f"{where}.content", "is missing")
    message["content"] = _content(content, f"{where}.content", has_images=has_images)
    return message


def _content(value: Any, where: str, *, has_images: bool) -> Any:
    """Return a string, or a list of parts if the client sent one or the model takes images."""
    if value is None:
        return [] if has_images else ""
    if isinstance(value, str):
        text = _text(value, where)
        return [{"type": "text", "text": text}] if has_images else text
    if not isinstance(value, list) or not value:
        raise _bad(where, f"({shown(value)}) must be a text, or a list of parts")
    return [_part(part, f"{where}[{index}]", has_images=has_images) for index, part in enumerate(value)]


def _part(value: Any, where: str, *, has_images: bool) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("text", "refusal"):
        return {"type": "text", "text": _text(value.get(kind), f"{where}.{kind}")}
    if not has_images:
        raise _bad(where, f"has the type {shown(kind)}, and this model takes parts of the type 'text' only")
    if kind == "image_url":
        given = value.get("image_url")
        url = given.get("url") if isinstance(given, dict) else given
        if not isinstance(url, str) or url[:5].lower() != "data:":
            raise _bad(
                f"{where}.image_url",
                f"({shown(url)}) must be a data: URL with the image in base64: this server fetches nothing",
            )
        return {"type": "image", "image": url}
    if kind == "input_audio":
        given = value.get("input_audio")
        if not isinstance(given, dict) or not isinstance(given.get("data"), str):
            raise _bad(f"{where}.input_audio", "must be an object with 'data', a sound in base64")
        return {"type": "audio", "audio": given["data"]}
    raise _bad(where, f"has the type {shown(kind)}: parts have the type 'text', 'image_url' or 'input_audio'")


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > _MOST_CALLS:
        raise _bad(where, f"must be a list of at most {_MOST_CALLS} calls")
    return [_call(one, f"{where}[{index}]") for index, one in enumerate(value)]


def _call(value: Any, where: str) -> dict[str, Any]:
    """Return a tool call, with its arguments parsed into the object that chat templates expect."""
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _bad(where, 'must be {"id": "…", "type": "function", "function": {"name": "…", "arguments": "{…}"}}')
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise _bad(f"{where}.function.arguments", "must be the JSON of an object") from None
    try:
        arguments = Json().check(arguments)
    except ValueError as error:
        raise _bad(f"{where}.function.arguments", str(error)) from None
    call: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": _text(value["id"], f"{where}.id"), **call} if value.get("id") is not None else call


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _bad(where, f"({shown(value)}) must be a text")
    return value


def _bad(where: str, problem: str) -> BadFieldError:
    return BadFieldError("bad-inputs", where, f"'{where}' {problem}")


def as_messages(error: RequestError) -> RequestError:
    """Convert an error of a chat template or about `inputs` to one about `messages`."""
    text = error.message.replace("'inputs'", "'messages'", 1).partition(": this endpoint serves")[0]
    return BadFieldError(error.code, "messages", text) if error.status == 400 else error
