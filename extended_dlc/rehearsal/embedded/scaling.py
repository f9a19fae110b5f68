"""Auto scaling and alarms: resource types that moto's CloudFormation skips, built on moto's services."""

from __future__ import annotations

import uuid
from typing import Any

from moto.applicationautoscaling.models import ApplicationAutoscalingBackend, applicationautoscaling_backends
from moto.cloudwatch.models import CloudWatchBackend, cloudwatch_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.resources import Properties, Record, Wish

RECORDED_DIMENSIONS = (
    "sagemaker:inference-component:DesiredCopyCount",
    "sagemaker:variant:DesiredProvisionedConcurrency",
)
"""Scalable dimensions that moto does not know; their targets are only recorded."""


def register_target(wish: Wish) -> Any:
    """RegisterScalableTarget."""
    given = wish.properties
    if given["ScalableDimension"] not in RECORDED_DIMENSIONS:
        _scaling(wish).register_scalable_target(
            given["ServiceNamespace"],
            given["ResourceId"],
            given["ScalableDimension"],
            int(given["MinCapacity"]),
            int(given["MaxCapacity"]),
            given.get("RoleARN", ""),
            given.get("SuspendedState"),  # type: ignore[arg-type]  # None where absent, despite moto's declaration
        )
        _schedule(wish)
    physical = f"{given['ResourceId']}|{given['ScalableDimension']}|{given['ServiceNamespace']}"
    return Record(physical, given)


def change_target(wish: Wish, model: Any, old: Properties) -> Any:
    """RegisterScalableTarget again, and DeleteScheduledAction for actions that the template no longer has."""
    now = {each["ScheduledActionName"] for each in wish.properties.get("ScheduledActions", ())}
    before = {each["ScheduledActionName"] for each in old.get("ScheduledActions", ())}
    _unschedule(wish, before - now)
    return register_target(wish)


def deregister_target(wish: Wish, model: Any) -> None:
    """DeregisterScalableTarget."""
    given = wish.properties
    if given["ScalableDimension"] not in RECORDED_DIMENSIONS:
        _unschedule(wish, {each["ScheduledActionName"] for each in given.get("ScheduledActions", ())})
        _scaling(wish).deregister_scalable_target(
            given["ServiceNamespace"], given["ResourceId"], given["ScalableDimension"]
        )


def _schedule(wish: Wish) -> None:
    """PutScheduledAction for each scheduled action."""
    given = wish.properties
    for each in given.get("ScheduledActions", ()):
        _scaling(wish).put_scheduled_action(
            given["ServiceNamespace"],
            each["Schedule"],
            each.get("Timezone"),
            each["ScheduledActionName"],
            given["ResourceId"],
            given["ScalableDimension"],
            each.get("StartTime"),
            each.get("EndTime"),
            each.get("ScalableTargetAction"),
        )


def _unschedule(wish: Wish, names: set[str]) -> None:
    given = wish.properties
    for name in names:
        _scaling(wish).delete_scheduled_action(
            given["ServiceNamespace"], name, given["ResourceId"], given["ScalableDimension"]
        )


def put_policy(wish: Wish) -> Any:
    """PutScalingPolicy."""
    given = wish.properties
    namespace, resource, dimension = _target_of(given)
    if dimension in RECORDED_DIMENSIONS:
        prefix = f"arn:{get_partition(wish.region)}:autoscaling:{wish.region}:{wish.account_id}:scalingPolicy"
        what = f"resource/{namespace}/{resource}:policyName/{given['PolicyName']}"
        return Record(f"{prefix}:{uuid.uuid5(uuid.NAMESPACE_URL, what)}:{what}", given)
    body = given.get("TargetTrackingScalingPolicyConfiguration") or given.get("StepScalingPolicyConfiguration")
    policy = _scaling(wish).put_scaling_policy(
        given["PolicyName"], namespace, resource, dimension, body or {}, given["PolicyType"]
    )
    return Record(policy.policy_arn, given)


def delete_policy(wish: Wish, model: Any) -> None:
    """DeleteScalingPolicy."""
    namespace, resource, dimension = _target_of(wish.properties)
    if dimension not in RECORDED_DIMENSIONS:
        _scaling(wish).delete_scaling_policy(wish.properties["PolicyName"], namespace, resource, dimension)


def _target_of(given: Properties) -> tuple[str, str, str]:
    if "ScalingTargetId" in given:
        resource, dimension, namespace = given["ScalingTargetId"].split("|")
        return namespace, resource, dimension
    return given["ServiceNamespace"], given["ResourceId"], given["ScalableDimension"]


def put_alarm(wish: Wish) -> Any:
    """PutMetricAlarm."""
    given = wish.properties
    arn = f"arn:aws:cloudwatch:{wish.region}:{wish.account_id}:alarm:{wish.name}"
    if "EvaluationCriteria" in given:  # moto does not support it
        return Record(wish.name, given, {"Arn": arn})
    # moto reads either spelling in different places
    dimensions = [{**each, "name": each["Name"], "value": each["Value"]} for each in given.get("Dimensions", ())]
    _cloudwatch(wish).put_metric_alarm(
        name=wish.name,
        namespace=given.get("Namespace", ""),
        metric_name=given.get("MetricName", ""),
        comparison_operator=given["ComparisonOperator"],
        evaluation_periods=int(given["EvaluationPeriods"]),
        period=int(given.get("Period", 60)),
        threshold=float(given.get("Threshold", 0)),
        statistic=given.get("Statistic", ""),
        extended_statistic=given.get("ExtendedStatistic"),
        description=given.get("AlarmDescription", ""),
        dimensions=dimensions,
        alarm_actions=given.get("AlarmActions", []),
        ok_actions=given.get("OKActions", []),
        treat_missing_data=given.get("TreatMissingData"),
        datapoints_to_alarm=given.get("DatapointsToAlarm"),
    )
    return Record(wish.name, given, {"Arn": arn})


def delete_alarm(wish: Wish, model: Any) -> None:
    """DeleteAlarms."""
    if "EvaluationCriteria" not in wish.properties:
        _cloudwatch(wish).delete_alarms([wish.name])


def _scaling(wish: Wish) -> ApplicationAutoscalingBackend:
    return applicationautoscaling_backends[wish.account_id][wish.region]


def _cloudwatch(wish: Wish) -> CloudWatchBackend:
    return cloudwatch_backends[wish.account_id][wish.region]
