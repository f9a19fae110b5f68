"""Finds the text in a response: in the events of a stream, or in a JSON body."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from extended_dlc.asking.errors import ModelRefused, words_in

_TEXTS = ("generated_text", "text", "summary_text", "translation_text")


def shown(data: bytes, content_type: str) -> str | None:
    """The response for the terminal: its only text, else the whole body; None if it is not text."""
    if content_type.startswith("application/json"):
        try:
            found = text_in(json.loads(data))
        except ValueError:
            found = None
        if found is not None:
            return found
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def text_in(answer: Any) -> str | None:
    """The only text of a JSON response; None if it has another form, or more than one text."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    if len(answer) == 1 and next(iter(answer)) in _TEXTS:
        (value,) = answer.values()
        return value if isinstance(value, str) else None
    choices = answer.get("choices")
    if not (isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict)):
        return None
    message = choices[0].get("message")
    found = message.get("content") if isinstance(message, dict) else choices[0].get("text")
    calls = isinstance(message, dict) and message.get("tool_calls")
    return found if isinstance(found, str) and not calls else None


class Events:
    """Parses server-sent events, from chunks of any size, to the text of each."""

    def __init__(self) -> None:
        self._rest = b""
        self._kind = ""
        self._marks_its_end = False
        self._has_ended = False

    @property
    def ended(self) -> bool:
        """Whether the last event came; a stream of another form than OpenAI's and TGI's does not tell."""
        return self._has_ended or not self._marks_its_end

    def texts(self, pieces: Iterable[bytes]) -> Iterator[str]:
        """The text of each event that has one. Raises `ModelRefused` for an error event."""
        for piece in pieces:
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                yield from self._line(line)
        yield from self._line(self._rest)

    def _line(self, line: bytes) -> Iterator[str]:
        text = line.decode(errors="replace").strip()
        if not text:
            self._kind = ""
        elif text.startswith("event:"):
            self._kind = text[6:].strip()
        elif text.startswith("data:"):
            data = text[5:].strip()
            self._has_ended |= data == "[DONE]"
            if data != "[DONE]" and (found := self._text(data)):
                yield found

    def _text(self, data: str) -> str | None:
        try:
            content = json.loads(data)
        except ValueError:
            return data
        if not isinstance(content, dict):
            return data
        if self._kind == "error" or "error" in content:
            said = words_in(content) or data
            raise ModelRefused(200, f"the model's server ended the answer: {said[:1000]}")
        if "generated_text" in content:
            self._marks_its_end = True
            self._has_ended |= content["generated_text"] is not None
        if isinstance(content.get("token"), dict):
            token = content["token"]
            return None if token.get("special") else str(token.get("text") or "")
        choices = content.get("choices")
        if not isinstance(choices, list):
            return data
        first = choices[0] if choices else {}
        self._marks_its_end = True
        self._has_ended |= first.get("finish_reason") is not None
        delta = first.get("delta")
        found = delta.get("content") if isinstance(delta, dict) else first.get("text")
        return found if isinstance(found, str) else None
