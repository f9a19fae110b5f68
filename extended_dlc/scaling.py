"""How the capacity of an endpoint follows its load, on metrics that SageMaker publishes for its kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import CfnResource
from constructs import Construct

from extended_dlc._private import is_token, within

COOLDOWN_SECONDS = 300
"""What Application Auto Scaling itself takes for a SageMaker variant."""

_EXPRESSION = re.compile(r"(cron|rate|at)\(.+\)")


@dataclass(frozen=True, kw_only=True)
class ScheduledCapacity:
    """Limits of the capacity from a point in time on, until another takes over."""

    schedule: str
    """When, in the words of Application Auto Scaling: `cron(0 8 ? * MON-FRI *)`, `rate(1 day)` or
    `at(2027-01-01T00:00:00)`."""

    minimum: int | None = None
    """The fewest from then on. Default: as before."""

    maximum: int | None = None
    """The most from then on. Default: as before."""

    timezone: str = "UTC"
    """IANA name of the time zone that `schedule` is in. Default: UTC."""

    def __post_init__(self) -> None:
        """Refuse what Application Auto Scaling would refuse."""
        if not _EXPRESSION.fullmatch(self.schedule):
            raise ValueError(
                f"'schedule' ({self.schedule}) is not a schedule: write it as 'cron(0 8 ? * MON-FRI *)', "
                "'rate(1 day)' or 'at(2027-01-01T00:00:00)'"
            )
        if self.minimum is None and self.maximum is None:
            raise ValueError(f"'schedule' ({self.schedule}) changes nothing: set minimum, maximum or both")


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What all ways of scaling have in common."""

    maximum: int
    """The most there may be."""

    minimum: int = 1
    """The fewest there may be. Default: 1."""

    scale_in_seconds: int = COOLDOWN_SECONDS
    """How long to wait after a removal before the next. Default: 300 s."""

    scale_out_seconds: int = COOLDOWN_SECONDS
    """How long to wait after an addition before the next; about what an instance needs to serve. Default: 300 s."""

    schedules: Sequence[ScheduledCapacity] = ()
    """Times at which the limits change. Default: none."""

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        lowest = self._lowest()
        within("minimum", self.minimum, lowest, None, f"{type(self).__name__} keeps {lowest} or more")
        if not any(map(is_token, (self.minimum, self.maximum))) and self.maximum < max(self.minimum, 1):
            raise ValueError(
                f"'minimum' ({self.minimum}) must not exceed 'maximum' ({self.maximum}), and that not be 0: "
                "raise maximum or lower minimum"
            )
        within("scale_in_seconds", self.scale_in_seconds, 0, None, "0 for no wait")
        within("scale_out_seconds", self.scale_out_seconds, 0, None, "0 for no wait")
        for each in self.schedules:
            within("schedules.minimum", each.minimum, lowest, None, f"{type(self).__name__} keeps {lowest} or more")

    def _lowest(self) -> int:
        return 1


@dataclass(frozen=True, kw_only=True)
class _RequestScaling(Scaling):
    requests_per_second: float
    """How many requests a second one instance or copy bears: measure it with a load test."""

    safety_factor: float = 0.5
    """Which part of that to aim at, above 0 and at most 1: the rest is for the time that a new one needs. Default: 0.5,
    what AWS starts with (developer guide, "Load testing your auto scaling configuration")."""

    def __post_init__(self) -> None:
        """Refuse a load that cannot be."""
        super().__post_init__()
        _above_zero("requests_per_second", self.requests_per_second, "what one bore in a load test")
        _above_zero("safety_factor", self.safety_factor, "a part of the measured load, as 0.5", most=1)


@dataclass(frozen=True, kw_only=True)
class InvocationScaling(_RequestScaling):
    """Instances by the number of requests a minute that each gets; right where all requests cost about the same."""


