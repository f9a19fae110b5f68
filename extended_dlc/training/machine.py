"""The state machine of a training, in the Amazon States Language.

```
Begin ─┬─ Train1 ─(shortage)─ Train2 … ─┬─ Look ─ Evaluate ─ Judge ─ EvaluateLive ─ JudgeBeside ─ Register ─ GoOver
       └─ an artefact was given ────────┘
```

It is written out here, because the CDK's task (`SageMakerCreateTrainingJob`) has neither spot capacity nor checkpoints
nor `OutputDataConfig.CompressionType`, and because a definition that is read as a whole can be run as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

State = dict[str, Any]

WAIT_SECONDS = 30
"""Seconds between two checks of the endpoint's stack."""

BUSY_SECONDS = 60
"""Seconds before the update of a busy stack is tried again."""

SHORTAGES = ("*CapacityError*", "*Unable to provision requested ML compute capacity*", "*InsufficientCapacity*")
"""Patterns of a training job's FailureReason where SageMaker has no capacity of an instance type."""

NO_QUOTA = "*ResourceLimitExceeded*"
"""The error where the account's quota for the instance type is exceeded."""

DONE = ("UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")

NAME = "States.Format('{name}-{{}}', States.ArrayGetItem(States.StringSplit(States.UUID(), '-'), 4))"
"""A job's name with twelve random digits, because SageMaker allows each name once."""


@dataclass(frozen=True, kw_only=True)
class GoOver:
    """The update that makes the endpoint serve a new model."""

    stack: str
    parameter: str
    parameters: object
    """The stack's parameters for UpdateStack: a list, or a token that resolves to one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The inputs of a state machine's definition; strings may be CDK tokens."""

    partition: str
    name: str
    """The prefix of the jobs' names."""

    requests: Sequence[State]
    """Requests of CreateTrainingJob without the name, one for each instance type in order of preference."""

    evaluations: Sequence[State] = ()
    """The same requests for the evaluation gate."""

    evaluations_uri: str = ""
    """The S3 URL of the evaluations' output, with its `/` at the end."""

    function: str = ""
    """ARN of the function behind `Look` and `Judge`; empty where no endpoint serves the model."""

    look: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None
    beside_live: bool = False
    package: State | None = None
    """The request of CreateModelPackage, in which a JSON path gives the model's S3 URL."""

    goes: GoOver | None = None


def definition(plan: Plan) -> State:
    """The whole definition."""
    serves = plan.goes is not None
    states: dict[str, State] = {}
    if serves:
        states["Begin"] = {
            "Type": "Choice",
            "Comment": "An artefact of an earlier run skips the training: so the endpoint is rolled back",
            "Choices": [{"Variable": "$.artifact", "IsPresent": True, "Next": "Look"}],
            "Default": "Train1",
        }
    states |= _jobs(plan, "Train", plan.requests, what="training", result="$.job", after="Trained")
    states["Trained"] = {
        "Type": "Pass",
        "Parameters": {"artifact.$": "$.job.artifact", "job.$": "$.job.name"},
        "Next": "Look" if serves else "Done",
    }
    if serves:
        states |= _deployment(plan)
    states |= {
        "Done": {"Type": "Succeed"},
        **_failures(),
    }
    return {
        "Comment": f"Trains {plan.name}",
        "StartAt": "Begin" if serves else "Train1",
        "States": states,
    }


