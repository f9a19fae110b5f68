"""The state machine of a training, and the model package group to which it adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn

from extended_dlc.constructs.dependencies import depend_on_policies_alone
from extended_dlc.constructs.functions import functions_of
from extended_dlc.constructs.helpers import any_partition
from extended_dlc.constructs.stack_updates import StackParameters
from extended_dlc.options.training import DAY_SECONDS, EvaluationGate
from extended_dlc.training.decided import serving_release
from extended_dlc.training.judge import judge
from extended_dlc.training.machine import GoOver, Plan, State, definition
from extended_dlc.training.model import TrainedModel
from extended_dlc.training.rights import allow_machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_sagemaker as sagemaker
    from constructs import IDependable

    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint
    from extended_dlc.training.given import TrainingOptions
    from extended_dlc.training.job import TrainingJob
    from extended_dlc.training.request import Requests


def state_machine(
    job: TrainingJob, options: TrainingOptions, requests: Requests, *, after: Sequence[IDependable]
) -> sfn.StateMachine:
    """The state machine; each execution is a run."""
    serves, registry = options.result.serves, options.result.registry
    function = judge(job, options, serves) if serves is not None else None
    group = _model_group(job, registry) if registry is not None else None
    plan = _plan(job, options, requests, function)
    machine = sfn.StateMachine(
        job,
        "StateMachine",
        definition_body=sfn.DefinitionBody.from_string(Stack.of(job).to_json_string(definition(plan))),
        comment=f"Trains {job.job_name}",
        logs=sfn.LogOptions(
            destination=logs.LogGroup(
                job, "Log", retention=logs.RetentionDays.THREE_MONTHS, removal_policy=RemovalPolicy.DESTROY
            ),
            level=sfn.LogLevel.ALL,
            include_execution_data=True,
        ),
        tracing_enabled=functions_of(job).tracing or None,
        timeout=Duration.seconds(_longest_seconds(options)),
    )
    allow_machine(machine, job, options, function)
    resource = machine.node.default_child
    assert resource is not None  # noqa: S101 - each state machine has one
    resource.node.add_dependency(job.role, *after, *([group] if group else []))
    depend_on_policies_alone(resource)
    return machine


def _plan(job: TrainingJob, options: TrainingOptions, requests: Requests, function: lambda_.Function | None) -> Plan:
    result, endpoint = options.result, job.endpoint
    package = None
    if endpoint is not None and result.serves is not None and result.registry is not None:
        package = _package(endpoint, result.serves, result.registry)
    return Plan(
        partition=any_partition(),
        name=job.job_name,
        requests=requests.training(),
        evaluations=requests.evaluation(),
        evaluations_uri=f"s3://{job.bucket.bucket_name}/evaluations/",
        function=function.function_arn if function else "",
        look=_look(job, result.serves) if result.serves is not None else {},
        gate=_bounds(result.gate) if result.gate is not None else None,
        beside_live=bool(result.gate and result.gate.beside_live),
        package=package,
        goes=_goes_over(result.serves) if result.serves is not None else None,
    )


def _longest_seconds(options: TrainingOptions) -> int:
    """A run's longest duration: each instance type once, both evaluations, and a day for the endpoint's rollout."""
    instances, gate = options.instances, options.result.gate
    one = instances.max_wait_seconds or instances.max_runtime_seconds * (2 if instances.spot else 1)
    measured = 2 * gate.max_runtime_seconds if gate is not None else 0
    return min(one * len(instances.instance_types) + measured + DAY_SECONDS, 365 * DAY_SECONDS)


def _look(job: TrainingJob, serves: TrainedModel) -> dict[str, Any]:
    return {
        "Models": serves.models_uri,
        "Serving": serving_release(job.endpoint) or "",
        "Stack": Stack.of(serves).stack_name,
        "Parameter": _parameter_name(serves),
        **({"Base": serves.id, "Revision": serves.revision or ""} if serves.adapter else {}),
    }


def _parameter_name(serves: TrainedModel) -> str:
    """The parameter's name as a string, not a token, so that another stack needs no export of it."""
    return str(Stack.of(serves).resolve(serves.parameter.logical_id))


def _bounds(gate: EvaluationGate) -> dict[str, Any]:
    bounds = {"metric": gate.metric, "at_most": gate.at_most, "at_least": gate.at_least, "margin": gate.margin}
    return {name: value for name, value in bounds.items() if value is not None}


def _goes_over(serves: TrainedModel) -> GoOver:
    changed = StackParameters(serves.parameter, {"ParameterValue.$": "$.look.artifact"})
    return GoOver(stack=Stack.of(serves).stack_name, parameter=_parameter_name(serves), parameters=changed.lazy)


def _model_group(job: TrainingJob, registry: str) -> sagemaker.CfnModelPackageGroup:
    from aws_cdk import aws_sagemaker as sagemaker

    return sagemaker.CfnModelPackageGroup(
        job,
        "Registry",
        model_package_group_name=registry,
        model_package_group_description=f"Models of {job.job_name} that were accepted",
    )


def _package(endpoint: HuggingFaceEndpoint, serves: TrainedModel, registry: str) -> State:
    """The request of CreateModelPackage: a version in the group, with the accepted model and the endpoint's image."""
    base = {"HF_MODEL_ID": serves.id, "HF_MODEL_REVISION": serves.revision} if serves.adapter else {}
    variables = {name: value for name, value in {**base, "HF_TASK": serves.task}.items() if value is not None}
    source = {"S3Uri.$": "$.look.artifact", "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {
        "Image": cast(Any, endpoint.model.primary_container).image,
        "ModelDataSource": {"S3DataSource": source},
        **({"Environment": variables} if variables else {}),
    }
    return {
        "ModelPackageGroupName": registry,
        "ModelPackageDescription.$": "States.Format('Accepted by {}', $$.Execution.Name)",
        "ModelApprovalStatus": "Approved",
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    }
