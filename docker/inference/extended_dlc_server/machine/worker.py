"""The worker: one thread per copy of the model, and one bounded queue in front of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from ..errors import ModelFailedError, RequestError, StartError, panics_are_errors
from .ending import EndedError, running
from .padding import together

log = logging.getLogger(__name__)
M = TypeVar("M")

FAILURES = 3
"""Failed requests in a row after which a health check compares the model's result with that of its warm-up."""

CHECK_SECONDS = 10
"""Least seconds between two health checks: otherwise invalid requests could keep the model busy with them."""


def longest_wait(run: float) -> float:
    """Return the seconds that a request may wait for others to join its batch, after a run of `run` seconds.

    About the cost of another run. After a short run it is as long as that run, up to 10 ms and at least 3 ms, in which
    16 small requests are answered and the next ones read. After a long one it is a twentieth of it, up to 100 ms, in
    which the audio of eight clients arrives.
    """
    return max(0.003, min(run, 0.01), min(run / 20, 0.1))


class State(Enum):
    """The worker's state, which `/ping` reports."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class FatalError(Exception):
    """The model can never answer again, for example after a CUDA error. Raised by a job, it ends the worker."""


@dataclass(kw_only=True, slots=True)
class Shared:
    """How a job may run in a batch with others."""

    key: Hashable
    """Jobs with equal keys may run in one batch."""

    item: Any
    """This job's input to the batch."""

    most: int
    """The largest batch size."""

    run: Callable[[Any, Sequence[Any]], Sequence[Any]]
    """Runs a copy of the model on several items; returns a result or an exception for each."""

    length: int = 0
    """About the number of tokens, which a batch pads to the longest; 0 where nothing is padded."""

    spare: int = 0
    """How many tokens of padding a batch may have."""


class Steps(Protocol):
    """A scheduler that generates texts step by step (continuous batching): requests may join at any step."""

    @property
    def is_busy(self) -> bool:
        """Whether any text is being generated."""

    @property
    def most(self) -> int:
        """The most requests at a time."""

    def has_room(self, more: int = 0) -> bool:
        """Whether another request may join, in addition to `more` that are about to."""

    def add(self, writing: Any, job: Job) -> None:
        """Add a request, from the next step on."""

    def step(self) -> list[tuple[Job, Any]]:
        """Generate one token of each text; return the finished jobs with their results."""


@dataclass
class Copy(Generic[M]):
    """One copy of the model, and the state of its thread."""

    model: M
    jobs: list[Job] = field(default_factory=list)
    writing: list[Job] = field(default_factory=list)
    """The jobs whose texts `steps` generates."""

    began: float | None = None
    expected: int = 1
    """The likely size of the next batch: clients that were just answered often send again, beside those waiting."""

    waits_until: float = 0.0
    """When to stop waiting for the expected requests."""

    wants: int = 0
    """The queue length at which to wake the thread; 0 while it works."""

    failures: int = 0
    """How many requests in a row the model has failed on."""

    checked: float = 0.0
    """When the last health check ran."""

    @property
    def steps(self) -> Steps | None:
        """The scheduler of its texts, if requests can share decoding steps."""
        return getattr(self.model, "steps", None)

    def note(self, result: Any) -> None:
        """Count the failures in a row; those that are the request's own fault are none of the model's."""
        if not isinstance(result, Exception):
            self.failures = 0
        elif isinstance(result, ModelFailedError) or not isinstance(result, RequestError):
            self.failures += 1

    def check_health(self) -> None:
        """After failures in a row, repeat the model's warm-up request.

        Raises `FatalError` if the result differs from that at the start.
        """
        if self.failures < FAILURES or time.monotonic() - self.checked <= CHECK_SECONDS:
            return
        check: Callable[[], str] = getattr(self.model, "why_not_healthy", lambda: "")
        reason = check()
        self.checked, self.failures = time.monotonic(), 0
        if reason:
            log.error("the model has failed on %d requests in a row, and %s", FAILURES, reason)
            raise FatalError(reason)
        log.warning("the model has failed on %d requests in a row, and answers its first one as ever", FAILURES)

    def is_over(self) -> bool:
        """Whether all clients of the running batch have gone or are past their deadlines."""
        now = time.monotonic()
        return all(job.is_over(now) for job in self.jobs)

    def writing_is_over(self) -> bool:
        """Whether all clients of the texts being generated have gone or are past their deadlines."""
        now = time.monotonic()
        return all(job.is_over(now) for job in self.writing)


