"""Recognizes errors of memory and device, raised by any library or by the user's code."""

from __future__ import annotations

from ..errors import RequestError
from .worker import FatalError


def explain_device(error: Exception) -> Exception | None:
    """Return the exception to raise instead for a memory or device error, None for other errors."""
    if _is_out_of_memory(error):
        free_memory()
        return RequestError(
            507,
            "out-of-memory",
            "this request needs more memory than the instance has: send less at once, ask for fewer new tokens, "
            "or choose a larger instance",
        )
    return FatalError(f"{type(error).__name__}: {error}") if "CUDA error" in str(error) else None


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error or one of its causes is about memory.

    transformers raises a `ValueError` from any error that occurs while it creates a tensor.
    """
    words = ("out of memory", "can't allocate memory", "not enough memory", "can't start new thread")
    seen: set[int] = set()  # user code may create a cycle of causes
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(word in str(error) for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def free_memory() -> None:
    """Collect garbage, and empty torch's cache of free GPU memory."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
