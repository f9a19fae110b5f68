"""Parsers that split a growing assistant message into reasoning, content and tool calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .detokenizing import most_begun
from .tool_calls import Call, CallForm, Schemas, json_call

PYTHON_TAG = "<|python_tag|>"
"""Token that Llama may put before a tool call."""


@dataclass(frozen=True)
class Reasoning:
    """A piece of the reasoning before the answer."""

    text: str


@dataclass(frozen=True)
class Content:
    """A piece of the answer's content."""

    text: str


Piece = Reasoning | Content | Call


class Reply(Protocol):
    """A parser of one answer."""

    def feed(self, text: str) -> list[Piece]:
        """Add text; return the pieces that are not held back."""

    def end(self) -> list[Piece]:
        """Return the pieces that were held back, at the end of the answer."""


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """The tags around reasoning."""

    opens: str
    closes: str

    def is_begun(self, prompt: str) -> bool:
        """Whether the prompt ends with an open tag, as the templates of models do that always reason."""
        return prompt.rstrip().endswith(self.opens)


_THINKING = (
    Thinking(opens="<think>", closes="</think>"),
    Thinking(opens="[THINK]", closes="[/THINK]"),
    Thinking(opens="<seed:think>", closes="</seed:think>"),
)


def thinking_of(template: str) -> Thinking | None:
    """Return the reasoning tags in a chat template, or None."""
    return next((marks for marks in _THINKING if marks.closes in template), None)


class MarkedReply:
    """Parses an answer by the tags that this server knows."""

    def __init__(
        self, form: CallForm | None, thinking: Thinking | None, schemas: Schemas, *, begun: bool = False
    ) -> None:
        """`begun`: the prompt ends with an open reasoning tag."""
        self._form, self._thinking, self._schemas = form, thinking, schemas
        self._marked = form is not None or thinking is not None
        self._buffer = ""
        self._state = "thinking" if begun else "start"
        self._spaces = ""
        """White space that is held back: it is dropped if a tag follows."""
        self._is_first = True
        """Whether no text of this part has been returned yet: leading white space is dropped."""

    def feed(self, text: str) -> list[Piece]:
        """Add text; return the pieces that are not held back."""
        self._buffer += text
        pieces: list[Piece] = []
        while self._step(pieces, last=False):
            pass
        return pieces

    def end(self) -> list[Piece]:
        """Return the pieces that were held back, at the end of the answer."""
        pieces: list[Piece] = []
        while self._step(pieces, last=True):
            pass
        if self._spaces and self._state == "content" and not self._is_first:
            pieces.append(Content(self._spaces))
        return pieces

    def _step(self, pieces: list[Piece], *, last: bool) -> bool:
        """Process a part of the buffer; return whether to call again."""
        match self._state:
            case "start":
                return self._start(last=last)
            case "thinking":
                return self._think(pieces, last=last)
            case "call":
                return self._call(pieces, last=last)
        return self._content(pieces, last=last)

    def _start(self, *, last: bool) -> bool:
        """Reasoning and Llama's tool calls are only recognized at the beginning."""
        begun = self._buffer.lstrip()
        opens = [self._thinking.opens] if self._thinking else []
        bare = self._form is not None and not self._form.opens
        tags = [*opens, *([PYTHON_TAG] if bare else [])]
        if not last and (not begun or any(tag.startswith(begun) and tag != begun for tag in tags)):
            return False
        if self._thinking and begun.startswith(self._thinking.opens):
            self._buffer, self._state = begun[len(self._thinking.opens) :], "thinking"
        elif bare and begun.startswith((PYTHON_TAG, "{")):
            self._state = "call"
        else:
            self._state = "content"
        return True

    def _think(self, pieces: list[Piece], *, last: bool) -> bool:
        assert self._thinking is not None  # noqa: S101 - required for this state
        before, closed, after = self._buffer.partition(self._thinking.closes)
        if closed:
            self._tell(pieces, before, Reasoning)
            self._buffer, self._state, self._spaces, self._is_first = after, "start", "", True
            self._thinking = None
            return True
        self._tell_certain(pieces, [self._thinking.closes], Reasoning, last=last)
        return False

    def _content(self, pieces: list[Piece], *, last: bool) -> bool:
        opens = self._form.opens if self._form else ""
        if not opens:
            self._tell_certain(pieces, [], Content, last=last)
            return False
        before, opened, after = self._buffer.partition(opens)
        if opened:
            self._tell(pieces, before, Content)
            self._buffer, self._state = after, "call"
            return True
        self._tell_certain(pieces, [opens], Content, last=last)
        return False

    def _call(self, pieces: list[Piece], *, last: bool) -> bool:
        """A tool call is returned once it is complete."""
        assert self._form is not None  # noqa: S101 - required for this state
        form = self._form
        ends = form.closes or form.opens
        before, closed, after = self._buffer.partition(ends) if ends else (self._buffer, "", "")
        if not closed and not last:
            return False
        body = before.strip().removeprefix(PYTHON_TAG)
        try:
            calls = form.read(body, self._schemas)
        except ValueError:
            calls = []
            self._tell(pieces, f"{form.opens}{before}{closed if form.closes else ''}", Content)
        pieces += calls
        if calls:
            self._spaces, self._is_first = "", True
        self._buffer = after
        self._state = "call" if closed and not form.closes else "content"
        return bool(closed)

    def _tell_certain(self, pieces: list[Piece], marks: Sequence[str], kind: Any, *, last: bool) -> None:
        kept = 0 if last else most_begun(self._buffer, marks)
        cut = len(self._buffer) - kept
        text, self._buffer = self._buffer[:cut], self._buffer[cut:]
        self._tell(pieces, text, kind)

    def _tell(self, pieces: list[Piece], text: str, kind: Any = Content) -> None:
        """Add text without leading white space; trailing white space is held back, since a tag may follow."""
        text = self._spaces + text
        if not self._marked:
            kept, self._spaces = text, ""
        else:
            text = text.lstrip() if self._is_first else text
            kept = text.rstrip()
            self._spaces = text[len(kept) :]
        if kept:
            self._is_first = False
            pieces.append(kind(kept))


