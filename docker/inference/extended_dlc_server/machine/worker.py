"""The threads that own the model, one for each copy of it, and the one bounded queue in front of them."""

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

from ..errors import ModelFailedError, RequestError, StartError
from .cpu import give_back_memory
from .ending import EndedError, running
from .padding import together

log = logging.getLogger(__name__)
M = TypeVar("M")

PAUSE = 0.1
"""Seconds without a request after which what the last run needed goes back to the system."""

MOST_KEPT = 60
"""Seconds after which it does so between two runs where no pause comes: what lies in pieces adds up over hours."""

FAILURES = 3
"""Requests in a row that the model fails on, after which it is asked whether it still answers as it first did."""

CHECK_SECONDS = 10
"""Least seconds between two such questions, or bad requests could keep the model busy with them."""


def longest_wait(run: float) -> float:
    """Seconds that a request may wait for others that are likely to come, after a run that took so many.

    About what another run would cost them: as long as a short one, up to 10 ms and at least the 3 ms in which 16 small
    requests are answered and read again, and a twentieth of a long one, up to 100 ms, for the sound of eight clients
    takes as long to arrive.
    """
    return max(0.003, min(run, 0.01), min(run / 20, 0.1))


class State(Enum):
    """What `/ping` reports."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class FatalError(Exception):
    """The model can never answer again, for example after a CUDA error: raised by work, it ends the worker."""


@dataclass(kw_only=True, slots=True)
class Shared:
    """How a piece of work may run together with others."""

    key: Hashable
    """Equal for what may run together."""

    item: Any
    """This one's part."""

    most: int
    """The most that may run together."""

    run: Callable[[Any, Sequence[Any]], Sequence[Any]]
    """Results of a copy of the model for several items, an exception in place of a result for one that has none."""

    length: int = 0
    """About the tokens of it that a batch pads to those of the longest; 0 where there is nothing to pad."""

    spare: int = 0
    """How many tokens of padding a batch may have."""


