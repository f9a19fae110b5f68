"""One HTTP request and its response, over ASGI."""

from __future__ import annotations

import asyncio
import functools
import io
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..machine.memory import Room, container_bytes
from ..reading.tokens import Tokens
from ..settings import MEGABYTE

if TYPE_CHECKING:
    from ..machine.worker import Job
    from ..routes.routes import Route

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = "application/json"

GONE = "extended_dlc.gone"
"""The extension of ASGI that our connections have: a future instead of a task that waits for `http.disconnect`."""

WHOLE = "extended_dlc.whole"
"""The one with the body, there when all of it has come before anybody has read of it: nothing to wait for."""

RESPOND = "extended_dlc.respond"
"""The one that sends a whole response at once: ASGI has two steps for it, and looks at every letter of its headers."""

DRAIN = "extended_dlc.drain"
"""The one that waits until the client has read so much that more may be written, or has left."""

ANSWER_SHARE = 8
"""The part of the container's memory that answers may take which their clients have not read is one in so many."""

_DISCARD_BYTES = 100 * MEGABYTE
"""How much of a body over the limit is read away, so that its sender reads our answer instead of a broken pipe."""


_ALWAYS_TAKEN = 64 * 1024
"""Bytes of a body that need no room: a connection has as much in its buffers."""


class Pace:
    """How fast large bodies arrive together while others are answered: to read 25 MB takes 40 ms of a core."""

    def __init__(self, rate: float) -> None:
        """`rate` is in bytes a second."""
        self._rate, self._next = rate, 0.0

    async def keep(self, amount: int) -> None:
        """Wait until so many bytes more may be read."""
        now = time.monotonic()
        self._next = max(self._next, now) + amount / self._rate
        await asyncio.sleep(self._next - now)


@functools.cache
def unread_answers() -> Room:
    """The memory for large answers that wait for their readers: each connection has one, and some a minute for it."""
    return Room(container_bytes() // ANSWER_SHARE, "answers")


_releases: set[asyncio.Task[None]] = set()
"""What waits for readers: an event loop keeps no task alive by itself."""


class ClientGoneError(Exception):
    """The client closed the connection: nobody is there to answer."""


class Exchange:
    """What came in, and what went out so far."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is read or sent yet."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.gone: asyncio.Future[None] = scope["extensions"][GONE]
        """Done when the client has closed the connection."""
        self._receive, self._send = receive, send
        self._extensions = scope["extensions"]
        self._started = time.perf_counter()
        self.began = time.monotonic()
        """When the head of the request was there, by the clock of deadlines."""
        self.status = 0
        self.bytes_in = self.bytes_out = 0
        self.code: str | None = None
        self.failed = 0
        """The status of an error that was told; of a stream that had begun, beside the one that it was sent with."""
        self.route: Route | None = None
        """Who reads the request, once that is known: how errors are written depends on it."""
        self.job: Job | None = None
        self.audio_seconds: float | None = None
        self.tokens: Tokens | None = None
        self._held = 0

    @property
    def milliseconds(self) -> float:
        """Since the head of the request was there."""
        return (time.perf_counter() - self._started) * 1000

    async def read_body(self, limit: int, seconds: float, room: Room, pace: Pace | None = None) -> bytes:
        """The whole body; 413 for one over the limit, as soon as its sender can hear it, 408 for a slow one.

        429 for one that finds no room. What it takes of that is free again after `let_go`.
        """
        whole = self._extensions.get(WHOLE)
        if whole is not None:
            if len(whole) > min(limit, _ALWAYS_TAKEN):
                return await self._read(limit, room, pace)
            self.bytes_in = len(whole)
            return bytes(whole)
        too_slow = False
        reader = asyncio.current_task()

        def give_up() -> None:
            nonlocal too_slow
            too_slow = True
            if reader:
                reader.cancel()

        # wait_for would take a task, which is a tenth of what a short request costs
        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        try:
            return await self._read(limit, room, pace)
        except asyncio.CancelledError:
            if not too_slow:
                raise
            raise RequestError(
                408,
                "body-too-slow",
                f"the body has not arrived within {seconds:g} s: send it faster, or raise EXTENDED_DLC_BODY_SECONDS",
            ) from None
        finally:
            timer.cancel()

    def let_go(self, room: Room) -> None:
        """The body is no longer held."""
        room.give_back(self._held)
        self._held = 0

    async def _read(self, limit: int, room: Room, pace: Pace | None) -> bytes:
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            waits = self.headers.get("expect", "").lower() == "100-continue"
            if waits or int(announced) > _DISCARD_BYTES:
                raise _too_large(limit)
        # a buffer that hands over what it holds: a list of chunks joined at the end would be the body twice
        body = io.BytesIO()
        refusal: RequestError | None = None
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            self.bytes_in += len(chunk)
            if self.bytes_in > limit:
                refusal = _too_large(limit)
            elif refusal is None and not self._hold(room):
                refusal = room.full()
            if refusal is None:
                body.write(chunk)
            elif self.bytes_in > max(limit, _DISCARD_BYTES):
                raise refusal
            else:
                body = io.BytesIO()
                self.let_go(room)
            if not message.get("more_body"):
                break
            if pace and self.bytes_in > _ALWAYS_TAKEN:
                await pace.keep(len(chunk))
        if refusal is not None:
            raise refusal
        return body.getvalue()

    def _hold(self, room: Room) -> bool:
        """Whether what has come so far finds room, which it then takes."""
        more = self.bytes_in - self._held
        if self.bytes_in <= _ALWAYS_TAKEN:
            return True
        if not room.take(more):
            return False
        self._held = self.bytes_in
        return True

    async def respond(
        self, status: int, body: bytes, content_type: str = JSON, headers: Mapping[str, str] | None = None
    ) -> None:
        """The whole response at once; with headers where they, or the content type, are not our own.

        429 where the answers that other clients have not read leave no room for a large one.
        """
        if len(body) > _ALWAYS_TAKEN:
            room = unread_answers()
            if not room.take(len(body)):
                raise room.full()
            try:
                await self._write(status, body, content_type, headers)
            finally:
                release = asyncio.ensure_future(self._release_when_read(room, len(body)))
                _releases.add(release)
                release.add_done_callback(_releases.discard)
        else:
            await self._write(status, body, content_type, headers)

    async def _release_when_read(self, room: Room, amount: int) -> None:
        """Beside the request, whose place is for others: what it had of the model is over."""
        try:
            await self._extensions[DRAIN]()
        finally:
            room.give_back(amount)

    async def _write(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None) -> None:
        if headers is None:
            await self._extensions[RESPOND](status, content_type, body)
            self.status, self.bytes_out = status, len(body)
        else:
            own = {"content-length": str(len(body)), "content-type": content_type}
            await self._begin(status, {**headers, **own})
            await self._part(body, more=False)

    async def send_event(self, event: bytes) -> None:
        """One more server-sent event; the first one begins the response."""
        if not self.status:
            await self._begin(200, {"content-type": "text/event-stream", "cache-control": "no-cache"})
        await self._part(event, more=True)

    async def end_events(self) -> None:
        await self._part(b"", more=False)

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
        self.status = status

    async def _part(self, body: bytes, *, more: bool) -> None:
        self.bytes_out += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        "body-too-large",
        f"the body is larger than {limit // MEGABYTE} MB: send less at once, or raise EXTENDED_DLC_MAX_BODY_MB",
    )
