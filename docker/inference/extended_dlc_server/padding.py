"""Tokens of several texts as one batch: which run together, and padded on the tokenizer's side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .ending import check

MOST_TOGETHER = 32
"""Most texts in one batch of the model."""

_BATCH_TOKENS = 16_384
"""About the most tokens in one batch of the model, padding included."""

Tokens = Mapping[str, list[int]]
"""What a tokenizer makes of one text, by name."""


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """The places of texts that run together, the longest first: they need the least padding so."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    while order:
        check()
        size = max(1, min(most, _BATCH_TOKENS // max(1, lengths[order[0]])))
        chosen, order = order[:size], order[size:]
        yield chosen


def tensors(tokenizer: Any, texts: Sequence[Tokens], device: Any) -> dict[str, Any]:
    """Of texts of several lengths, with the mask that tells them from their padding."""
    import torch

    left = tokenizer.padding_side == "left"
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    longest = max(len(one["input_ids"]) for one in texts)
    names = {name for one in texts for name in one}
    made = {name: torch.full((len(texts), longest), fill.get(name, 0)) for name in names}
    made["attention_mask"] = torch.zeros((len(texts), longest), dtype=torch.long)
    for row, one in enumerate(texts):
        length = len(one["input_ids"])
        place = slice(longest - length, longest) if left else slice(length)
        made["attention_mask"][row, place] = 1
        for name, values in one.items():
            made[name][row, place] = torch.tensor(values)
    return {name: value.to(device) for name, value in made.items()}
