"""Server-sent events for text that is being generated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .encoding import encode_json

Emit = Callable[[bytes], None]


class StreamEndedError(Exception):
    """Nobody reads the stream any more: raised inside `generate`, it ends the generation at the next token."""


class TokenEvents:
    """A streamer for `generate`: one event a token, with the text that the token completes."""

    def __init__(self, tokenizer: Any, emit: Emit, gone: threading.Event) -> None:
        """`gone` is set by the event loop's thread when the client leaves."""
        self._tokenizer, self._emit, self._gone = tokenizer, emit, gone
        self._seen_prompt = False
        self._before = self._read = 0
        self.tokens: list[int] = []

    def put(self, value: Any) -> None:
        """The prompt at first, then what was generated."""
        if self._gone.is_set():
            raise StreamEndedError
        if not self._seen_prompt:
            self._seen_prompt = True
            return
        for token in value.reshape(-1).tolist():
            self.tokens.append(token)
            self._emit(event({"token": {"id": token, "text": self._text()}}))

    def end(self) -> None:
        """`generate` is done; the last event is for who has its result."""

    def _text(self) -> str:
        """What the newest token adds: nothing while a character has come in part only.

        Decoded together with the tokens before it, since spaces and characters depend on them.
        """
        had = self._decode(self.tokens[self._before : self._read])
        text = self._decode(self.tokens[self._before :])
        if len(text) <= len(had) or text.endswith("\ufffd"):
            return ""
        self._before, self._read = self._read, len(self.tokens)
        return text[len(had) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def event(data: Any, name: str = "") -> bytes:
    """One event: JSON has no line breaks of its own."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + encode_json(data) + b"\n\n"


def finish_reason(tokens: list[int], end_tokens: Any, *, stopped_by_text: bool) -> str:
    """Why the generation ended, in the words of Hugging Face's text-generation servers."""
    ends = end_tokens if isinstance(end_tokens, (list, tuple)) else [end_tokens]
    if tokens and tokens[-1] in ends:
        return "eos_token"
    return "stop_sequence" if stopped_by_text else "length"
