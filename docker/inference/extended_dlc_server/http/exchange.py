"""One HTTP request and its response, over ASGI."""

from __future__ import annotations

import asyncio
import functools
import io
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..machine.memory import ALWAYS_TAKEN, Room, container_bytes
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
"""ASGI extension of `Connection`: a future for the disconnect, which saves a task that waits for `http.disconnect`."""

WHOLE = "extended_dlc.whole"
"""ASGI extension: the body, present if all of it arrived before the application read any of it."""

RESPOND = "extended_dlc.respond"
"""ASGI extension: sends a response in one call. ASGI takes two, and uvicorn checks each character of the headers."""

ABORT = "extended_dlc.abort"
"""ASGI extension: closes the connection at once, and drops what its client has not read."""

DRAIN = "extended_dlc.drain"
"""ASGI extension: waits until the client has read enough that more may be written, or has disconnected."""

UNREAD_SHARE = 8
"""Responses that clients have not read yet may take 1/8 of the container's memory."""

_DISCARD_BYTES = 100 * MEGABYTE
"""How much of a body over the limit is read and dropped, so that the client sees the 413 and not a broken pipe."""

STALLED_SECONDS = 5
"""Seconds in which another megabyte of a body has to arrive while others wait for the memory that it holds."""

_unfinished: set[Exchange] = set()
"""Exchanges whose bodies are arriving."""


class Pace:
    """Limits how fast large bodies are read while other requests are answered: 25 MB take 40 ms of a core."""

    def __init__(self, rate: float) -> None:
        """`rate` is the sum over all bodies, in bytes per second."""
        self._rate, self._next = rate, 0.0

    async def keep(self, amount: int) -> None:
        now = time.monotonic()
        self._next = max(self._next, now) + amount / self._rate
        await asyncio.sleep(self._next - now)


@functools.cache
def unread_answers() -> Room:
    """Return the budget for large responses that clients have not read: one per connection, for about a minute."""
    return Room(container_bytes() // UNREAD_SHARE, "answers")


_releases: set[asyncio.Task[None]] = set()
"""Tasks that wait for clients to read. An event loop holds only weak references to its tasks."""


class ClientGoneError(Exception):
    """The client closed the connection before its response."""


class Exchange:
    """One HTTP request and its response, with the facts that the log and the metrics report."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the arguments of an ASGI application; read and send nothing yet."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.gone: asyncio.Future[None] = scope["extensions"][GONE]
        """Done when the client has closed the connection."""
        self._receive, self._send = receive, send
        self._extensions = scope["extensions"]
        self._started = time.perf_counter()
        self.began = time.monotonic()
        """When the request's head was complete, by `time.monotonic`, which deadlines use."""
        self.status = 0
        self.bytes_in = self.bytes_out = 0
        self.code: str | None = None
        self.failed = 0
        """The status of an error that was sent. In a stream it differs from `status`, which was sent before."""
        self.route: Route | None = None
        """The route, once it is known. It decides the form of error bodies."""
        self.job: Job | None = None
        self.audio_seconds: float | None = None
        self.tokens: Tokens | None = None
        self._held = 0
        self._mark, self._marked_at = 0, self.began
        """How much of the body had arrived when its last megabyte was complete, and when that was."""

        self._give_up: Callable[[], None] = lambda: None

    def abort(self) -> None:
        """Close the connection at once, and drop what the client has not read."""
        self._extensions[ABORT]()

    @property
    def milliseconds(self) -> float:
        """Milliseconds since the request's head was complete."""
        return (time.perf_counter() - self._started) * 1000

    async def read_body(self, limit: int, seconds: float, room: Room, pace: Pace | None = None) -> bytes:
        """Read the whole body; raise 413 if it is over `limit`, 408 if it is slower than `seconds`.

        Raises 429 if `room` has not enough bytes left. `let_go` releases the bytes that the body takes of it.
        """
        whole = self._extensions.get(WHOLE)
        if whole is not None:
            if len(whole) > min(limit, ALWAYS_TAKEN):
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

        # asyncio.wait_for would create a task, which costs a tenth of a short request.
        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        self._give_up = give_up
        _unfinished.add(self)
        try:
            return await self._read(limit, room, pace)
        except asyncio.CancelledError:
            if not too_slow:
                raise
            raise RequestError(
                408,
                "body-too-slow",
                f"the body has not arrived within {seconds:g} s, or stands still while others wait for its memory: "
                "send it faster, or raise EXTENDED_DLC_BODY_SECONDS",
            ) from None
        finally:
            timer.cancel()
            _unfinished.discard(self)

    def let_go(self, room: Room) -> None:
        """Release the bytes that the body has taken of `room`."""
        room.give_back(self._held)
        self._held = 0

    async def _read(self, limit: int, room: Room, pace: Pace | None) -> bytes:
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            waits = self.headers.get("expect", "").lower() == "100-continue"
            if waits or int(announced) > _DISCARD_BYTES:
                raise _too_large(limit)
        # BytesIO.getvalue shares its buffer; joining a list of chunks would hold the body twice.
        body = io.BytesIO()
        refusal: RequestError | None = None
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            self.bytes_in += len(chunk)
            if self.bytes_in - self._mark >= MEGABYTE:
                self._mark, self._marked_at = self.bytes_in, time.monotonic()
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
            if pace and self.bytes_in > ALWAYS_TAKEN:
                await pace.keep(len(chunk))
        if refusal is not None:
            raise refusal
        return body.getvalue()

    def _hold(self, room: Room) -> bool:
        """Reserve room for the bytes received so far; return whether there was enough."""
        more = self.bytes_in - self._held
        if self.bytes_in <= ALWAYS_TAKEN:
            return True
        while not room.take(more):
            if not _displace_stalled(room):
                return False
        self._held = self.bytes_in
        return True

    async def respond(
        self, status: int, body: bytes, content_type: str = JSON, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole response. Pass `headers` if they or the content type come from user code.

        Raises 429 for a large response if the responses that other clients have not read take all the room.
        """
        if len(body) > ALWAYS_TAKEN:
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
        """Release the room once the client has read the response; a task, so that the request can end before."""
        try:
            await self._extensions[DRAIN]()
        finally:
            room.give_back(amount)

    async def _write(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None) -> None:
        if headers is None:
            await self._extensions[RESPOND](status, content_type, body)
            self.status, self.bytes_out = status, len(body)
        else:
            required = {"content-length": str(len(body)), "content-type": content_type}
            await self._begin(status, {**headers, **required})
            await self._part(body, more=False)

    async def send_event(self, event: bytes) -> None:
        """Send a server-sent event; the first one starts the response."""
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


def _displace_stalled(room: Room) -> bool:
    """Give up the body that has stood still for longest, and release its memory; return whether there was one."""
    last = time.monotonic() - STALLED_SECONDS
    stalled = [one for one in _unfinished if one._held and one._marked_at < last]
    if not stalled:
        return False
    slowest = min(stalled, key=lambda one: one._marked_at)
    slowest._give_up()
    slowest.let_go(room)
    return True


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        "body-too-large",
        f"the body is larger than {limit // MEGABYTE} MB: send less at once, or raise EXTENDED_DLC_MAX_BODY_MB",
    )
