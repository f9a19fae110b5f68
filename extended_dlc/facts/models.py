"""The facts of a model before it runs: by its name, from its config.json, or from the Hub's API."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from extended_dlc.facts._tables import table
from extended_dlc.facts.named_models import known_licence, known_model_type

SPEECH = "automatic-speech-recognition"

SPEECH_TYPES = ("moonshine", "moonshine_streaming", "speech_to_text", "whisper")
"""Model types whose only task is speech recognition."""

DTYPE_BYTES = {
    "float64": 8.0,
    "float32": 4.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "int8": 1.0,
    "uint8": 1.0,
    "float8_e4m3fn": 1.0,
    "float8_e5m2": 1.0,
}
"""torch dtype -> bytes of one number."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model's type, size and further facts; None if unknown."""

    model_id: str | None = None
    model_type: str | None = None
    task: str | None = None
    parameters: int | None = None
    dtype: str | None = None
    """torch dtype of its weights: `bfloat16`."""

    weight_bytes: int | None = None
    """Bytes of the stored weight files that are loaded."""

    cache_elements_per_token: int | None = None
    """Numbers in the attention cache for each token of a request; None if the model does not generate."""

    cache_elements: int = 0
    """Numbers in the attention cache for each request, independent of its length."""

    context: int | None = None
    """Longest request, in tokens."""

    revision: str | None = None
    """The commit that the Hub's facts are from."""

    gated: bool | None = None
    """Whether it is gated or private on the Hub."""

    licence: str | None = None

    @property
    def size(self) -> int | None:
        """Bytes that a container downloads: the weight files, or else the parameters in their dtype."""
        if self.weight_bytes is not None or self.parameters is None:
            return self.weight_bytes
        return int(self.parameters * DTYPE_BYTES.get(self.dtype or "", 2))

    @property
    def called(self) -> str:
        """What a sentence calls it; its id is not known where it is a CDK token."""
        return f"model '{self.model_id}'" if self.model_id else "the model"

    @property
    def is_speech(self) -> bool:
        """Whether its type's only task is speech recognition."""
        return self.model_type in SPEECH_TYPES


LOOKED_UP = (
    "model_type",
    "task",
    "parameters",
    "dtype",
    "weight_bytes",
    "cache_elements_per_token",
    "cache_elements",
    "context",
    "revision",
    "gated",
    "licence",
)
"""The facts that `extended-dlc lookup` writes."""


MODEL_KEY = "extended-dlc:model:"
"""Prefix of the keys of looked-up models in `cdk.context.json`."""


def context_key(model_id: str) -> str:
    """The key of a model's facts in cdk.context.json."""
    return f"{MODEL_KEY}{model_id}"


DATASET_KEY = "extended-dlc:dataset:"
"""Prefix of the keys of looked-up data sets in `cdk.context.json`."""


def dataset_key(dataset: str) -> str:
    """The key of a data set's facts in cdk.context.json."""
    return f"{DATASET_KEY}{dataset}"


def is_gated(looked_up: object) -> bool:
    """Whether a model or data set was looked up and is gated or private on the Hub."""
    return isinstance(looked_up, Mapping) and bool(looked_up.get("gated"))


@functools.cache
def _named() -> dict[str, ModelFacts]:
    return {row["model_id"]: ModelFacts(**row) for row in table("models")["models"]}


def is_named(model_id: str) -> bool:
    """Whether the facts of the model are in the table."""
    return model_id in _named()


def know_model(
    model_id: str | None,
    *,
    looked_up: object = None,
    revision: str | None = None,
    config: Mapping[str, Any] | None = None,
    model_type: str | None = None,
    parameters: int | None = None,
    task: str | None = None,
) -> ModelFacts:
    """All known facts of a model. Later sources take precedence: its name, the Hub, its config.json, the options.

    :param looked_up: The value in cdk.context.json under `context_key`. It is ignored if it is about another revision
    than the given one.
    """
    name = model_id or ""
    facts = _named().get(name, ModelFacts(model_id=model_id, model_type=known_model_type(name)))
    facts = replace(facts, licence=known_licence(name))
    if isinstance(looked_up, Mapping) and revision in (None, looked_up.get("revision"), looked_up.get("asked")):
        answer = {key: looked_up[key] for key in LOOKED_UP if looked_up.get(key) is not None}
        facts = replace(facts, **answer)
    if config is not None:
        facts = replace(facts, **{key: value for key, value in read_config(config).items() if value is not None})
    if parameters is not None and parameters != facts.parameters:
        facts = replace(facts, parameters=parameters, weight_bytes=None)
    model_type = model_type or facts.model_type
    facts = replace(facts, model_type=model_type, task=task or facts.task)
    return replace(facts, task=SPEECH) if facts.task is None and facts.is_speech else facts


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The type, dtype, attention cache and context length in a config.json."""
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    layers = _first(text, "decoder_layers", "num_hidden_layers", "n_layer", "num_layers")
    heads = _first(text, "num_attention_heads", "n_head", "decoder_attention_heads")
    width = _first(text, "hidden_size", "d_model", "n_embd", "n_embed")
    per_token = None
    architectures = " ".join(map(str, config.get("architectures") or ()))
    generates = any(word in architectures for word in ("CausalLM", "ConditionalGeneration", "LMHead"))
    if generates and layers and heads and width:
        key_value_heads = _first(text, "num_key_value_heads") or heads
        per_token = 2 * layers * key_value_heads * (_first(text, "head_dim") or width // heads)
    dtype = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
    frames = _first(config, "max_source_positions")
    return {
        "model_type": config.get("model_type"),
        "dtype": dtype if isinstance(dtype, str) else None,
        "cache_elements_per_token": per_token,
        "cache_elements": per_token * frames if per_token and frames else None,
        "context": _first(text, "max_target_positions", "max_position_embeddings", "n_positions", "seq_length"),
    }


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int) and config[name]), None)
