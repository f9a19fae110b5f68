"""The end of an inference that is past its deadline, or that nobody waits for: at the next layer of the model.

Each step of a generation, and each inference that is none, passes through the model's layers. There a hook looks
whether what runs on this thread is still wanted, and raises `EndedError` where it is not. It costs about a microsecond
a layer, needs nothing of `generate`, and so works for every task and every release.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_running = threading.local()


class EndedError(BaseException):
    """Nobody wants the result any more.

    No `Exception`: pipelines and user code that catch those must not swallow it.
    """


@contextmanager
def running(is_over: Callable[[], bool]) -> Iterator[None]:
    """Inside, models that run on this thread end as soon as `is_over` says so."""
    _running.is_over, _running.made = is_over, 0
    try:
        yield
    finally:
        _running.is_over = None


def check() -> None:
    """Raise `EndedError` if what runs on this thread is over."""
    is_over = getattr(_running, "is_over", None)
    if is_over is not None and is_over():
        raise EndedError


def made_so_far(amount: int) -> int:
    """How many bytes what runs on this thread has made of its answer, with so many more."""
    _running.made = getattr(_running, "made", 0) + amount
    made: int = _running.made
    return made


def end_between_layers(model: Any) -> None:
    """Let `check` be asked before the model and before each of its layers."""
    import torch

    def look(*_: Any) -> None:
        check()

    def visit(module: Any) -> None:
        for child in module.children():
            if isinstance(child, torch.nn.ModuleList):
                for layer in child:
                    layer.register_forward_pre_hook(look)
            else:
                visit(child)

    model.register_forward_pre_hook(look)
    visit(model)
