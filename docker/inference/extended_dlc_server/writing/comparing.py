"""Compares two answers of a model, with a tolerance for floating-point sums in another order."""

from __future__ import annotations

import math
from typing import Any


def tolerance_of(model: Any) -> float:
    """Return the relative difference that sums in another order may cause in the model's dtype.

    Twelve layers of BERT in bfloat16 differ by 1.5 epsilons of that dtype, and by 40 if the padding is not masked.
    """
    import torch

    dtype = getattr(model, "dtype", None)
    if dtype not in (torch.float16, torch.bfloat16):
        return 0.002
    step: float = torch.finfo(dtype).eps
    return 12 * step


def same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two answers are equal; their floats may differ by `tolerance` times their norm, or the norm of ones."""
    numbers: list[tuple[float, float]] = []
    if not _match(one, other, numbers):
        return False
    difference = sum((a - b) ** 2 for a, b in numbers if a != b)  # inf - inf would be NaN
    size = sum(a * a for a, _ in numbers if math.isfinite(a))
    return difference <= tolerance**2 * max(size, len(numbers))


def _match(one: Any, other: Any, numbers: list[tuple[float, float]]) -> bool:
    """Whether all but the floats is equal; pairs of floats are added to `numbers`."""
    # convert numbers and arrays of numpy and torch
    one, other = (value.tolist() if hasattr(value, "tolist") else value for value in (one, other))
    if isinstance(one, float) and isinstance(other, float):
        numbers.append((one, other))
        return True
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_match(a, b, numbers) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_match(one[key], other[key], numbers) for key in one)
    return bool(one == other)
