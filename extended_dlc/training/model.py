"""`TrainedModel`: weights that a training replaces, behind an endpoint that updates to them by its own rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aws_cdk import Aws, CfnCondition, CfnParameter, Duration, Fn, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from extended_dlc.constructs.archive import Uploaded
from extended_dlc.constructs.buckets import private_bucket
from extended_dlc.constructs.helpers import refuse_nested, require_same
from extended_dlc.decisions.asked import VARIABLES, Source
from extended_dlc.models.model import HubModel, PlacedModel, S3Model, prefix_for
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, is_token
from extended_dlc.options.code import InferenceCode
from extended_dlc.options.hosting import Serverless

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_secretsmanager as secretsmanager

    from extended_dlc.models.mirrored import MirroredModel

MODELS = "models/"
"""The prefix in the bucket that the endpoint may read."""

UNTRAINED = "s3://none/"
"""The parameter's value until a model is accepted: an S3 URL, so that it passes the template's checks."""

HUB_VARIABLES = ("HF_MODEL_ID", "HF_MODEL_REVISION", "HF_TOKEN_SECRET_ARN")
"""Variables that make a container load another model than the one in `/opt/ml/model`."""


class TrainedModel(Construct):
    """An endpoint's weights that a `TrainingJob` replaces.

    Their S3 URL is a parameter of the endpoint's stack. A training that is accepted updates the stack with its current
    template and this one parameter. CloudFormation then creates the Model, and the endpoint updates by its rollout,
    with its alarms and its proof. A `cdk deploy` keeps the parameter's value.
    """

    @check_types
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        first: HubModel | S3Model | MirroredModel,
        adapter: bool = False,
        bucket: s3.IBucket | None = None,
        encryption_key: kms.IKey | None = None,
    ) -> None:
        """Define the weights.

        :param first: The model that is served until one is trained. ValueError for a model with its own code and for an
            archive, because trained files are not packed.
        :param adapter: Whether the training makes a LoRA adapter that is loaded beside `first`. ValueError for a
            `first` that is not on the Hub, because the container could not load it then. Default: the whole model,
            which may include a merged adapter.
        :param bucket: The bucket of trained models, below `models/`, in the endpoint's region. Default: a new one that
            is encrypted, requires TLS, is retained when the stack is deleted, and does not expire models.
        :param encryption_key: Key of the new bucket. ValueError with `bucket`. Default: S3's own.
        """
        super().__init__(scope, construct_id)
        _check_first(first, adapter=adapter)
        refuse_nested("first", self)
        if bucket is not None and encryption_key is not None:
            raise OptionError("encryption_key", rule="is for the new bucket: give it to the one you pass")
        self.first: HubModel | S3Model | MirroredModel = first
        self.bucket: s3.IBucket = bucket or new_results(self, "Bucket", encryption_key)
        self.parameter: CfnParameter = CfnParameter(
            self,
            "Artifact",
            type="String",
            default=UNTRAINED,
            allowed_pattern="s3://.+/",
            constraint_description="must be the folder of a trained model in S3, with its '/' at the end",
            description=f"Where the trained model is that is served; {UNTRAINED} until one was accepted",
        )
        self._is_trained = CfnCondition(
            self,
            "IsTrained",
            expression=Fn.condition_not(Fn.condition_equals(self.parameter.value_as_string, UNTRAINED)),
        )
        self.adapter = adapter
        self.endpoints: list[Construct] = []
        """The endpoints, or their components, that serve the model."""
        self._readers: list[iam.IGrantable] = []

    @property
    def models_uri(self) -> str:
        """The S3 URL of the trained models' prefix."""
        return f"s3://{self.bucket.bucket_name}/{MODELS}"

    @property
    def source(self) -> Source:
        """The first model's source: its container may need the Hub."""
        return self.first.source

    @property
    def id(self) -> str | None:
        """The first model's ID on the Hub."""
        return getattr(self.first, "id", None)

    @property
    def model_id(self) -> str | None:
        """The Hub ID of a first model that is mirrored."""
        return getattr(self.first, "model_id", None)

    @property
    def revision(self) -> str | None:
        """The first model's revision."""
        return getattr(self.first, "revision", None)

    @property
    def model_type(self) -> str | None:
        """The first model's type, which training does not change."""
        return self.first.model_type

    @property
    def task(self) -> str | None:
        """The first model's task."""
        return self.first.task

    @property
    def parameters(self) -> int | None:
        """The first model's number of parameters."""
        return self.first.parameters

    @property
    def licence(self) -> str | None:
        """The first model's licence."""
        return getattr(self.first, "licence", None)

    @property
    def trust_remote_code(self) -> bool:
        """Whether the first model needs `trust_remote_code`."""
        return self.first.trust_remote_code

    @property
    def token(self) -> secretsmanager.ISecret | None:
        """The first model's Hub token."""
        return self.first.token

    @property
    def code(self) -> InferenceCode | None:
        """None: models with code are refused."""
        return None

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables of the first model's source."""
        return VARIABLES[self.source]

    def place_for(self, scope: Construct, role: iam.IGrantable) -> PlacedModel:
        """The first model's place, or that of the parameter where it is set. ValueError for a serverless endpoint."""
        if isinstance(getattr(scope, "hosting", None), Serverless):
            raise OptionError(
                "model",
                "a TrainedModel",
                "does not go with Serverless, which takes one archive, and trained models are files: take RealTime, "
                "Async or Components",
            )
        require_same("region", "model", self.bucket, scope, "make the TrainedModel beside the endpoint")
        self.endpoints.append(scope)
        self._readers.append(role)
        placed = self.first.place_for(scope, role)
        prefix_for(role, Uploaded(bucket=self.bucket.bucket_name, key=MODELS), self.bucket.encryption_key)
        trained = {
            "S3DataSource": {
                "S3Uri": self.parameter.value_as_string,
                "S3DataType": "S3Prefix",
                "CompressionType": "None",
            }
        }
        return PlacedModel(
            environment={name: self._unless_trained(name, value) for name, value in placed.environment.items()},
            data=Fn.condition_if(self._is_trained.logical_id, trained, _as_json(placed.data) or Aws.NO_VALUE),
            ready=placed.ready,
            isolated=placed.isolated,
        )

    def grant_decrypt(self, key: kms.IKey, job: Construct) -> None:
        """Let the endpoints decrypt models that `job` encrypts with a key of its own."""
        if is_token(key.key_arn) and Stack.of(key) is Stack.of(job) and Stack.of(job) is not Stack.of(self):
            raise OptionError(
                "encryption_key",
                key.node.path,
                f"is in the training's stack, which is deployed after the endpoint's, {Stack.of(self).stack_name}, "
                "whose role has to decrypt the models: make the key in that stack, or in one of its own",
            )
        for reader in self._readers:
            key.grant_decrypt(reader)

    def _unless_trained(self, name: str, value: str) -> str:
        """The variable's value, or none where it would load the first model in place of a trained one."""
        if name not in HUB_VARIABLES or self.adapter:
            return value
        return Fn.condition_if(self._is_trained.logical_id, Aws.NO_VALUE, value).to_string()