class Worker(threading.Thread, Generic[M]):
    """Loads the model, then runs jobs on each copy, one after the other or in batches.

    A daemon thread, so that loading a large model does not delay the exit of a process that is shutting down.
    """

    def __init__(self, load: Callable[[], Sequence[M]], *, queue_length: int) -> None:
        """`load` returns the copies of the model once each has answered a warm-up request."""
        super().__init__(name="model", daemon=True)
        self._load = load
        self._length = queue_length
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._copies: list[Copy[M]] = []
        self.before_run: Callable[[], None] = lambda: None
        """Called on a copy's thread before each run and each step."""
        self.state = State.LOADING
        self.failure = ""

    def run(self) -> None:
        """Load the model, then serve the first copy on this thread."""
        self._until_it_breaks(self._begin)

    def _begin(self) -> None:
        self._copies = [Copy(model) for model in self._load()]
        # Imported modules and the model stay alive: without freeze, each full collection takes 0.13 s to scan them.
        gc.freeze()
        # A full collection runs only when new objects reach 25 % of those at the last one; after freeze() that base is
        # zero, so it runs now.
        gc.collect()
        self.state = State.READY
        for copy in self._copies[1:]:
            threading.Thread(target=self._until_it_breaks, args=(self._serve, copy), name="model", daemon=True).start()
        self._serve(self._copies[0])

    def _until_it_breaks(self, work: Callable[..., None], *arguments: Any) -> None:
        """Run `work`, which ends only by an error. One failed copy fails all: SageMaker restarts the container."""
        try:
            work(*arguments)
        except StartError as error:
            log.error("%s", error)
            self.fail(str(error))
        except BaseException as error:
            log.exception("a thread of the model ended")
            self.fail(f"{type(error).__name__}: {error}")

    @property
    def model(self) -> M | None:
        """The first copy, by which requests are validated; None until it is loaded."""
        return self._copies[0].model if self._copies else None

    @property
    def count(self) -> int:
        return len(self._copies)

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The number of requests that the copies are answering."""
        return sum(len({*copy.jobs, *copy.writing}) for copy in self._copies)

    @property
    def schedulers(self) -> Sequence[Any]:
        """The schedulers of the copies that have one."""
        return [copy.steps for copy in self._copies if copy.steps is not None]

    @property
    def busy_seconds(self) -> float:
        """How long the oldest running inference has been running; 0 if none runs."""
        began = [copy.began for copy in self._copies if copy.began is not None]
        return time.monotonic() - min(began) if began else 0.0

    def submit(
        self,
        work: Callable[[Any], Any],
        shared: Shared | None = None,
        *,
        writing: Any = None,
        deadline: float = math.inf,
    ) -> Job:
        """Queue a job from the event loop; raises 429 if the queue is full. Cancelling its future drops or ends it.

        `writing` replaces `work` if the request can share decoding steps. `deadline`, by `time.monotonic`, is when its
        result is no longer wanted.
        """
        job = Job(work, shared, asyncio.get_running_loop(), deadline, writing)
        with self._changed:
            if self.state is not State.READY:
                raise unavailable(self.state)
            if len(self._waiting) >= self._length:
                raise queue_full(self._length)
            self._waiting.append(job)
            # Waking a thread for fewer requests than it waits for would take the GIL from the next request's reader.
            if any(0 < copy.wants <= len(self._waiting) for copy in self._copies):
                self._changed.notify_all()
        return job

    def _serve(self, copy: Copy[M]) -> None:
        while True:
            busy = copy.steps is not None and copy.steps.is_busy
            copy.jobs = self._take_beside(copy) if busy else self._take(copy)
            self.before_run()
            if copy.jobs and copy.jobs[0].writing is not None:
                self._join(copy)
            elif copy.jobs:
                self._run_together(copy)
            copy.jobs = []
            if copy.writing:
                self._step(copy)

    def _take(self, copy: Copy[M]) -> list[Job]:
        """Wait for a job; take the oldest one and those that fit into its batch."""
        with self._changed:
            while not self._waiting or self._more_will_come(copy):
                nobody = not self._waiting
                copy.wants = 1 if nobody else copy.expected
                self._changed.wait(None if nobody else copy.waits_until - time.monotonic())
                copy.wants = 0
            return self._first_and_fitting(copy)

    def _take_beside(self, copy: Copy[M]) -> list[Job]:
        """Take jobs without waiting, while texts are generated: jobs that join, or a batch to run between two steps."""
        assert copy.steps is not None  # noqa: S101 - called for one that is busy
        with self._changed:
            if not self._waiting or (self._waiting[0].writing is not None and not copy.steps.has_room()):
                return []
            return self._first_and_fitting(copy)

    def _first_and_fitting(self, copy: Copy[M]) -> list[Job]:
        """Take the oldest job, and those that fit into its batch or can join at the same step."""
        first = self._waiting.popleft()
        jobs = [first]
        if first.writing is not None and copy.steps is not None:
            for job in [job for job in self._waiting if job.writing is not None]:
                if not copy.steps.has_room(len(jobs)):
                    break
                self._waiting.remove(job)
                jobs.append(job)
        elif first.shared is not None:
            alike = [first, *(job for job in self._waiting if job.shared and job.shared.key == first.shared.key)]
            lengths = [job.shared.length for job in alike if job.shared]
            for index in together(lengths, first.shared.most, first.shared.spare)[1:]:
                self._waiting.remove(alike[index])
                jobs.append(alike[index])
        return jobs

    def _more_will_come(self, copy: Copy[M]) -> bool:
        """Whether the oldest job should wait for others. It does not if clients send one request at a time."""
        first = self._waiting[0]
        most = first.shared.most if first.shared else 1
        if first.writing is not None and copy.steps is not None:
            most = copy.steps.most
        if len(self._waiting) >= min(copy.expected, most):
            return False
        return time.monotonic() < copy.waits_until

    def _run_together(self, copy: Copy[M]) -> None:
        """Run the jobs as a batch, or one by one if that fails, so that one bad input does not fail the others."""
        now = time.monotonic()
        late = [job for job in copy.jobs if job.deadline < now and not job.future.cancelled()]
        finish([(job, waited_too_long()) for job in late])
        jobs = copy.jobs = [job for job in copy.jobs if not job.is_over(now)]
        if not jobs:
            return
        for job in jobs:
            job.started, job.batch = time.perf_counter(), len(jobs)
        if jobs[0].shared is None or len(jobs) == 1 or not self._run_batch(copy, jobs, jobs[0].shared):
            self._run_one_by_one(copy, jobs)

    def _run_batch(self, copy: Copy[M], jobs: Sequence[Job], shared: Shared) -> bool:
        """Run jobs as one batch; return whether they have ended."""
        copy.began = time.monotonic()
        try:
            with running(copy.is_over):
                results = shared.run(copy.model, [job.shared.item for job in jobs if job.shared])
        except FatalError:
            raise
        except EndedError:
            self._ended(copy)
            finish([(job, took_too_long()) for job in jobs])
            return True
        except Exception as error:
            log.info("a batch of %d failed (%s): its requests run one by one", len(jobs), type(error).__name__)
            return False
        self._ended(copy)
        copy.failures = 0
        finish(list(zip(jobs, results, strict=True)))
        return True

    def _run_one_by_one(self, copy: Copy[M], jobs: list[Job]) -> None:
        for job in jobs:
            job.batch = 1
            copy.jobs, copy.began = [job], time.monotonic()
            with running(copy.is_over):
                result = job.run(copy.model)
            copy.jobs = jobs
            self._ended(copy)
            if not job.future.cancelled():  # the end of a stream whose client has gone is no failure
                copy.note(result)
            finish([(job, result)])
        copy.check_health()

    def _join(self, copy: Copy[M]) -> None:
        """Add the jobs to the scheduler, which generates their texts from the next step on."""
        assert copy.steps is not None  # noqa: S101 - only such a model has requests that join
        for job in copy.jobs:
            job.started = time.perf_counter()
            try:
                with panics_are_errors():
                    copy.steps.add(job.writing, job)
            except Exception as error:
                finish([(job, error)])
            else:
                copy.writing.append(job)

    def _step(self, copy: Copy[M]) -> None:
        assert copy.steps is not None  # noqa: S101 - something is being written
        copy.began = time.monotonic()
        ended: list[tuple[Job, Any]] = []
        with contextlib.suppress(EndedError), running(copy.writing_is_over):
            ended = copy.steps.step()
        now = time.monotonic()
        seconds, copy.began = now - copy.began, None
        if not ended:
            return
        for job, result in ended:
            copy.writing.remove(job)
            copy.note(result)
        copy.expected = len(ended) + len(self._waiting)
        copy.waits_until = now + longest_wait(seconds)
        finish(ended)
        copy.check_health()

    def _ended(self, copy: Copy[M]) -> None:
        """Note the end of a run. Call it before any result is sent: a client's next request would count twice."""
        now = time.monotonic()
        seconds, copy.began = now - (copy.began or now), None
        copy.expected = len(copy.jobs) + len(self._waiting)
        copy.waits_until = now + longest_wait(seconds)

    def fail(self, reason: str) -> None:
        """Stop serving and fail all pending requests. Call it from any thread: a copy's thread may be stuck."""
        with self._changed:
            self.state, self.failure = State.FAILED, reason
            begun = [job for copy in self._copies for job in (*copy.jobs, *copy.writing)]
            pending = [*dict.fromkeys(begun), *self._waiting]
            self._waiting.clear()
        finish([(job, unavailable(State.FAILED)) for job in pending])


