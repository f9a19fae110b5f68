"""Groups texts of similar length into batches, and pads their tokens on the tokenizer's padding side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .ending import check

MOST_TOGETHER = 32
"""Most texts in one batch."""

_BATCH_TOKENS = 16_384
"""About the most tokens in one batch, padding included."""

_CALL_ON_CPU, _CALL_ON_GPU = 64, 4096
"""Fixed cost of a model call, as the tokens processed in the same time: padding up to this saves another call."""

_SHARE = 8
"""Padding of up to an eighth of the batch's tokens is accepted, whatever a call costs."""

Tokens = Mapping[str, list[int]]
"""A tokenizer's output for one text, such as `input_ids`."""


def worth_a_call(device: Any) -> int:
    """Return how many tokens of padding cost no more than another call of the model."""
    return _CALL_ON_CPU if device.type == "cpu" else _CALL_ON_GPU


def together(lengths: Sequence[int], most: int, spare: int) -> list[int]:
    """Return the indices of a batch with the first text and those nearest to it in length, at most `most` in all.

    All are padded to the longest. A text is added while the padding stays within `spare` tokens or within a small share
    of the batch, and the batch within `_BATCH_TOKENS`.
    """
    chosen, longest, total = [0], lengths[0], lengths[0]
    for index in sorted(range(1, len(lengths)), key=lambda index: abs(lengths[index] - lengths[0])):
        padded = max(longest, lengths[index]) * (len(chosen) + 1)
        read = total + lengths[index]
        if len(chosen) >= most or padded > _BATCH_TOKENS or padded - read > max(spare, read // _SHARE):
            break
        chosen.append(index)
        longest, total = max(longest, lengths[index]), read
    return chosen


def batches(lengths: Sequence[int], most: int, spare: int) -> Iterator[list[int]]:
    """Yield the indices of the texts of each batch, the longest texts first."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    while order:
        check()
        # Sorted by length, the texts nearest to the longest directly follow it.
        chosen = together([lengths[index] for index in order[:most]], most, spare)
        yield [order[index] for index in chosen]
        order = order[len(chosen) :]


def tensors(tokenizer: Any, texts: Sequence[Tokens], device: Any) -> dict[str, Any]:
    """Return padded tensors of the texts' tokens, with their attention mask."""
    import torch

    left = tokenizer.padding_side == "left"
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    longest = max(len(one["input_ids"]) for one in texts)
    names = {name for one in texts for name in one}
    made = {name: torch.full((len(texts), longest), fill.get(name, 0)) for name in names}
    made["attention_mask"] = torch.zeros((len(texts), longest), dtype=torch.long)
    for row, one in enumerate(texts):
        length = len(one["input_ids"])
        columns = slice(longest - length, longest) if left else slice(length)
        made["attention_mask"][row, columns] = 1
        for name, values in one.items():
            made[name][row, columns] = torch.tensor(values)
    return {name: value.to(device) for name, value in made.items()}
