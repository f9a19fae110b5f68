"""The settings of a model: which one, where its files come from, and what its container is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag, model_validator

from extended_dlc.facts.checks import check_commit, check_environment, check_model_id, model_id
from extended_dlc.options.code import InferenceCode
from stacks.sections import Section, checked, kind_of, one_of


def _check_environment(environment: dict[str, str]) -> None:
    check_environment(
        environment,
        reserved={
            "HF_MODEL_ID": "'model'",
            "HF_MODEL_REVISION": "'revision'",
            "HF_TASK": "'task'",
            "HF_TOKEN_SECRET_ARN": "'weights.token_secret'",
            "HF_TRUST_REMOTE_CODE": "'trust_remote_code'",
        },
    )


def _check_folder(path: str) -> None:
    if not Path(path).is_dir():
        raise ValueError("is not a folder: correct the path, or leave the option out")


ModelId = Annotated[str, AfterValidator(model_id), checked(check_model_id)]
Environment = Annotated[dict[str, str], checked(_check_environment)]
Folder = Annotated[str, checked(_check_folder)]


class HubWeightsSettings(Section):
    """The container downloads the model from the Hub when it starts."""

    kind: Literal["hub"] = "hub"

    token_secret: str | None = None
    """Name or ARN of the Secrets Manager secret with the Hub's token, for a private or gated model. Default: none."""

    code: Folder | None = None
    """A folder with `inference.py`, `requirements.txt` or both, taken along beside the weights. Default: none."""

    requirements: list[str] = []
    """Requirements that are installed when a container starts, as `["pydub"]`. Default: none."""

    @model_validator(mode="after")
    def _checked_code(self) -> HubWeightsSettings:
        self.inference_code()
        return self

    def inference_code(self) -> InferenceCode | None:
        """The code and the requirements, where there are any."""
        given = self.code or self.requirements
        return InferenceCode(self.code, requirements=self.requirements) if given else None


class MirroredWeightsSettings(Section):
    """The deployment copies the model from the Hub to S3, once; containers need neither the Hub nor a network."""

    kind: Literal["mirrored"]

    token_secret: str | None = None
    """Name or ARN of the secret with the Hub's token, which the copy reads. Default: none."""

    bucket: str | None = None
    """Name of the bucket. Default: `extended-dlc-models-ACCOUNT-REGION`, made by the first copy."""

    project: str | None = None
    """Name of the CodeBuild project that copies. Default: a new one."""

    timeout_minutes: Annotated[int, Field(ge=10, le=480)] = 360
    """How long the copy may take."""


class S3WeightsSettings(Section):
    """The model is in S3 already; `model` only names it."""

    kind: Literal["s3"]

    bucket: str
    """Name of the bucket."""

    key: str
    """Key of a `.tar.gz`, or the prefix of the files, which ends in `/`."""


class LocalWeightsSettings(Section):
    """The model is in a folder of this machine, packed and uploaded by the deployment; `model` only names it."""

    kind: Literal["local"]

    folder: Folder
    """The folder, with `config.json` at its top, at most 2 GiB."""


WEIGHTS: dict[str, type[Section]] = {
    "hub": HubWeightsSettings,
    "mirrored": MirroredWeightsSettings,
    "s3": S3WeightsSettings,
    "local": LocalWeightsSettings,
}

WeightsSettings = Annotated[
    Annotated[HubWeightsSettings, Tag("hub")]
    | Annotated[MirroredWeightsSettings, Tag("mirrored")]
    | Annotated[S3WeightsSettings, Tag("s3")]
    | Annotated[LocalWeightsSettings, Tag("local")],
    one_of(WEIGHTS, kind_of("hub")),
]


class ModelSettings(Section):
    """A model, and what its container is told."""

    model: ModelId
    """Hub id of the model; `bloom` and `whisper` stand for bigscience/bloom-560m and openai/whisper-base."""

    weights: WeightsSettings = HubWeightsSettings()
    """Where its files come from. Default: from the Hub."""

    trust_remote_code: bool = False
    """Whether Python files of the model may run in the container."""

    revision: str | None = None
    """Commit, tag or branch. Default: what `main` points at when a container starts, which is annotated."""

    model_type: str | None = None
    """`model_type` in the model's config.json; an image whose transformers cannot load it is refused. Default: known by
    name for BLOOM and Whisper, otherwise not checked."""

    parameters: Annotated[int, Field(ge=1)] | None = None
    """How many numbers the model has: decides on memory, time-outs and volume. Default: known by name for BLOOM and
    Whisper, and after `extended-dlc lookup`."""

    task: str | None = None
    """Name of the transformers pipeline. Default: inferred from the model's own configuration."""

    environment: Environment = {}
    """More environment variables for the container. Default: none."""

    @model_validator(mode="after")
    def _commit_of_a_mirror(self) -> ModelSettings:
        if isinstance(self.weights, MirroredWeightsSettings):
            try:
                check_commit(self.revision or "")
            except ValueError as error:
                raise ValueError(f"revision ({self.revision}) {error}") from None
        return self
