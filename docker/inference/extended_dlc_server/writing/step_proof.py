"""The test at the start: whether texts that share steps are as the same ones alone, and how fast prompts are read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .comparing import same, tolerance_of
from .forward_pass import ForwardPass
from .row_cache import new_cache

_PIECE_SECONDS = 0.1
"""Approximate limit on the prefill in one step: running sequences wait for it."""

LEAST_PIECE, _MOST_PIECE = 64, 2048
"""Bounds of the prompt tokens in one step, which are otherwise set by `_PIECE_SECONDS`."""


class CannotShareStepsError(Exception):
    """The model or the transformers release does not support this server's cache; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What the test has measured."""

    token_bytes: int
    """Memory for the keys and values of one token."""

    piece: int
    """Prompt tokens that are read in one step."""


def prove(forward: ForwardPass, ids: Sequence[int], longest: int) -> Proof:
    """Compare sequences in shared steps with the same ones alone, and measure the speed of prefill.

    `ids` are any tokens, `longest` is the number of positions of the model. Raises `CannotShareStepsError` if the model
    does not support the scheduler.
    """
    import torch

    try:
        with torch.inference_mode():
            token_bytes = _compare(forward, list(ids), longest)
            return Proof(token_bytes=token_bytes, piece=_piece(forward, list(ids), longest))
    except CannotShareStepsError:
        raise
    except Exception as error:
        raise CannotShareStepsError(f"{type(error).__name__}: {error}") from error


def _compare(forward: ForwardPass, ids: list[int], longest: int) -> int:
    """Compare a text that is read in pieces, and one that joins it; return the bytes of a token's keys and values."""
    _check_release(forward.model)
    long = (ids * 16)[: max(4, min(16, longest - 2))]
    short = list(reversed(long))[: max(2, len(long) // 3)]
    wanted = [_alone(forward.model, tokens) for tokens in (long, short)]
    cache, piece = new_cache(), len(long) // 2
    cache.begin([piece])
    forward(cache, [long[:piece]])
    cache.reserve(len(long) - piece - 2)
    forward(cache, [long[piece:-2]])
    if len(cache) == 0 or cache.width != len(long) - 2:
        raise CannotShareStepsError("the model keeps its keys and values in no cache that it is given")
    shared = new_cache()
    shared.take_in(cache, 0)
    shared.reserve(1)
    seen = [(wanted[0][-2], forward(shared, [[long[-2]]])[0])]
    other = new_cache()
    other.begin([len(short) - 1])
    forward(other, [short[:-1]])
    shared.take_in(other, 0)
    shared.reserve(1)
    both = forward(shared, [[long[-1]], [short[-1]]])
    seen += [(wanted[0][-1], both[0]), (wanted[1][-1], both[1])]
    tolerance = tolerance_of(forward.model)
    for one, scores in seen:
        if not same(one.tolist(), scores.log_softmax(-1).tolist(), tolerance):
            raise CannotShareStepsError("texts that share steps would differ from the same ones alone")
    token_bytes: int = cache.token_bytes
    return token_bytes


def _check_release(model: Any) -> None:
    from transformers import GenerationMixin, cache_utils

    if type(model).generate is not GenerationMixin.generate:
        raise CannotShareStepsError("the model has a 'generate' of its own")
    config = model.generation_config
    if not hasattr(cache_utils, "DynamicLayer") and getattr(config, "cache_implementation", None) == "hybrid":
        raise CannotShareStepsError("the installed release masks windows of attention for a cache of its own only")


def _alone(model: Any, tokens: list[int]) -> Any:
    """Return the log probabilities after each token of a text that runs alone, without a cache."""
    import torch

    made = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False)
    return made.logits[0].float().log_softmax(-1)


def _piece(forward: ForwardPass, ids: list[int], longest: int) -> int:
    """Return how many prompt tokens the model reads in `_PIECE_SECONDS`."""
    tokens = (ids * 64)[: min(64, longest)]
    seconds = []
    for _ in range(2):  # the first run includes warm-up
        cache = new_cache()
        cache.begin([len(tokens)])
        begun = time.perf_counter()
        forward(cache, [tokens]).sum().item()
        seconds.append(time.perf_counter() - begun)
    rate = len(tokens) / min(seconds)
    return min(max(LEAST_PIECE, int(rate * _PIECE_SECONDS)), _MOST_PIECE)
