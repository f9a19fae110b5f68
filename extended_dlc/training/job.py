"""`TrainingJob`: a fine-tuning that can be repeated, and the way of its result to an endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from aws_cdk import Duration, Names, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct, IDependable

from extended_dlc.constructs import principals as _sources
from extended_dlc.constructs.archive import Uploaded, upload_archive
from extended_dlc.constructs.helpers import any_partition, place_of, synthesizer_of
from extended_dlc.constructs.network import place_in
from extended_dlc.constructs.platform_rules import check_types, rules_of
from extended_dlc.decisions.decide import Decision, decide
from extended_dlc.decisions.found import Found
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.decisions.of_training import check_training_instance
from extended_dlc.decisions.training import (
    MODEL_CHANNEL,
    NAME_LENGTH,
    TrainingAsked,
    arguments_of,
    decide_training,
)
from extended_dlc.endpoint.capture import grant_key, grant_objects
from extended_dlc.images.decided import annotate, image_asked, model_asked, refuse, region_of
from extended_dlc.images.image import EcrImage, ExtendedDlc, PublishedImage, ServingImage, notes_of_image
from extended_dlc.models.model import HubModel, S3Model, prefix_for
from extended_dlc.options._values import OptionError, instance_names
from extended_dlc.options.training import (
    EvaluationGate,
    HyperParameter,
    S3Data,
    TrainingCode,
    TrainingInstances,
    TrainingSchedule,
)
from extended_dlc.training.machine import GoOver, Plan, definition, s3_channel
from extended_dlc.training.model import MODELS, TrainedModel, new_results

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_s3 as s3

    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint
    from extended_dlc.models.mirrored import MirroredDataset, MirroredModel
    from extended_dlc.options.network import Network

LOGS = "/aws/sagemaker/TrainingJobs"
"""The log group, and the namespace of metrics, of all training jobs of an account."""

TRAINER_METRICS = {
    "train:loss": r"'loss': '?([0-9.eE+-]+)",
    "train:grad_norm": r"'grad_norm': '?([0-9.eE+-]+)",
    "train:learning_rate": r"'learning_rate': '?([0-9.eE+-]+)",
    "eval:loss": r"'eval_loss': '?([0-9.eE+-]+)",
    "epoch": r"'epoch': '?([0-9.eE+-]+)",
}
"""What Trainer logs (`Trainer.log`; the quotes around numbers are those of transformers 5)."""

CODE = "/opt/ml/input/data/code"
"""Where the code is that comes as a channel: an isolated container cannot fetch it."""

CHECKPOINTS = "/opt/ml/checkpoints"


class TrainingJob(Construct):
    """A training that a state machine runs: on demand, by the clock, or when what it is made of changes.

    With `serves=` its result goes on to the endpoint: it is looked at, measured where there is a `gate`, and where it
    is accepted the endpoint goes over to it. Refused or failed, the endpoint stays. An execution with the input
    `{"artifact": "s3://…/"}` trains nothing and serves that artefact: so an endpoint is rolled back.
    """

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
        self._check_together(serves, gate, registry, bucket, role, role_path, permissions_boundary)
        self.code = code
        self.instances = instances or TrainingInstances()
        if (rules := rules_of(self)) is not None:
            check_types(self, self.instances.found)
            network, encryption_key = network or rules.network, encryption_key or rules.encryption_key
        self.job_name: str = job_name or Names.unique_resource_name(
            self, max_length=NAME_LENGTH, separator="-", allowed_special_characters="-"
        ).lower().rstrip("-")
        self._serves, self._gate, self._adapter = serves, gate, adapter
        self._registry = registry
        self._channels = channels or {}
        self._hyperparameters = hyperparameters or {}
        self._base, self._network_isolation, self._key = base_model, network_isolation, encryption_key
        self._metrics = TRAINER_METRICS if metrics is None else metrics
        self._tags = tags or {}
        self._waits: list[IDependable] = []
        decided = self._decide_image(image)
        self._decide(decided, environment or {})
        self._environment = {**self._own_environment(), **(environment or {})}
        self.bucket: s3.IBucket = (serves.bucket if serves else bucket) or new_results(self, "Bucket", encryption_key)
        """Where results are: models below `models/`, what the gate measured below `evaluations/`."""
        self._given_role = role is not None
        self.role: iam.IRole = role or iam.Role(
            self,
            "Role",
            assumed_by=_sources.sagemaker(self),
            description=f"What the containers of {self.job_name} may do",
            path=role_path,
            permissions_boundary=permissions_boundary,
        )
        published = self._publish(image, decided)
        self._uri = published.uri
        (published.pulled_from or image).grant_pull(self.role)
        self._vpc = place_in(self, network, role=self.role).vpc_config if network else None
        self._archive = upload_archive(self, code.files())
        self._inputs = self._place_inputs()
        self._grant_results()
        self._grant_observability()
        if permissions_boundary is not None:
            iam.PermissionsBoundary.of(self).apply(permissions_boundary)
        self.state_machine = self._run(registry)
        """The state machine; an execution is a run."""
        if schedule is not None:
            self._schedule(schedule)
        if on_change:
            self._start_on_change()

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` start runs, follow and stop them: what `extended-dlc train` needs of the state machine."""
        executions = place_of(self).arn("states", f"execution:{self.state_machine.state_machine_name}:*")
        iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["states:DescribeExecution", "states:GetExecutionHistory", "states:StopExecution"],
            resource_arns=[executions],
        )
        return self.state_machine.grant_start_execution(grantee)

    @cached_property
    def endpoint(self) -> HuggingFaceEndpoint | None:
        """The endpoint that goes over to accepted models."""
        from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint

        if self._serves is None:
            return None
        for home in self._serves.endpoints:
            for each in [home, *home.node.scopes]:
                if isinstance(each, HuggingFaceEndpoint):
                    return each
        raise OptionError(
            "serves",
            self._serves.node.path,
            "is served by no endpoint: define the HuggingFaceEndpoint with model= of it before the training",
        )

    # -- what is asked and decided ------------------------------------------------------------------------------------

    @staticmethod
    def _check_together(
        serves: object, gate: object, registry: object, bucket: object, role: object, path: object, boundary: object
    ) -> None:
        """Options that exclude each other."""
        if serves is None and (gate is not None or registry is not None):
            option = "gate" if gate is not None else "registry"
            raise OptionError(
                option,
                rule="is for models that go on to an endpoint: pass serves=, the endpoint's TrainedModel, or leave it "
                "out",
            )
        if serves is not None and bucket is not None:
            raise OptionError("bucket", rule="is that of the TrainedModel, which serves= names: give it there")
        for option, value in (("role_path", path), ("permissions_boundary", boundary)):
            if role is not None and value is not None:
                raise OptionError(option, rule="is for the new role, and 'role' gives one: set it there")

    def _decide_image(self, image: ServingImage) -> ImageDecision:
        asked = image_asked(image)
        if asked.kind == "stock":
            raise OptionError(
                "image", "StockDlc", "serves models: pass ExtendedDlc(family='training', …), or AWS's training image "
                "from a repository of yours with EcrImage"
            )  # fmt: skip
        if asked.kind == "other":
            return ImageDecision(kind="other")
        decision: Decision = decide(asked, [], region=region_of(self))
        refuse(decision)
        annotate(self, notes_of_image(decision.notes, None))
        self._image_notes = decision.notes
        return decision.image

    def _decide(self, image: ImageDecision, environment: Mapping[str, str]) -> None:
        """Refuse and annotate what is known before a container runs."""
        endpoint, serves = self.endpoint, self._serves
        if serves is not None and serves.adapter != (self._adapter == "beside"):
            wanted = "adapter='beside'" if serves.adapter else f"no adapter='{self._adapter}'"
            raise OptionError(
                "adapter",
                str(self._adapter),
                f"does not go with the TrainedModel, whose endpoint expects {wanted}: say the same of both",
            )
        found = Found()
        parts = endpoint.decision.parts if endpoint is not None else ()
        asked = TrainingAsked(
            name=self.job_name,
            code=self.code,
            hyperparameters=self._hyperparameters,
            channels=tuple(self._channels),
            model=model_asked(self, self._base) if self._base is not None else None,
            instances=self.instances,
            adapter=self._adapter,
            gate=self._gate,
            registry=self._registry,
            environment=environment,
            metrics=self._metrics,
            transformers=image.transformers,
            serving=parts[0].image.transformers if parts else None,
            served_base=serves.id if serves is not None else None,
            serves=serves is not None,
            isolated=self._network_isolation,
            image_training=image.family == "training" if image.kind == "extended" else None,
        )
        decide_training(asked, found)
        if image.kind == "extended":
            for instance in self.instances.found:
                check_training_instance(image, instance, region_of(self), found.at(""))
        for refusal in found.refusals:
            raise ValueError(refusal.sentence)
        annotate(self, found.notes)
        self._serving = asked.serving

    def _own_environment(self) -> dict[str, str]:
        """What the options tell the container."""
        base = self._base
        values: dict[str, str | None] = {}
        if isinstance(base, HubModel):
            values |= {
                "HF_MODEL_ID": base.id,
                "HF_MODEL_REVISION": base.revision,
                "HF_TOKEN_SECRET_ARN": base.token.secret_arn if base.token else None,
            }
        elif base is not None or self._network_isolation:
            values["HF_HUB_OFFLINE"] = "1"
        values["HF_TASK"] = base.task if base is not None else None
        if self._adapter == "merged":
            values["EXTENDED_DLC_MERGE_ADAPTER"] = "true"
        return {name: value for name, value in values.items() if value is not None}

    # -- what a job is told -------------------------------------------------------------------------------------------

    def _publish(self, image: ServingImage, decided: ImageDecision) -> PublishedImage:
        if isinstance(image, (ExtendedDlc, EcrImage)):
            published = image.publish_decided(self, decided, getattr(self, "_image_notes", ()))
        else:
            first, *_ = self.instances.found
            published = image.publish_for(self, instance=first, model=self._base or HubModel("unknown"))
        if published.ready is not None:
            self._waits.append(published.ready)
        return published

    def _place_inputs(self) -> dict[str, str]:
        """The channels' places in S3, which the role may read."""
        self._grant_prefix(self._archive.bucket, self._archive.key, is_file=True)
        places: dict[str, str] = {}
        for name, channel in self._channels.items():
            if isinstance(channel, S3Data):
                uploaded = Uploaded(bucket=channel.bucket.bucket_name, key=channel.prefix)
                prefix_for(self.role, uploaded, channel.bucket.encryption_key)
                places[name] = f"s3://{uploaded.bucket}/{uploaded.key}"
            else:
                channel.grant_read(self.role)
                self._waits.append(channel.ready)
                places[name] = channel.s3_uri
        base = self._base
        if isinstance(base, HubModel):
            if base.token is not None:
                base.token.grant_read(self.role)
        elif base is not None:
            placed = base.place_for(self, self.role)
            source = cast(Any, placed.data).s3_data_source
            places[MODEL_CHANNEL] = source.s3_uri
            if placed.ready is not None:
                self._waits.append(placed.ready)
        if self._network_isolation:
            places["code"] = f"s3://{self._archive.bucket}/{self._archive.key}"
        return places

    def _requests(self, *, gate: bool) -> list[dict[str, Any]]:
        """CreateTrainingJob without a name, for each instance type."""
        types: Sequence[str] = self.instances.instance_types
        if gate and self._gate is not None and self._gate.instance_type is not None:
            types = instance_names(self._gate.instance_type)
        return [self._request(each, gate=gate) for each in types]

    def _request(self, instance_type: str, *, gate: bool) -> dict[str, Any]:
        own, instances = self._gate if gate else None, self.instances
        channels = self._inputs
        if own is not None:
            wanted = set(own.channels or [name for name in self._channels if name != "train"]) | {"code"}
            channels = {name: uri for name, uri in self._inputs.items() if name in wanted}
        resources: dict[str, Any] = {
            "InstanceType": instance_type,
            "InstanceCount": 1 if gate else instances.count,
            "VolumeSizeInGB": instances.volume_gb,
        }
        storage = {each.name: each.local_storage_gb for each in instances.found}
        if self._key is not None and not storage.get(instance_type):
            resources["VolumeKmsKeyId"] = self._key.key_arn
        prefix = "evaluations/" if gate else MODELS
        request: dict[str, Any] = {
            "AlgorithmSpecification": {
                "TrainingImage": self._uri,
                "TrainingInputMode": "File",
                **(
                    {"MetricDefinitions": [{"Name": name, "Regex": regex} for name, regex in self._metrics.items()]}
                    if self._metrics and not gate
                    else {}
                ),
            },
            "RoleArn": self.role.role_arn,
            "HyperParameters": self._arguments(gate=gate),
            "OutputDataConfig": {
                "S3OutputPath": f"s3://{self.bucket.bucket_name}/{prefix.rstrip('/')}",
                # as files, so that an endpoint starts without unpacking; what is measured is one small archive
                "CompressionType": "GZIP" if gate else "NONE",
                **({"KmsKeyId": self._key.key_arn} if self._key else {}),
            },
            "ResourceConfig": resources,
            "StoppingCondition": {
                "MaxRuntimeInSeconds": own.max_runtime_seconds if own is not None else instances.max_runtime_seconds
            },
        }
        if channels:
            request["InputDataConfig"] = [s3_channel(name, uri=uri) for name, uri in sorted(channels.items())]
        environment = self._environment
        if gate:
            environment = {k: v for k, v in environment.items() if k != "EXTENDED_DLC_MERGE_ADAPTER"}
        if environment:
            request["Environment"] = environment
        if self._vpc is not None:
            request["VpcConfig"] = {
                "SecurityGroupIds": self._vpc.security_group_ids,
                "Subnets": self._vpc.subnets,
            }
        if self._network_isolation:
            request["EnableNetworkIsolation"] = True
        if self._tags:
            request["Tags"] = [{"Key": key, "Value": value} for key, value in sorted(self._tags.items())]
        return request if gate else request | self._interruptions()

    def _interruptions(self) -> dict[str, Any]:
        """What keeps the work of a job that is stopped, and spot capacity, which stops it."""
        instances = self.instances
        told: dict[str, Any] = {}
        if instances.checkpoints:
            # of each run its own: a later one begins anew
            where = f"States.Format('s3://{self.bucket.bucket_name}/checkpoints/{self.job_name}/{{}}/', "
            told["CheckpointConfig"] = {"S3Uri.$": f"{where}$$.Execution.Name)", "LocalPath": CHECKPOINTS}
        if instances.spot:
            runtime = instances.max_runtime_seconds
            told["EnableManagedSpotTraining"] = True
            told["StoppingCondition"] = {
                "MaxRuntimeInSeconds": runtime,
                "MaxWaitTimeInSeconds": instances.max_wait_seconds or 2 * runtime,
            }
        if instances.count > 1 and self._key is not None:
            told["EnableInterContainerTrafficEncryption"] = True
        return told

    def _arguments(self, *, gate: bool) -> dict[str, str]:
        """The hyperparameters with SageMaker's own (sagemaker-training, `params.py`)."""
        own = self._gate if gate else None
        given = own.hyperparameters or {} if own is not None else self._hyperparameters
        place = f"s3://{self._archive.bucket}/{self._archive.key}"
        if self._network_isolation:
            place = f"{CODE}/{self._archive.key.rpartition('/')[2]}"
        program = own.entry_point if own is not None else self.code.entry_point
        distribution = {} if gate or self.instances.distribution is None else {_TORCHRUN: "true"}
        return {
            **{name: _as_sagemaker_reads(value) for name, value in arguments_of(given).items()},
            "sagemaker_program": program,
            "sagemaker_submit_directory": place,
            "sagemaker_container_log_level": "20",
            "sagemaker_region": place_of(self).region,
            **distribution,
        }

    # -- rights -------------------------------------------------------------------------------------------------------

    def _grant_prefix(self, bucket: str, key: str, *, is_file: bool = False) -> None:
        arn = f"arn:{any_partition()}:s3:::{bucket}"
        self._allow(["s3:GetObject"], [f"{arn}/{key}" + ("" if is_file else "*")])

    def _grant_results(self) -> None:
        """Write this job's results, read trained models for the gate, and keep checkpoints."""
        bucket, own = self.bucket, f"{self.job_name}-*"
        grant_objects(bucket, self.role, f"{MODELS}{own}", write=True)
        listed = []
        if self._gate is not None:
            grant_objects(bucket, self.role, f"evaluations/{own}", write=True)
            grant_objects(bucket, self.role, f"{MODELS}*", write=False)
            listed.append(f"{MODELS}*")
        if self.instances.checkpoints:
            pattern = f"checkpoints/{self.job_name}/*"
            grant_objects(bucket, self.role, pattern, write=True)
            grant_objects(bucket, self.role, pattern, write=False)
            self._allow(["s3:DeleteObject"], [bucket.arn_for_objects(pattern)])
            listed.append(pattern)
        if listed:
            self._allow(["s3:ListBucket"], [bucket.bucket_arn], {"StringLike": {"s3:prefix": listed}})
        if self._key is not None:
            grant_key(self._key, self.role)
            self._allow(["kms:CreateGrant"], [self._key.key_arn], {"Bool": {"kms:GrantIsForAWSResource": "true"}})

    def _grant_observability(self) -> None:
        """The log and the metrics of training jobs."""
        group = place_of(self).arn("logs", f"log-group:{LOGS}")
        self._allow(["logs:CreateLogGroup", "logs:DescribeLogStreams"], [group, f"{group}:*"])
        self._allow(["logs:CreateLogStream", "logs:PutLogEvents"], [f"{group}:log-stream:{self.job_name}-*"])
        self._allow(["cloudwatch:PutMetricData"], ["*"], {"StringEquals": {"cloudwatch:namespace": [LOGS]}})

    def _allow(self, actions: list[str], resources: list[str], conditions: Mapping[str, object] | None = None) -> None:
        self.role.add_to_principal_policy(
            iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
        )

    # -- the state machine --------------------------------------------------------------------------------------------

    def _run(self, registry: str | None) -> sfn.StateMachine:
        stack = Stack.of(self)
        function = self._function() if self._serves is not None else None
        plan = Plan(
            partition=any_partition(),
            name=self.job_name,
            requests=self._requests(gate=False),
            evaluations=self._requests(gate=True) if self._gate is not None else (),
            evaluations_uri=f"s3://{self.bucket.bucket_name}/evaluations/",
            function=function.function_arn if function else "",
            look=self._look(),
            gate=self._bounds(),
            beside_live=bool(self._gate and self._gate.beside_live),
            package=self._package(registry) if registry is not None else None,
            goes=self._goes_over(),
        )
        machine = sfn.StateMachine(
            self,
            "StateMachine",
            definition_body=sfn.DefinitionBody.from_string(stack.to_json_string(definition(plan))),
            comment=f"Trains {self.job_name}",
            logs=sfn.LogOptions(
                destination=logs.LogGroup(
                    self, "Log", retention=logs.RetentionDays.THREE_MONTHS, removal_policy=RemovalPolicy.DESTROY
                ),
                level=sfn.LogLevel.ALL,
                include_execution_data=True,
            ),
            # an accepted model may wait for the endpoint's rollout
            timeout=Duration.seconds(self._longest_seconds()),
        )
        self._allow_machine(machine, function, registry)
        machine.node.add_dependency(self.role, *self._waits)
        return machine

    def _longest_seconds(self) -> int:
        """How long a run can take: each type once, both evaluations, and a day for the endpoint."""
        one = self.instances.max_wait_seconds or self.instances.max_runtime_seconds * (2 if self.instances.spot else 1)
        measured = 2 * self._gate.max_runtime_seconds if self._gate is not None else 0
        return min(one * len(self.instances.instance_types) + measured + 24 * 3600, 365 * 24 * 3600)

    def _look(self) -> dict[str, Any]:
        serves = self._serves
        if serves is None:
            return {}
        return {
            "Models": serves.models_uri,
            "Serving": self._serving or "",
            "Stack": Stack.of(serves).stack_name,
            "Parameter": self._parameter_name(serves),
        }

    @staticmethod
    def _parameter_name(serves: TrainedModel) -> str:
        """The parameter's name in its own stack: a text there, so that another stack needs no export of it."""
        return str(Stack.of(serves).resolve(serves.parameter.logical_id))

    def _bounds(self) -> dict[str, Any] | None:
        gate = self._gate
        if gate is None:
            return None
        bounds = {"metric": gate.metric, "at_most": gate.at_most, "at_least": gate.at_least, "margin": gate.margin}
        return {name: value for name, value in bounds.items() if value is not None}

    def _goes_over(self) -> GoOver | None:
        from extended_dlc.endpoint.schedule import StackParameters

        serves = self._serves
        if serves is None:
            return None
        changed = StackParameters(serves.parameter, {"ParameterValue.$": "$.look.artifact"})
        return GoOver(
            stack=Stack.of(serves).stack_name,
            parameter=self._parameter_name(serves),
            parameters=changed.lazy,
        )

    def _package(self, registry: str) -> dict[str, Any]:
        """A version of the registry's group: the accepted model with the endpoint's image."""
        from aws_cdk import aws_sagemaker as sagemaker

        endpoint, serves = self.endpoint, self._serves
        assert endpoint is not None and serves is not None  # noqa: S101, PT018 - by _check_together
        group = sagemaker.CfnModelPackageGroup(
            self,
            "Registry",
            model_package_group_name=registry,
            model_package_group_description=f"Models of {self.job_name} that were accepted",
        )
        self._waits.append(group)
        container = cast(Any, endpoint.model.primary_container)
        return {
            "ModelPackageGroupName": registry,
            "ModelPackageDescription.$": "States.Format('Accepted by {}', $$.Execution.Name)",
            "ModelApprovalStatus": "Approved",
            "InferenceSpecification": {
                "Containers": [
                    {
                        "Image": container.image,
                        "ModelDataSource": {
                            "S3DataSource": {
                                "S3Uri.$": "$.look.artifact",
                                "S3DataType": "S3Prefix",
                                "CompressionType": "None",
                            }
                        },
                        **({"Environment": {"HF_TASK": serves.task}} if serves.task else {}),
                    }
                ],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        }

    def _function(self) -> lambda_.Function:
        from aws_cdk import aws_lambda as lambda_

        from extended_dlc.endpoint.prover import FUNCTIONS

        log_group = logs.LogGroup(
            self, "JudgeLog", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
        )
        role = iam.Role(self, "JudgeRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        log_group.grant_write(role)
        serves = self._serves
        assert serves is not None  # noqa: S101 - by the caller
        stack = place_of(serves).arn("cloudformation", f"stack/{Stack.of(serves).stack_name}/*")
        for actions, resources, conditions in (
            (["cloudformation:DescribeStacks", "cloudformation:DescribeStackEvents"], [stack], None),
            (["s3:GetObject"], [self.bucket.arn_for_objects(f"{MODELS}*")], None),
            (["s3:GetObject"], [self.bucket.arn_for_objects(f"evaluations/{self.job_name}-*")], None),
            (
                ["s3:ListBucket"],
                [self.bucket.bucket_arn],
                {"StringLike": {"s3:prefix": [f"{MODELS}*", "evaluations/*"]}},
            ),
        ):
            role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))
        if self.bucket.encryption_key is not None:
            self.bucket.encryption_key.grant_decrypt(role)
        if self._key is not None:
            self._key.grant_decrypt(role)
        return lambda_.Function(
            self,
            "Judge",
            description=f"Looks at what {self.job_name} trained, and judges what was measured",
            runtime=lambda_.Runtime("python3.14", lambda_.RuntimeFamily.PYTHON, supports_inline_code=True),
            code=lambda_.Code.from_asset(str(FUNCTIONS), exclude=["__pycache__"]),
            handler="gate.handle",
            timeout=Duration.minutes(1),
            memory_size=256,
            role=role.without_policy_updates(),
            log_group=log_group,
        )

    def _allow_machine(
        self, machine: sfn.StateMachine, function: lambda_.Function | None, registry: str | None
    ) -> None:
        """What the state machine does: jobs of this name, the function, the package, and the one stack."""
        place = place_of(self)
        jobs = place.arn("sagemaker", f"training-job/{self.job_name}-*")
        actions = ["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"]
        rule = place.arn("events", "rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule")
        statements = [
            (actions + (["sagemaker:AddTags"] if self._tags else []), [jobs], None),
            (
                ["iam:PassRole"],
                [self.role.role_arn],
                {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            ),
            # how Step Functions hears of a job's end (Step Functions developer guide, "Run a job (.sync)")
            (["events:PutTargets", "events:PutRule", "events:DescribeRule"], [rule], None),
        ]
        if function is not None and self._serves is not None:
            stack = Stack.of(self._serves)
            qualifier = synthesizer_of(stack).bootstrap_qualifier or "hnb659fds"
            served = place_of(self._serves)
            statements += [
                (["lambda:InvokeFunction"], [function.function_arn], None),
                (
                    ["cloudformation:UpdateStack", "cloudformation:DescribeStacks"],
                    [served.arn("cloudformation", f"stack/{stack.stack_name}/*")],
                    None,
                ),
                # the caller's right to the CDK's own parameter of each template, BootstrapVersion
                (["ssm:GetParameters"], [served.arn("ssm", f"parameter/cdk-bootstrap/{qualifier}/version")], None),
            ]
        if registry is not None:
            group = [f"model-package-group/{registry}", f"model-package/{registry}/*"]
            statements.append(
                (["sagemaker:CreateModelPackage"], [place.arn("sagemaker", each) for each in group], None)
            )
        for allowed, resources, conditions in statements:
            machine.add_to_role_policy(iam.PolicyStatement(actions=allowed, resources=resources, conditions=conditions))

    # -- when it runs -------------------------------------------------------------------------------------------------

    def _schedule(self, schedule: TrainingSchedule) -> None:
        from aws_cdk import TimeZone
        from aws_cdk import aws_scheduler as scheduler
        from aws_cdk import aws_scheduler_targets as targets

        scheduler.Schedule(
            self,
            "Schedule",
            description=f"Starts {self.job_name}",
            schedule=scheduler.ScheduleExpression.expression(schedule.expression, TimeZone.of(schedule.timezone)),
            target=targets.StepFunctionsStartExecution(
                self.state_machine, input=scheduler.ScheduleTargetInput.from_object({})
            ),
        )

    def _start_on_change(self) -> None:
        """A call at the deployment that differs where what the training is made of does."""
        from aws_cdk import custom_resources as custom

        made_of = {
            "image": self._uri,
            "code": self._archive.key,
            "inputs": self._inputs,
            "arguments": arguments_of(self._hyperparameters),
            "environment": self._environment,
        }
        call = custom.AwsSdkCall(
            service="sfn",
            action="startExecution",
            parameters={
                "stateMachineArn": self.state_machine.state_machine_arn,
                # the state machine reads nothing of it; where it differs, CloudFormation makes the call again
                "input": Stack.of(self).to_json_string({"changed": made_of}),
            },
            physical_resource_id=custom.PhysicalResourceId.of(self.job_name),
            output_paths=["executionArn"],
        )
        start = custom.AwsCustomResource(
            self,
            "Start",
            resource_type="Custom::ExtendedDlcTrainingStart",
            on_create=call,
            on_update=call,
            policy=custom.AwsCustomResourcePolicy.from_statements(
                [
                    iam.PolicyStatement(
                        actions=["states:StartExecution"], resources=[self.state_machine.state_machine_arn]
                    )
                ]
            ),
            install_latest_aws_sdk=False,
        )
        start.node.add_dependency(self.state_machine)


_TORCHRUN = "sagemaker_torch_distributed_enabled"
"""What tells the image's entry point to start the script with torchrun (sagemaker-pytorch-training, `training.py`)."""


def _as_sagemaker_reads(value: str) -> str:
    """A value as sagemaker-training's JSON decoding gives it back: a text that looks like JSON goes as a JSON text."""
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return json.dumps(value) if isinstance(read, (dict, list, str)) or read is None else value
