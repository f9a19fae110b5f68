"""The log groups, the alarms and the dashboard of an endpoint."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct

from extended_dlc.options._values import OptionError
from extended_dlc.options.hosting import Async, Component, Components, Hosting, Instances, Serverless, find_instances
from extended_dlc.options.monitoring import (
    ALARMS,
    CONTAINER_ALARMS,
    COPIES,
    INSTANCES,
    OWN,
    REQUESTS,
    ROLLBACK_ALARMS,
    AlarmKind,
    AlarmName,
    ContainerAlarmName,
    Monitoring,
)

if TYPE_CHECKING:
    from aws_cdk import aws_sns as sns


_AnyAlarm = TypeVar("_AnyAlarm", bound=cloudwatch.AlarmBase)

_QUERIES: Mapping[str, str] = {
    "Requests in the queue": "max(extended_dlc_num_requests_waiting{SELECTOR})",
    "Tokens a second": "sum(rate(extended_dlc_generation_tokens_total{SELECTOR}[5m]))",
    "Memory for keys and values in use": "max(extended_dlc_kv_cache_usage_perc{SELECTOR})",
    "Errors by their code": "sum by (code) (rate(extended_dlc_errors_total{SELECTOR}[5m]))",
}
"""What people ask first of what our server tells of itself, in PromQL."""

_COUNTED = {"OutOfMemory": "out-of-memory", "QueueFull": "queue-full"}
"""Metric -> error code in our server's log, one line of JSON a request (docker/inference/README.md, "The log")."""


_OF_INSTANCES = re.compile(r"(CPU|Disk|GPU|GPUMemory|Memory)(Reservation|Utilization|UtilizationNormalized)")
"""Metrics of instances and of copies, which are not in the namespace of requests."""


def namespace_of(metric: str, *, component: bool) -> str:
    """Where SageMaker publishes one of its metrics."""
    if not _OF_INSTANCES.fullmatch(metric):
        return REQUESTS
    return COPIES if component else INSTANCES


def request_metric(
    metric: str,
    *,
    endpoint_name: str,
    variant: str | None,
    statistic: str = "Average",
    namespace: str = REQUESTS,
    minutes: int = 1,
    component: str | None = None,
) -> cloudwatch.Metric:
    """One of SageMaker's metrics of an endpoint, of one of its variants or components, as SageMaker publishes it."""
    dimensions = {"EndpointName": endpoint_name} | ({"VariantName": variant} if variant else {})
    if component is not None:
        dimensions = {"InferenceComponentName": component}
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=metric,
        dimensions_map=dimensions,
        statistic=statistic,
        period=Duration.minutes(minutes),
    )


def selector(endpoint_name: str, *, variant: str | None = None, component: str | None = None) -> str:
    """The labels of an endpoint's OpenTelemetry metrics in CloudWatch, as PromQL 3 quotes names with dots.

    SageMaker developer guide, "Amazon SageMaker AI detailed observability for inference endpoints".
    """
    labels = {"endpoint": endpoint_name, "variant": variant, "inference_component": component}
    return ",".join(f'"aws.sagemaker.{name}.name"="{value}"' for name, value in labels.items() if value)


def retention_days(retention: logs.RetentionDays | str) -> logs.RetentionDays:
    """The CDK's name of how long a log is kept."""
    return logs.RetentionDays[retention.upper().replace("-", "_")] if isinstance(retention, str) else retention


def _queries(endpoint_name: str) -> str:
    """What the dashboard says of metrics that only PromQL can ask: its graphs know CloudWatch's own alone."""
    lines = [f"- {what}: `{query.replace('SELECTOR', selector(endpoint_name))}`" for what, query in _QUERIES.items()]
    where = f"https://{Aws.REGION}.console.aws.amazon.com/cloudwatch/home?region={Aws.REGION}"
    head = f"The containers' own metrics are OpenTelemetry ones: ask them in [Query Studio]({where}) in PromQL."
    return "\n".join([head, "", *lines])


