"""Starts a training: by a schedule, or by a deployment after a change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aws_cdk import Stack
from aws_cdk import aws_iam as iam

from extended_dlc.constructs.functions import call_aws

if TYPE_CHECKING:
    from extended_dlc.options.training import TrainingSchedule
    from extended_dlc.training.job import TrainingJob
    from extended_dlc.training.request import Requests


def start(job: TrainingJob, requests: Requests, *, schedule: TrainingSchedule | None, on_change: bool) -> None:
    """Add the schedule that starts runs, and the custom resource that starts one after a change."""
    if schedule is not None:
        _start_by_clock(job, schedule)
    if on_change:
        _start_on_change(job, requests.made_of())


def _start_by_clock(job: TrainingJob, schedule: TrainingSchedule) -> None:
    """Start runs by a schedule of EventBridge Scheduler."""
    from aws_cdk import TimeZone
    from aws_cdk import aws_scheduler as scheduler
    from aws_cdk import aws_scheduler_targets as targets

    scheduler.Schedule(
        job,
        "Schedule",
        description=f"Starts {job.job_name}",
        schedule=scheduler.ScheduleExpression.expression(schedule.expression, TimeZone.of(schedule.timezone)),
        target=targets.StepFunctionsStartExecution(
            job.state_machine, input=scheduler.ScheduleTargetInput.from_object({})
        ),
    )


def _start_on_change(job: TrainingJob, made_of: Mapping[str, Any]) -> None:
    """Start a run in each deployment that changes the training's inputs."""
    from aws_cdk import custom_resources as custom

    call = custom.AwsSdkCall(
        service="sfn",
        action="startExecution",
        parameters={
            "stateMachineArn": job.state_machine.state_machine_arn,
            # the state machine does not read it; a changed value makes CloudFormation repeat the call
            "input": Stack.of(job).to_json_string({"changed": made_of}),
        },
        physical_resource_id=custom.PhysicalResourceId.of(job.job_name),
        output_paths=["executionArn"],
    )
    allowed = iam.PolicyStatement(actions=["states:StartExecution"], resources=[job.state_machine.state_machine_arn])
    call_aws(job, "Start", resource_type="Custom::ExtendedDlcTrainingStart", call=call, allowed=allowed)
