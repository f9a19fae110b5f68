"""The CloudWatch alarms of one variant or component of an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sns as sns

from extended_dlc.endpoint.watched import Watched
from extended_dlc.options._values import OptionError
from extended_dlc.options.hosting import Async, Component, Components
from extended_dlc.options.monitoring import (
    ALARMS,
    CONTAINER_ALARMS,
    OWN,
    AlarmKind,
    AlarmName,
    ContainerAlarmName,
    Monitoring,
)

_AnyAlarm = TypeVar("_AnyAlarm", bound=cloudwatch.AlarmBase)


def selector(endpoint_name: str, *, variant: str | None = None, component: str | None = None) -> str:
    """The label matchers of an endpoint's OpenTelemetry metrics in CloudWatch; PromQL 3 quotes names with dots.

    SageMaker developer guide, "Amazon SageMaker AI detailed observability for inference endpoints".
    """
    labels = {"endpoint": endpoint_name, "variant": variant, "inference_component": component}
    return ",".join(f'"aws.sagemaker.{name}.name"="{value}"' for name, value in labels.items() if value)


def alarms_of(part: Watched, monitoring: Monitoring, topic: sns.ITopic | None) -> dict[str, cloudwatch.Alarm]:
    """The alarms whose metrics the part has, by name."""
    found = {}
    for name, kind in ALARMS.items():
        threshold = monitoring.alarms.get(name, kind.threshold)
        if threshold is not None and _fits(part, name, kind):
            found[part.key(name)] = _tell(topic, _alarm(part, name, kind, threshold))
    return found


def container_alarms_of(
    part: Watched, asked: Mapping[ContainerAlarmName, float], topic: sns.ITopic | None
) -> dict[str, cloudwatch.IAlarm]:
    """The alarms on metrics that this project's server publishes, named like those of `alarms_of`."""
    if not part.logs_requests:
        return {}
    return {part.key(name): _tell(topic, _container_alarm(part, name, threshold)) for name, threshold in asked.items()}


def _fits(part: Watched, name: AlarmName, kind: AlarmKind) -> bool:
    """Whether the part has the metric and the alarm is useful: an idle part that scales to zero costs nothing."""
    is_component = part.component is not None
    # Only disk is per instance; everything else is per component.
    if isinstance(part.hosting, Components) and is_component == (name == "disk"):
        return False
    # The queue and the log exist per endpoint, not per variant.
    if not part.is_first and not is_component and (kind.namespace == OWN or name == "backlog-age"):
        return False
    if kind.namespace == OWN and part.counted_in is None:
        return False
    if not isinstance(part.hosting, kind.hosting) or (kind.per_gpu and not part.instance.gpus):
        return False
    runs_on = part.runs_on
    scales_to_none = isinstance(runs_on, Async | Component) and runs_on.scaling and runs_on.scaling.minimum == 0
    return not (name == "idle" and scales_to_none)


def _alarm(part: Watched, name: AlarmName, kind: AlarmKind, threshold: float) -> cloudwatch.Alarm:
    description = f"{part.title}: {kind.what}"
    if name == "idle":
        return _idle(part, kind, hours=threshold, description=description)
    return cloudwatch.Alarm(
        part.home,
        "".join(map(str.capitalize, name.split("-"))),
        alarm_description=description,
        metric=part.metric(kind),
        threshold=threshold * kind.factor * (part.instance.gpus if kind.per_gpu and not part.component else 1),
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        evaluation_periods=kind.periods,
        datapoints_to_alarm=kind.breaching,
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )


def _idle(part: Watched, kind: AlarmKind, *, hours: float, description: str) -> cloudwatch.Alarm:
    queued = isinstance(part.hosting, Async)
    return cloudwatch.Alarm(
        part.home,
        "Idle",
        alarm_description=description,
        # Asynchronous endpoints publish no Invocations.
        metric=part.request_metric(
            "TotalProcessingTime" if queued else kind.metric,
            statistic="SampleCount" if queued else kind.statistic,
            minutes=60,
        ),
        threshold=1,
        comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
        evaluation_periods=round(hours),
        treat_missing_data=cloudwatch.TreatMissingData.BREACHING,  # without requests there is no data
    )


def _container_alarm(part: Watched, name: ContainerAlarmName, threshold: float) -> cloudwatch.PromQLAlarm:
    """A PromQL alarm; each series above the threshold is one of its contributors."""
    if not hasattr(cloudwatch, "PromQLAlarm"):
        raise OptionError(
            "monitoring.container_alarms",
            name,
            "needs an aws-cdk-lib that knows PromQL alarms, and this one is older: upgrade it, or leave it out",
        )
    kind = CONTAINER_ALARMS[name]
    variant = None if part.component else part.name
    labels = selector(part.endpoint_name, variant=variant, component=part.component_name)
    return cloudwatch.PromQLAlarm(
        part.home,
        f"Container{name.capitalize()}",
        alarm_description=f"{part.title}: {kind.what}",
        query=f"{kind.query.replace('SELECTOR', labels)} > {threshold * kind.factor:g}",
        evaluation_interval=Duration.minutes(1),
        pending_period=Duration.minutes(kind.minutes),
        recovery_period=Duration.minutes(kind.minutes),
    )


def _tell(topic: sns.ITopic | None, alarm: _AnyAlarm) -> _AnyAlarm:
    if topic is not None:
        from aws_cdk import aws_cloudwatch_actions as actions

        action = actions.SnsAction(topic)
        alarm.add_alarm_action(action)
        alarm.add_ok_action(action)
    return alarm