class Watch(Construct):
    """The log groups, the alarms and the dashboard of one endpoint; none of them waits for it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        monitoring: Monitoring,
        endpoint_name: str,
        hosting: Hosting,
        variants: Mapping[str, Hosting | Instances],
        log_requests: Collection[str],
    ) -> None:
        """Watch the variants of an endpoint, and the components that the hosting has.

        :param variants: Each with what it runs on; alarms of the first carry the alarm's name alone.
        :param log_requests: The variants and components whose containers log as our server does; of the others nobody
            counts what it counts.
        """
        super().__init__(scope, construct_id)
        self._monitoring, self._name, self._hosting = monitoring, endpoint_name, hosting
        self._counted_in: list[str] = []
        parts: list[tuple[Construct, str, Hosting | Instances | Component]] = [
            (Construct(self, name) if index else self, name, runs_on)
            for index, (name, runs_on) in enumerate(variants.items())
        ]
        # SageMaker makes the group at a container's first line if it is not there, and CloudFormation then cannot
        self.log_group = self._log(
            self, f"{INSTANCES}/{endpoint_name}", counted_in=self._own() if {*variants} & {*log_requests} else None
        )
        self.component_logs: dict[str, logs.LogGroup] = {}
        """The log groups of components, by their names."""
        if isinstance(hosting, Components):
            components = Construct(self, "Components")
            for each in hosting.components:
                home = Construct(components, each.name)
                parts.append((home, each.name, each))
                counted_in = self._own(each.name) if each.name in log_requests else None
                self.component_logs[each.name] = self._log(home, f"{COPIES}/{each.name}", counted_in=counted_in)
        self.topic = self._topic()
        self.alarms: dict[str, cloudwatch.Alarm] = {}
        """The alarms, by name; those of more variants as `VARIANT/NAME`, of components as `COMPONENT/NAME`."""
        for home, part, runs_on in parts:
            for name, kind in ALARMS.items():
                alarm = self._alarm(home, name, kind, part=part, runs_on=runs_on)
                if alarm is not None:
                    self.alarms[name if home is self else f"{part}/{name}"] = alarm
        self.container_alarms: dict[str, cloudwatch.IAlarm] = {}
        """Those on what our server tells of itself, named like the others. No update is rolled back by them."""
        for home, part, runs_on in parts:
            # instances that components share have no server of their own
            if part in log_requests:
                component = part if isinstance(runs_on, Component) else None
                for asked, threshold in monitoring.container_alarms.items():
                    key = asked if home is self else f"{part}/{asked}"
                    self.container_alarms[key] = self._container_alarm(home, asked, threshold, part, component)
        if monitoring.container_alarms and not self.container_alarms:
            raise OptionError(
                "monitoring.container_alarms",
                ", ".join(monitoring.container_alarms),
                "ask what this project's own server tells, and no container has it: leave them out",
            )
        self.dashboard = (
            self._dashboard(list(variants), own_server=bool(log_requests)) if monitoring.dashboard else None
        )

    def rollback_alarms(self, component: str = "") -> Sequence[cloudwatch.IAlarm]:
        """Those that roll an update back, of the endpoint or of a component, at most as many as SageMaker takes."""
        names = [name for name in self.alarms if name.rpartition("/")[2] in ROLLBACK_ALARMS]
        return [self.alarms[name] for name in names if name.startswith(f"{component}/" if component else "")][:10]

    @property
    def of_use_with_endpoint(self) -> Sequence[IConstruct]:
        """What says something only while there is an endpoint: the alarms, and the dashboard that shows them."""
        dashboards = [self.dashboard] if self.dashboard else []
        return [*self.alarms.values(), *self.container_alarms.values(), *dashboards]

    def _topic(self) -> sns.ITopic | None:
        if self._monitoring.alarm_topic != "new":
            return self._monitoring.alarm_topic
        from aws_cdk import aws_sns as sns

        from extended_dlc import _sources

        topic = sns.Topic(self, "Topic", enforce_ssl=True)
        topic.grant_publish(_sources.cloudwatch(self))
        return topic

    def _own(self, component: str = "") -> str:
        """Namespace of what is counted in the endpoint's log, or in a component's."""
        return "/".join([OWN, self._name, *([component] if component else [])])

    def _log(self, home: Construct, name: str, *, counted_in: str | None) -> logs.LogGroup:
        """A log group, with filters that count in it where there is something to count."""
        group = logs.LogGroup(
            home,
            "Log",
            log_group_name=name,
            retention=retention_days(self._monitoring.log_retention),
            encryption_key=self._monitoring.log_key,
            removal_policy=RemovalPolicy.DESTROY,
        )
        if counted_in is not None:
            self._counted_in.append(counted_in)
            for metric, code in _COUNTED.items():
                logs.MetricFilter(
                    group,
                    metric,
                    log_group=group,
                    filter_pattern=logs.FilterPattern.string_value("$.code", "=", code),
                    metric_namespace=counted_in,
                    metric_name=metric,
                    metric_value="1",
                    default_value=0,
                )
        return group

    def _alarm(
        self,
        home: Construct,
        name: AlarmName,
        kind: AlarmKind,
        *,
        part: str,
        runs_on: Hosting | Instances | Component,
    ) -> cloudwatch.Alarm | None:
        """The alarm, unless it is dropped, or the part has no such metric, or costs nothing while idle."""
        threshold = self._monitoring.alarms.get(name, kind.threshold)
        component = part if isinstance(runs_on, Component) else ""
        # components share the disk of the instances, and have all else for themselves
        if isinstance(self._hosting, Components) and bool(component) == (name == "disk"):
            return None
        # the queue and the log are the endpoint's, not a variant's
        if home is not self and not component and (kind.namespace == OWN or name == "backlog-age"):
            return None
        if kind.namespace == OWN and self._own(component) not in self._counted_in:
            return None
        gpus = find_instances(self._hosting if isinstance(runs_on, Component) else runs_on)[0].gpus
        if threshold is None or not isinstance(self._hosting, kind.hosting) or (kind.per_gpu and not gpus):
            return None
        description = f"{self._name}{f'/{component}' if component else ''}: {kind.what}"
        if name == "idle":
            if isinstance(runs_on, Async | Component) and runs_on.scaling and runs_on.scaling.minimum == 0:
                return None
            return self._idle(home, kind, hours=threshold, part=part, component=component, description=description)
        alarm = cloudwatch.Alarm(
            home,
            "".join(map(str.capitalize, name.split("-"))),
            alarm_description=description,
            metric=self._metric(kind, part, component),
            threshold=threshold * kind.factor * (gpus if kind.per_gpu and not component else 1),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=kind.periods,
            datapoints_to_alarm=kind.breaching,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        return self._tell(alarm)

    def _container_alarm(
        self, home: Construct, name: ContainerAlarmName, threshold: float, part: str, component: str | None
    ) -> cloudwatch.IAlarm:
        """An alarm that asks in PromQL; each series above the threshold is one of its contributors."""
        if not hasattr(cloudwatch, "PromQLAlarm"):
            raise OptionError(
                "monitoring.container_alarms",
                name,
                "needs an aws-cdk-lib that knows PromQL alarms, and this one is older: upgrade it, or leave it out",
            )
        kind = CONTAINER_ALARMS[name]
        labels = selector(self._name, variant=None if component else part, component=component)
        alarm = cloudwatch.PromQLAlarm(
            home,
            f"Container{name.capitalize()}",
            alarm_description=f"{self._name}{f'/{component}' if component else ''}: {kind.what}",
            query=f"{kind.query.replace('SELECTOR', labels)} > {threshold * kind.factor:g}",
            evaluation_interval=Duration.minutes(1),
            pending_period=Duration.minutes(kind.minutes),
            recovery_period=Duration.minutes(kind.minutes),
        )
        return self._tell(alarm)

    def _idle(
        self, home: Construct, kind: AlarmKind, *, hours: float, part: str, component: str, description: str
    ) -> cloudwatch.Alarm:
        queued = isinstance(self._hosting, Async)
        alarm = cloudwatch.Alarm(
            home,
            "Idle",
            alarm_description=description,
            # asynchronous endpoints publish no Invocations
            metric=request_metric(
                "TotalProcessingTime" if queued else kind.metric,
                endpoint_name=self._name,
                variant=part,
                statistic="SampleCount" if queued else kind.statistic,
                minutes=60,
                component=component or None,
            ),
            threshold=1,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            evaluation_periods=round(hours),
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,  # no request is no data
        )
        return self._tell(alarm)

    def _metric(self, kind: AlarmKind, part: str, component: str) -> cloudwatch.Metric:
        if kind.namespace == OWN:
            return cloudwatch.Metric(
                namespace=self._own(component),
                metric_name=kind.metric,
                statistic=kind.statistic,
                period=Duration.minutes(kind.minutes),
            )
        of_copies = bool(component) and kind.namespace == INSTANCES
        return request_metric(
            f"{kind.metric}Normalized" if of_copies else kind.metric,
            endpoint_name=self._name,
            # the queue belongs to the endpoint: SageMaker publishes its metrics with one dimension
            variant=None if kind.metric.startswith("Approximate") else part,
            statistic=kind.statistic,
            namespace=COPIES if of_copies else kind.namespace,
            minutes=kind.minutes,
            component=component or None,
        )

    def _tell(self, alarm: _AnyAlarm) -> _AnyAlarm:
        if self.topic is not None:
            from aws_cdk import aws_cloudwatch_actions as actions

            action = actions.SnsAction(self.topic)
            alarm.add_alarm_action(action)
            alarm.add_ok_action(action)
        return alarm

    def _dashboard(self, variants: Sequence[str], *, own_server: bool) -> cloudwatch.Dashboard:
        queued = isinstance(self._hosting, Async)
        components = [*self.component_logs]

        def graph(title: str, *lines: tuple[str, str], namespace: str = REQUESTS) -> cloudwatch.GraphWidget:
            """Metrics with their statistics, a line for each variant, or for each component that has them."""
            parts = variants if not components or namespace == INSTANCES else components
            return cloudwatch.GraphWidget(
                title=title,
                width=8,
                left=[
                    request_metric(
                        metric,
                        endpoint_name=self._name,
                        variant=part,
                        statistic=statistic,
                        namespace=namespace,
                        component=part if parts is components else None,
                    ).with_(label=" ".join([metric, statistic, *([part] if len(parts) > 1 else [])]))
                    for part in parts
                    for metric, statistic in lines
                ],
            )

        requests = [("TotalProcessingTime", "SampleCount") if queued else ("Invocations", "Sum")]
        if components:
            requests.append(("InvocationsPerCopy", "Sum"))
        first = [
            graph("Requests", *requests),
            graph("Errors", ("Invocation4XXErrors", "Sum"), ("Invocation5XXErrors", "Sum")),
            graph("Latency in the container (µs)", ("ModelLatency", "p50"), ("ModelLatency", "p99")),
        ]
        disk = [] if isinstance(self._hosting, Serverless) else [("DiskUtilization", "Maximum")]
        processors = [("CPUUtilization", "Average")]
        if any(instance.gpus for instance in find_instances(self._hosting)):
            processors += [("GPUUtilization", "Average"), ("GPUMemoryUtilization", "Maximum")]
        if components:
            of_copies = [(f"{metric}Normalized", statistic) for metric, statistic in processors]
            second = [
                graph("Memory of a copy (% of its own)", ("MemoryUtilizationNormalized", "Maximum"), namespace=COPIES),
                graph("Processors of a copy (% of its own)", *of_copies, namespace=COPIES),
                graph("Disk (%)", *disk, namespace=INSTANCES),
            ]
        else:
            second = [graph("Memory and disk (%)", ("MemoryUtilization", "Maximum"), *disk, namespace=INSTANCES)]
            if not isinstance(self._hosting, Serverless):
                second.append(graph("Processors (% of one)", *processors, namespace=INSTANCES))
        if queued:
            ages = [
                request_metric(metric, endpoint_name=self._name, variant=None, statistic="Maximum")
                for metric in ("ApproximateBacklogSize", "ApproximateAgeOfOldestRequest")
            ]
            second.append(cloudwatch.GraphWidget(title="Queue (requests, s)", width=8, left=ages))
        if self._counted_in:
            counted = [
                cloudwatch.Metric(namespace=namespace, metric_name=metric, statistic="Sum")
                for namespace in self._counted_in
                for metric in _COUNTED
            ]
            second.append(cloudwatch.GraphWidget(title="Refused by the container", width=8, left=counted))
        rows: list[list[cloudwatch.IWidget]] = [list(first), list(second)]
        if own_server and not isinstance(self._hosting, Serverless):
            rows.append([cloudwatch.TextWidget(markdown=_queries(self._name), width=24, height=5)])
        if alarms := [*self.alarms.values(), *self.container_alarms.values()]:
            rows.append([cloudwatch.AlarmStatusWidget(alarms=alarms, width=24, title="Alarms")])
        return cloudwatch.Dashboard(self, "Dashboard", widgets=rows)
