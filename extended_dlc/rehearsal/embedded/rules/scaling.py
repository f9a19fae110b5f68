"""Rules of Application Auto Scaling: scalable targets, scaling policies and scheduled actions."""

from __future__ import annotations

import itertools
import math
import zoneinfo

from moto.applicationautoscaling.models import applicationautoscaling_backends

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World
from extended_dlc.rehearsal.embedded.rules.schedules import is_schedule
from extended_dlc.rehearsal.embedded.scaling import RECORDED_DIMENSIONS


def _capacity(world: World, given: Parameters) -> str | None:
    least, most = given.get("MinCapacity"), given.get("MaxCapacity")
    if least is not None and most is not None and least > most:
        return "Maximum capacity cannot be less than minimum capacity"
    return None


def _is_registered(world: World, given: Parameters) -> bool:
    """Whether the scalable target exists; True for the dimensions whose targets are only recorded here."""
    dimension = given["ScalableDimension"]
    targets = applicationautoscaling_backends[world.account_id][world.region].targets
    return dimension in RECORDED_DIMENSIONS or given["ResourceId"] in targets.get(dimension, {})


def _first_capacity(world: World, given: Parameters) -> str | None:
    missing = [each for each in ("MinCapacity", "MaxCapacity") if given.get(each) is None]
    if not missing or _is_registered(world, given):
        return None
    return f"{missing[0]} is required when registering a new scalable target."


def _target_exists(world: World, given: Parameters) -> str | None:
    if _is_registered(world, given):
        return None
    return (
        f"No scalable target registered for service namespace: {given['ServiceNamespace']}, resource ID: "
        f"{given['ResourceId']}, scalable dimension: {given['ScalableDimension']}"
    )


_CONFIGURATIONS = {
    "StepScaling": "StepScalingPolicyConfiguration",
    "TargetTrackingScaling": "TargetTrackingScalingPolicyConfiguration",
}


_METRICS_OF = {
    "sagemaker:inference-component:DesiredCopyCount": "SageMakerInferenceComponent",
    "sagemaker:variant:DesiredInstanceCount": "SageMakerVariant",
    "sagemaker:variant:DesiredProvisionedConcurrency": "SageMakerVariantProvisionedConcurrencyUtilization",
}
"""How the names of a dimension's predefined metrics begin."""


def _scaling_policy(world: World, given: Parameters) -> str | None:
    kind = given.get("PolicyType")
    for each, member in _CONFIGURATIONS.items():
        if (kind == each) != bool(given.get(member)):
            return f"{member} is required for the policy type {each}, and for no other; the type is {kind}."
    tracked = given.get("TargetTrackingScalingPolicyConfiguration")
    if not tracked:
        return None
    predefined = tracked.get("PredefinedMetricSpecification")
    if bool(predefined) == bool(tracked.get("CustomizedMetricSpecification")):
        return "Specify either a predefined metric or a customized metric."
    metric, dimension = (predefined or {}).get("PredefinedMetricType", ""), given["ScalableDimension"]
    if predefined and not metric.startswith(_METRICS_OF.get(dimension, "")):
        return f"The predefined metric {metric} is not supported for the scalable dimension {dimension}."
    return None


def _steps(world: World, given: Parameters) -> str | None:
    stepped = given.get("StepScalingPolicyConfiguration")
    if not stepped:
        return None
    steps = stepped.get("StepAdjustments") or ()
    if not stepped.get("AdjustmentType") or not steps:
        return "AdjustmentType and StepAdjustments are required for a new step scaling policy."
    bounds = [
        (each.get("MetricIntervalLowerBound", -math.inf), each.get("MetricIntervalUpperBound", math.inf))
        for each in steps
    ]
    if any(lower >= upper for lower, upper in bounds):
        return "The upper bound of a step must be greater than its lower bound."
    ordered = sorted(bounds)
    if any(upper != lower for (_, upper), (lower, _) in itertools.pairwise(ordered)):
        return "The ranges of the step adjustments must not overlap, and must have no gap."
    exact = stepped["AdjustmentType"] == "ExactCapacity"
    if exact and any(each["ScalingAdjustment"] < 0 for each in steps):
        return "ScalingAdjustment must not be negative where the AdjustmentType is ExactCapacity."
    return None


def _scheduled_scaling(world: World, given: Parameters) -> str | None:
    expression, zone = given.get("Schedule"), given.get("Timezone")
    if expression is not None and not is_schedule(expression):
        return f"Schedule expression {expression} is invalid: it must be at(), rate() or cron() of six fields."
    if not {"MinCapacity", "MaxCapacity"} & set(given.get("ScalableTargetAction") or {}):
        return "At least one of minimum capacity and maximum capacity should be provided"
    return f"The time zone {zone} is invalid." if zone and zone not in zoneinfo.available_timezones() else None


RULES: tuple[Rule, ...] = (
    Rule(
        name="capacity",
        operations=("application-autoscaling:RegisterScalableTarget",),
        refuses="a least capacity above the greatest",
        source="Application Auto Scaling API reference, RegisterScalableTarget MaxCapacity: documentation alone",
        check=_capacity,
    ),
    Rule(
        name="first capacity",
        operations=("application-autoscaling:RegisterScalableTarget",),
        refuses="a new target without its least or its greatest capacity",
        source="Application Auto Scaling API reference, RegisterScalableTarget MinCapacity, MaxCapacity",
        check=_first_capacity,
        own_words=True,
    ),
    Rule(
        name="scalable target exists",
        operations=("application-autoscaling:PutScalingPolicy",),
        refuses="a policy of a target that was not registered",
        source="Application Auto Scaling API reference, PutScalingPolicy ObjectNotFoundException; "
        "ansible/ansible#40237: the words",
        check=_target_exists,
        code="ObjectNotFoundException",
    ),
    Rule(
        name="scheduled target exists",
        operations=("application-autoscaling:PutScheduledAction",),
        refuses="a scheduled action of a target that was not registered",
        source="Application Auto Scaling API reference, PutScheduledAction ObjectNotFoundException: documentation "
        "alone; the words are PutScalingPolicy's",
        check=_target_exists,
        code="ObjectNotFoundException",
        in_templates=False,  # a template's target has its actions with it
    ),
    Rule(
        name="scaling policy",
        operations=("application-autoscaling:PutScalingPolicy",),
        refuses="a policy without its type's configuration, without exactly one metric, and with another's metric",
        source="Application Auto Scaling API reference, PutScalingPolicy; PredefinedMetricSpecification",
        check=_scaling_policy,
        own_words=True,
    ),
    Rule(
        name="steps",
        operations=("application-autoscaling:PutScalingPolicy",),
        refuses="a step policy without its type or steps, and steps that overlap or leave a gap",
        source="Application Auto Scaling API reference, StepScalingPolicyConfiguration, StepAdjustment",
        check=_steps,
        own_words=True,
    ),
    Rule(
        name="scheduled action",
        operations=("application-autoscaling:PutScheduledAction",),
        refuses="an expression that is no at(), rate() or cron(), an unknown time zone, and no capacity",
        source="Application Auto Scaling API reference, PutScheduledAction; "
        "aws-cloudformation/community-registry-extensions#255: the words of the last",
        check=_scheduled_scaling,
        own_words=True,
    ),
)
