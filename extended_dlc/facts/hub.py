"""What is known of Hub models by their names."""

from __future__ import annotations

import re

_FAMILIES = (
    # source: the `model_type` in these repositories' config.json; checked: 2026-11
    (re.compile(r"bigscience/bloom(z)?(-.+)?"), "bloom"),
    (re.compile(r"openai/whisper-.+"), "whisper"),
)


def known_model_type(model_id: str) -> str | None:
    """The transformers model type behind a Hub id where the name tells, as `bloom`; None where it does not."""
    return next((model_type for name, model_type in _FAMILIES if name.fullmatch(model_id)), None)