def _deployment(plan: Plan) -> dict[str, State]:
    """The states from an artifact to the endpoint."""
    after_gate = "Register" if plan.package else "GoOver"
    states = {
        "Look": _call(
            plan,
            {"do": "look", "Artifact.$": "$.artifact", **plan.look},
            result="$.look",
            after="CanBeServed",
            keep={"artifact.$": "$.Payload.artifact", "live.$": "$.Payload.live", "refused.$": "$.Payload.refused"},
        ),
        "CanBeServed": _unless_refused("$.look.refused", "Evaluate1" if plan.gate else after_gate, "NotServed"),
        "NotServed": {"Type": "Fail", "Error": "ModelRefused", "CausePath": "$.look.refused"},
    }
    if plan.gate:
        states |= _gate(plan, after_gate)
    if plan.package:
        states["Register"] = {
            "Type": "Task",
            "Resource": f"arn:{plan.partition}:states:::aws-sdk:sagemaker:createModelPackage",
            "Parameters": plan.package,
            "ResultSelector": {"arn.$": "$.ModelPackageArn"},
            "ResultPath": "$.package",
            "Next": "GoOver",
        }
    return states | _going_over(plan)


def _gate(plan: Plan, after: str) -> dict[str, State]:
    """The evaluation and its judgement; the live model is evaluated only after the bound accepts the new one."""
    states = _jobs(
        plan,
        "Evaluate",
        plan.evaluations,
        what="evaluation",
        channel="$.look.artifact",
        result="$.evaluation",
        after="Judge",
    )
    states["Judge"] = _call(
        plan,
        {"do": "judge", "Gate": plan.gate, "Output.$": _output_of(plan, "evaluation")},
        result="$.judged",
        after="IsAccepted",
        keep=_JUDGED,
    )
    next_step = "HasLive" if plan.beside_live else after
    states["IsAccepted"] = _unless_refused("$.judged.refused", next_step, "Refused")
    states["Refused"] = {"Type": "Fail", "Error": "GateRefused", "CausePath": "$.judged.refused"}
    return states | _beside_live(plan, after) if plan.beside_live else states


_JUDGED = {"accepted.$": "$.Payload.accepted", "value.$": "$.Payload.value", "refused.$": "$.Payload.refused"}
"""What the function that judges returns."""


def _output_of(plan: Plan, job: str) -> str:
    """The S3 location of an evaluation's output, as an intrinsic function of Step Functions."""
    return f"States.Format('{plan.evaluations_uri}{{}}/output/', $.{job}.name)"


def _beside_live(plan: Plan, after: str) -> dict[str, State]:
    """The evaluation of the live model, and the judgement of the new one beside it."""
    states: dict[str, State] = {}
    states["HasLive"] = {
        "Type": "Choice",
        "Comment": "An artefact that was given is judged by the bound alone: to go back is to take a model that was "
        "measured worse. Nothing to compare with: nothing was trained before, or the live model is asked for again",
        "Choices": [
            {"Variable": "$.job", "IsPresent": False, "Next": after},
            {"Variable": "$.look.live", "StringEquals": "", "Next": after},
            {"Variable": "$.look.live", "StringEqualsPath": "$.look.artifact", "Next": after},
        ],
        "Default": "EvaluateLive1",
    }
    states |= _jobs(
        plan,
        "EvaluateLive",
        plan.evaluations,
        what="evaluation of the live model",
        channel="$.look.live",
        result="$.live",
        after="JudgeBeside",
    )
    states["JudgeBeside"] = _call(
        plan,
        {
            "do": "judge",
            "Gate": plan.gate,
            "Output.$": _output_of(plan, "evaluation"),
            "BesideOutput.$": _output_of(plan, "live"),
        },
        result="$.judged",
        after="IsAsGood",
        keep=_JUDGED,
    )
    states["IsAsGood"] = _unless_refused("$.judged.refused", after, "Refused")
    return states


def _going_over(plan: Plan) -> dict[str, State]:
    """The update of the endpoint's stack, and the wait for its end."""
    goes = plan.goes
    assert goes is not None  # noqa: S101 - the caller ensures it
    sdk = f"arn:{plan.partition}:states:::aws-sdk:cloudformation"
    return _update(goes, sdk) | _wait_for_stack(goes, sdk) | _outcome(plan, goes)


