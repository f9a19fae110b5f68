"""The positions of a text model, by its embeddings and by its configuration."""

from __future__ import annotations

import re
from typing import Any

_POSITION_TABLES = re.compile(r"(^|\.)(position_embeddings?|wpe|embed_positions|positions_embed)$")
_NOT_OF_TEXT = re.compile(r"vision|visual|image|pixel|audio|patch|query")


def positions_of(model: Any, part: str) -> tuple[int | None, int | None]:
    """Return the positions of the text model, or of its encoder or decoder: by its embeddings and by its config."""
    import torch

    found: list[int] = []
    for name, module in model.named_modules():
        if not _POSITION_TABLES.search(name) or _NOT_OF_TEXT.search(name) or (part and part not in name.split(".")):
            continue
        rows = getattr(module, "num_embeddings", None)
        if not rows:
            continue
        # RoBERTa and similar models count positions from the padding id on; Bart's embeddings have an offset
        is_plain = type(module) is torch.nn.Embedding
        first = module.padding_idx + 1 if is_plain and module.padding_idx is not None else getattr(module, "offset", 0)
        found.append(rows - int(first))
    return min(found, default=None), _named_positions(model.config)


def text_config(config: Any) -> Any:
    """Return the part of a configuration for the input text, or all of it if it has no such part.

    A model such as MusicGen has one part for its input text and one for the audio codes that it generates.
    """
    get_text_config = getattr(config, "get_text_config", None)
    if get_text_config is None:
        return config
    try:
        return get_text_config()
    except ValueError:
        return getattr(config, "text_encoder", config)


def _named_positions(config: Any) -> int | None:
    text = text_config(config)
    for name in ("max_position_embeddings", "seq_length", "max_seq_len", "max_sequence_length"):
        number = getattr(text, name, None)
        if isinstance(number, int) and number > 1:
            return number
    return None
