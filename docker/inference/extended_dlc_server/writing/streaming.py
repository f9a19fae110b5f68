"""Server-sent events for generated text."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..json_text import encode_json
from ..machine.memory import ALWAYS_TAKEN, Room
from .detokenizing import Detokenizer, special_ids

if TYPE_CHECKING:
    from .generating import Likely

Emit = Callable[[bytes], None]


class LastEvent(bytes):
    """The event after which nothing of a stream is missing."""


class Unread:
    """The events of one stream that its client has not read, which share a room with all other responses."""

    def __init__(self, room: Room) -> None:
        """Start without an event."""
        self._room, self._lock = room, threading.Lock()
        self._size = self._held = 0
        self._is_over = False

    def add(self, amount: int) -> bool:
        """Count an event of so many bytes, on any thread; return whether there is room for it."""
        with self._lock:
            more = max(0, self._size + amount - ALWAYS_TAKEN) - self._held
            if self._is_over or (more > 0 and not self._room.take(more)):
                return self._is_over
            self._held += max(0, more)
            self._size += amount
            return True

    def remove(self, amount: int) -> None:
        """Release an event that was sent."""
        with self._lock:
            self._size -= amount
            self._release(max(0, self._size - ALWAYS_TAKEN))

    def end(self) -> None:
        """Release everything; later events do not count."""
        with self._lock:
            self._is_over = True
            self._release(0)

    def _release(self, held: int) -> None:
        if held < self._held:
            self._room.give_back(self._held - held)
            self._held = held


class Outbox:
    """Passes events from the models' threads to the event loop, with one wake-up for many events."""

    def __init__(self) -> None:
        self._events: deque[tuple[asyncio.Queue[bytes | None], bytes]] = deque()
        self._is_called = False

    def to(
        self,
        events: asyncio.Queue[bytes | None],
        loop: asyncio.AbstractEventLoop,
        unread: Unread,
        abort: Callable[[], None],
    ) -> Emit:
        """Return a function that puts an event into a queue of the loop, from any thread.

        Where clients leave too much unread, it calls `abort` on the loop, and raises an error that ends the generation.
        """

        def emit(made: bytes) -> None:
            if not unread.add(len(made)):
                loop.call_soon_threadsafe(abort)
                raise RequestError(408, "client-gone", "the client has not read the events of its stream")
            self._events.append((events, made))
            if not self._is_called:
                self._is_called = True
                loop.call_soon_threadsafe(self._deliver)

        return emit

    def _deliver(self) -> None:
        self._is_called = False  # before reading the queue: an event added meanwhile schedules another call
        while self._events:
            events, made = self._events.popleft()
            events.put_nowait(made)


class StreamEndedError(Exception):
    """The client has gone: raised inside `generate`, it ends the generation at the next token."""


class TokenEvents:
    """A streamer for `generate`: one event per token, with the text that the token completes.

    The newest event is held back until the next step of the model, since the last event has additional fields.
    """

    def __init__(self, tokenizer: Any, emit: Emit, gone: threading.Event | None = None) -> None:
        """`gone` is set by the event loop's thread when the client leaves."""
        self._emit, self._gone = emit, gone
        self._text = Detokenizer(tokenizer)
        self._special = special_ids(tokenizer)
        self._held: dict[str, Any] | None = None
        self.prompt_tokens: int | None = None
        """Number of tokens of the prompt, once `generate` has begun."""
        self.tokens: list[int] = []
        self.likely: Sequence[Likely] = ()
        """The log probability of each token, if they are recorded."""

    def put(self, value: Any) -> None:
        """Called by `generate`: first with the prompt, then with new tokens."""
        if self._gone is not None and self._gone.is_set():
            raise StreamEndedError
        if self.prompt_tokens is None:
            self.prompt_tokens = int(value.shape[-1])
            return
        for token in value.reshape(-1).tolist():
            self.add(token)

    def add(self, token: int) -> None:
        self.flush()
        self.tokens.append(token)
        about = {"id": token, "text": self._text.add(token), "logprob": None, "special": token in self._special}
        self._held = {"index": len(self.tokens), "token": about, "generated_text": None, "details": None}

    def end(self) -> None:
        """Called by `generate` at the end; `finish` sends the last event, with the result."""

    def flush(self) -> None:
        """Send the event that is held back: it was not the last one."""
        if self._held is not None:
            self._emit(event(self._with_likelihood(self._held)))
            self._held = None

    def finish(self, **last: Any) -> None:
        """Send the last event: the one that is held back, with the fields in `last`."""
        held = self._with_likelihood(self._held) if self._held else {"index": 0, "token": None}
        self._emit(LastEvent(event({**held, **last})))

    def _with_likelihood(self, held: dict[str, Any]) -> dict[str, Any]:
        if len(self.likely) >= held["index"]:
            held["token"]["logprob"] = self.likely[held["index"] - 1].logprob
        return held

    @contextmanager
    def flushed_by(self, model: Any) -> Iterator[None]:
        """Call `flush` before each step of the model inside the context."""
        handle = model.register_forward_pre_hook(lambda *_: self.flush())
        try:
            yield
        finally:
            handle.remove()


def event(data: Any, name: str = "") -> bytes:
    """Encode an event: one `data` line is enough, since encoded JSON has no line breaks."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + encode_json(data) + b"\n\n"


def finish_reason(tokens: list[int], end_tokens: Any, *, stopped_by_text: bool) -> str:
    """Return TGI's `finish_reason`."""
    ends = end_tokens if isinstance(end_tokens, (list, tuple)) else [end_tokens]
    if tokens and tokens[-1] in ends:
        return "eos_token"
    return "stop_sequence" if stopped_by_text else "length"
