"""How a ratio is said: the median of the rounds' ratios, with the least and the most of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def spread(ratios: Sequence[float]) -> str:
    """`1.05 (1.03 to 1.08)`."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