def _update(goes: GoOver, sdk: str) -> dict[str, State]:
    """Start the update; it is retried during another update, and skipped where the model is served already."""
    failed = "$.failed.Cause"
    return {
        "GoOver": {
            "Type": "Task",
            "Comment": "CloudFormation makes the Model, and the endpoint goes over by its own rollout",
            "Resource": f"{sdk}:updateStack",
            "Parameters": {
                "StackName": goes.stack,
                "UsePreviousTemplate": True,
                "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
                "Parameters": goes.parameters,
            },
            "ResultPath": "$.update",
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.failed", "Next": "IsBusy"}],
            "Next": "WaitForStack",
        },
        "IsBusy": {
            "Type": "Choice",
            "Choices": [
                {"Variable": failed, "StringMatches": "*No updates are to be performed*", "Next": "Served"},
                {"Variable": failed, "StringMatches": "*_IN_PROGRESS*", "Next": "WaitForOthers"},
            ],
            "Default": "NotUpdated",
        },
        "WaitForOthers": {"Type": "Wait", "Seconds": BUSY_SECONDS, "Next": "GoOver"},
        "NotUpdated": {"Type": "Fail", "Error": "EndpointStays", "CausePath": failed},
    }


def _wait_for_stack(goes: GoOver, sdk: str) -> dict[str, State]:
    """Poll the stack until its update has succeeded or failed."""
    return {
        "WaitForStack": {"Type": "Wait", "Seconds": WAIT_SECONDS, "Next": "LookAtStack"},
        "LookAtStack": {
            "Type": "Task",
            "Resource": f"{sdk}:describeStacks",
            "Parameters": {"StackName": goes.stack},
            "ResultSelector": {"status.$": "$.Stacks[0].StackStatus"},
            "ResultPath": "$.stack",
            "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 10, "MaxAttempts": 5, "BackoffRate": 2}],
            "Next": "HasGoneOver",
        },
        "HasGoneOver": {
            "Type": "Choice",
            "Choices": [
                *({"Variable": "$.stack.status", "StringEquals": each, "Next": "Served"} for each in DONE),
                {"Variable": "$.stack.status", "StringMatches": "*ROLLBACK*", "Next": "WhyItStays"},
                {"Variable": "$.stack.status", "StringMatches": "*FAILED", "Next": "WhyItStays"},
            ],
            "Default": "WaitForStack",
        },
    }


def _outcome(plan: Plan, goes: GoOver) -> dict[str, State]:
    """The end states: the endpoint keeps its model, with CloudFormation's reason, or serves the new one."""
    return {
        "WhyItStays": _call(
            plan,
            {"do": "why", "Stack": goes.stack, "Status.$": "$.stack.status"},
            result="$.stays",
            after="EndpointStays",
            keep={"refused.$": "$.Payload.refused"},
        ),
        "EndpointStays": {"Type": "Fail", "Error": "EndpointStays", "CausePath": "$.stays.refused"},
        "Served": {
            "Type": "Pass",
            "Parameters": {"artifact.$": "$.look.artifact", "before.$": "$.look.live"},
            "Next": "Done",
        },
    }