class Steps(Protocol):
    """What writes texts step by step, which others may join at any of them."""

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to do."""

    @property
    def most(self) -> int:
        """How many may be."""

    def has_room(self, more: int = 0) -> bool:
        """Whether another request may join, beside so many that are about to."""

    def add(self, writing: Any, job: Job) -> None:
        """A request joins."""

    def step(self) -> list[tuple[Job, Any]]:
        """One token more of each text; each job that is over with its result."""


@dataclass
class Copy(Generic[M]):
    """One copy of the model, and what its thread is doing."""

    model: M
    jobs: list[Job] = field(default_factory=list)
    writing: list[Job] = field(default_factory=list)
    """Those whose texts grow step by step."""

    began: float | None = None
    expected: int = 1
    """How many requests the next run is likely to have: those who were just answered, or waited then, come again."""

    waits_until: float = 0.0
    """When it stops waiting for them."""

    wants: int = 0
    """How many requests it sleeps for; 0 while it works."""

    failures: int = 0
    """How many requests in a row the model has failed on."""

    checked: float = 0.0
    """When it was last asked whether it still answers as it first did."""

    @property
    def steps(self) -> Steps | None:
        """What writes its texts, where they may share steps."""
        return getattr(self.model, "steps", None)

    def is_over(self) -> bool:
        """Whether nobody waits any more for what runs: all have left, or are past their deadlines."""
        now = time.monotonic()
        return all(job.is_over(now) for job in self.jobs)

    def writing_is_over(self) -> bool:
        """The same of the texts."""
        now = time.monotonic()
        return all(job.is_over(now) for job in self.writing)


class Worker(threading.Thread, Generic[M]):
    """Loads the model, then runs one piece of work after the other on each copy, or those together that may.

    A daemon: loading a large model must not keep a process alive that was told to stop.
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
        """Called on a copy's thread before each of its runs and steps."""
        self.state = State.LOADING
        self.failure = ""

    def run(self) -> None:
        """Load, and serve the first copy on this thread."""
        self._until_it_breaks(self._begin)

    def _begin(self) -> None:
        self._copies = [Copy(model) for model in self._load()]
        # what was imported and loaded stays: to look through it for garbage takes 0.13 s, again and again
        gc.freeze()
        # and looking through all is due only once a quarter as much was made as there was the last time: now nothing is
        gc.collect()
        self.state = State.READY
        for copy in self._copies[1:]:
            threading.Thread(target=self._until_it_breaks, args=(self._serve, copy), name="model", daemon=True).start()
        self._serve(self._copies[0])

    def _until_it_breaks(self, work: Callable[..., None], *arguments: Any) -> None:
        """No copy ends in good health, and one that breaks ends all: SageMaker then starts the process again."""
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
        """The first copy, which tells what requests may hold; None until it is loaded."""
        return self._copies[0].model if self._copies else None

    @property
    def count(self) -> int:
        """How many copies there are."""
        return len(self._copies)

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def waiting(self) -> int:
        """How many requests wait for a copy."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests the copies are busy with."""
        return sum(len({*copy.jobs, *copy.writing}) for copy in self._copies)

    @property
    def schedulers(self) -> Sequence[Any]:
        """What writes the texts of each copy, where they share steps."""
        return [copy.steps for copy in self._copies if copy.steps is not None]

    @property
    def busy_seconds(self) -> float:
        """How long the longest of the inferences that run now has been running; 0 where none does."""
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
        """Queue the work from the event loop; 429 when as many wait as may. Cancelling its future drops it, or ends it.

        `writing` is what joins the steps of the model instead of the work, where its texts may. `deadline`, of
        `time.monotonic`, is when its answer is given up.
        """
        job = Job(work, shared, asyncio.get_running_loop(), deadline, writing)
        with self._changed:
            if self.state is not State.READY:
                raise unavailable(self.state)
            if len(self._waiting) >= self._length:
                raise queue_full(self._length)
            self._waiting.append(job)
            # waking a thread for less than it wants would take the interpreter from the next request
            if any(0 < copy.wants <= len(self._waiting) for copy in self._copies):
                self._changed.notify_all()
        return job

    def _serve(self, copy: Copy[M]) -> None:
        given_back = time.monotonic()
        while True:
            busy = copy.steps is not None and copy.steps.is_busy
            copy.jobs = self._take_beside(copy) if busy else self._take(copy, PAUSE)
            if not (busy or copy.jobs) or time.monotonic() - given_back > MOST_KEPT:
                give_back_memory()
                given_back = time.monotonic()
            if not (busy or copy.jobs):
                copy.jobs = self._take(copy, None)
            self.before_run()
            if copy.jobs and copy.jobs[0].writing is not None:
                self._join(copy)
            elif copy.jobs:
                self._run_together(copy)
            copy.jobs = []
            if copy.writing:
                self._step(copy)

    def _take(self, copy: Copy[M], patience: float | None) -> list[Job]:
        """The job that waits longest, and with it those that may share its run; none after a pause of such seconds."""
        with self._changed:
            while not self._waiting or self._more_will_come(copy):
                nobody = not self._waiting
                copy.wants = 1 if nobody else copy.expected
                came = self._changed.wait(patience if nobody else copy.waits_until - time.monotonic())
                copy.wants = 0
                if nobody and not came:
                    return []
            return self._first_and_fitting(copy)

    def _take_beside(self, copy: Copy[M]) -> list[Job]:
        """The same while texts are being written, without waiting: those that join, or one run between two steps."""
        assert copy.steps is not None  # noqa: S101 - called for one that is busy
        with self._changed:
            if not self._waiting or (self._waiting[0].writing is not None and not copy.steps.has_room()):
                return []
            return self._first_and_fitting(copy)

    def _first_and_fitting(self, copy: Copy[M]) -> list[Job]:
        """The job that waits longest, with those that may share its run or join the same step."""
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
            for place in together(lengths, first.shared.most, first.shared.spare)[1:]:
                self._waiting.remove(alike[place])
                jobs.append(alike[place])
        return jobs

    def _more_will_come(self, copy: Copy[M]) -> bool:
        """Whether the job that waits longest should wait for others: never where one client asks after the other."""
        first = self._waiting[0]
        most = first.shared.most if first.shared else 1
        if first.writing is not None and copy.steps is not None:
            most = copy.steps.most
        if len(self._waiting) >= min(copy.expected, most):
            return False
        return time.monotonic() < copy.waits_until

    def _run_together(self, copy: Copy[M]) -> None:
        """Together, or one by one when that fails: one bad input must not spoil its neighbours' answers."""
        now = time.monotonic()
        late = [job for job in copy.jobs if job.deadline < now and not job.future.cancelled()]
        finish([(job, waited_too_long()) for job in late])
        jobs = copy.jobs = [job for job in copy.jobs if not job.is_over(now)]
        if not jobs:
            return
        for job in jobs:
            job.started, job.batch = time.perf_counter(), len(jobs)
        shared = jobs[0].shared if len(jobs) > 1 else None
        if shared is not None:
            copy.began = time.monotonic()
            try:
                with running(copy.is_over):
                    results = shared.run(copy.model, [job.shared.item for job in jobs if job.shared])
            except FatalError:
                raise
            except EndedError:
                self._ended(copy)
                finish([(job, took_too_long()) for job in jobs])
                return
            except Exception as error:
                log.info("a batch of %d failed (%s): its requests run one by one", len(jobs), type(error).__name__)
            else:
                self._ended(copy)
                copy.failures = 0
                finish(list(zip(jobs, results, strict=True)))
                return
        for job in jobs:
            job.batch = 1
            copy.jobs, copy.began = [job], time.monotonic()
            with running(copy.is_over):
                result = job.run(copy.model)
            copy.jobs = jobs
            self._ended(copy)
            if not isinstance(result, Exception):
                copy.failures = 0
            elif isinstance(result, ModelFailedError) or not isinstance(result, RequestError):
                copy.failures += 1
            finish([(job, result)])
        if copy.failures >= FAILURES and time.monotonic() - copy.checked > CHECK_SECONDS:
            self._check_health(copy)

    def _join(self, copy: Copy[M]) -> None:
        """Their texts are written from the next step on."""
        assert copy.steps is not None  # noqa: S101 - only such a model has requests that join
        for job in copy.jobs:
            job.started = time.perf_counter()
            copy.writing.append(job)
            copy.steps.add(job.writing, job)

    def _step(self, copy: Copy[M]) -> None:
        """One token more of each text."""
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
            if not isinstance(result, Exception):
                copy.failures = 0
            elif isinstance(result, ModelFailedError) or not isinstance(result, RequestError):
                copy.failures += 1
        copy.expected = len(ended) + len(self._waiting)
        copy.waits_until = now + longest_wait(seconds)
        finish(ended)
        if copy.failures >= FAILURES and time.monotonic() - copy.checked > CHECK_SECONDS:
            self._check_health(copy)

    def _check_health(self, copy: Copy[M]) -> None:
        """Ask the model again what it was asked at the start: one that answers otherwise serves nobody any more."""
        check: Callable[[], str] = getattr(copy.model, "why_not_healthy", lambda: "")
        reason = check()
        copy.checked, copy.failures = time.monotonic(), 0
        if reason:
            log.error("the model has failed on %d requests in a row, and %s", FAILURES, reason)
            raise FatalError(reason)
        log.warning("the model has failed on %d requests in a row, and answers its first one as ever", FAILURES)

    def _ended(self, copy: Copy[M]) -> None:
        """A run is over. Noted before anybody gets an answer, or the next question would count beside its sender."""
        now = time.monotonic()
        seconds, copy.began = now - (copy.began or now), None
        copy.expected = len(copy.jobs) + len(self._waiting)
        copy.waits_until = now + longest_wait(seconds)

    def fail(self, reason: str) -> None:
        """Nothing will be answered any more: tell those who wait. From any thread, for a copy's may be stuck."""
        with self._changed:
            self.state, self.failure = State.FAILED, reason
            begun = [job for copy in self._copies for job in (*copy.jobs, *copy.writing)]
            pending = [*dict.fromkeys(begun), *self._waiting]
            self._waiting.clear()
        finish([(job, unavailable(State.FAILED)) for job in pending])


