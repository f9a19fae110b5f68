"""Runs the server process: reads the environment, serves, and returns the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Generator, Sequence

import uvloop

from .errors import StartError
from .machine.cpu import set_thread_count, use_free_cores
from .machine.log import hide_requests
from .machine.memory import limit_memory
from .machine.start_time import described
from .settings import Settings, read_settings

DRAIN_SECONDS = 25
"""How long requests in flight may take after SIGTERM. SageMaker sends SIGKILL after 30 s."""

HANDSHAKE_SECONDS = 0.1
"""How long the TCP handshake of a connection begun before SIGTERM may take."""

ACCEPT_SECONDS = 2
"""How long to accept connections from the backlog, one per turn of the event loop."""

FAILED_SECONDS = 5
"""How long `/ping` returns 500 before the process exits, so that SageMaker's health check sees it."""

log = logging.getLogger("extended_dlc_server")


def main(arguments: list[str]) -> int:
    """Run the server. Exit codes: 0 stopped by a signal, 1 the model failed, 2 invalid configuration."""
    # huggingface_hub reads it at import. Without it, it fetches a list of agents from the Hub and sends telemetry.
    if not os.environ.get("HF_HUB_DISABLE_TELEMETRY"):
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if arguments not in ([], ["serve"]):
        log.error("unknown command %s: this image serves, start it with 'serve'", " ".join(arguments))
        return 2
    try:
        settings = read_settings(os.environ)
        set_thread_count(os.environ)
        if settings.program_file is None:  # a user's model_fn may need no weights
            _ = settings.model_source
    except StartError as error:
        log.error("%s", error)
        return 2
    loop = uvloop.new_event_loop()
    return loop.run_until_complete(serve(settings))


async def serve(settings: Settings) -> int:
    """Listen at once, load the model on another thread, and drain requests at the end."""
    from .machine.worker import State, Worker

    def load() -> Sequence[Model | UserModel]:
        models = load_model(settings)
        log.info("%s", described())
        if settings.program_file is None and not settings.trust_remote_code:  # its authors need its output
            hide_requests()
        if not seen_gpus():
            worker.before_run = use_free_cores()
            if settings.program_file is None:
                limit_memory()
        return models

    import uvicorn

    from .http.connections import WAIT_SECONDS, Connection, refuse_newcomers
    from .machine.devices import seen_gpus
    from .model.loading import load_model
    from .model.model import Model
    from .model.user_code import UserModel
    from .routes.app import App

    worker = Worker(load, queue_length=settings.queue_length)
    worker.start()

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

    app = App(settings, worker)
    server = Server(
        uvicorn.Config(
            app,
            host="0.0.0.0",  # noqa: S104 - SageMaker reaches the container from outside
            port=settings.port,
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

    def stop() -> None:
        log.info("told to stop: finishing what is in flight")
        server.should_exit = True

    async def leave_when_failed() -> None:
        while worker.state is not State.FAILED:
            await asyncio.sleep(0.1)
            if worker.busy_seconds > settings.request_seconds:
                log.error("an inference has taken more than %d s: it counts as stuck", settings.request_seconds)
                worker.fail(f"an inference took more than {settings.request_seconds} s (EXTENDED_DLC_REQUEST_SECONDS)")
        log.error("the model cannot answer: exiting in %d s", FAILED_SECONDS)
        await asyncio.sleep(FAILED_SECONDS)
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    beside = [loop.create_task(leave_when_failed()), loop.create_task(app.tidy_up())]
    await server.serve()
    for task in beside:
        task.cancel()
    return 1 if worker.state is State.FAILED else 0