def _jobs(
    plan: Plan,
    called: str,
    requests: Sequence[State],
    *,
    what: str,
    channel: str | None = None,
    result: str,
    after: str,
) -> dict[str, State]:
    """The same job on one instance type after another, while there is no capacity or quota.

    :param what: What failed, in the execution's cause: the jobs' names do not say it.
    :param channel: JSON path to the S3 URL of the job's channel `model`; None: as in its request.
    """
    states: dict[str, State] = {}
    for number, request in enumerate(requests, start=1):
        given = dict(request)
        if channel is not None:
            given["InputDataConfig"] = [s3_channel("model", uri_path=channel), *given.get("InputDataConfig", ())]
        last = number == len(requests)
        states[f"{called}{number}"] = {
            "Type": "Task",
            "Resource": f"arn:{plan.partition}:states:::sagemaker:createTrainingJob.sync",
            "Parameters": {"TrainingJobName.$": NAME.format(name=plan.name), **given},
            "ResultSelector": {"name.$": "$.TrainingJobName", "artifact.$": "$.ModelArtifacts.S3ModelArtifacts"},
            "ResultPath": result,
            "Catch": [
                {
                    "ErrorEquals": ["States.ALL"],
                    "ResultPath": "$.failed",
                    "Next": f"{called}Failed" if last else f"{called}{number}Short",
                }
            ],
            "Next": after,
        }
        if not last:
            states[f"{called}{number}Short"] = {
                "Type": "Choice",
                "Comment": "SageMaker is short of the type, or the account has no quota for it: the next one",
                "Choices": [
                    *(
                        {"Variable": "$.failed.Cause", "StringMatches": each, "Next": f"{called}{number + 1}"}
                        for each in SHORTAGES
                    ),
                    {"Variable": "$.failed.Error", "StringMatches": NO_QUOTA, "Next": f"{called}{number + 1}"},
                ],
                "Default": f"{called}Failed",
            }
    states[f"{called}Failed"] = {"Type": "Pass", "Result": what, "ResultPath": "$.what", "Next": "Why"}
    return states


def _failures() -> dict[str, State]:
    """States that end with the job's own FailureReason: the failed state's cause is the job's description as JSON."""
    job = "$.failed.job"
    return {
        "Why": {
            "Type": "Choice",
            "Choices": [
                {"Variable": "$.failed.Cause", "StringMatches": '{*"FailureReason":*', "Next": "ReadReason"},
                {"Variable": "$.failed.Cause", "StringMatches": '{*"SecondaryStatus":*', "Next": "ReadStatus"},
            ],
            "Default": "NotStarted",
        },
        "ReadReason": _read_cause("JobFailed"),
        "JobFailed": {
            "Type": "Fail",
            "Error": "JobFailed",
            "CausePath": f"States.Format('{{}} {{}}: {{}}', $.what, {job}.TrainingJobName, {job}.FailureReason)",
        },
        "ReadStatus": _read_cause("JobStopped"),
        "JobStopped": {
            "Type": "Fail",
            "Error": "JobStopped",
            "CausePath": "States.Format('{} {} was stopped: {}', $.what, "
            f"{job}.TrainingJobName, {job}.SecondaryStatus)",
        },
        "NotStarted": {"Type": "Fail", "ErrorPath": "$.failed.Error", "CausePath": "$.failed.Cause"},
    }


def _read_cause(after: str) -> State:
    return {
        "Type": "Pass",
        "Parameters": {"job.$": "States.StringToJson($.failed.Cause)"},
        "ResultPath": "$.failed",
        "Next": after,
    }


def _call(plan: Plan, payload: Mapping[str, Any], *, result: str, after: str, keep: Mapping[str, str]) -> State:
    """A call of the training's Lambda function."""
    return {
        "Type": "Task",
        "Resource": f"arn:{plan.partition}:states:::lambda:invoke",
        "Parameters": {"FunctionName": plan.function, "Payload": dict(payload)},
        "ResultSelector": dict(keep),
        "ResultPath": result,
        "Retry": [
            {
                "ErrorEquals": [
                    "Lambda.ServiceException",
                    "Lambda.AWSLambdaException",
                    "Lambda.SdkClientException",
                    "Lambda.TooManyRequestsException",
                ],
                "IntervalSeconds": 2,
                "MaxAttempts": 5,
                "BackoffRate": 2,
            }
        ],
        "Next": after,
    }


def _unless_refused(variable: str, after: str, refused: str) -> State:
    return {
        "Type": "Choice",
        "Choices": [{"Variable": variable, "StringEquals": "", "Next": after}],
        "Default": refused,
    }


def s3_channel(name: str, *, uri: str | None = None, uri_path: str | None = None) -> State:
    """A channel of CreateTrainingJob: each container gets all files below a prefix."""
    where = {"S3Uri": uri} if uri_path is None else {"S3Uri.$": uri_path}
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated", **where}
        },
        "InputMode": "File",
    }
