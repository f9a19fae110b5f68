"""uvicorn's HTTP/1.1 protocol, with timeouts on every wait for the client and limits on what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import heapq
import re
import select
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from .exchange import ABORT, DRAIN, GONE, RESPOND, WHOLE

WAIT_SECONDS = 75
"""How long a client may take to send the head of its next request, and to read a response.

Longer than the 60 s for which load balancers keep an idle connection for reuse.
"""

MOST_WAITING = 400
"""Most connections without a request in progress: well below the usual limit of 1024 open files per process."""

MOST_OF_A_HEAD = 64 * 1024
"""Most bytes of a request's head, many times what SageMaker allows; also of chunk extensions and trailers."""

CHUNK_FRAMING = 20
"""Bytes that a chunk may have beside its data: a size of 16 digits (clients pad it) and two line ends."""

LAST_CALL_SECONDS = 0.25
"""How long after the start of the shutdown a request may still begin on a connection."""

LOOK_SECONDS = 0.5
"""How often to check whether the client of a connection with pipelined requests has disconnected.

Such a connection is not read until its requests are answered, or its client could send requests without end.
"""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with the limits that it lacks.

    uvicorn closes a connection that is idle between two requests, but waits without limit for a first or an unfinished
    request. It does not limit the size of heads, chunk extensions and trailers either, which the parser buffers.
    """

    _is_last_call = False
    _looks: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Start the timeout; close the connections that have waited longest if there are too many."""
        super().connection_made(transport)
        self._gone: asyncio.Future[None] = self.loop.create_future()
        self._unread: asyncio.TimerHandle | None = None
        self._beside_bodies = 0
        self._running: RequestResponseCycle | None = None
        self._expects_head = True
        self._wait()
        if len(self.connections) > MOST_WAITING:
            waiting = [other for other in self.connections if isinstance(other, Connection) and other.is_waiting]
            excess = max(0, len(waiting) - MOST_WAITING)
            for other in heapq.nsmallest(excess, waiting, key=lambda other: other.waits_since):
                other.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop queued requests: the client has gone. uvicorn itself tells the request that came last."""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        self._gone.set_result(None)
        self._timer.cancel()
        if self._looks is not None:
            self._looks.cancel()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Count the bytes since the last head that are neither body data nor the framing of chunks."""
        if self._expects_head and b"pgrade" in data:
            data = _without_upgrade(data)
        self._beside_bodies += len(data)
        super().data_received(data)
        if self._beside_bodies > MOST_OF_A_HEAD and not self.transport.is_closing():
            self.send_400_response(
                f"A head, or trailers and extensions of chunks, have at most {MOST_OF_A_HEAD} bytes."
            )
        elif self._beside_bodies < 0:  # bytes saved in one block are no credit for the next
            self._beside_bodies = 0

    def _unsupported_upgrade_warning(self) -> None:
        """Close after the answer to a request for another protocol, since the parser reads nothing after it."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions = {GONE: self._gone, DRAIN: self.flow.drain, ABORT: self.transport.abort}
        self.scope["extensions"] = extensions  # type: ignore[typeddict-item] # the type knows nothing of extensions

    def on_headers_complete(self) -> None:
        if self._beside_bodies > MOST_OF_A_HEAD:  # the block may hold the body too, so measure the headers
            _refuse_long(self.headers, len(self.url))
        self._expects_head = False
        super().on_headers_complete()
        self.scope["extensions"][RESPOND] = functools.partial(_respond, self.cycle)  # type: ignore[assignment]
        if self.scope["http_version"] < "1.1":
            _answer_http_1_0(self.cycle)
        if not self.pipeline:
            self._running = self.cycle
        elif self._looks is None:
            self._look_for_client()
        self.headers = []  # trailers go here: without it they would be added to the request's headers
        self._beside_bodies = 0
        self.waits_since = time.monotonic()
        if self._is_last_call:
            self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        """Called for each chunk, including the empty last one."""
        self._beside_bodies -= CHUNK_FRAMING

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._beside_bodies -= len(body)
        if not self.cycle.response_complete:
            self.waits_since = time.monotonic()

    def on_message_complete(self) -> None:
        """The request is complete. Resume reading, to notice when the client disconnects."""
        self._expects_head = True
        if self.headers:
            _refuse_long(self.headers)
        super().on_message_complete()
        self.scope["extensions"][WHOLE] = self.cycle.body  # type: ignore[assignment]
        self._beside_bodies = 0
        if not self.pipeline:
            self.flow.resume_reading()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered: none has arrived, or its head or body is incomplete."""
        return self._has_no_request or (self.cycle.more_body and not self.pipeline)

    @property
    def _has_no_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def on_response_complete(self) -> None:
        self.waits_since = time.monotonic()
        if self.pipeline:
            self._running, _ = self.pipeline[-1]
        super().on_response_complete()

    def _look_for_client(self) -> None:
        """Close the connection if the client has closed its side, which POLLRDHUP tells without reading."""
        self._looks = None
        if not self.pipeline or self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        if poll.poll(0):
            self.transport.close()
        else:
            self._looks = self.loop.call_later(LOOK_SECONDS, self._look_for_client)

    def pause_writing(self) -> None:
        """Close the connection after a timeout if the client does not read: its response holds a place meanwhile."""
        super().pause_writing()
        self._unread = self.loop.call_later(WAIT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _wait(self) -> None:
        self.waits_since = time.monotonic()
        self._timer = self.loop.call_later(WAIT_SECONDS, self._leave_if_waiting)

    def _leave_if_waiting(self) -> None:
        left = self.waits_since + WAIT_SECONDS - time.monotonic()
        if self._has_no_request and left <= 0:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(max(left, 1), self._leave_if_waiting)

    def shutdown(self) -> None:
        """Shut down: the request that has arrived, or is on its way, is the last one.

        uvicorn would close connections without a request at once. If request bytes were already in the socket, the
        client would get a connection reset.
        """
        self._is_last_call = True
        if self._has_no_request:
            self.loop.call_later(LAST_CALL_SECONDS, self._end_last_call)
        else:
            self.cycle.keep_alive = False

    def _end_last_call(self) -> None:
        if self._has_no_request:
            self.transport.close()


_UPGRADE = re.compile(rb"(?<=\r\n)upgrade(?=:)", re.IGNORECASE)


def _without_upgrade(data: bytes) -> bytes:
    """Rename the header by which a client asks for another protocol, such as HTTP/2, in the head that data begins with.

    A server may ignore it. The parser would read no body, and Java's HTTP client sends it with each request.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"x-ignored-upgrade", head) + end + rest


def _refuse_long(headers: list[tuple[bytes, bytes]], size: int = 0) -> None:
    """Raise an error if the headers are too long. uvicorn answers an error in a parser callback with 400."""
    if size + sum(len(name) + len(value) + len(": \r\n") for name, value in headers) > MOST_OF_A_HEAD:
        raise ValueError(f"more than {MOST_OF_A_HEAD} bytes of headers")


SO_ATTACH_FILTER = 26
"""The value in asm-generic/socket.h; Python's socket module lacks it."""

_DROP_SYN = (  # classic BPF instructions, see linux/filter.h: code, jump if true, jump if false, value
    (0x30, 0, 0, 13),  # load the byte with the flags of the TCP header
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def refuse_newcomers(listener: socket.socket) -> None:
    """Drop new handshakes of a listening socket, while those already begun can complete and be accepted.

    Closing the socket alone resets connections in its backlog, and there are always some while clients keep connecting.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    pointer = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    with contextlib.suppress(OSError):  # a reimplementation of Linux's system calls may lack socket filters
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)


def _answer_http_1_0(cycle: RequestResponseCycle) -> None:
    """Make a cycle answer HTTP/1.0, which has no chunks and no `100 Continue` (RFC 9110, section 10.1.1)."""
    cycle.waiting_for_100_continue = False
    cycle.send = functools.partial(_send_until_close, cycle, cycle.send)  # type: ignore[method-assign]


async def _send_until_close(cycle: RequestResponseCycle, send: Callable[[Any], Awaitable[None]], message: Any) -> None:
    """Send a response whose end, if it has no length, is the end of the connection; uvicorn would send chunks."""
    if message["type"] == "http.response.body":
        cycle.expected_content_length = len(message["body"])
    elif b"content-length" not in dict(message["headers"]):
        cycle.chunked_encoding = False
    await send(message)


async def _respond(cycle: RequestResponseCycle, status: int, content_type: str, body: bytes) -> None:
    """Do in one write what two calls of `cycle.send` do with the head and the body of a response."""
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if cycle.disconnected:
        return
    if cycle.waiting_for_100_continue and cycle.more_body:
        cycle.keep_alive = False  # the client need not send the body, so the next bytes may be a body or a request
    end = b"" if cycle.keep_alive else b"connection: close\r\n"
    names = b"content-length: %d\r\ncontent-type: %b\r\n" % (len(body), content_type.encode("latin-1"))
    defaults = b"".join(b"%b: %b\r\n" % header for header in cycle.default_headers)  # the date
    head = b"".join((STATUS_LINE[status], defaults, names, end, b"\r\n"))
    cycle.transport.writelines([head] if cycle.scope["method"] == "HEAD" else [head, body])
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
