"""The next token of each text, from the model's scores and from what its request asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ModelFailedError, panics_are_errors
from .choosing import choose
from .texts import Text

Chosen = tuple[Text, "int | Exception", Any]
"""A text, its next token or the error of its choice, and a row of log probabilities if the request reports them."""


def next_tokens(texts: Sequence[Text], scores: Any) -> list[Chosen]:
    """Choose the next token of each text from its row of scores."""
    raw = scores
    short = [number for number, text in enumerate(texts) if len(text.row.tokens) < text.least]
    if short or any(text.processors for text in texts):
        scores = scores.clone()
    _rule_ends_out(texts, scores, short)
    failed: dict[int, Exception] = {}
    for number, text in enumerate(texts):
        if text.processors:
            try:
                with panics_are_errors():
                    scores[number : number + 1] = _processed(text, scores[number : number + 1])
            except Exception as error:
                failed[number] = error
    chances = [text.row.asked.plan.chance if text.row.asked.plan else None for text in texts]
    draws = [text.draw() if chance else 0.0 for text, chance in zip(texts, chances, strict=True)]
    likelihoods = _likelihoods(texts, raw)
    return [
        (text, failed.get(number) or (_no_numbers() if token is None else token), likelihoods.get(number))
        for number, (text, token) in enumerate(zip(texts, choose(scores, chances, draws), strict=True))
    ]


def _rule_ends_out(texts: Sequence[Text], scores: Any, rows: Sequence[int]) -> None:
    """Make the EOS tokens of texts that are too short impossible, for all texts with the same ones at once."""
    by_ends: dict[frozenset[int], list[int]] = {}
    for number in rows:
        by_ends.setdefault(texts[number].row.asked.ends, []).append(number)
    for ends, numbers in by_ends.items():
        for end in ends:
            scores[numbers, end] = float("-inf")


def _processed(text: Text, scores: Any) -> Any:
    import torch

    tokens = torch.tensor([text.tokens], device=scores.device)
    for processor in text.processors:
        scores = processor(tokens, scores)
    return scores


def _likelihoods(texts: Sequence[Text], scores: Any) -> dict[int, Any]:
    """Return the log probabilities for texts that report them; `scores` are those before logits processors."""
    wanted = [number for number, text in enumerate(texts) if text.row.asked.likely is not None]
    if not wanted:
        return {}
    found = scores[wanted].log_softmax(-1)
    return {number: found[row : row + 1] for row, number in enumerate(wanted)}


def _no_numbers() -> Exception:
    return ModelFailedError(
        400,
        "refused-by-model",
        "the model has no token that may come next: its scores are no numbers, or what was asked for allows none",
    )
