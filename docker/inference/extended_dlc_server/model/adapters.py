"""LoRA adapters that are served beside the model they change: a request picks one by its name, or none.

The adapters' weights are not merged: the model's layers add those of the active adapter to their own. All requests of a
batch have the same adapter, and with continuous batching each adapter has a scheduler of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import StartError
from ..files.adapters import Adapter, attach
from ..reading.parameter_types import AnyOf, Choice, Null
from ..writing.scheduler import Scheduler
from .loaded import numbers_of
from .warm_up import warm_up_request

if TYPE_CHECKING:
    from ..http.prepared import Prepared
    from ..writing.texts import Writing
    from .model import Model

log = logging.getLogger(__name__)


class Adapters:
    """The adapters of one copy of the model. Their methods run on the copy's thread."""

    def __init__(self, model: Any, found: Sequence[Adapter]) -> None:
        """Load the adapters into the layers of a transformers model, which works as before until one is used."""
        self._inner = {adapter.name: f"adapter_{number}" for number, adapter in enumerate(found)}
        self._wrapped = attach(model, {self._inner[adapter.name]: adapter for adapter in found})
        self._active: str | None = found[0].name
        self.use(None)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._inner)

    def use(self, name: str | None) -> None:
        """Make an adapter the active one, or with None the model without any."""
        if name == self._active:
            return
        if name is None:
            self._wrapped.base_model.disable_adapter_layers()
        else:
            self._wrapped.base_model.enable_adapter_layers()
            self._wrapped.set_adapter(self._inner[name])
        self._active = name

    def picked(self, prepared: Prepared) -> Prepared:
        """Return the request with the adapter that it names: it runs with it, and in batches of such requests.

        A request that names no adapter runs without any.
        """
        name = prepared.model if prepared.model in self._inner else None
        shared, writing = prepared.shared, prepared.writing

        def using(work: Callable[..., Any]) -> Callable[..., Any]:
            def run(copy: Model, *more: Any) -> Any:
                assert copy.adapters is not None  # noqa: S101 - every copy has what the first one has
                copy.adapters.use(name)
                return work(copy, *more)

            return run

        return replace(
            prepared,
            answer=prepared.answer and using(prepared.answer),
            stream=prepared.stream and using(prepared.stream),
            shared=shared and replace(shared, key=(name, shared.key), run=using(shared.run)),
            writing=writing and (lambda emit: replace(writing(emit), adapter=name)),
        )


class AdapterSteps:
    """Continuous batching with adapters: a scheduler for each, and one for the model without, in turns.

    Keys and values depend on the adapter, so each scheduler has its own, in memory that all of them share.
    """

    def __init__(self, adapters: Adapters, scheduler: Scheduler) -> None:
        """`scheduler` is that of the model without adapters, after its test."""
        names = (None, *adapters.names)
        self._adapters = adapters
        self._each = {name: scheduler.another(len(names)) for name in names}
        self._ended: list[tuple[Any, Any]] = []
        self.most, self.times = scheduler.most, scheduler.times
        self.bytes = self._sum("bytes")

    # called by the worker

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to do."""
        return any(one.is_busy for one in self._each.values())

    def has_room(self, more: int = 0) -> bool:
        """Whether another request may join, in addition to `more` that are about to."""
        return self._sum("size") + more < self.most

    def add(self, writing: Writing, job: Any) -> None:
        """Add a request to the scheduler of its adapter."""
        self._each[writing.adapter].add(writing, job)

    def step(self) -> list[tuple[Any, Any]]:
        """Let each scheduler make its step with its adapter; return each finished job with its result."""
        for name, one in self._each.items():
            if one.is_busy:
                self._adapters.use(name)
                one.running.bytes = self.bytes - self._sum("used_bytes") + one.used_bytes
                self._ended += one.step()
        ended, self._ended = self._ended, []
        return ended

    # metrics, read by any thread

    @property
    def rows(self) -> int:
        return self._sum("rows")

    @property
    def used_bytes(self) -> int:
        return self._sum("used_bytes")

    @property
    def kept_bytes(self) -> int:
        return self._sum("kept_bytes")

    @property
    def asked_tokens(self) -> int:
        return self._sum("asked_tokens")

    @property
    def known_tokens(self) -> int:
        return self._sum("known_tokens")

    @property
    def preemptions(self) -> int:
        return self._sum("preemptions")

    def _sum(self, name: str) -> int:
        return sum(getattr(one, name) for one in self._each.values())


def serve_adapters(model: Model, found: Sequence[Adapter]) -> None:
    """Load adapters into a copy of the model that is warmed up, and try each of them once; without any, do nothing."""
    if not found:
        return
    adapters = model.adapters = Adapters(model.pipeline.model, found)
    for name in adapters.names:
        adapters.use(name)
        with numbers_of(model.pipeline.model) as numbers:
            model._call(*warm_up_request(model.expected, model.pipeline))
        if is_nan := numbers.what_is_nan:
            raise StartError(f"{is_nan} of the first answer of the adapter {name} is NaN: deliver another version")
    adapters.use(None)
    if isinstance(model.steps, Scheduler) and model.writer is not None:
        model.steps = model.writer.steps = AdapterSteps(adapters, model.steps)
    table = {**model.preparation.parameters.table, "adapter_id": AnyOf((Null(), Choice(adapters.names)))}
    model.preparation.parameters.table = table
    model.expected = replace(model.expected, parameters=frozenset(table))
    log.info("requests may pick an adapter by its name as 'model' or 'adapter_id': %s", ", ".join(adapters.names))
