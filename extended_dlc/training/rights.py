"""The permissions of a training's containers and of its state machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from aws_cdk import Stack
from aws_cdk import aws_iam as iam

from extended_dlc.constructs.buckets import grant_key, grant_objects
from extended_dlc.constructs.helpers import any_partition, target_of
from extended_dlc.constructs.stack_updates import MayReadParameters
from extended_dlc.facts.names import TRAINING_LOGS
from extended_dlc.training.model import MODELS

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_stepfunctions as sfn

    from extended_dlc.constructs.archive import Uploaded
    from extended_dlc.training.given import TrainingOptions
    from extended_dlc.training.job import TrainingJob
    from extended_dlc.training.model import TrainedModel

_Conditions = Mapping[str, object]


def grant_archive(role: iam.IRole, archive: Uploaded) -> None:
    """Let `role` read one object."""
    _allow(role, ["s3:GetObject"], [f"arn:{any_partition()}:s3:::{archive.bucket}/{archive.key}"])


def grant_results(job: TrainingJob, options: TrainingOptions) -> None:
    """Let the role write the job's results, read trained models for the gate, and store checkpoints."""
    bucket, name_pattern, role = job.bucket, f"{job.job_name}-*", job.role
    grant_objects(bucket, role, f"{MODELS}{name_pattern}", write=True)
    listed = []
    if options.result.gate is not None:
        grant_objects(bucket, role, f"evaluations/{name_pattern}", write=True)
        grant_objects(bucket, role, f"{MODELS}*", write=False)
        listed.append(f"{MODELS}*")
    if options.instances.checkpoints:
        pattern = f"checkpoints/{job.job_name}/*"
        grant_objects(bucket, role, pattern, write=True)
        grant_objects(bucket, role, pattern, write=False)
        _allow(role, ["s3:DeleteObject"], [bucket.arn_for_objects(pattern)])
        listed.append(pattern)
    if listed:
        _allow(role, ["s3:ListBucket"], [bucket.bucket_arn], {"StringLike": {"s3:prefix": listed}})
    key = options.encryption_key
    if key is not None:
        grant_key(key, role)
        if options.result.serves is not None:
            options.result.serves.grant_decrypt(key, job)
        _allow(role, ["kms:CreateGrant"], [key.key_arn], {"Bool": {"kms:GrantIsForAWSResource": "true"}})


def grant_observability(job: TrainingJob) -> None:
    """Let the role write the logs and metrics of training jobs."""
    group = target_of(job).arn("logs", f"log-group:{TRAINING_LOGS}")
    _allow(job.role, ["logs:CreateLogGroup", "logs:DescribeLogStreams"], [group, f"{group}:*"])
    _allow(job.role, ["logs:CreateLogStream", "logs:PutLogEvents"], [f"{group}:log-stream:{job.job_name}-*"])
    _allow(job.role, ["cloudwatch:PutMetricData"], ["*"], {"StringEquals": {"cloudwatch:namespace": [TRAINING_LOGS]}})


def _allow(role: iam.IRole, actions: list[str], resources: list[str], conditions: _Conditions | None = None) -> None:
    role.add_to_principal_policy(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))


def allow_machine(
    machine: sfn.StateMachine, job: TrainingJob, options: TrainingOptions, function: lambda_.Function | None
) -> None:
    """Allow the state machine its calls: jobs of this name, the function, the model package, the endpoint's stack."""
    serves, registry = options.result.serves, options.result.registry
    statements = list(_of_jobs(job, tags=bool(options.tags)))
    if function is not None and serves is not None:
        statements += [(["lambda:InvokeFunction"], [function.function_arn], None), *_of_stack(serves)]
    if registry is not None:
        target = target_of(job)
        groups = target.sagemaker_arns("model-package-group", registry)
        packages = target.sagemaker_arns("model-package", registry, "/*")
        statements.append((["sagemaker:CreateModelPackage"], [*groups, *packages], None))
    for actions, resources, conditions in statements:
        machine.add_to_role_policy(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))
    if function is not None and serves is not None:
        machine.add_to_role_policy(MayReadParameters(Stack.of(serves)))


def _of_jobs(job: TrainingJob, *, tags: bool) -> Iterator[tuple[list[str], list[str], _Conditions | None]]:
    target = target_of(job)
    actions = ["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"]
    jobs = target.sagemaker_arns("training-job", job.job_name, "-*")
    rule = target.arn("events", "rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule")
    yield actions + (["sagemaker:AddTags"] if tags else []), jobs, None
    to_sagemaker = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    yield ["iam:PassRole"], [job.role.role_arn], to_sagemaker
    # Step Functions learns of a job's end by this rule (Step Functions developer guide, "Run a job (.sync)")
    yield ["events:PutTargets", "events:PutRule", "events:DescribeRule"], [rule], None


def _of_stack(serves: TrainedModel) -> Iterator[tuple[list[str], list[str], _Conditions | None]]:
    """The permissions to update the endpoint's stack."""
    stack, target = Stack.of(serves), target_of(serves)
    arn = target.arn("cloudformation", f"stack/{stack.stack_name}/*")
    yield ["cloudformation:UpdateStack", "cloudformation:DescribeStacks"], [arn], None