def _check_first(first: HubModel | S3Model | MirroredModel, *, adapter: bool) -> None:
    """Refuse a model that a trained one could not replace."""
    if first.code is not None:
        raise OptionError(
            "first", "a model with code", "would lose its code beside trained weights: serve it without, or serve "
            "the trained model with S3Model"
        )  # fmt: skip
    if first.source == "archive":
        raise OptionError(
            "first", "an archive", "is packed, and trained models are not: unpack it, S3Model(bucket, 'prefix/')"
        )
    if adapter and first.source != "hub":
        raise OptionError(
            "adapter",
            "True",
            "is loaded beside a model of the Hub, and 'first' is in S3, in whose place the adapter would be: "
            "merge it in the training (adapter='merged' of TrainingJob)",
        )


def new_results(scope: Construct, construct_id: str, key: kms.IKey | None) -> s3.Bucket:
    """A private bucket for models, which do not expire."""
    rules = [
        s3.LifecycleRule(prefix="checkpoints/", expiration=Duration.days(30)),
        s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(1)),
    ]
    return private_bucket(scope, construct_id, key=key, rules=rules)


def _as_json(data: Any) -> dict[str, Any] | None:
    """A ModelDataSource as CloudFormation JSON, for use inside a condition."""
    if data is None:
        return None
    source: sagemaker.CfnModel.S3DataSourceProperty = data.s3_data_source
    return {
        "S3DataSource": {
            "S3Uri": source.s3_uri,
            "S3DataType": source.s3_data_type,
            "CompressionType": source.compression_type,
        }
    }
