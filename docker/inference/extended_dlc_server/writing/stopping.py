"""Stop strings for `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MORE = 8
"""Tokens that are decoded in addition to the length of the longest stop string: a token may begin before it."""


def stop_at(texts: Sequence[str], tokenizer: Any) -> Any:
    """Make stopping criteria that end each row after the token that completes one of the texts.

    transformers' `stop_strings` first compares a text with the whole vocabulary, which takes seconds.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    reach = max(map(len, texts)) + _MORE

    class StopAtTexts(StoppingCriteria):  # type: ignore[misc] # no types
        """Decodes the end of each row."""

        def __init__(self) -> None:
            self._start = self._length = 0

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            length = input_ids.shape[1]
            if not self._start or length <= self._length:  # a new call of `generate`, such as Whisper's next window
                self._start = length - 1
            self._length = length
            rows = input_ids[:, max(self._start, length - reach) :].tolist()
            ends = [any(text in tokenizer.decode(row) for text in texts) for row in rows]
            return torch.tensor(ends, dtype=torch.bool, device=input_ids.device)

    return StoppingCriteriaList([StopAtTexts()])