class Job:
    """A piece of work, and the future for its result, which only the event loop's thread may touch."""

    def __init__(
        self,
        work: Callable[[Any], Any],
        shared: Shared | None,
        loop: asyncio.AbstractEventLoop,
        deadline: float = math.inf,
        writing: Any = None,
    ) -> None:
        """Record the time at which the job is queued."""
        self.writing = writing
        self.work, self.shared, self.loop, self.deadline = work, shared, loop, deadline
        self.future: asyncio.Future[Any] = loop.create_future()
        self.queued = time.perf_counter()
        self.started = self.ended = 0.0
        self.batch = 0

    def run(self, model: Any) -> Any:
        """Run the job without a batch; return its result or its error."""
        try:
            return self.work(model)
        except FatalError:
            raise
        except EndedError:
            return took_too_long()
        except Exception as error:
            return error

    def is_over(self, now: float) -> bool:
        """Whether its client has gone or its deadline has passed."""
        return self.deadline < now or self.future.cancelled()


def finish(finished: Sequence[tuple[Job, Any]]) -> None:
    """Set the results or exceptions of jobs, all in one call, because waking the event loop takes time."""
    if not finished:
        return
    now = time.perf_counter()
    for job, result in finished:
        job.ended = now
        if isinstance(result, RequestError):
            let_go_of_frames(result)
    try:
        finished[0][0].loop.call_soon_threadsafe(_settle, finished)
    except RuntimeError:
        log.info("the event loop has ended: its results have no taker")


