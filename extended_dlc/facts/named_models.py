"""Facts of Hub models by their names alone."""

from __future__ import annotations

import re

_FAMILIES = (
    # source: the `model_type` in these repositories' config.json; checked: 2026-11
    (re.compile(r"bigscience/bloom(z)?(-.+)?"), "bloom"),
    (re.compile(r"openai/whisper-.+"), "whisper"),
)

_LICENCES = {
    # source: `license` in the heads of these repositories' model cards
    "bloom": "bigscience-bloom-rail-1.0",
    "whisper": "apache-2.0",
}


def known_model_type(model_id: str) -> str | None:
    """The transformers model type of a Hub id, such as `bloom`; None if the name does not tell it."""
    return next((model_type for name, model_type in _FAMILIES if name.fullmatch(model_id)), None)


def known_licence(model_id: str) -> str | None:
    """The licence of a Hub model; None if the name does not tell it."""
    return _LICENCES.get(known_model_type(model_id) or "")
