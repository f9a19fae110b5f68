"""What is asked of an image and of the endpoints on it, as `decide` takes it: from the settings, or from constructs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from extended_dlc.facts.compat import Family, Server
from extended_dlc.facts.models import ModelFacts
from extended_dlc.options.code import InferenceCode
from extended_dlc.options.hosting import Hosting, RealTime
from extended_dlc.options.monitoring import Metrics
from extended_dlc.options.proof import Proof
from extended_dlc.options.rollout import Rollout
from extended_dlc.options.vllm import VllmServing

ImageKind = Literal["extended", "stock", "ecr", "other"]
"""`ExtendedDlc`, `StockDlc`, `EcrImage`, or a class of the user's own."""

Source = Literal["hub", "files", "archive", "mirrored", "other"]
"""Where the weights come from: the Hub, files or an archive in S3, files that were mirrored there, or a class of the
user's own."""

VARIABLES: Mapping[Source, Mapping[str, str]] = {
    "hub": {
        "HF_MODEL_ID": "the model's id",
        "HF_MODEL_REVISION": "the model's revision",
        "HF_TASK": "the model's task",
        "HF_TOKEN_SECRET_ARN": "the model's token",
        "HF_TRUST_REMOTE_CODE": "the model's trust_remote_code",
    },
    "files": {"HF_TASK": "the model's task", "HF_TRUST_REMOTE_CODE": "the model's trust_remote_code"},
    "archive": {"HF_TASK": "the model's task", "HF_TRUST_REMOTE_CODE": "the model's trust_remote_code"},
    "mirrored": {
        "HF_HUB_OFFLINE": "the mirrored model",
        "HF_TASK": "the model's task",
        "HF_TRUST_REMOTE_CODE": "the model's trust_remote_code",
    },
    "other": {},
}
"""The environment variables that a model sets, and by which of its options."""


@dataclass(frozen=True, kw_only=True)
class ImageAsked:
    """An image, as far as anybody said."""

    kind: ImageKind = "other"
    key: str = ""
    """What tells it from another image of the same options: the path of its construct."""

    transformers: str | None = None
    base: str | None = None
    base_region: str | None = None
    family: Family | None = None
    accelerator: str | None = None
    server: Server = "native"
    model_types: tuple[str, ...] = ()
    rebuild: str | None = None
    cuda: str | None = None
    settled_for: str | None = None
    """The endpoint that settled family and accelerator, where nobody said them."""


@dataclass(frozen=True, kw_only=True)
class ModelAsked:
    """A model with what is known of it."""

    facts: ModelFacts = field(default_factory=ModelFacts)
    source: Source = "other"
    task: str | None = None
    """As it was said."""

    revision: str | None = None
    trust_remote_code: bool = False
    licence: str | None = None
    token: bool = False
    """Whether the container reads the Hub's token from a secret."""

    code: InferenceCode | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """As `VARIABLES`; of a class of the user's own its own."""


@dataclass(frozen=True, kw_only=True)
class PartAsked:
    """What a variant or a component has of its own; None: the endpoint's."""

    place: str
    model: ModelAsked | None = None
    image: ImageAsked | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointAsked:
    """An endpoint."""

    place: str = ""
    """Where it stands in the settings: `endpoints.bloom`."""

    name: str | None = None
    """Its name in SageMaker; None where that is not known yet."""

    model: ModelAsked
    image: ImageAsked
    hosting: Hosting = field(default_factory=RealTime)
    parts: Mapping[str, PartAsked] = field(default_factory=dict)
    """Of variants, a shadow and components, by their names."""

    environment: Mapping[str, str] = field(default_factory=dict)
    vllm: VllmServing | None = None
    rollout: Rollout | None = None
    network: bool = False
    way_out: bool | None = None
    """Whether the subnets lead to the internet; None where nobody knows."""

    subnets: int | None = None
    """How many there are; None where there is no network."""

    network_isolation: bool = False
    data_capture: bool = False
    metrics: Metrics | None = None
    container_alarms: bool = False
    """Whether alarms ask what the container tells of itself."""

    encryption_key: bool = False
    role: bool = False
    role_path: bool = False
    permissions_boundary: bool = False
    verify: Proof | bool = True
