"""uvicorn's server, which drains the backlog of connections at its end, and leaves signals to the process."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Generator
from typing import Any

import uvicorn

from .connections import WAIT_SECONDS, Connection, refuse_newcomers

DRAIN_SECONDS = 25
"""How long requests in flight may take after SIGTERM. SageMaker sends SIGKILL after 30 s."""

HANDSHAKE_SECONDS = 0.1
"""How long the TCP handshake of a connection begun before SIGTERM may take."""

ACCEPT_SECONDS = 2
"""How long to accept connections from the backlog, one per turn of the event loop."""


class Server(uvicorn.Server):
    """uvicorn's server without its signal handling, which would end the process by the signal, not with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections in the backlog first: closing the listening sockets would reset them."""
        listeners = [listener for server in self.servers for listener in server.sockets]
        for listener in listeners:
            refuse_newcomers(listener)
        end = time.monotonic() + ACCEPT_SECONDS
        await asyncio.sleep(HANDSHAKE_SECONDS)
        while select.select(listeners, [], [], 0)[0] and time.monotonic() < end:
            await asyncio.sleep(0.01)
        for server in self.servers:
            server.close()
        await asyncio.sleep(0)  # the connection accepted last gets its protocol object
        await super().shutdown(sockets)


def server_of(app: Any, port: int) -> Server:
    """Make the server of an ASGI application."""
    return Server(
        uvicorn.Config(
            app,
            host="0.0.0.0",  # noqa: S104 - SageMaker reaches the container from outside
            port=port,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the client's address is not used, and reading it costs time
            timeout_keep_alive=WAIT_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS - ACCEPT_SECONDS,
        )
    )