@dataclass(frozen=True, kw_only=True)
class CopyScaling(_RequestScaling):
    """Copies of a component by the number of requests a minute that each gets, down to none with `minimum=0`.

    The first request after that fails and wakes one, which takes minutes; requests fail until it serves.
    """

    def _lowest(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class ConcurrencyScaling(Scaling):
    """Instances by the number of requests that each works on at a time, measured every 10 s: reacts within a minute.

    Right for models whose requests take long and differ, as those that generate text.
    """

    concurrent_requests: float
    """How many requests at a time one instance is to work on."""

    def __post_init__(self) -> None:
        """Refuse a load that cannot be."""
        super().__post_init__()
        _above_zero("concurrent_requests", self.concurrent_requests, "how many one instance can work on at a time")


@dataclass(frozen=True, kw_only=True)
class BacklogScaling(Scaling):
    """Instances of an asynchronous endpoint by the requests that wait for each, down to none.

    The first request after that wakes one, which takes minutes; the request waits in the queue.
    """

    minimum: int = 0
    """The fewest there may be. Default: none."""

    backlog_per_instance: float = 5
    """How many requests may wait for each instance. Default: 5."""

    def __post_init__(self) -> None:
        """Refuse a load that cannot be."""
        super().__post_init__()
        _above_zero("backlog_per_instance", self.backlog_per_instance, "how many requests may wait for one instance")

    def _lowest(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class ProvisionedScaling(Scaling):
    """The provisioned concurrency of a serverless endpoint by the part of it that is in use."""

    utilization: float = 0.7
    """Which part of the provisioned concurrency is to be in use, above 0 and at most 1. Default: 0.7."""

    def __post_init__(self) -> None:
        """Refuse a load that cannot be."""
        super().__post_init__()
        _above_zero("utilization", self.utilization, "a part of the provisioned concurrency, as 0.7", most=1)


def scale(scope: Construct, scaling: Scaling, *, endpoint_name: str, variant: str, after: CfnResource) -> None:
    """Put the scalable target of a variant, or of a component, and its policies into `scope`, after `after`."""
    # loaded with the first endpoint that scales
    from aws_cdk import aws_applicationautoscaling as autoscaling

    counted = "DesiredProvisionedConcurrency" if isinstance(scaling, ProvisionedScaling) else "DesiredInstanceCount"
    resource, dimension = f"endpoint/{endpoint_name}/variant/{variant}", f"sagemaker:variant:{counted}"
    if isinstance(scaling, CopyScaling):
        resource, dimension = f"inference-component/{variant}", "sagemaker:inference-component:DesiredCopyCount"
    target = autoscaling.CfnScalableTarget(
        scope,
        "Target",
        service_namespace="sagemaker",
        resource_id=resource,
        scalable_dimension=dimension,
        min_capacity=scaling.minimum,
        max_capacity=scaling.maximum,
        scheduled_actions=[
            autoscaling.CfnScalableTarget.ScheduledActionProperty(
                scheduled_action_name=f"Schedule{number}",
                schedule=each.schedule,
                timezone=each.timezone,
                scalable_target_action=autoscaling.CfnScalableTarget.ScalableTargetActionProperty(
                    min_capacity=each.minimum, max_capacity=each.maximum
                ),
            )
            for number, each in enumerate(scaling.schedules, start=1)
        ]
        or None,
    )
    target.node.add_dependency(after)
    policy = autoscaling.CfnScalingPolicy
    predefined, customized, value = _metric(scaling, endpoint_name)
    policy(
        scope,
        "Policy",
        policy_name="Load",
        policy_type="TargetTrackingScaling",
        scaling_target_id=target.ref,
        target_tracking_scaling_policy_configuration=policy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=value,
            scale_in_cooldown=scaling.scale_in_seconds,
            scale_out_cooldown=scaling.scale_out_seconds,
            predefined_metric_specification=policy.PredefinedMetricSpecificationProperty(
                predefined_metric_type=predefined
            )
            if predefined
            else None,
            customized_metric_specification=policy.CustomizedMetricSpecificationProperty(
                metric_name=customized,
                namespace="AWS/SageMaker",
                # the metrics of the queue have this dimension only: with the variant's name the policy never fires
                dimensions=[policy.MetricDimensionProperty(name="EndpointName", value=endpoint_name)],
                statistic="Average",
            )
            if customized
            else None,
        ),
    )
    lowest = min([scaling.minimum, *(each.minimum for each in scaling.schedules if each.minimum is not None)])
    if isinstance(scaling, BacklogScaling | CopyScaling) and lowest == 0:
        _wake_up(scope, scaling, target=target.ref, endpoint_name=endpoint_name, variant=variant)


def _metric(scaling: Scaling, endpoint_name: str) -> tuple[str | None, str | None, float]:
    """The predefined or the endpoint's metric, and its target (developer guide, "Define a scaling policy")."""
    match scaling:
        case _RequestScaling():
            # a number of requests a minute
            value = round(scaling.requests_per_second * scaling.safety_factor * 60, 3)
            if isinstance(scaling, CopyScaling):
                return "SageMakerInferenceComponentInvocationsPerCopy", None, value
            return "SageMakerVariantInvocationsPerInstance", None, value
        case ConcurrencyScaling():
            return "SageMakerVariantConcurrentRequestsPerModelHighResolution", None, scaling.concurrent_requests
        case ProvisionedScaling():
            return "SageMakerVariantProvisionedConcurrencyUtilization", None, scaling.utilization
        case BacklogScaling():
            return None, "ApproximateBacklogSizePerInstance", scaling.backlog_per_instance
    raise TypeError(f"{type(scaling).__name__} is not a way of scaling")


def _wake_up(
    scope: Construct, scaling: BacklogScaling | CopyScaling, *, target: str, endpoint_name: str, variant: str
) -> None:
    """One instance or copy when there are requests and none: without one there is no load *per one* to track.

    As in the developer guide, "Autoscale an asynchronous endpoint" and "Scale an endpoint to zero instances".
    """
    # what waits is still there in the next minute; a request that failed is not
    if isinstance(scaling, CopyScaling):
        why = f"Requests to {variant} fail because no copy runs"
        metric, dimension = "NoCapacityInvocationFailures", ("InferenceComponentName", variant)
        statistic, seconds, periods = "Maximum", 30, 1
    else:
        why = f"Requests wait at {endpoint_name} and no instance runs"
        metric, dimension = "HasBacklogWithoutCapacity", ("EndpointName", endpoint_name)
        statistic, seconds, periods = "Average", 60, 2
    from aws_cdk import aws_applicationautoscaling as autoscaling
    from aws_cdk import aws_cloudwatch as cloudwatch

    policy = autoscaling.CfnScalingPolicy
    wake_up = policy(
        scope,
        "WakeUp",
        policy_name="WakeUp",
        policy_type="StepScaling",
        scaling_target_id=target,
        step_scaling_policy_configuration=policy.StepScalingPolicyConfigurationProperty(
            adjustment_type="ChangeInCapacity",
            metric_aggregation_type=statistic,
            cooldown=scaling.scale_out_seconds,
            step_adjustments=[policy.StepAdjustmentProperty(metric_interval_lower_bound=0, scaling_adjustment=1)],
        ),
    )
    cloudwatch.CfnAlarm(
        scope,
        "WakeUpAlarm",
        alarm_description=why,
        namespace="AWS/SageMaker",
        metric_name=metric,
        dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name=dimension[0], value=dimension[1])],
        statistic=statistic,
        period=seconds,
        evaluation_periods=periods,
        datapoints_to_alarm=periods,
        threshold=1,
        comparison_operator="GreaterThanOrEqualToThreshold",
        treat_missing_data="missing",
        alarm_actions=[wake_up.ref],
    )


def _above_zero(option: str, value: float, what: str, *, most: float | None = None) -> None:
    if not is_token(value) and not (value > 0 and (most is None or value <= most)):
        limit = f" and at most {most:g}" if most is not None else ""
        raise ValueError(f"'{option}' ({value}) must be above 0{limit}: give {what}")
