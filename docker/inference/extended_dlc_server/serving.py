"""Runs the server process: reads the environment, serves, and returns the exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import uvloop

from .errors import StartError
from .machine.cpu import set_thread_count, use_free_cores
from .machine.log import hide_requests
from .machine.memory import limit_memory
from .machine.start_time import described
from .settings import Settings, read_settings

if TYPE_CHECKING:
    from .machine.worker import Worker
    from .model.model import Model
    from .model.user_code import UserModel

FAILED_SECONDS = 5
"""How long `/ping` returns 500 before the process exits, so that SageMaker's health check sees it."""

log = logging.getLogger("extended_dlc_server")


def main(arguments: list[str]) -> int:
    """Run the server. Exit codes: 0 stopped by a signal, 1 the model failed, 2 invalid configuration."""
    # huggingface_hub reads it at import. Without it, it fetches a list of agents from the Hub and sends telemetry.
    if not os.environ.get("HF_HUB_DISABLE_TELEMETRY"):
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if os.environ["HF_HUB_DISABLE_TELEMETRY"].upper() in ("1", "ON", "YES", "TRUE"):
        os.environ.setdefault("HF_XET_TELEMETRY_ENABLED", "0")  # hf_xet has a switch of its own
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
    from .http.server import server_of
    from .machine.worker import State, Worker
    from .routes.app import App

    worker: Worker[Model | UserModel] = Worker(lambda: _load(settings, worker), queue_length=settings.queue_length)
    worker.start()
    app = App(settings, worker)
    server = server_of(app, settings.port)

    def stop() -> None:
        log.info("told to stop: finishing what is in flight")
        server.should_exit = True

    async def leave_when_failed() -> None:
        await _failure(worker, settings.request_seconds)
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


def _load(settings: Settings, worker: Worker[Model | UserModel]) -> Sequence[Model | UserModel]:
    """Load the copies of the model, on the worker's thread, and bound what this process takes beside them."""
    from .machine.devices import seen_gpus
    from .model.loading import load_model

    models = load_model(settings)
    log.info("%s", described())
    if settings.program_file is None and not settings.trust_remote_code:  # its authors need its output
        hide_requests()
    if not seen_gpus():
        worker.before_run = use_free_cores()
        if settings.program_file is None:
            limit_memory()
    return models


async def _failure(worker: Worker[Any], most_seconds: int) -> None:
    """Wait until the worker has failed; it fails too if an inference takes more than so many seconds."""
    from .machine.worker import State

    while worker.state is not State.FAILED:
        await asyncio.sleep(0.1)
        if worker.busy_seconds > most_seconds:
            log.error("an inference has taken more than %d s: it counts as stuck", most_seconds)
            worker.fail(f"an inference took more than {most_seconds} s (EXTENDED_DLC_REQUEST_SECONDS)")
