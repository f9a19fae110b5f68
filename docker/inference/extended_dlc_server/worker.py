"""The one thread that owns the model, and the bounded queue in front of it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, TypeVar

from .errors import RequestError, StartError

log = logging.getLogger(__name__)
M = TypeVar("M")
R = TypeVar("R")


class State(Enum):
    """What `/ping` reports."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class FatalError(Exception):
    """The model can never answer again, for example after a CUDA error: raised by work, it ends the worker."""


class Worker(threading.Thread, Generic[M]):
    """Loads the model, then runs one piece of work after the other.

    A daemon: loading a large model must not keep a process alive that was told to stop.
    """

    def __init__(self, load: Callable[[], M], *, queue_length: int) -> None:
        """`load` returns the model once it has answered a warm-up request."""
        super().__init__(name="model", daemon=True)
        self._load = load
        self._queue: queue.Queue[_Job[M]] = queue.Queue(queue_length)
        self._lock = threading.Lock()
        self.state = State.LOADING
        self.model: M | None = None
        self.failure = ""

    def run(self) -> None:
        """Work until something breaks: this thread never ends in good health."""
        job: _Job[M] | None = None
        try:
            model = self._load()
            self.model, self.state = model, State.READY
            while True:
                job = None
                job = self._queue.get()
                job.run(model)
        except StartError as error:
            log.error("%s", error)
            self._fail(str(error), job)
        except BaseException as error:
            log.exception("the model's thread ended")
            self._fail(f"{type(error).__name__}: {error}", job)

    def submit(self, work: Callable[[M], R]) -> asyncio.Future[R]:
        """Queue the work from the event loop; 429 when as many wait as may. Cancelling the future drops it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        job = _Job(work, loop, future)
        with self._lock:
            if self.state is not State.READY:
                raise unavailable(self.state)
            try:
                self._queue.put_nowait(job)
            except queue.Full:
                raise queue_full(self._queue.maxsize) from None
        return future

    def _fail(self, reason: str, job: _Job[M] | None) -> None:
        with self._lock:
            self.state, self.failure = State.FAILED, reason
        pending = [job] if job else []
        while not self._queue.empty():
            pending.append(self._queue.get_nowait())
        for waiting in pending:
            waiting.fail(unavailable(State.FAILED))


class _Job(Generic[M]):
    """Work with the future that gets its result, which belongs to the event loop's thread."""

    def __init__(self, work: Callable[[M], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self._work = work
        self._loop = loop
        self.future = future

    def run(self, model: M) -> None:
        if self.future.cancelled():
            return
        try:
            result = self._work(model)
        except FatalError:
            raise
        except Exception as error:
            self.fail(error)
        else:
            self._tell(lambda: self.future.set_result(result))

    def fail(self, error: Exception) -> None:
        self._tell(lambda: self.future.set_exception(error))

    def _tell(self, action: Callable[[], None]) -> None:
        def act() -> None:
            if not self.future.done():
                action()

        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            log.info("the event loop has ended: a result has no taker")


def unavailable(state: State) -> RequestError:
    """The answer to a request that comes while nothing can serve it."""
    if state is State.LOADING:
        return RequestError(503, "loading", "the model is still loading: try again when /ping answers 200")
    return RequestError(500, "model-failed", "the model can no longer answer and the server restarts: try again later")


def queue_full(length: int) -> RequestError:
    """The answer to one request too many."""
    return RequestError(
        429,
        "queue-full",
        f"{length} requests are waiting already: try again later with a growing pause, add instances, "
        "or raise EXTENDED_DLC_QUEUE_LENGTH",
    )
