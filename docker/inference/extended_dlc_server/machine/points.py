"""Gives a loaded model the points at which an inference can be ended: before each layer, and inside long ones."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .ending import check
from .operations import in_parts, is_large

_watched = threading.local()


def end_at_layers(model: Any) -> None:
    """Wrap the `forward` of the model and of each layer: it checks whether to go on.

    A layer, or a module outside the layers, runs its operations in parts if it gets a large tensor. To find that out
    takes less than a microsecond.
    """
    layers = {model}
    outside = dict.fromkeys(_outside(model, layers))
    for module in outside.keys() | layers:
        module.forward = _with_points(module.forward, check if module in layers else None)


def _outside(module: Any, layers: set[Any]) -> Iterator[Any]:
    """Yield a module and those in it, down to its lists, whose elements are the layers and are added to these."""
    import torch

    yield module
    for child in module.children():
        if isinstance(child, torch.nn.ModuleList):
            layers.update(child)
        else:
            yield from _outside(child, layers)


def _with_points(forward: Callable[..., Any], look: Callable[[], None] | None) -> Callable[..., Any]:
    import torch

    tensor = torch.Tensor

    @functools.wraps(forward)
    def watched(*arguments: Any, **options: Any) -> Any:
        if look is not None:
            look()
        if not is_large(arguments, options, tensor) or getattr(_watched, "now", False):
            return forward(*arguments, **options)
        _watched.now = True
        try:
            with in_parts():
                return forward(*arguments, **options)
        finally:
            _watched.now = False

    return watched
