"""The models that an endpoint serves: `HubModel` and `S3Model`; `MirroredModel` is in `mirrored.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aws_cdk import IResolvable
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct, IDependable

from extended_dlc.constructs.archive import Uploaded, upload_archive
from extended_dlc.constructs.helpers import any_partition, require_same
from extended_dlc.decisions.asked import VARIABLES, Source
from extended_dlc.facts.checks import check_model_id, model_id
from extended_dlc.facts.named_models import known_licence, known_model_type
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import is_token, naming_option, require, require_known, within
from extended_dlc.options.code import InferenceCode
from extended_dlc.options.weights import check_key, files_of, model_type_of

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_secretsmanager as secretsmanager


@dataclass(frozen=True, kw_only=True)
class PlacedModel:
    """The properties of a SageMaker Model that come from the weights."""

    environment: Mapping[str, str]
    """Environment variables of the container."""

    data: sagemaker.CfnModel.ModelDataSourceProperty | IResolvable | None = None
    """The data that SageMaker copies to `/opt/ml/model` before the container starts. Default: none."""

    ready: IDependable | None = None
    """What must exist before a SageMaker Model names the weights. Default: they exist already."""

    isolated: bool = False
    """Whether to isolate the container from the network, because it needs none. Default: it has network access."""


class ServedModel(Protocol):
    """The interface that an endpoint and its image need of a model."""

    @property
    def model_type(self) -> str | None:
        """`model_type` in the model's config.json; None where it is not known."""
        ...

    @property
    def task(self) -> str | None:
        """Name of the transformers pipeline; None if the container infers it."""
        ...

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables that the model may set -> the option that sets each."""
        ...

    @property
    def token(self) -> secretsmanager.ISecret | None:
        """The secret with the Hub token that the container reads; None if it needs none."""
        ...

    @property
    def code(self) -> InferenceCode | None:
        """The user's code, packed separately from the weights; None without any."""
        ...

    def place_for(self, scope: Construct, role: iam.IGrantable) -> PlacedModel:
        """The weights for an endpoint at `scope`; its `role` is granted read access to them."""
        ...


