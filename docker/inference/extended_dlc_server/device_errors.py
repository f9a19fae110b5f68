"""Failures of memory and device, whoever's code meets them."""

from __future__ import annotations

from .errors import RequestError
from .worker import FatalError


def explain_device(error: Exception) -> Exception | None:
    """A failure of the memory or the device, whoever's code met it."""
    if _is_out_of_memory(error):
        free_memory()
        return RequestError(
            507,
            "out-of-memory",
            "this request needs more memory than the instance has: send less at once, ask for fewer new tokens, "
            "or choose a larger instance",
        )
    return FatalError(f"{type(error).__name__}: {error}") if "CUDA error" in str(error) else None


def _is_out_of_memory(error: Exception) -> bool:
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def free_memory() -> None:
    """What nothing holds any more, on the GPUs too."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