def let_go_of_frames(error: BaseException) -> None:
    """Remove the tracebacks of an error and its causes: their frames hold the inference's tensors, maybe gigabytes.

    The coroutine that receives the error joins its traceback and also references the error. Such a cycle would free
    nothing before the next garbage collection.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__]


def _settle(finished: Sequence[tuple[Job, Any]]) -> None:
    for job, result in finished:
        if job.future.done():
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)


def unavailable(state: State) -> RequestError:
    """Return the error for a request while the model is loading or has failed."""
    if state is State.LOADING:
        return RequestError(503, "loading", "the model is still loading: try again when /ping answers 200")
    return RequestError(500, "model-failed", "the model can no longer answer and the server restarts: try again later")


def queue_full(length: int) -> RequestError:
    """Return the error for a request that finds the queue full."""
    return RequestError(
        429,
        "queue-full",
        f"{length} requests are waiting already: try again later with a growing pause, add instances, "
        "or raise EXTENDED_DLC_QUEUE_LENGTH",
    )


def waited_too_long() -> RequestError:
    """Return the error for a request whose deadline passed while it was queued."""
    return RequestError(
        429,
        "queue-full",
        "others were asked until this request's deadline: try again later with a growing pause, or add instances",
    )


def took_too_long() -> RequestError:
    """Return the error for a request that was ended at its deadline: 408, because it asks for too much work."""
    return RequestError(
        408,
        "took-too-long",
        "this request took longer than an answer may: ask for fewer new tokens, beams or labels, send less at once, "
        "ask for a stream, or raise EXTENDED_DLC_ANSWER_SECONDS (EXTENDED_DLC_STREAM_SECONDS for streams)",
    )
