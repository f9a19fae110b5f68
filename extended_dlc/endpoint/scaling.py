"""The scalable targets and policies of an endpoint's variants and components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import CfnResource
from constructs import Construct

from extended_dlc.facts.names import REQUEST_METRICS
from extended_dlc.options.hosting import CopiesScaling
from extended_dlc.options.scaling import (
    BacklogScaling,
    CopyConcurrencyScaling,
    CopyScaling,
    ProvisionedScaling,
    Scaling,
    _ConcurrentScaling,
    _RequestScaling,
)

if TYPE_CHECKING:
    from aws_cdk import aws_applicationautoscaling as autoscaling


def scale(scope: Construct, scaling: Scaling, *, endpoint_name: str, variant: str, after: CfnResource) -> None:
    """Make the scalable target and the policies of a variant or component in `scope`; they depend on `after`."""
    target = _target(scope, scaling, endpoint_name=endpoint_name, variant=variant)
    target.node.add_dependency(after)
    _track(scope, scaling, target=target.ref, endpoint_name=endpoint_name)
    lowest = min([scaling.minimum, *(each.minimum for each in scaling.schedules if each.minimum is not None)])
    if isinstance(scaling, BacklogScaling | CopiesScaling) and lowest == 0:
        _wake_up(scope, scaling, target=target.ref, endpoint_name=endpoint_name, variant=variant)


def _target(scope: Construct, scaling: Scaling, *, endpoint_name: str, variant: str) -> autoscaling.CfnScalableTarget:
    """The scalable target, with its minimum and maximum and the scheduled changes of these."""
    # Imported here, so that it is loaded only where an endpoint scales.
    from aws_cdk import aws_applicationautoscaling as autoscaling

    counted = "DesiredProvisionedConcurrency" if isinstance(scaling, ProvisionedScaling) else "DesiredInstanceCount"
    resource, dimension = f"endpoint/{endpoint_name}/variant/{variant}", f"sagemaker:variant:{counted}"
    if isinstance(scaling, CopiesScaling):
        resource, dimension = f"inference-component/{variant}", "sagemaker:inference-component:DesiredCopyCount"
    return autoscaling.CfnScalableTarget(
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


def _track(scope: Construct, scaling: Scaling, *, target: str, endpoint_name: str) -> None:
    """The target tracking policy, which follows the load."""
    from aws_cdk import aws_applicationautoscaling as autoscaling

    policy = autoscaling.CfnScalingPolicy
    predefined, customized, value = _metric(scaling, endpoint_name)
    policy(
        scope,
        "Policy",
        policy_name="Load",
        policy_type="TargetTrackingScaling",
        scaling_target_id=target,
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
                namespace=REQUEST_METRICS,
                # The queue's metrics have this dimension only: with the variant's name the policy never fires.
                dimensions=[policy.MetricDimensionProperty(name="EndpointName", value=endpoint_name)],
                statistic="Average",
            )
            if customized
            else None,
        ),
    )


def _metric(scaling: Scaling, endpoint_name: str) -> tuple[str | None, str | None, float]:
    """The predefined or the customized metric, and its target value (developer guide, "Define a scaling policy")."""
    match scaling:
        case _RequestScaling():
            # The metric counts requests per minute.
            value = round(scaling.requests_per_second * scaling.safety_factor * 60, 3)
            if isinstance(scaling, CopyScaling):
                return "SageMakerInferenceComponentInvocationsPerCopy", None, value
            return "SageMakerVariantInvocationsPerInstance", None, value
        case _ConcurrentScaling():
            value = scaling.concurrent_requests
            if isinstance(scaling, CopyConcurrencyScaling):
                return "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution", None, value
            return "SageMakerVariantConcurrentRequestsPerModelHighResolution", None, value
        case ProvisionedScaling():
            return "SageMakerVariantProvisionedConcurrencyUtilization", None, scaling.utilization
        case BacklogScaling():
            return None, "ApproximateBacklogSizePerInstance", scaling.backlog_per_instance
    raise TypeError(f"{type(scaling).__name__} is not a way of scaling")


def _wake_up(scope: Construct, scaling: Scaling, *, target: str, endpoint_name: str, variant: str) -> None:
    """Start one instance or copy when requests come and none runs: then there is no load per instance to track.

    As in the developer guide, "Autoscale an asynchronous endpoint" and "Scale an endpoint to zero instances".
    """
    # A queued request still waits in the next minute; a request that failed is counted only once.
    if isinstance(scaling, CopiesScaling):
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
        namespace=REQUEST_METRICS,
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
