"""`TrainingJob`: a fine-tuning that can be repeated, and the way of its result to an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from aws_cdk import Names
from aws_cdk import aws_iam as iam
from constructs import Construct

from extended_dlc.constructs.helpers import target_of
from extended_dlc.constructs.network import place_in
from extended_dlc.constructs.principals import container_role
from extended_dlc.decisions.training import NAME_LENGTH
from extended_dlc.images.published import ServingImage
from extended_dlc.models.model import HubModel, S3Model
from extended_dlc.options._kinds import check_types
from extended_dlc.options.training import (
    EvaluationGate,
    HyperParameter,
    S3Data,
    TrainingCode,
    TrainingInstances,
    TrainingSchedule,
)
from extended_dlc.training.decided import decide_image, decide_job, endpoint_of, publish
from extended_dlc.training.deploy import state_machine
from extended_dlc.training.given import JobRole, Result, TrainingOptions
from extended_dlc.training.inputs import Inputs, place_inputs
from extended_dlc.training.model import TrainedModel, new_results
from extended_dlc.training.request import Requests
from extended_dlc.training.rights import grant_observability, grant_results
from extended_dlc.training.start import start

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_sagemaker as sagemaker
    from aws_cdk import aws_stepfunctions as sfn
    from constructs import IDependable

    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint
    from extended_dlc.models.mirrored import MirroredDataset, MirroredModel
    from extended_dlc.options.network import Network

TRAINER_METRICS = {
    "train:loss": r"'loss': '?([0-9.eE+-]+)",
    "train:grad_norm": r"'grad_norm': '?([0-9.eE+-]+)",
    "train:learning_rate": r"'learning_rate': '?([0-9.eE+-]+)",
    "eval:loss": r"'eval_loss': '?([0-9.eE+-]+)",
    "epoch": r"'epoch': '?([0-9.eE+-]+)",
}
"""What Trainer logs (`Trainer.log`; the quotes around numbers are those of transformers 5)."""


class TrainingJob(Construct):
    """A training that a state machine runs: on demand, by the clock, or when what it is made of changes.

    With `serves=` its result goes on to the endpoint: it is looked at, measured where there is a `gate`, and where it
    is accepted the endpoint goes over to it. Refused or failed, the endpoint stays. An execution with the input
    `{"artifact": "s3://…/"}` trains nothing and serves that artefact: so an endpoint is rolled back.
    """

    @check_types
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        code: TrainingCode,
        image: ServingImage,
        hyperparameters: Mapping[str, HyperParameter] | None = None,
        channels: Mapping[str, S3Data | MirroredDataset] | None = None,
        base_model: HubModel | S3Model | MirroredModel | None = None,
        instances: TrainingInstances | None = None,
        adapter: Literal["merged", "beside"] | None = None,
        serves: TrainedModel | None = None,
        gate: EvaluationGate | None = None,
        registry: str | None = None,
        schedule: TrainingSchedule | None = None,
        on_change: bool = False,
        metrics: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        bucket: s3.IBucket | None = None,
        network: Network | None = None,
        network_isolation: bool = False,
        encryption_key: kms.IKey | None = None,
        role: iam.IRole | None = None,
        role_path: str | None = None,
        permissions_boundary: iam.IManagedPolicy | None = None,
        tags: Mapping[str, str] | None = None,
        job_name: str | None = None,
    ) -> None:
        """Define the training.

        :param code: The folder with the script that trains.
        :param image: The image that it runs in: `ExtendedDlc(family="training")`, or an `EcrImage` with
            sagemaker-training. ValueError for one that serves.
        :param hyperparameters: Arguments of the script: `{"epochs": 3}` becomes `--epochs 3`. ValueError for one that
            its parser is known not to have. Default: none.
        :param channels: What the container finds below `/opt/ml/input/data/`, by the folders' names: `S3Data`, or a
            `MirroredDataset` of the Hub. Default: none.
        :param base_model: What is trained further. A `HubModel` is told to the script as `HF_MODEL_ID` and
            `HF_MODEL_REVISION`; a `MirroredModel`, or files in S3, are in the channel `model` (`SM_CHANNEL_MODEL`).
            ValueError for one that is gated without a token, and for one that no way of training fits the instances.
            Default: none, the script knows.
        :param instances: What it runs on, how long, and how it is distributed. Default: one `ml.g5.xlarge`.
        :param adapter: Whether the script trains a LoRA adapter, and what becomes of it: `merged` into its base by the
            image when the script has ended well, or loaded `beside` its base by the endpoint, for which `serves` has
            `adapter=True`. Default: all weights are trained.
        :param serves: The weights of an endpoint that accepted models replace; the endpoint has to be defined before.
            Default: none, the model stays in S3.
        :param gate: What decides whether a model is accepted. ValueError without `serves`. Default: nothing, each that
            can be loaded is.
        :param registry: Name of a new group of SageMaker's model registry, in which each accepted model becomes a
            package. ValueError without `serves`. Default: none.
        :param schedule: When it runs by itself. Default: never.
        :param on_change: Whether a deployment starts a run when code, hyperparameters, channels, base model or image
            have changed, at first too. The deployment does not wait for it. Default: it does not.
        :param metrics: What SageMaker reads from the log as metrics: name -> regular expression with one group.
            Default: what Trainer logs.
        :param environment: More environment variables. ValueError for those that the options set, and for a literal
            Hub token. Default: none.
        :param bucket: Where results go, below `models/`. ValueError with `serves`, which has one. Default: a new one.
        :param network: The VPC that the containers are in. Default: SageMaker's own, with access to the internet.
        :param network_isolation: Whether containers can open no connection; the code comes as a channel then.
            ValueError for a base model on the Hub. Default: they can.
        :param encryption_key: Key for volumes, results and the traffic's metadata. Default: AWS's own keys.
        :param role: What the containers may do; it is granted what the training uses where it can be changed. Default:
            a new role with just that.
        :param role_path: Path of the new role. ValueError with `role`. Default: `/`.
        :param permissions_boundary: What the new roles can never exceed. ValueError with `role`. Default: none.
        :param tags: Tags of each job. Default: those of the stack have to be given here too, because no resource of
            CloudFormation's has them.
        :param job_name: The jobs' part of their names, at most 50 characters; a hyphen and twelve digits follow.
            Default: made from the construct's path.
        """
        super().__init__(scope, construct_id)
        options = TrainingOptions(
            code=code,
            image=image,
            hyperparameters=hyperparameters or {},
            channels=channels or {},
            base_model=base_model,
            instances=instances or TrainingInstances(),
            adapter=adapter,
            metrics=TRAINER_METRICS if metrics is None else metrics,
            environment=environment or {},
            network=network,
            network_isolation=network_isolation,
            encryption_key=encryption_key,
            tags=tags or {},
            result=Result(serves=serves, gate=gate, registry=registry, bucket=bucket),
            job_role=JobRole(role=role, path=role_path, boundary=permissions_boundary),
        )
        requests = self._build(options.settled(self), job_name)
        start(self, requests, schedule=schedule, on_change=on_change)

    def _build(self, options: TrainingOptions, job_name: str | None) -> Requests:
        """Everything in its order: what is decided, the bucket, the role, the image, the inputs, the state machine."""
        self.code: TrainingCode = options.code
        self.instances: TrainingInstances = options.instances
        self.job_name: str = _name_of(self) if job_name is None else job_name
        image, notes = decide_image(self, options.image)
        self.endpoint: HuggingFaceEndpoint | None = endpoint_of(options.result.serves)
        """The endpoint that goes over to accepted models."""
        decide_job(self, options, image)
        key, network = options.encryption_key, options.network
        self.bucket: s3.IBucket = options.result.given_bucket or new_results(self, "Bucket", key)
        """Where results are: models below `models/`, what the gate measured below `evaluations/`."""
        given = options.job_role
        self.role: iam.IRole = container_role(self, given.role, self.job_name, path=given.path, boundary=given.boundary)
        published = publish(self, options, image, notes)
        (published.pulled_from or options.image).grant_pull(self.role)
        vpc = place_in(self, network, role=self.role, hosts=options.instances.count).vpc_config if network else None
        inputs = place_inputs(self, options)
        grant_results(self, options)
        grant_observability(self)
        if given.boundary is not None:
            iam.PermissionsBoundary.of(self).apply(given.boundary)
        requests = self._requests(options, inputs, published.uri, vpc)
        ready: list[IDependable] = [published.ready] if published.ready is not None else []
        self.state_machine: sfn.StateMachine = state_machine(self, options, requests, after=[*ready, *inputs.ready])
        """The state machine; an execution is a run."""
        return requests

    @check_types
    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` start runs, follow and stop them: what `extended-dlc train` needs of the state machine."""
        executions = target_of(self).arn("states", f"execution:{self.state_machine.state_machine_name}:*")
        iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["states:DescribeExecution", "states:GetExecutionHistory", "states:StopExecution"],
            resource_arns=[executions],
        )
        return self.state_machine.grant(grantee, "states:StartExecution", "states:ListExecutions")

    def _requests(
        self, options: TrainingOptions, inputs: Inputs, uri: str, vpc: sagemaker.CfnModel.VpcConfigProperty | None
    ) -> Requests:
        return Requests(
            job_name=self.job_name,
            options=options,
            image_uri=uri,
            role_arn=self.role.role_arn,
            bucket_name=self.bucket.bucket_name,
            region=target_of(self).region,
            inputs=inputs,
            vpc=vpc,
        )


def _name_of(job: TrainingJob) -> str:
    """The jobs' part of their names, made from the construct's path."""
    name: str = Names.unique_resource_name(
        job, max_length=NAME_LENGTH, separator="-", allowed_special_characters="-"
    ).lower()
    return name.rstrip("-")
