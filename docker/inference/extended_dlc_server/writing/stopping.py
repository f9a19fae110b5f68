"""Texts at which a generation stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MORE = 8
"""Tokens that are read beside as many as the longest text has characters: a token may begin before the text does."""


def stop_at(texts: Sequence[str], tokenizer: Any) -> Any:
    """A list of criteria for `generate`, that ends each row after the token that completes one of the texts.

    transformers' own `stop_strings` first compares a text with the whole vocabulary, which takes seconds.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    reach = max(map(len, texts)) + _MORE

    class StopAtTexts(StoppingCriteria):  # type: ignore[misc] # no types
        """Looks at the end of what was generated."""

        def __init__(self) -> None:
            self._start = self._length = 0

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            length = input_ids.shape[1]
            if not self._start or length <= self._length:  # another run, such as Whisper's next window
                self._start = length - 1
            self._length = length
            rows = input_ids[:, max(self._start, length - reach) :].tolist()
            ends = [any(text in tokenizer.decode(row) for text in texts) for row in rows]
            return torch.tensor(ends, dtype=torch.bool, device=input_ids.device)

    return StoppingCriteriaList([StopAtTexts()])
