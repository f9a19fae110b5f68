"""A request on its way: as it came, and as it is once it has been read and checked."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..reading.attributes import HEADER, parse_attributes
from ..reading.decoding import is_json, media_of, parse_document
from ..reading.tokens import Tokens
from .exchange import JSON

if TYPE_CHECKING:
    from ..machine.memory import Share
    from ..machine.worker import Shared
    from ..reading.decoding import Expected
    from ..writing.scheduler import Writing
    from ..writing.streaming import Emit


@dataclass(kw_only=True)
class Incoming:
    """A request as it came."""

    path: str
    """Where it was sent."""

    body: bytes
    """All of it."""

    headers: Mapping[str, str]
    """Its headers, under lower-case names."""

    expected: Expected
    """What the loaded model takes."""

    share: Share | None = None
    """What it has of the memory for pixels and samples."""

    @functools.cached_property
    def attributes(self) -> dict[str, Any]:
        """What stands in the custom attributes."""
        return parse_attributes(self.headers.get(HEADER, ""), self.expected.parameters)

    @property
    def content_type(self) -> str | None:
        """What its sender says of the body."""
        return self.headers.get("content-type")

    @property
    def is_json(self) -> bool:
        """Whether the body is to be read as JSON."""
        media, _ = media_of(self.body, self.content_type, self.expected)
        return is_json(media)

    @functools.cached_property
    def document(self) -> Any:
        """What the JSON of the body holds; 400 for what is none."""
        return parse_document(self.body, self.content_type, self.expected)


@dataclass(kw_only=True)
class Prepared:
    """What is left of a request needs the model: an answer in one piece, or a stream of events."""

    answer: Callable[[Any], bytes] | None = None
    """What a copy of the model answers, on its thread."""

    shared: Shared | None = None
    """How it may run together with others."""

    stream: Callable[[Any, Emit, threading.Event], int] | None = None
    """Instead of an answer: emits events until the generation ends or the client has gone; returns its tokens."""

    writing: Callable[[Emit | None], Writing] | None = None
    """Instead of both, where its texts may share the steps of the model: what joins them, as events or in one piece."""

    content_type: str = JSON
    """What the answer is."""

    headers: Callable[[], Mapping[str, str] | None] = lambda: None
    """Headers of the answer beside our own, asked for once it is there."""

    tokens: Tokens = field(default_factory=Tokens)
    """What the answer took, for the log: filled in by the model."""

    audio_seconds: float | None = None
    """How much sound the request holds, for the log."""
