"""One call of the model on new tokens of several sequences, with the server's key-value cache."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any


class ForwardPass:
    """Calls a model with what its `forward` takes in the installed release."""

    def __init__(self, model: Any) -> None:
        """Read the parameters of the model's `forward`."""
        self.model = model
        takes = inspect.signature(model.forward).parameters
        self._options: dict[str, Any] = {"use_cache": True, "return_dict": True}
        for name in ("logits_to_keep", "num_logits_to_keep"):
            if name in takes:
                self._options[name] = 1
        # newer releases warn of the older name
        self._cache = "cache" if "cache" in takes and "past_key_values" not in takes else "past_key_values"
        self._positions, self._cache_positions = "position_ids" in takes, "cache_position" in takes

    def __call__(self, cache: Any, tokens: Sequence[Sequence[int]]) -> Any:
        """Run the model on new tokens of each row, padded on the left; return the scores of the next token."""
        import torch

        device = self.model.device
        new = len(tokens[0])
        starts = torch.tensor([start - cache.first for start in cache.starts])[:, None]
        columns = torch.arange(cache.width + new)[None]
        mask = columns >= starts
        options = {**self._options, self._cache: cache}
        if self._positions:
            options["position_ids"] = (columns[:, cache.width :] - starts).clamp(min=0).to(device)
        if self._cache_positions:
            options["cache_position"] = columns[0, cache.width :].to(device)
        made = self.model(
            input_ids=torch.tensor(tokens, device=device),
            attention_mask=mask.long().to(device),
            **options,
        )
        cache.added(new)
        return made.logits[:, -1].float()
