"""`GET /metrics`: the server's metrics in Prometheus' text format 0.0.4.

SageMaker scrapes it ("Amazon SageMaker AI detailed observability for inference endpoints"), and others can too. After
the prefix, names are those of vLLM where the meaning is the same. vLLM's prefix ends in a colon, which Prometheus
reserves for recording rules and which AWS's pages spell in two ways.

The labels have few values, whatever clients send: the served task, a class of HTTP status, an error code of this
server, a device number. Each number is changed by one thread only, the event loop's or that of a copy of the model. So
they need no locks, and a scrape only reads them.
"""

from __future__ import annotations

import functools
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..machine.banner import version_of
from ..machine.histograms import BATCHES, Histogram, Labels, Sample, TokenTimes, number
from ..machine.memory import container_bytes
from ..reading.tasks import KINDS

if TYPE_CHECKING:
    from ..http.exchange import Exchange
    from ..machine.worker import Worker

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "extended_dlc_"

STATUSES: Mapping[int, str] = {2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
GONE = "gone"
"""The status label of a request whose client disconnected before its response."""

OTHER = "other"
"""The label for an unknown status or task, and for error codes beyond `MOST_CODES`."""

MOST_CODES = 64
"""Most error codes with a label of their own. The server itself has fewer; user code can add any."""

_OWN_TASKS = frozenset({*KINDS, "user-code"})
_STARTED = time.time()


class Metrics:
    """Counters of requests, kept by the event loop, and gauges read from the worker at each scrape."""

    def __init__(self, worker: Worker[Any]) -> None:
        """Start with all counters at zero."""
        self._worker = worker
        self._requests: dict[tuple[str, str], int] = {}
        self._errors: dict[str, int] = {}
        self._latency, self._queued, self._computed = Histogram(), Histogram(), Histogram()
        self._batches = Histogram(BATCHES)
        self._streams = TokenTimes()
        self._prompt_tokens = self._generated_tokens = 0
        self._audio_seconds = 0.0

    def count(self, exchange: Exchange) -> None:
        """Count a finished request."""
        status = exchange.failed or exchange.status
        kind = GONE if exchange.code == "client-gone" or not status else STATUSES.get(status // 100, OTHER)
        asked = (self._task, kind)
        self._requests[asked] = self._requests.get(asked, 0) + 1
        if exchange.code is not None:
            known = exchange.code in self._errors or len(self._errors) < MOST_CODES
            code = exchange.code if known else OTHER
            self._errors[code] = self._errors.get(code, 0) + 1
        job = exchange.job
        if job is None or not job.started:
            return
        self._latency.add(exchange.milliseconds / 1000)
        self._queued.add(job.started - job.queued)
        if not job.ended:
            return
        self._computed.add(job.ended - job.started)
        self._batches.add(job.batch)
        if kind == "2xx":
            self._audio_seconds += exchange.audio_seconds or 0
        if exchange.tokens is not None:
            self._prompt_tokens += exchange.tokens.prompt or 0
            if job.writing is None:  # otherwise the scheduler has counted them
                self._generated_tokens += exchange.tokens.generated or 0

    def stream_goes_on(self, exchange: Exchange, last: float | None) -> float:
        """Time the events of a stream that has no scheduler; returns the time to pass as `last` next time."""
        now = time.perf_counter()
        self._streams.add(now, last, exchange.job.queued if exchange.job else None)
        return now

    @property
    def _task(self) -> str:
        model = self._worker.model
        return "loading" if model is None else model.task if model.task in _OWN_TASKS else OTHER

    def written(self) -> bytes:
        return "".join(_family(*family) for family in self._families()).encode()

    def _families(self) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
        requests = [("", {"task": task, "status": kind}, count) for (task, kind), count in self._requests.items()]
        yield "build_info", "gauge", "What is served, and by which releases.", [("", self._build(), 1)]
        yield "requests", "counter", "Requests that are over, by task and class of status.", requests
        errors = [("", {"code": code}, count) for code, count in self._errors.items()]
        yield "errors", "counter", "Errors that were sent, by the code of the log.", errors
        for name, (count, what) in self._counted().items():
            yield name, "counter", what, [("", {}, count)]
        for name, (value, what) in self._gauged().items():
            yield name, "gauge", what, [("", {}, value)]
        for name, (histogram, what) in self._timed().items():
            yield name, "histogram", what, histogram.samples()
        if self._worker.is_ready:  # before that, another thread may be importing torch
            yield from _of_devices()
        yield from _of_process()

    def _counted(self) -> dict[str, tuple[float, str]]:
        schedulers = self._worker.schedulers
        generated = self._generated_tokens + sum(each.times.tokens for each in schedulers)
        return {
            "prompt_tokens": (self._prompt_tokens, "Tokens of prompts and inputs of answered requests."),
            "generation_tokens": (generated, "Tokens that were generated."),
            "audio_seconds": (self._audio_seconds, "Seconds of sound in answered requests."),
            "prefix_cache_queries": (sum(each.asked_tokens for each in schedulers), "Tokens of prompts looked up."),
            "prefix_cache_hits": (sum(each.known_tokens for each in schedulers), "Those that needed no reading."),
            "num_preemptions": (sum(each.preemptions for each in schedulers), "Texts that had to wait for memory."),
        }

    def _gauged(self) -> dict[str, tuple[float, str]]:
        worker, schedulers = self._worker, self._worker.schedulers
        used, most = sum(each.used_bytes for each in schedulers), sum(each.bytes for each in schedulers)
        rows = sum(each.rows for each in schedulers)
        return {
            "model_ready": (int(worker.is_ready), "Whether /ping answers 200."),
            "model_copies": (worker.count, "Copies of the model, one on each device."),
            "num_requests_running": (worker.running, "Requests that a copy of the model is answering."),
            "num_requests_waiting": (worker.waiting, "Requests in the queue."),
            "num_sequences_running": (rows, "Texts that share the steps of the model."),
            "kv_cache_usage_perc": (used / most if most else 0, "Part of the memory for keys and values, 0 to 1."),
            "kv_cache_bytes": (used, "Bytes of keys and values of the texts that are being written."),
            "prefix_cache_bytes": (sum(each.kept_bytes for each in schedulers), "Bytes kept of texts that are over."),
            "memory_limit_bytes": (container_bytes(), "Memory that the container may use."),
        }

    def _timed(self) -> dict[str, tuple[Histogram, str]]:
        times = [each.times for each in self._worker.schedulers]
        return {
            "e2e_request_latency_seconds": (self._latency, "From a request's head to the end of its answer."),
            "request_queue_time_seconds": (self._queued, "From the queue to the model."),
            "request_inference_time_seconds": (self._computed, "On the model."),
            "request_batch_size": (self._batches, "Requests that shared the run of one; of texts, the most."),
            "time_to_first_token_seconds": (
                Histogram.together([self._streams.first, *(each.first for each in times)]),
                "From the queue to the first token of a text that shares steps, or is streamed.",
            ),
            "inter_token_latency_seconds": (
                Histogram.together([self._streams.between, *(each.between for each in times)]),
                "From one token of such a text to the next.",
            ),
        }

    def _build(self) -> Labels:
        model = self._worker.model
        pipeline = getattr(model, "pipeline", None)
        known = "" if pipeline is None else str(pipeline.model.dtype).removeprefix("torch.")
        return {**_versions(), "task": self._task, "dtype": known, "device": pipeline.device.type if pipeline else ""}


def _of_devices() -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    """Yield GPU memory by torch's allocator: querying the driver could take longer than a scrape's timeout."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    numbers = range(torch.cuda.device_count())
    for name, what, measure in (
        ("device_memory_allocated_bytes", "Memory of a GPU in tensors.", torch.cuda.memory_allocated),
        ("device_memory_reserved_bytes", "Memory of a GPU that this process holds.", torch.cuda.memory_reserved),
        ("device_memory_bytes", "Memory of a GPU.", lambda one: torch.cuda.get_device_properties(one).total_memory),
    ):
        yield name, "gauge", what, [("", {"device": str(number)}, measure(number)) for number in numbers]


def _of_process() -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    """Yield metrics of the process, named as Prometheus' client libraries do, without the prefix."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    yield "process_resident_memory_bytes", "gauge", "Resident memory.", [("", {}, resident)]
    yield "process_cpu_seconds", "counter", "Time on CPUs, of user and system.", [("", {}, time.process_time())]
    yield "process_start_time_seconds", "gauge", "When the process began, in Unix time.", [("", {}, _STARTED)]


@functools.cache
def _versions() -> dict[str, str]:
    return {"version": __version__, **{name: version_of(name) for name in ("transformers", "torch")}}


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    """Format one metric; the name of a counter gets the suffix `_total`."""
    whole = (name if name.startswith("process_") else PREFIX + name) + ("_total" if kind == "counter" else "")
    lines = [f"# HELP {whole} {what}\n# TYPE {whole} {kind}\n"]
    for suffix, labels, value in samples:
        pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{whole}{suffix}{{{pairs}}} {number(value)}\n" if pairs else f"{whole}{suffix} {number(value)}\n")
    return "".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
