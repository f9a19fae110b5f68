"""Runs the long operations of a model in parts, so that an inference can also be ended inside one layer.

One layer over 400 s of sound, or over an image of four million pixels, takes many seconds on a CPU, and most of them in
one call of torch. Inside `in_parts`, `check` is called before each operation of torch, and a convolution, an attention
or a multiplication that takes long is computed piece by piece, with a `check` before each piece.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from .ending import check

MOST_AT_ONCE = 5_000_000_000
"""Multiplications of one piece: 0.1 to 0.5 s on two cores."""

LEAST_OF_AN_ELEMENT = 64
"""Multiplications that an element of a result counts as at least: to write it, and to get the memory for it."""

LARGE = 1 << 18
"""Smallest number of elements of a tensor whose operations are watched: to watch one takes 2 us, a tenth of it."""


def is_large(arguments: Sequence[Any], options: Mapping[str, Any], tensor: type) -> bool:
    """Whether a module works on a tensor that is large enough for `in_parts`, in the memory of a CPU.

    It works on its first argument, or on options: a decoder is given all that its encoder made, for each token.
    """
    if arguments:
        value = arguments[0]
        return isinstance(value, tensor) and value.numel() >= LARGE and value.device.type == "cpu"  # type: ignore[attr-defined]
    for name, value in options.items():
        if isinstance(value, tensor) and value.numel() >= LARGE and not name.startswith("encoder_"):  # type: ignore[attr-defined]
            return bool(value.device.type == "cpu")  # type: ignore[attr-defined]
    return False


def in_parts() -> AbstractContextManager[Any]:
    """Return a context in which long operations of this thread run in parts."""
    context: AbstractContextManager[Any] = _mode()()
    return context


@functools.lru_cache
def _mode() -> Any:
    """Return the class of the context, which torch's own makes: torch is imported late."""
    import torch
    from torch.overrides import TorchFunctionMode

    functional = torch.nn.functional
    parts: dict[Any, Callable[..., Any]] = {
        functional.linear: _linear,
        functional.scaled_dot_product_attention: _attention,
        **dict.fromkeys((functional.conv1d, functional.conv2d, functional.conv3d), _convolution),
        **dict.fromkeys((functional.gelu, functional.silu, functional.softmax), _of_rows),
        **dict.fromkeys((torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__), _product),
    }

    class InParts(TorchFunctionMode):  # type: ignore[misc]
        """Sees each call of torch, before the thread enters it."""

        def __torch_function__(
            self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            check()
            part = parts.get(function)
            if part is not None and args:
                return part(function, *args, **(kwargs or {}))
            return function(*args, **(kwargs or {}))

    return InParts


def _in_pieces(piece: Callable[[int, int], Any], dimension: int, length: int, multiplications: int) -> Any:
    """Compute a result piece by piece, each from a begin to an end of a dimension; checks before each of them.

    The pieces are written into one tensor: to concatenate them would hold all of them twice.
    """
    pieces = max(1, min(length, math.ceil(multiplications / MOST_AT_ONCE)))
    step = max(1, math.ceil(length / pieces))
    made = None
    for begin in range(0, length, step):
        check()
        part = piece(begin, min(length, begin + step))
        if made is None:
            shape = list(part.shape)
            shape[dimension] = length
            made = part.new_empty(shape)
        made.narrow(dimension, begin, part.shape[dimension]).copy_(part)
    return made


def _is_short(multiplications: int) -> bool:
    return multiplications <= MOST_AT_ONCE


def _linear(function: Any, given: Any, weight: Any, bias: Any = None) -> Any:
    multiplications = given.numel() * weight.shape[0]
    if _is_short(multiplications):
        return function(given, weight, bias)
    rows = given.reshape(-1, given.shape[-1])

    def piece(begin: int, end: int) -> Any:
        return function(rows[begin:end], weight, bias)

    return _in_pieces(piece, 0, rows.shape[0], multiplications).reshape(*given.shape[:-1], weight.shape[0])


def _of_rows(function: Any, given: Any, *more: Any, **options: Any) -> Any:
    """Apply an activation, or a softmax over the last dimension."""
    multiplications = given.numel() * LEAST_OF_AN_ELEMENT
    if _is_short(multiplications) or more or given.dim() < 2 or options.get("dim", -1) != -1 or options.get("inplace"):
        return function(given, *more, **options)

    def piece(begin: int, end: int) -> Any:
        return function(given.narrow(-2, begin, end - begin), **options)

    return _in_pieces(piece, -2, given.shape[-2], multiplications)


def _product(function: Any, one: Any, other: Any, **options: Any) -> Any:
    """Multiply matrices, in parts by the rows of the first one."""
    multiplications = one.numel() * other.shape[-1]
    if _is_short(multiplications) or options or one.dim() < 2 or other.dim() < 2:
        return function(one, other, **options)

    def piece(begin: int, end: int) -> Any:
        return function(one.narrow(-2, begin, end - begin), other)

    return _in_pieces(piece, -2, one.shape[-2], multiplications)


def _attention(
    function: Any, query: Any, key: Any, value: Any, attn_mask: Any = None, *more: Any, **options: Any
) -> Any:
    """Attend in parts by the rows of the query, each of which is independent of the others."""
    multiplications = query.numel() * key.shape[-2] * 2
    causal = options.get("is_causal", False) or any(more)  # what follows the mask: dropout, and whether it is causal
    if _is_short(multiplications) or (causal and (more or options.get("dropout_p"))):
        return function(query, key, value, attn_mask, *more, **options)
    options = {name: setting for name, setting in options.items() if name != "is_causal"}
    rows = query.shape[-2]

    def piece(begin: int, end: int) -> Any:
        mask = attn_mask
        if causal:
            mask = _causal(begin, end, key.shape[-2], query.device)
        elif mask is not None and mask.dim() > 1 and mask.shape[-2] == rows:
            mask = mask.narrow(-2, begin, end - begin)
        return function(query.narrow(-2, begin, end - begin), key, value, mask, **options)

    return _in_pieces(piece, -2, rows, multiplications)


def _causal(begin: int, end: int, columns: int, device: Any) -> Any:
    """Return the rows of the mask with which each position sees itself and those before it."""
    import torch

    return torch.arange(columns, device=device)[None] <= torch.arange(begin, end, device=device)[:, None]


def _convolution(
    function: Any,
    given: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolve in parts by the first dimension after the channels: the time of a sound, the height of an image."""
    dimensions = weight.dim() - 2
    if isinstance(padding, str) or given.dim() != weight.dim():
        return function(given, weight, bias, stride, padding, dilation, groups)
    strides, paddings, dilations = (_each(value, dimensions) for value in (stride, padding, dilation))
    step, before, width = strides[0], paddings[0], dilations[0] * (weight.shape[2] - 1) + 1
    sizes = [
        (length + 2 * around - apart * (size - 1) - 1) // skip + 1
        for length, size, skip, around, apart in zip(
            given.shape[2:], weight.shape[2:], strides, paddings, dilations, strict=True
        )
    ]
    multiplications = given.shape[0] * math.prod(sizes) * weight.shape[0] * max(weight[0].numel(), LEAST_OF_AN_ELEMENT)
    if _is_short(multiplications):
        return function(given, weight, bias, stride, padding, dilation, groups)

    def piece(begin: int, end: int) -> Any:
        first, last = begin * step - before, (end - 1) * step - before + width
        inside = given[:, :, max(first, 0) : max(last, 0)]
        missing = max(0, min(last, 0) - first), max(0, last - max(first, given.shape[2]))
        if any(missing):
            import torch

            inside = torch.nn.functional.pad(inside, (0, 0) * (dimensions - 1) + missing)
        return function(inside, weight, bias, strides, (0, *paddings[1:]), dilations, groups)

    return _in_pieces(piece, 2, sizes[0], multiplications)


def _each(value: Any, dimensions: int) -> tuple[int, ...]:
    return (int(value),) * dimensions if isinstance(value, int) else tuple(map(int, value))