class Job:
    """Work with the future that gets its result, which belongs to the event loop's thread."""

    def __init__(
        self,
        work: Callable[[Any], Any],
        shared: Shared | None,
        loop: asyncio.AbstractEventLoop,
        deadline: float = math.inf,
        writing: Any = None,
    ) -> None:
        """It waits from now on, and until the deadline."""
        self.writing = writing
        self.work, self.shared, self.loop, self.deadline = work, shared, loop, deadline
        self.future: asyncio.Future[Any] = loop.create_future()
        self.queued = time.perf_counter()
        self.started = self.ended = 0.0
        self.batch = 0

    def run(self, model: Any) -> Any:
        """Alone; what the work returns, or its error."""
        try:
            return self.work(model)
        except FatalError:
            raise
        except EndedError:
            return took_too_long()
        except Exception as error:
            return error

    def is_over(self, now: float) -> bool:
        """Whether nobody waits for its result."""
        return self.deadline < now or self.future.cancelled()


def finish(finished: Sequence[tuple[Job, Any]]) -> None:
    """Hand over results, or the exceptions that stand for them: all at once, because waking the event loop costs."""
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
    """Of an error that is explained: its frames hold what the inference took, gigabytes where it ran out of memory.

    The coroutine that gets it becomes one of them, and holds the error: nothing is freed before garbage is looked for.
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


def waited_too_long() -> RequestError:
    """The answer to a request whose deadline came before its turn."""
    return RequestError(
        429,
        "queue-full",
        "others were asked until this request's deadline: try again later with a growing pause, or add instances",
    )


def took_too_long() -> RequestError:
    """The answer to a request that was ended at its deadline: its sender asked for more than there is time for."""
    return RequestError(
        408,
        "took-too-long",
        "this request took longer than an answer may: ask for fewer new tokens, beams or labels, send less at once, "
        "ask for a stream, or raise EXTENDED_DLC_ANSWER_SECONDS (EXTENDED_DLC_STREAM_SECONDS for streams)",
    )