@check_types
@dataclass(frozen=True)
class HubModel:
    """A model of the Hugging Face Hub; the container downloads it when it starts."""

    id: str
    """The model's id on the Hub, as `bigscience/bloom-560m`; `bloom` stands for that one and `whisper` for
    `openai/whisper-base`. ValueError when it cannot be an id."""

    revision: str | None = None
    """The commit to serve, or a tag or branch, which is annotated because it can move. Default: what `main` points at
    when a container starts, which is annotated too: instances started later may then serve other weights."""

    task: str | None = None
    """Name of the transformers pipeline. Default: inferred in the container from the model's own configuration."""

    model_type: str | None = None
    """`model_type` in the model's config.json, as `qwen3`. Where it is given, an image whose transformers cannot load
    it is refused at synth. Default: known by name for BLOOM and Whisper, otherwise not checked."""

    token: secretsmanager.ISecret | None = field(default=None, kw_only=True)
    """The secret that holds the Hub's token, or a JSON object with it as `HF_TOKEN`, for a private or gated model. The
    container is told its ARN and reads it at start. ValueError for the token itself, which everyone who may describe
    the model could read, and for an image whose server does not read secrets. Default: none."""

    trust_remote_code: bool = field(default=False, kw_only=True)
    """Whether Python files in the model's repository may run in the container. Default: they may not."""

    parameters: int | None = field(default=None, kw_only=True)
    """How many numbers the model has, which decides on the memory that it needs, on time-outs and on the volume; an
    instance that the weights are too large for is refused. Default: known by name for BLOOM and Whisper, and after
    `extended-dlc lookup`; otherwise not checked."""

    licence: str | None = field(default=None, kw_only=True)
    """The licence on the model's page, which an annotation notes. Default: known by name for BLOOM and Whisper."""

    code: InferenceCode | None = field(default=None, kw_only=True)
    """Code and requirements of one's own beside the weights. Default: none."""

    def __post_init__(self) -> None:
        """Refuse an invalid Hub id, and a token that is not a secret."""
        object.__setattr__(self, "id", model_id(self.id))
        require("id", self.id, check_model_id)
        require_facts(model_type=self.model_type, parameters=self.parameters, licence=self.licence)
        within("parameters", self.parameters, 1, None, "leave it out where it is not known")
        if not is_token(self.id):
            object.__setattr__(self, "model_type", self.model_type or known_model_type(self.id))
            object.__setattr__(self, "licence", self.licence or known_licence(self.id))

    @property
    def source(self) -> Source:
        """The source of the weights."""
        return "hub"

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables that a Hub model sets -> the option that sets each."""
        return VARIABLES["hub"]

    def environment(self) -> dict[str, str]:
        """The environment variables that tell the container's server which model to serve."""
        values = {
            "HF_MODEL_ID": self.id,
            "HF_MODEL_REVISION": self.revision,
            "HF_TASK": self.task,
            "HF_TOKEN_SECRET_ARN": self.token.secret_arn if self.token else None,
            "HF_TRUST_REMOTE_CODE": "true" if self.trust_remote_code else None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def place_for(self, scope: Construct, role: iam.IGrantable) -> PlacedModel:
        """Environment variables alone, and the archive of the user's code if there is any."""
        if self.token is not None:
            self.token.grant_read(role)
        data = None
        if self.code is not None:
            data = archive_for(role, upload_archive(scope, self.code.files()))
        return PlacedModel(environment=self.environment(), data=data)


class S3Model:
    """A model that is in S3 already; SageMaker copies it to the instance before the container starts."""

    token: secretsmanager.ISecret | None = None
    code: InferenceCode | None = None
    variables: Mapping[str, str] = VARIABLES["files"]

    @check_types
    def __init__(
        self,
        bucket: s3.IBucket,
        key: str,
        *,
        task: str | None = None,
        model_type: str | None = None,
        parameters: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Name the model.

        :param bucket: Where it is; in the endpoint's region. A key of the bucket's own is granted with it.
        :param key: Key of an archive (`….tar.gz`) with `config.json` at its top, or a prefix that ends in `/` with the
            files as they are, which start sooner: nothing has to be unpacked. Own code lies below `code/` in either.
            ValueError for anything else.
        :param task: Name of the transformers pipeline. Default: inferred from the model's own configuration.
        :param model_type: As of `HubModel`. Default: not checked.
        :param parameters: As of `HubModel`. Default: not known.
        :param trust_remote_code: Whether Python files beside the weights may run. Default: they may not.
        """
        # A token's text ends in '}': that an archive or a prefix is meant has to be written after it.
        naming_option("key", key, lambda: check_key(key))
        require_facts(model_type=model_type, parameters=parameters)
        within("parameters", parameters, 1, None, "leave it out where it is not known")
        self.parameters = parameters
        self._bucket = bucket
        self._key = key
        self.model_type = model_type
        self.task = task
        self.trust_remote_code = trust_remote_code
        self._environment = environment_of(task, trust_remote_code)

    @staticmethod
    @check_types
    def from_local(
        folder: str,
        *,
        task: str | None = None,
        model_type: str | None = None,
        parameters: int | None = None,
        trust_remote_code: bool = False,
    ) -> S3Model:
        """A model in a folder of this machine, packed at synth and uploaded by `cdk deploy`: for small ones.

        :param folder: With `config.json` at its top, at most 2 GiB. ValueError for anything else.
        :param task: As above.
        :param model_type: Default: what `config.json` says.
        :param parameters: As above.
        :param trust_remote_code: As above.
        """
        return _LocalModel(folder, task, model_type, parameters, trust_remote_code)

    @property
    def source(self) -> Source:
        """Whether it is one archive or a prefix with files."""
        return "archive" if self._key.endswith(".tar.gz") else "files"

    def place_for(self, scope: Construct, role: iam.IGrantable) -> PlacedModel:
        """The archive or the prefix; `role` may read nothing else of the bucket."""
        require_same("region", "bucket", self._bucket, scope, "copy the files to a bucket there, and name that one")
        make_data = archive_for if self.source == "archive" else prefix_for
        data = make_data(role, Uploaded(bucket=self._bucket.bucket_name, key=self._key), self._bucket.encryption_key)
        return PlacedModel(environment=self._environment, data=data)


class _LocalModel(S3Model):
    """A model that the deployment uploads to S3."""

    def __init__(
        self, folder: str, task: str | None, model_type: str | None, parameters: int | None, trust_remote_code: bool
    ) -> None:
        require_facts(model_type=model_type, parameters=parameters)
        within("parameters", parameters, 1, None, "leave it out where it is not known")
        self.parameters = parameters
        self._files = files_of(Path(folder))
        self.model_type = model_type or model_type_of(Path(folder))
        self.task = task
        self.trust_remote_code = trust_remote_code
        self._environment = environment_of(task, trust_remote_code)

    @property
    def source(self) -> Source:
        """The folder is packed into an archive."""
        return "archive"

    def place_for(self, scope: Construct, role: iam.IGrantable) -> PlacedModel:
        """The archive in the CDK's asset bucket."""
        return PlacedModel(environment=self._environment, data=archive_for(role, upload_archive(scope, self._files)))


def require_facts(**facts: str | float | None) -> None:
    """Refuse CDK tokens in options that say what a model is."""
    for option, value in facts.items():
        require_known(option, value, "images and instances are checked against it")


def environment_of(task: str | None, trust_remote_code: bool) -> dict[str, str]:
    """The environment variables of a container whose weights are in `/opt/ml/model`."""
    values = {"HF_TASK": task, "HF_TRUST_REMOTE_CODE": "true" if trust_remote_code else None}
    return {name: value for name, value in values.items() if value is not None}


def archive_for(
    role: iam.IGrantable, archive: Uploaded, encryption_key: kms.IKey | None = None
) -> sagemaker.CfnModel.ModelDataSourceProperty:
    """The data source of an archive that SageMaker unpacks; `role` is allowed to read it."""
    _grant(role, ["s3:GetObject"], _arn(archive.bucket, archive.key))
    return _data(role, archive, "S3Object", "Gzip", encryption_key)


def prefix_for(
    role: iam.IGrantable, prefix: Uploaded, encryption_key: kms.IKey | None = None
) -> sagemaker.CfnModel.ModelDataSourceProperty:
    """The data source of files that SageMaker copies as they are; `role` is allowed to list and read them."""
    _grant(role, ["s3:GetObject"], _arn(prefix.bucket, f"{prefix.key}*"))
    _grant(role, ["s3:ListBucket"], _arn(prefix.bucket), {"StringLike": {"s3:prefix": [f"{prefix.key}*"]}})
    return _data(role, prefix, "S3Prefix", "None", encryption_key)


def _data(
    role: iam.IGrantable, uploaded: Uploaded, kind: str, compression: str, encryption_key: kms.IKey | None
) -> sagemaker.CfnModel.ModelDataSourceProperty:
    if encryption_key is not None:
        encryption_key.grant_decrypt(role)
    return sagemaker.CfnModel.ModelDataSourceProperty(
        s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
            s3_uri=f"s3://{uploaded.bucket}/{uploaded.key}", s3_data_type=kind, compression_type=compression
        )
    )


def _grant(role: iam.IGrantable, actions: list[str], arn: str, conditions: Mapping[str, object] | None = None) -> None:
    statement = iam.PolicyStatement(actions=actions, resources=[arn], conditions=conditions)
    role.grant_principal.add_to_principal_policy(statement)


def _arn(bucket: str, key: str | None = None) -> str:
    return f"arn:{any_partition()}:s3:::{bucket}" + (f"/{key}" if key else "")
