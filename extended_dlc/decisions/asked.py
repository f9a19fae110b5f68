"""The input of `decide`: options of an image and of its endpoints, from the settings or from constructs."""

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
"""`ExtendedDlc`, `StockDlc`, `EcrImage`, or a user-defined class."""

Source = Literal["hub", "files", "archive", "mirrored", "other"]
"""Source of the weights: the Hub, files or an archive in S3, files mirrored to S3, or a user-defined class."""

OF_HUB: tuple[Source, ...] = ("hub", "mirrored")
"""The sources of weights that have an id and a revision on the Hub."""

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
"""Source -> the environment variables that a model sets -> the option that sets each."""


@dataclass(frozen=True, kw_only=True)
class ImageAsked:
    """The options of an image; None where the user gave none."""

    kind: ImageKind = "other"
    key: str = ""
    """Distinguishes images with the same options: the path of the construct."""

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
    """The endpoint that decided family and accelerator, where the user gave none."""


@dataclass(frozen=True, kw_only=True)
class ModelAsked:
    """The options of a model, with its facts."""

    facts: ModelFacts = field(default_factory=ModelFacts)
    source: Source = "other"
    task: str | None = None
    """The option `task`; the facts have the known task."""

    revision: str | None = None
    trust_remote_code: bool = False
    licence: str | None = None
    token: bool = False
    """Whether the container reads the Hub's token from a secret."""

    copy_token: bool | None = None
    """Whether the copy of a mirrored model reads the Hub's token; None where its construct checks that itself."""

    code: InferenceCode | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """The entry of `VARIABLES`; a user-defined class names its own."""


@dataclass(frozen=True, kw_only=True)
class PartAsked:
    """The model and image of a variant or component; None for the endpoint's."""

    section: str
    model: ModelAsked | None = None
    image: ImageAsked | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointAsked:
    """The options of an endpoint."""

    section: str = ""
    """Its section in the settings: `endpoints.bloom`."""

    name: str | None = None
    """Its name in SageMaker; None where it is not known yet."""

    model: ModelAsked
    image: ImageAsked
    hosting: Hosting = field(default_factory=RealTime)
    parts: Mapping[str, PartAsked] = field(default_factory=dict)
    """The variants, the shadow variant and the components, by their names."""

    environment: Mapping[str, str] = field(default_factory=dict)
    vllm: VllmServing | None = None
    rollout: Rollout | None = None
    network: bool = False
    way_out: bool | None = None
    """Whether the subnets have a route to the internet; None if unknown."""

    subnets: int | None = None
    """Number of subnets; None without a network."""

    network_isolation: bool = False
    data_capture: bool = False
    metrics: Metrics | None = None
    container_alarms: bool = False
    """Whether there are alarms on metrics that the container publishes."""

    encryption_key: bool = False
    role: bool = False
    role_path: bool = False
    permissions_boundary: bool = False
    verify: Proof | bool = True
