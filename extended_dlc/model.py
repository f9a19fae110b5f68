"""Which weights an endpoint serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from aws_cdk import Token

from extended_dlc._private import require
from extended_dlc.facts.checks import check_model_id, model_id
from extended_dlc.facts.hub import known_model_type


@dataclass(frozen=True)
class HubModel:
    """A model of the Hugging Face Hub; the container downloads it when it starts."""

    id: str
    """The model's id on the Hub, as `bigscience/bloom-560m`; `bloom` stands for that one and `whisper` for
    `openai/whisper-base`. ValueError when it cannot be an id."""

    revision: str | None = None
    """Commit, tag or branch to serve. Default: what `main` points at when a container starts, which is annotated,
    because instances started later may then serve other weights."""

    task: str | None = None
    """Name of the transformers pipeline. Default: inferred in the container from the model's own configuration."""

    model_type: str | None = None
    """`model_type` in the model's config.json, as `qwen3`. Where it is given, an image whose transformers cannot load
    it is refused at synth. Default: known by name for BLOOM and Whisper, otherwise not checked."""

    variables: ClassVar[Mapping[str, str]] = {
        "HF_MODEL_ID": "the model's id",
        "HF_MODEL_REVISION": "the model's revision",
        "HF_TASK": "the model's task",
    }
    """The environment variables that a model sets, and by which of its options."""

    def __post_init__(self) -> None:
        """Refuse what cannot be a Hub id."""
        object.__setattr__(self, "id", model_id(self.id))
        require("id", self.id, check_model_id)
        if self.model_type is None and not Token.is_unresolved(self.id):
            object.__setattr__(self, "model_type", known_model_type(self.id))

    def environment(self) -> dict[str, str]:
        """What tells the server in the container which model to serve."""
        values = {"HF_MODEL_ID": self.id, "HF_MODEL_REVISION": self.revision, "HF_TASK": self.task}
        return {name: value for name, value in values.items() if value is not None}
