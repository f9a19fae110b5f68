"""A request before and after it is parsed and validated."""

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
    from ..writing.streaming import Emit
    from ..writing.texts import Writing


def truncation_header(tokens: int) -> Mapping[str, str] | None:
    """Return the response header with the number of tokens cut off, which SageMaker passes on to the client."""
    return {HEADER: f"truncated_tokens={tokens}"} if tokens else None


@dataclass(kw_only=True)
class Incoming:
    """A request before it is parsed."""

    path: str

    body: bytes

    headers: Mapping[str, str]
    """The headers, with lower-case names."""

    expected: Expected
    """The inputs and parameters that the loaded model takes."""

    share: Share | None = None
    """The request's share of the memory for decoded images and audio."""

    @functools.cached_property
    def attributes(self) -> dict[str, Any]:
        """The parsed header X-Amzn-SageMaker-Custom-Attributes."""
        return parse_attributes(self.headers.get(HEADER, ""), self.expected.parameters)

    @property
    def content_type(self) -> str | None:
        return self.headers.get("content-type")

    @property
    def is_json(self) -> bool:
        """Whether to parse the body as JSON."""
        media, _ = media_of(self.body, self.content_type, self.expected)
        return is_json(media)

    @functools.cached_property
    def document(self) -> Any:
        """The parsed JSON of the body; raises 400 if it is invalid."""
        return parse_document(self.body, self.content_type, self.expected)


@dataclass(kw_only=True)
class Prepared:
    """A validated request: the work that is left for the model, either one response or a stream of events."""

    answer: Callable[[Any], bytes] | None = None
    """Computes the response body with a copy of the model, on that copy's thread."""

    shared: Shared | None = None
    """How the request may run in a batch with others."""

    stream: Callable[[Any, Emit, threading.Event], int] | None = None
    """Replaces `answer`: emits events until generation ends or the client has gone; returns the number of tokens."""

    writing: Callable[[Emit | None], Writing] | None = None
    """Replaces both if the request can share decoding steps; called with None for a response that is not streamed."""

    content_type: str = JSON
    """The content type of the response."""

    headers: Callable[[], Mapping[str, str] | None] = lambda: None
    """Returns additional response headers; called once the response is computed."""

    tokens: Tokens = field(default_factory=Tokens)
    """Token counts for the log, filled in by the model."""

    model: str | None = None
    """The model that the request names: the name of a served adapter, or any other text, which picks none."""

    audio_seconds: float | None = None
    """Seconds of audio in the request, for the log."""
