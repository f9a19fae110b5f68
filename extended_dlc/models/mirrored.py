"""Models and data sets that are copied from the Hub to S3 once, and used from there without the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from aws_cdk import Annotations, Aws, Duration, Token
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct, IDependable

from extended_dlc.constructs.archive import Uploaded
from extended_dlc.constructs.codebuild import LONGEST_SECONDS
from extended_dlc.constructs.helpers import require_same, target_of
from extended_dlc.decisions.access import check_copy, copy_notes
from extended_dlc.decisions.asked import VARIABLES, Source
from extended_dlc.facts.checks import check_commit, check_model_id, model_id
from extended_dlc.facts.models import context_key, dataset_key, is_gated
from extended_dlc.facts.named_models import known_licence, known_model_type
from extended_dlc.models.copying import HubCopy, copy_to_s3, new_project
from extended_dlc.models.model import PlacedModel, environment_of, prefix_for, require_facts
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import require, within
from extended_dlc.options.code import InferenceCode

DEFAULT_BUCKET = "extended-dlc-models"
"""The start of the default bucket's name."""


class MirroredModel(Construct):
    """One commit of a Hub model, copied to S3 by the deployment and served from there.

    CodeBuild copies it, in parallel and compared with the Hub's hashes; no byte goes over the machine that deploys.
    What is in the bucket already is not copied again, whichever deployment, stack or interrupted copy left it there.
    Containers get the files from SageMaker, without a network and without the Hub.
    """

    token: secretsmanager.ISecret | None = None
    """None, because the container needs no token: the copy reads it."""

    code: InferenceCode | None = None
    source: Source = "mirrored"
    variables: Mapping[str, str] = VARIABLES["mirrored"]
    _kind: Literal["model", "dataset"] = "model"

    @check_types
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        model: str,
        revision: str,
        task: str | None = None,
        model_type: str | None = None,
        parameters: int | None = None,
        trust_remote_code: bool = False,
        licence: str | None = None,
        token: secretsmanager.ISecret | None = None,
        bucket: s3.IBucket | None = None,
        project: codebuild.IProject | None = None,
        timeout: Duration | None = None,
    ) -> None:
        """Define the copy.

        :param model: The model's id on the Hub, as of `HubModel`.
        :param revision: The commit, 40 hexadecimal digits. ValueError for a tag or a branch, which can move.
        :param task: Name of the transformers pipeline. Default: inferred from the model's own configuration.
        :param model_type: As of `HubModel`. Default: known by name for BLOOM and Whisper, otherwise not checked.
        :param parameters: As of `HubModel`. Default: known by name for BLOOM and Whisper, otherwise not checked.
        :param trust_remote_code: Whether Python files of the model may run. Default: they may not.
        :param licence: As of `HubModel`. Default: known by name for BLOOM and Whisper.
        :param token: The secret with the Hub's token, or a JSON object with it as `HF_TOKEN`, for a private or gated
            model; the copy reads it, and the container never sees it. Default: none.
        :param bucket: Where the copy goes, below `models/`, and below `unverified/` until it is compared; in the
            endpoint's region. Default: `extended-dlc-models-ACCOUNT-REGION`, which the first copy makes, for TLS only,
            and which belongs to no stack, so that a rollback leaves what was copied.
        :param project: The CodeBuild project that copies, on a Linux image with Python 3.9 or newer, as one with a way
            through your network; its role is granted what the copy needs. Default: a new one.
        :param timeout: How long the copy may take, 10 minutes to 8 hours. What it did until then is kept. Default: 6
            hours.
        """
        super().__init__(scope, construct_id)
        self.model_id: str = model_id(model)
        require("model", self.model_id, check_model_id)
        require("revision", revision, check_commit)
        self.revision = revision
        self._check_access(token)
        self._settle_facts(model_type, parameters, licence)
        self.trust_remote_code = trust_remote_code
        self._annotate()
        self._in_default_bucket = bucket is None
        self.bucket: s3.IBucket = bucket or s3.Bucket.from_bucket_name(
            self, "Bucket", f"{DEFAULT_BUCKET}-{Aws.ACCOUNT_ID}-{Aws.REGION}"
        )
        """Where the files are."""
        self._prefix = f"{self._kind}s/{self.model_id}/{revision}/"
        self.task = task
        self._environment = {**environment_of(task, trust_remote_code), "HF_HUB_OFFLINE": "1"}
        self.project: codebuild.IProject = project or new_project(self, self.model_id)
        copy = HubCopy(
            kind=self._kind,
            model_id=self.model_id,
            revision=revision,
            token=token,
            bucket=self.bucket,
            makes_bucket=bucket is None,
            prefix=self._prefix,
            project=self.project,
            seconds=_seconds_of(timeout),
        )
        self._ready = copy_to_s3(self, copy)

    def _settle_facts(self, model_type: str | None, parameters: int | None, licence: str | None) -> None:
        require_facts(model_type=model_type, parameters=parameters, licence=licence)
        within("parameters", parameters, 1, None, "leave it out where it is not known")
        known = not Token.is_unresolved(self.model_id)
        self.parameters = parameters
        self.model_type: str | None = model_type or (known_model_type(self.model_id) if known else None)
        self.licence: str | None = licence or (known_licence(self.model_id) if known else None)
        """The licence of the model, where it is known."""

    @property
    def s3_uri(self) -> str:
        """The S3 location of the files once they are copied."""
        return f"s3://{self.bucket.bucket_name}/{self._prefix}"

    def place_for(self, scope: Construct, role: iam.IGrantable) -> PlacedModel:
        """The copied files; a Model that uses them waits for the whole copy."""
        require_same("region", "model", self.bucket, scope, "make a MirroredModel there, too")
        if self._in_default_bucket:  # its name has the account in it
            require_same("account", "model", self.bucket, scope, "make a MirroredModel there, too, or pass a bucket")
        prefix = Uploaded(bucket=self.bucket.bucket_name, key=self._prefix)
        return PlacedModel(
            environment=self._environment,
            data=prefix_for(role, prefix, self.bucket.encryption_key),
            ready=self._ready,
            isolated=True,
        )

    @property
    def ready(self) -> IDependable:
        """A dependency on it waits until the copy is complete."""
        return self._ready

    def grant_read(self, role: iam.IGrantable) -> None:
        """Let `role` list and read the copy."""
        prefix_for(role, Uploaded(bucket=self.bucket.bucket_name, key=self._prefix), self.bucket.encryption_key)

    def _check_access(self, token: secretsmanager.ISecret | None) -> None:
        """Refuse a token that is no secret, and what was looked up and is gated where the copy has no token."""
        is_model = self._kind == "model"
        key = context_key(self.model_id) if is_model else dataset_key(self.model_id)
        gated = None if Token.is_unresolved(self.model_id) else is_gated(self.node.try_get_context(key))
        require(
            self._kind,
            self.model_id,
            lambda _: check_copy(gated=gated, token=token is not None, kept="S3Model" if is_model else "S3Data"),
        )

    def _annotate(self) -> None:
        called = f"{'model' if self._kind == 'model' else 'data set'} '{self.model_id}'"
        for kind, text in copy_notes(called=called, licence=self.licence, region=target_of(self).region):
            annotations = Annotations.of(self)
            add = annotations.add_info_v2 if kind == "licence" else annotations.add_warning_v2
            add(f"extended-dlc:{kind}", text)


