"""The options of a training, with the platform's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from extended_dlc.constructs.platform_rules import first, settle_training
from extended_dlc.facts.training_instances import find_training_instance
from extended_dlc.images.decided import model_asked
from extended_dlc.models.model import HubModel, S3Model
from extended_dlc.options._values import OptionError, instance_names, require_tags
from extended_dlc.options.training import EvaluationGate, HyperParameter, S3Data, TrainingCode, TrainingInstances

if TYPE_CHECKING:
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3
    from constructs import Construct

    from extended_dlc.images.published import ServingImage
    from extended_dlc.models.mirrored import MirroredDataset, MirroredModel
    from extended_dlc.options.network import Network
    from extended_dlc.training.model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Result:
    """The destination of a training's result, and what accepts it."""

    serves: TrainedModel | None
    gate: EvaluationGate | None
    registry: str | None
    bucket: s3.IBucket | None

    def __post_init__(self) -> None:
        """Refuse options that exclude each other."""
        if self.serves is None and (self.gate is not None or self.registry is not None):
            option = "gate" if self.gate is not None else "registry"
            raise OptionError(
                option,
                rule="is for models that go on to an endpoint: pass serves=, the endpoint's TrainedModel, or leave it "
                "out",
            )
        if self.serves is not None and self.bucket is not None:
            raise OptionError("bucket", rule="is that of the TrainedModel, which serves= names: give it there")

    @property
    def given_bucket(self) -> s3.IBucket | None:
        """The bucket of the results; None where the training creates one."""
        return self.serves.bucket if self.serves is not None else self.bucket


@dataclass(frozen=True, kw_only=True)
class JobRole:
    """The containers' role: an existing one, or the options of a new one."""

    role: iam.IRole | None
    path: str | None
    boundary: iam.IManagedPolicy | None

    def __post_init__(self) -> None:
        """Refuse options of a new role beside an existing role."""
        for option, value in (("role_path", self.path), ("permissions_boundary", self.boundary)):
            if self.role is not None and value is not None:
                raise OptionError(option, rule="is for the new role, and 'role' gives one: set it there")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of a `TrainingJob`, which documents them."""

    code: TrainingCode
    image: ServingImage
    hyperparameters: Mapping[str, HyperParameter]
    channels: Mapping[str, S3Data | MirroredDataset]
    base_model: HubModel | S3Model | MirroredModel | None
    instances: TrainingInstances
    adapter: Literal["merged", "beside"] | None
    metrics: Mapping[str, str]
    environment: Mapping[str, str]
    network: Network | None
    network_isolation: bool
    encryption_key: kms.IKey | None
    tags: Mapping[str, str]
    result: Result
    job_role: JobRole

    def settled(self, scope: Construct) -> TrainingOptions:
        """These options with the platform's defaults. ValueError for what the platform forbids."""
        require_tags(self.tags)
        fleets = [(self.instances.found, float(self.instances.count))]
        gate = self.result.gate
        if gate is not None and gate.instance_type is not None:
            measures_on = tuple(find_training_instance(name) for name in instance_names(gate.instance_type))
            fleets.append((measures_on, 1.0))
        model = model_asked(scope, self.base_model) if self.base_model is not None else None
        every = settle_training(scope, fleets, model, self.environment)
        return replace(
            self,
            network=self.network or first(every, "network"),
            encryption_key=self.encryption_key or first(every, "encryption_key"),
        )

    def variables(self) -> dict[str, str]:
        """The container's environment variables: those that follow from the options, and the user's own."""
        base = self.base_model
        values: dict[str, str | None] = {}
        if isinstance(base, HubModel):
            values |= {
                "HF_MODEL_ID": base.id,
                "HF_MODEL_REVISION": base.revision,
                "HF_TOKEN_SECRET_ARN": base.token.secret_arn if base.token else None,
            }
        elif base is not None or self.network_isolation:
            values["HF_HUB_OFFLINE"] = "1"
        values["HF_TASK"] = base.task if base is not None else None
        if self.adapter == "merged":
            values[MERGE_ADAPTER] = "true"
        return {**{name: value for name, value in values.items() if value is not None}, **self.environment}


MERGE_ADAPTER = "EXTENDED_DLC_MERGE_ADAPTER"
"""Makes the image merge the adapter into its base after the script has succeeded (docker/training/README.md)."""
