"""HTTP/1.1 as uvicorn speaks it, with an end to every wait for the other side."""

from __future__ import annotations

import asyncio
import functools
import time

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from .exchange import GONE, RESPOND, WHOLE

WAIT_SECONDS = 75
"""How long a connection may take for the head of its next request, whatever it sends, and to read what it is sent.

Longer than the 60 s for which load balancers keep a connection that they may use again.
"""

MOST_WAITING = 400
"""Most connections without a request: well below the 1024 files that a process may usually have open."""


MOST_OF_A_HEAD = 64 * 1024
"""Bytes of a request's head, many times what SageMaker lets through."""


class Connection(HttpToolsProtocol):
    """uvicorn ends a connection that is silent between two requests, but waits for a first or an unfinished one.

    Nor does it bound a head: the parser keeps all that it is sent of one.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Make room for the newcomer, and wait for its request."""
        super().connection_made(transport)
        self._gone: asyncio.Future[None] = self.loop.create_future()
        self._unread: asyncio.TimerHandle | None = None
        self._unfinished_head: int | None = None
        self._wait()
        waiting = [other for other in self.connections if isinstance(other, Connection) and other.is_waiting]
        if len(waiting) > MOST_WAITING:
            min(waiting, key=lambda other: other.waits_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """No more to wait for."""
        super().connection_lost(exc)
        self._gone.set_result(None)
        self._timer.cancel()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """More of a head, unless it ends in it."""
        super().data_received(data)
        if self._unfinished_head is not None:
            self._unfinished_head += len(data)
            if self._unfinished_head > MOST_OF_A_HEAD:
                self.send_400_response(f"The head of a request has at most {MOST_OF_A_HEAD} bytes.")

    def on_message_begin(self) -> None:
        """A head."""
        super().on_message_begin()
        self.scope["extensions"] = {GONE: self._gone}  # type: ignore[dict-item] # the type knows nothing of extensions
        self._unfinished_head = 0

    def on_headers_complete(self) -> None:
        """Its end."""
        super().on_headers_complete()
        self.scope["extensions"][RESPOND] = functools.partial(_respond, self.cycle)  # type: ignore[assignment]
        self._unfinished_head = None

    def on_message_complete(self) -> None:
        """The whole request is there: from now on reading finds out that its sender has left."""
        super().on_message_complete()
        self.scope["extensions"][WHOLE] = self.cycle.body  # type: ignore[assignment]
        if not self.pipeline:
            self.flow.resume_reading()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def on_response_complete(self) -> None:
        """The next request may follow."""
        self.waits_since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read: what it is owed keeps its place among those who are answered."""
        super().pause_writing()
        self._unread = self.loop.call_later(WAIT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _wait(self) -> None:
        self.waits_since = time.monotonic()
        self._timer = self.loop.call_later(WAIT_SECONDS, self._leave_if_waiting)

    def _leave_if_waiting(self) -> None:
        left = self.waits_since + WAIT_SECONDS - time.monotonic()
        if self.is_waiting and left <= 0:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(max(left, 1), self._leave_if_waiting)


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
