"""HTTP/1.1 as uvicorn speaks it, with an end to every wait for the other side."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import heapq
import select
import socket
import struct
import time

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from .exchange import DRAIN, GONE, RESPOND, WHOLE

WAIT_SECONDS = 75
"""How long a connection may take for the head of its next request, whatever it sends, and to read what it is sent.

Longer than the 60 s for which load balancers keep a connection that they may use again.
"""

MOST_WAITING = 400
"""Most connections that are not being answered: well below the 1024 files that a process may usually have open."""

MOST_OF_A_HEAD = 64 * 1024
"""Bytes of a head, many times what SageMaker lets through; and of what stands beside the data of chunks."""

CHUNK_FRAMING = 20
"""Bytes that a chunk may have beside its data: a size of 16 digits (clients pad it) and two ends of line."""

LAST_CALL_SECONDS = 0.25
"""How long after the server was told to end a request may still begin on a connection."""

LOOK_SECONDS = 0.5
"""How often a connection with several requests is asked whether its client has left.

It is not read meanwhile, or its client could send requests without end.
"""


class Connection(HttpToolsProtocol):
    """uvicorn ends a connection that is silent between two requests, but waits for a first or an unfinished one.

    Nor does it bound a head, extensions of chunks or trailers: the parser keeps all that it is sent of one.
    """

    _is_last_call = False
    _looks: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Make room for the newcomer, and wait for its request."""
        super().connection_made(transport)
        self._gone: asyncio.Future[None] = self.loop.create_future()
        self._unread: asyncio.TimerHandle | None = None
        self._beside_bodies = 0
        self._running: RequestResponseCycle | None = None
        self._wait()
        if len(self.connections) > MOST_WAITING:
            waiting = [other for other in self.connections if isinstance(other, Connection) and other.is_waiting]
            excess = max(0, len(waiting) - MOST_WAITING)
            for other in heapq.nsmallest(excess, waiting, key=lambda other: other.waits_since):
                other.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """No more to wait for, and nobody to answer: uvicorn knows that of the request which came last."""
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
        """Count what has come since the last head ended and is neither a body nor what its chunks need."""
        self._beside_bodies += len(data)
        super().data_received(data)
        if self._beside_bodies > MOST_OF_A_HEAD and not self.transport.is_closing():
            self.send_400_response(
                f"A head, or trailers and extensions of chunks, have at most {MOST_OF_A_HEAD} bytes."
            )
        elif self._beside_bodies < 0:  # what one block has saved is no credit for the next
            self._beside_bodies = 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {GONE: self._gone, DRAIN: self.flow.drain}  # type: ignore[dict-item] # the type knows nothing of extensions

    def on_headers_complete(self) -> None:
        if self._beside_bodies > MOST_OF_A_HEAD:  # the block may hold the body, too
            _refuse_long(self.headers, len(self.url))
        super().on_headers_complete()
        self.scope["extensions"][RESPOND] = functools.partial(_respond, self.cycle)  # type: ignore[assignment]
        if not self.pipeline:
            self._running = self.cycle
        elif self._looks is None:
            self._look_for_client()
        self.headers = []  # for the trailers, which would otherwise join the headers that the application reads
        self._beside_bodies = 0
        self.waits_since = time.monotonic()
        if self._is_last_call:
            self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        """A chunk, or the end of the last one."""
        self._beside_bodies -= CHUNK_FRAMING

    def on_body(self, body: bytes) -> None:
        """More of a body: who sends has not waited since."""
        super().on_body(body)
        self._beside_bodies -= len(body)
        if not self.cycle.response_complete:
            self.waits_since = time.monotonic()

    def on_message_complete(self) -> None:
        """The whole request is there: from now on reading finds out that its sender has left."""
        if self.headers:
            _refuse_long(self.headers)
        super().on_message_complete()
        self.scope["extensions"][WHOLE] = self.cycle.body  # type: ignore[assignment]
        self._beside_bodies = 0
        if not self.pipeline:
            self.flow.resume_reading()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered: none has come, or its head or body is unfinished."""
        return self._has_no_request or (self.cycle.more_body and not self.pipeline)

    @property
    def _has_no_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def on_response_complete(self) -> None:
        """The next request may follow."""
        self.waits_since = time.monotonic()
        if self.pipeline:
            self._running, _ = self.pipeline[-1]
        super().on_response_complete()

    def _look_for_client(self) -> None:
        """Reading would tell that the client has closed its side; the socket says so without."""
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
        """The client does not read: what it is owed keeps its place among those who are answered."""
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
        """The server ends: a request that has come, or is on its way, is the last one.

        uvicorn would close what has no request yet, whose bytes may be in the socket already: a reset for its sender.
        """
        self._is_last_call = True
        if self._has_no_request:
            self.loop.call_later(LAST_CALL_SECONDS, self._end_last_call)
        else:
            self.cycle.keep_alive = False

    def _end_last_call(self) -> None:
        if self._has_no_request:
            self.transport.close()


def _refuse_long(headers: list[tuple[bytes, bytes]], size: int = 0) -> None:
    """An error in a callback of the parser is answered with 400."""
    if size + sum(len(name) + len(value) + len(": \r\n") for name, value in headers) > MOST_OF_A_HEAD:
        raise ValueError(f"more than {MOST_OF_A_HEAD} bytes of headers")


SO_ATTACH_FILTER = 26
"""asm-generic/socket.h; Python has no name for it."""

_DROP_SYN = (  # instructions of classic BPF, see linux/filter.h: code, steps if true and if false, value
    (0x30, 0, 0, 13),  # load the byte with the flags of the TCP header
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def refuse_newcomers(listener: socket.socket) -> None:
    """Let no new handshake begin with a listening socket, while those begun can end and be accepted.

    Closing it alone resets what the kernel has connected and nobody has accepted; with connections that keep coming
    there are always some.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    pointer = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    with contextlib.suppress(OSError):  # a kernel that is not Linux's own may have no filters
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)


async def _respond(cycle: RequestResponseCycle, status: int, content_type: str, body: bytes) -> None:
    """What `cycle.send` does with the head and with the only part of a body, in one write."""
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if cycle.disconnected:
        return
    end = b"" if cycle.keep_alive else b"connection: close\r\n"
    names = b"content-length: %d\r\ncontent-type: %b\r\n" % (len(body), content_type.encode("latin-1"))
    head = b"".join((STATUS_LINE[status], names, end, b"\r\n"))
    cycle.transport.writelines([head] if cycle.scope["method"] == "HEAD" else [head, body])
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
