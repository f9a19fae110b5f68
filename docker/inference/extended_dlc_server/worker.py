"""The one thread that owns the model, and the bounded queue in front of it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from .errors import RequestError, StartError

log = logging.getLogger(__name__)
M = TypeVar("M")


class State(Enum):
    """What `/ping` reports."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class FatalError(Exception):
    """The model can never answer again, for example after a CUDA error: raised by work, it ends the worker."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """How a piece of work may run together with others."""

    key: str
    """Equal for what may run together."""

    item: Any
    """This one's part."""

    most: int
    """The most that may run together."""

    run: Callable[[Sequence[Any]], Sequence[Any]]
    """Results for several items, an exception in place of a result for one that has none."""


class Worker(threading.Thread, Generic[M]):
    """Loads the model, then runs one piece of work after the other, or those together that may.

    A daemon: loading a large model must not keep a process alive that was told to stop.
    """

    def __init__(self, load: Callable[[], M], *, queue_length: int) -> None:
        """`load` returns the model once it has answered a warm-up request."""
        super().__init__(name="model", daemon=True)
        self._load = load
        self._length = queue_length
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self.state = State.LOADING
        self.model: M | None = None
        self.failure = ""
        self._jobs: list[Job] = []
        self._began: float | None = None

    def run(self) -> None:
        """Work until something breaks: this thread never ends in good health."""
        try:
            self.model = self._load()
            self.state = State.READY
            while True:
                self._began = None
                self._jobs = []
                self._jobs = self._take()
                self._run_together(self._jobs)
        except StartError as error:
            log.error("%s", error)
            self.fail(str(error))
        except BaseException as error:
            log.exception("the model's thread ended")
            self.fail(f"{type(error).__name__}: {error}")

    @property
    def busy_seconds(self) -> float:
        """How long the inference that runs now has been running; 0 where none does."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def submit(self, work: Callable[[], Any], shared: Shared | None = None) -> Job:
        """Queue the work from the event loop; 429 when as many wait as may. Cancelling its future drops it."""
        job = Job(work, shared, asyncio.get_running_loop())
        with self._changed:
            if self.state is not State.READY:
                raise unavailable(self.state)
            if len(self._waiting) >= self._length:
                raise queue_full(self._length)
            self._waiting.append(job)
            self._changed.notify()
        return job

    def _take(self) -> list[Job]:
        """The job that waits longest, and with it those that may share its run."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            first = self._waiting.popleft()
            jobs = [first]
            if first.shared is not None:
                fitting = [job for job in self._waiting if job.shared and job.shared.key == first.shared.key]
                for job in fitting[: first.shared.most - 1]:
                    self._waiting.remove(job)
                    jobs.append(job)
        return jobs

    def _run_together(self, jobs: list[Job]) -> None:
        """Together, or one by one when that fails: one bad input must not spoil its neighbours' answers."""
        jobs = [job for job in jobs if not job.future.cancelled()]
        for job in jobs:
            job.started, job.batch = time.perf_counter(), len(jobs)
        shared = jobs[0].shared if len(jobs) > 1 else None
        if shared is not None:
            self._began = time.monotonic()
            try:
                results = shared.run([job.shared.item for job in jobs if job.shared])
            except FatalError:
                raise
            except Exception as error:
                log.info("a batch of %d failed (%s): its requests run one by one", len(jobs), type(error).__name__)
            else:
                for job, result in zip(jobs, results, strict=True):
                    job.finish(result)
                return
        for job in jobs:
            job.batch = 1
            self._began = time.monotonic()
            job.run()

    def fail(self, reason: str) -> None:
        """Nothing will be answered any more: tell those who wait. From any thread, for this one may be stuck."""
        with self._changed:
            self.state, self.failure = State.FAILED, reason
            pending = [*self._jobs, *self._waiting]
            self._waiting.clear()
        for job in pending:
            job.fail(unavailable(State.FAILED))


class Job:
    """Work with the future that gets its result, which belongs to the event loop's thread."""

    def __init__(self, work: Callable[[], Any], shared: Shared | None, loop: asyncio.AbstractEventLoop) -> None:
        """Waiting from now on."""
        self.work, self.shared, self._loop = work, shared, loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.queued = time.perf_counter()
        self.started = self.ended = 0.0
        self.batch = 0

    def run(self) -> None:
        """Alone."""
        try:
            result = self.work()
        except FatalError:
            raise
        except Exception as error:
            self.fail(error)
        else:
            self.finish(result)

    def finish(self, result: Any) -> None:
        """Hand over a result, or the exception that stands for one."""
        self.ended = time.perf_counter()
        if isinstance(result, Exception):
            self._tell(lambda: self.future.set_exception(result))
        else:
            self._tell(lambda: self.future.set_result(result))

    def fail(self, error: Exception) -> None:
        """There is no result."""
        self.finish(error)

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
