"""The Lambda function of a training's state machine: it inspects the trained model and judges its evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs

from extended_dlc.constructs.functions import new_function
from extended_dlc.constructs.helpers import target_of
from extended_dlc.training.model import MODELS

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_

    from extended_dlc.training.given import TrainingOptions
    from extended_dlc.training.job import TrainingJob
    from extended_dlc.training.model import TrainedModel


def judge(job: TrainingJob, options: TrainingOptions, serves: TrainedModel) -> lambda_.Function:
    """The function, with its log group and role (`programs/functions/gate.py`)."""
    log_group = logs.LogGroup(
        job, "JudgeLog", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
    )
    role = iam.Role(job, "JudgeRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    log_group.grant_write(role)
    for actions, resources, conditions in _statements(job, serves):
        role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))
    for key in (job.bucket.encryption_key, options.encryption_key):
        if key is not None:
            key.grant_decrypt(role)
    return new_function(
        job,
        "Judge",
        description=f"Looks at what {job.job_name} trained, and judges what was measured",
        handler="gate.handle",
        role=role,
        timeout=Duration.minutes(1),
        memory_mib=256,
        log_group=log_group,
    )


def _statements(
    job: TrainingJob, serves: TrainedModel
) -> Iterator[tuple[list[str], list[str], Mapping[str, object] | None]]:
    """Permissions to describe the endpoint's stack, and to read models and evaluations."""
    bucket = job.bucket
    stack = target_of(serves).arn("cloudformation", f"stack/{Stack.of(serves).stack_name}/*")
    yield ["cloudformation:DescribeStacks", "cloudformation:DescribeStackEvents"], [stack], None
    yield ["s3:GetObject"], [bucket.arn_for_objects(f"{MODELS}*")], None
    yield ["s3:GetObject"], [bucket.arn_for_objects(f"evaluations/{job.job_name}-*")], None
    prefixes = {"StringLike": {"s3:prefix": [f"{MODELS}*", "evaluations/*"]}}
    yield ["s3:ListBucket"], [bucket.bucket_arn], prefixes
