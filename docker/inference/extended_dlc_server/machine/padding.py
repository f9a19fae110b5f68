"""Tokens of several texts as one batch: which run together, and padded on the tokenizer's side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .ending import check

MOST_TOGETHER = 32
"""Most texts in one batch of the model."""

_BATCH_TOKENS = 16_384
"""About the most tokens in one batch of the model, padding included."""

_CALL_ON_CPU, _CALL_ON_GPU = 64, 4096
"""About the tokens that a model reads in the time that a call of it takes beside them, and the padding worth a call."""

_SHARE = 8
"""Texts of about one length run together: an eighth of what is read may be padding whatever a call takes."""

Tokens = Mapping[str, list[int]]
"""What a tokenizer makes of one text, by name."""


def worth_a_call(device: Any) -> int:
    """How many tokens of padding cost no more than another call of the model."""
    return _CALL_ON_CPU if device.type == "cpu" else _CALL_ON_GPU


def together(lengths: Sequence[int], most: int, spare: int) -> list[int]:
    """The places of what runs in one batch with the first: those nearest to it in length, at most `most`.

    They are padded to the longest. Another one joins while all padding is at most `spare`, or a small share of it all,
    and the batch is not too large for the model's memory.
    """
    chosen, longest, total = [0], lengths[0], lengths[0]
    for place in sorted(range(1, len(lengths)), key=lambda place: abs(lengths[place] - lengths[0])):
        padded = max(longest, lengths[place]) * (len(chosen) + 1)
        read = total + lengths[place]
        if len(chosen) >= most or padded > _BATCH_TOKENS or padded - read > max(spare, read // _SHARE):
            break
        chosen.append(place)
        longest, total = max(longest, lengths[place]), read
    return chosen


def batches(lengths: Sequence[int], most: int, spare: int) -> Iterator[list[int]]:
    """The places of texts that run together, the longest first."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    while order:
        check()
        # those nearest to the longest in length are the ones behind it
        chosen = together([lengths[place] for place in order[:most]], most, spare)
        yield [order[place] for place in chosen]
        order = order[len(chosen) :]


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
