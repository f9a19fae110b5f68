"""The similarity functions of sentence-transformers: a larger value means more similar."""

from __future__ import annotations

from typing import Any


def similarities(source: Any, others: Any, name: str) -> list[float]:
    """Compare a numpy vector with each of several: cosine, dot product, or a negative distance."""
    import numpy as np

    if name == "cosine":
        source = source / max(np.linalg.norm(source), 1e-12)
        others = others / np.maximum(np.linalg.norm(others, axis=-1, keepdims=True), 1e-12)
    if name in ("cosine", "dot"):
        made = others @ source
    else:
        made = -np.linalg.norm(others - source, ord=2 if name == "euclidean" else 1, axis=-1)
    found: list[float] = made.tolist()
    return found