class TemplateReply:
    """Parses an answer by the tokenizer's `response_template` (transformers 5.13 and newer)."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._begun = self._is_first = self._is_broken = False
        self._spaces = self._calls = ""

    def feed(self, text: str) -> list[Piece]:
        """Add text; return the pieces that are not held back."""
        if self._is_broken:
            return [Content(text)] if text else []
        events = [] if self._begun else list(self._parser.initial_events)
        self._begun = True
        pieces = self._pieces(events)
        try:
            return [*pieces, *self._pieces(self._parser.feed(text))]
        except Exception:  # an invalid tool call: the type depends on the repository's template
            self._is_broken = True
            return [*pieces, Content(self._calls + text)]

    def end(self) -> list[Piece]:
        """Return the pieces that were held back, at the end of the answer."""
        if self._is_broken:
            return []
        try:
            _, events = self._parser.finalize()
            return self._pieces(events)
        except Exception:  # as above
            return [Content(self._calls)] if self._calls else []

    def _pieces(self, events: Sequence[Mapping[str, Any]]) -> list[Piece]:
        pieces: list[Piece] = []
        for event in events:
            field, kind = event["field"], event["type"]
            if kind == "region_open":
                self._is_first, self._spaces, self._calls = True, "", ""
            elif kind == "region_close" and field in _CALLS:
                value = event["value"]
                pieces += [json_call(one) for one in (value if isinstance(value, list) else [value])]
            elif kind == "region_chunk" and field in _CALLS:
                self._calls += event["text"]
            elif kind == "region_chunk" and (text := self._trimmed(event["text"])):
                pieces.append(Reasoning(text) if field in _REASONING else Content(text))
        return pieces

    def _trimmed(self, text: str) -> str:
        """Strip white space around a part."""
        text = self._spaces + text
        text = text.lstrip() if self._is_first else text
        kept = text.rstrip()
        self._spaces = text[len(kept) :]
        self._is_first = self._is_first and not kept
        return kept


class SchemaReply:
    """Parses a complete answer by the tokenizer's `response_schema` (releases of transformers 5 before 5.15)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._text = tokenizer, ""

    def feed(self, text: str) -> list[Piece]:
        """Only collect the text: the parser needs all of it."""
        self._text += text
        return []

    def end(self) -> list[Piece]:
        """Return the parsed pieces; an answer that does not match the schema is content as it is."""
        try:
            return self._pieces(self._tokenizer.parse_response(self._text))
        except Exception:  # the type depends on the repository's schema
            return [Content(self._text)] if self._text else []

    @staticmethod
    def _pieces(message: Mapping[str, Any]) -> list[Piece]:
        reasoning = next((message[name] for name in _REASONING if message.get(name)), None)
        pieces: list[Piece] = [Reasoning(reasoning)] if reasoning else []
        if message.get("content"):
            pieces.append(Content(message["content"]))
        return [*pieces, *(json_call(one) for one in message.get("tool_calls") or ())]


_CALLS = ("tool_calls", "tool_call")
_REASONING = ("reasoning_content", "reasoning", "thinking")
