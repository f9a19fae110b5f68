"""Ends an inference that is past its deadline, or whose clients have gone, at the next point of the model.

The points are the model's layers (`machine/points.py`), and where those take long, the operations of torch
(`machine/operations.py`). Neither depends on `generate`, so they work for every task and every release of transformers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        _running.is_over, _running.made = None, 0


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