def _seconds_of(timeout: Duration | None) -> int:
    seconds = int((timeout or Duration.hours(6)).to_seconds())
    if not 600 <= seconds <= LONGEST_SECONDS:
        raise ValueError(
            f"'timeout' ({seconds} s) must be from 10 minutes to 8 hours, CodeBuild's limit: a copy that needs "
            "longer goes on with the next deployment"
        )
    return seconds


class MirroredDataset(MirroredModel):
    """One commit of a data set of the Hub, copied to S3 by the deployment: a channel of a training.

    It is copied as a `MirroredModel` is, below `datasets/`, with all files that are not hidden.
    """

    _kind = "dataset"

    @check_types
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        dataset: str,
        revision: str,
        token: secretsmanager.ISecret | None = None,
        bucket: s3.IBucket | None = None,
        project: codebuild.IProject | None = None,
        timeout: Duration | None = None,
    ) -> None:
        """Define the copy.

        :param dataset: The data set's id on the Hub, as `nyu-mll/glue`. ValueError when it cannot be an id.
        :param revision: The commit, 40 hexadecimal digits. ValueError for a tag or a branch, which can move.
        :param token: The secret with the Hub's token, for a private or gated data set, as of `MirroredModel`. Default:
            none, and the copy of a gated one fails with what to do.
        :param bucket: As of `MirroredModel`, below `datasets/`. Default: the one that copies of models have.
        :param project: As of `MirroredModel`. Default: a new one.
        :param timeout: As of `MirroredModel`. Default: 6 hours.
        """
        require("dataset", dataset, check_model_id)
        super().__init__(
            scope,
            construct_id,
            model=dataset,
            revision=revision,
            token=token,
            bucket=bucket,
            project=project,
            timeout=timeout,
        )
