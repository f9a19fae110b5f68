"""Ends an inference that is past its deadline, or whose clients have gone, at the next layer of the model.

Every inference, and every step of a generation, passes through the model's layers. A forward hook on each layer checks
whether the result is still wanted, and raises `EndedError` if not. It costs about a microsecond per layer. It does not
depend on `generate`, so it works for every task and every release of transformers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_running = threading.local()


class EndedError(BaseException):
    """The result of the running inference is no longer wanted.

    A BaseException, so that pipelines and user code that catch `Exception` do not swallow it.
    """


@contextmanager
def running(is_over: Callable[[], bool]) -> Iterator[None]:
    """End inferences on this thread, inside the block, once `is_over` returns true."""
    _running.is_over, _running.made = is_over, 0
    try:
        yield
    finally:
        _running.is_over = None


def check() -> None:
    """Raise `EndedError` if the inference on this thread is no longer wanted."""
    is_over = getattr(_running, "is_over", None)
    if is_over is not None and is_over():
        raise EndedError


def made_so_far(amount: int) -> int:
    """Add bytes to the size of the response that this thread is making; return the sum."""
    _running.made = getattr(_running, "made", 0) + amount
    made: int = _running.made
    return made


def end_between_layers(model: Any) -> None:
    """Add forward hooks that call `check` before the model and before each of its layers."""
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
