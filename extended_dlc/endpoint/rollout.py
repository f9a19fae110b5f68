"""The `DeploymentConfig` of an endpoint, and of a component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aws_cdk import aws_sagemaker as sagemaker

from extended_dlc.options.rollout import Canary, Linear, Rolling, Rollout

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch

_Endpoint = sagemaker.CfnEndpoint


def deployment_config(
    rollout: Rollout, *, default_alarms: Sequence[cloudwatch.IAlarm] = ()
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty:
    """The `DeploymentConfig` of a rollout.

    :param default_alarms: Alarms of the endpoint, for a rollout that names none.
    """
    alarms = [
        _Endpoint.AlarmProperty(alarm_name=each if isinstance(each, str) else each.alarm_name)
        for each in rollout.alarms or default_alarms
    ]
    rollback = _Endpoint.AutoRollbackConfigProperty(alarms=alarms) if alarms else None
    if isinstance(rollout, Rolling):
        rolling = _Endpoint.RollingUpdatePolicyProperty(
            maximum_batch_size=_percent(rollout.percent),
            rollback_maximum_batch_size=_percent(rollout.rollback_percent) if rollout.rollback_percent else None,
            wait_interval_in_seconds=rollout.bake_seconds,
            maximum_execution_timeout_in_seconds=rollout.timeout_seconds,
        )
        return _Endpoint.DeploymentConfigProperty(rolling_update_policy=rolling, auto_rollback_configuration=rollback)
    routing: dict[str, Any] = {"type": "ALL_AT_ONCE"}
    if isinstance(rollout, Canary):
        routing = {"type": "CANARY", "canary_size": _percent(rollout.percent)}
    if isinstance(rollout, Linear):
        routing = {"type": "LINEAR", "linear_step_size": _percent(rollout.percent)}
    blue_green = _Endpoint.BlueGreenUpdatePolicyProperty(
        traffic_routing_configuration=_Endpoint.TrafficRoutingConfigProperty(
            wait_interval_in_seconds=rollout.bake_seconds, **routing
        ),
        termination_wait_in_seconds=rollout._keeps_old(),
        maximum_execution_timeout_in_seconds=rollout.timeout_seconds,
    )
    return _Endpoint.DeploymentConfigProperty(blue_green_update_policy=blue_green, auto_rollback_configuration=rollback)


def component_deployment_config(
    rollout: Rolling, *, default_alarms: Sequence[cloudwatch.IAlarm] = ()
) -> sagemaker.CfnInferenceComponent.InferenceComponentDeploymentConfigProperty:
    """The `DeploymentConfig` of an inference component, whose batches are of copies.

    :param default_alarms: Alarms of the component, for a rollout that names none.
    """
    kind = sagemaker.CfnInferenceComponent

    def percent(value: int) -> sagemaker.CfnInferenceComponent.InferenceComponentCapacitySizeProperty:
        return kind.InferenceComponentCapacitySizeProperty(type="CAPACITY_PERCENT", value=value)

    names = [each if isinstance(each, str) else each.alarm_name for each in rollout.alarms or default_alarms]
    alarms = [kind.AlarmProperty(alarm_name=name) for name in names]
    return kind.InferenceComponentDeploymentConfigProperty(
        rolling_update_policy=kind.InferenceComponentRollingUpdatePolicyProperty(
            maximum_batch_size=percent(rollout.percent),
            rollback_maximum_batch_size=percent(rollout.rollback_percent) if rollout.rollback_percent else None,
            wait_interval_in_seconds=rollout.bake_seconds,
            maximum_execution_timeout_in_seconds=rollout.timeout_seconds,
        ),
        auto_rollback_configuration=kind.AutoRollbackConfigurationProperty(alarms=alarms) if alarms else None,
    )


def _percent(value: int) -> sagemaker.CfnEndpoint.CapacitySizeProperty:
    return _Endpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=value)
