"""How an endpoint is watched: its log group, its alarms and its dashboard.

Names, dimensions, units and statistics of SageMaker's metrics are those of the SageMaker developer guide, "Amazon
SageMaker AI metrics in Amazon CloudWatch" and "Alarms and logs for tracking metrics from asynchronous endpoints".
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct

from extended_dlc._private import within
from extended_dlc.hosting import Async, Hosting, Instances, RealTime, Serverless, find_instances

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_sns as sns

REQUESTS = "AWS/SageMaker"
"""Namespace of what SageMaker counts of requests."""

INSTANCES = "/aws/sagemaker/Endpoints"
"""Namespace of what SageMaker measures on instances."""

OWN = "ExtendedDlc"
"""Namespace of what is counted in the log of our server."""

AlarmName = Literal[
    "client-errors",
    "server-errors",
    "model-latency",
    "overhead",
    "idle",
    "memory",
    "gpu",
    "gpu-memory",
    "disk",
    "backlog-age",
    "out-of-memory",
    "queue-full",
]
"""What an alarm may watch."""

ROLLBACK_ALARMS: Sequence[AlarmName] = ("server-errors", "model-latency", "out-of-memory")
"""Those that tell a bad update from a busy day: they roll it back."""


@dataclass(frozen=True, kw_only=True)
class AlarmKind:
    """What one alarm watches, and when it goes off unless told otherwise."""

    what: str
    """What it says when it goes off, as the description of the alarm."""

    threshold: float
    """It goes off above this, in `unit`."""

    unit: str
    metric: str
    namespace: str = REQUESTS
    statistic: str
    factor: float = 1
    """What the metric has for one of `unit`."""

    minutes: int = 1
    """Length of a period."""

    periods: int = 5
    """Periods that are looked at."""

    breaching: int = 3
    """Periods of these that must be above the threshold."""

    hosting: tuple[type[Hosting], ...] = (RealTime, Async, Serverless)
    """The kinds of hosting whose metric it is."""

    per_gpu: bool = False
    """Whether SageMaker adds up the percentages of all GPUs; there is no alarm without one."""


ALARMS: Mapping[AlarmName, AlarmKind] = {
    "client-errors": AlarmKind(
        what="Requests are refused (4xx): callers send what the model does not take, or more than it can",
        threshold=25,
        unit="% of the requests",
        factor=0.01,
        metric="Invocation4XXErrors",
        statistic="Average",
    ),
    "server-errors": AlarmKind(
        what="Requests fail in the container (5xx)",
        threshold=1,
        unit="% of the requests",
        factor=0.01,
        metric="Invocation5XXErrors",
        statistic="Average",
        periods=3,
        breaching=2,
    ),
    "model-latency": AlarmKind(
        what="One request in a hundred takes too long in the container; SageMaker gives up at 60 s",
        threshold=30,
        unit="s",
        factor=1_000_000,
        metric="ModelLatency",
        statistic="p99",
        hosting=(RealTime, Serverless),
    ),
    "overhead": AlarmKind(
        what="One request in a hundred spends too long in SageMaker, outside the container",
        threshold=5,
        unit="s",
        factor=1_000_000,
        metric="OverheadLatency",
        statistic="p99",
        hosting=(RealTime,),  # a cold start of a serverless container is overhead by design
    ),
    "idle": AlarmKind(
        what="Nobody has called the endpoint, and its instances cost money",
        threshold=24,
        unit="h without a request, at most 168",
        metric="Invocations",
        statistic="Sum",
        hosting=(RealTime, Async),
    ),
    "memory": AlarmKind(
        what="The containers have little memory left",
        threshold=90,
        unit="%",
        metric="MemoryUtilization",
        namespace=INSTANCES,
        statistic="Maximum",
    ),
    "gpu": AlarmKind(
        what="The GPUs have had no pause: requests wait",
        threshold=95,
        unit="% of all GPUs",
        metric="GPUUtilization",
        namespace=INSTANCES,
        statistic="Average",
        periods=15,
        breaching=15,
        hosting=(RealTime,),  # a queue is there to keep them busy
        per_gpu=True,
    ),
    "gpu-memory": AlarmKind(
        what="The GPUs have little memory left",
        threshold=95,
        unit="% of all GPUs",
        metric="GPUMemoryUtilization",
        namespace=INSTANCES,
        statistic="Maximum",
        hosting=(RealTime, Async),
        per_gpu=True,
    ),
    "disk": AlarmKind(
        what="The disk of an instance fills up",
        threshold=85,
        unit="%",
        metric="DiskUtilization",
        namespace=INSTANCES,
        statistic="Maximum",
        hosting=(RealTime, Async),
    ),
    "backlog-age": AlarmKind(
        what="A request has waited too long in the queue",
        threshold=900,
        unit="s",
        metric="ApproximateAgeOfOldestRequest",
        statistic="Maximum",
        hosting=(Async,),
    ),
    "out-of-memory": AlarmKind(
        what="A request needed more memory than the device has (507)",
        threshold=0,
        unit="requests a minute",
        metric="OutOfMemory",
        namespace=OWN,
        statistic="Sum",
        breaching=1,
    ),
    "queue-full": AlarmKind(
        what="Requests found the container's queue full (429): add instances, or scale sooner",
        threshold=0,
        unit="requests a minute",
        metric="QueueFull",
        namespace=OWN,
        statistic="Sum",
    ),
}
"""The alarms, by name."""

_COUNTED = {"OutOfMemory": "out-of-memory", "QueueFull": "queue-full"}
"""Metric -> error code in our server's log, one line of JSON a request (docker/inference/README.md, "The log")."""


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """How an endpoint is watched. Each alarm and each counted metric has CloudWatch's price, the dashboard too."""

    alarms: Mapping[AlarmName, float | None] = field(default_factory=dict)
    """Other thresholds than those of `ALARMS`, in its units, or None for no such alarm: `{"model-latency": 5,
    "idle": None}`. ValueError for a name that is not in the table. Default: all alarms that fit the hosting, with their
    own thresholds."""

    alarm_topic: sns.ITopic | Literal["new"] | None = None
    """Topic that is told when an alarm goes off and when it is over, or `"new"` for one of the endpoint's own, without
    subscribers yet. Default: none, and alarms only show."""

    dashboard: bool = True
    """Whether there is a dashboard. Default: there is."""

    log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH
    """How long the log is kept. Default: a month."""

    log_key: kms.IKey | None = None
    """Key that the log is encrypted with; its policy must let CloudWatch Logs use it. Default: CloudWatch's own."""

    def __post_init__(self) -> None:
        """Refuse what is no alarm, and what CloudWatch would refuse."""
        for name, threshold in self.alarms.items():
            if name not in ALARMS:
                near = difflib.get_close_matches(name, ALARMS, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(ALARMS)}"
                raise ValueError(f"'alarms' ({name}) is no alarm: {hint}")
            option = f"alarms.{name}"
            if threshold is not None and name == "idle":
                within(option, threshold, 1, 168, "CloudWatch looks back a week at most; None for no such alarm")
            elif threshold is not None:
                within(option, threshold, 0, None, "None for no such alarm")
        if isinstance(self.alarm_topic, str) and self.alarm_topic != "new":
            raise ValueError(
                f"'alarm_topic' ({self.alarm_topic}) must be a topic, or 'new' for one of the endpoint's own"
            )


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


class Watch(Construct):
    """The log group, the alarms and the dashboard of one endpoint; none of them waits for it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        monitoring: Monitoring,
        endpoint_name: str,
        hosting: Hosting,
        variants: Mapping[str, Hosting | Instances],
        counts_in_log: bool,
    ) -> None:
        """Watch the variants of an endpoint.

        :param variants: Each with what it runs on; alarms of the first carry the alarm's name alone.
        :param counts_in_log: Whether the containers log as our server does; without that nobody counts what it counts.
        """
        super().__init__(scope, construct_id)
        self._monitoring, self._name, self._hosting = monitoring, endpoint_name, hosting
        # SageMaker makes the group at a container's first line if it is not there, and CloudFormation then cannot
        self.log_group = logs.LogGroup(
            self,
            "Log",
            log_group_name=f"/aws/sagemaker/Endpoints/{endpoint_name}",
            retention=monitoring.log_retention,
            encryption_key=monitoring.log_key,
            removal_policy=RemovalPolicy.DESTROY,
        )
        if counts_in_log:
            for metric, code in _COUNTED.items():
                logs.MetricFilter(
                    self.log_group,
                    metric,
                    log_group=self.log_group,
                    filter_pattern=logs.FilterPattern.string_value("$.code", "=", code),
                    metric_namespace=f"{OWN}/{endpoint_name}",
                    metric_name=metric,
                    metric_value="1",
                    default_value=0,
                )
        self.topic = self._topic()
        self.alarms: dict[str, cloudwatch.Alarm] = {}
        """The alarms, by name; those of more variants as `VARIANT/NAME`."""
        for index, (variant, runs_on) in enumerate(variants.items()):
            home = self if index == 0 else Construct(self, variant)
            for name, kind in ALARMS.items():
                # the queue and the log are the endpoint's, not a variant's
                once = kind.namespace == OWN or name == "backlog-age"
                if (index and once) or (kind.namespace == OWN and not counts_in_log):
                    continue
                alarm = self._alarm(home, name, kind, variant=variant, runs_on=runs_on)
                if alarm is not None:
                    self.alarms[name if index == 0 else f"{variant}/{name}"] = alarm
        self.dashboard = self._dashboard(list(variants), counts_in_log) if monitoring.dashboard else None

    @property
    def rollback_alarms(self) -> Sequence[cloudwatch.IAlarm]:
        """Those that roll an update back, at most as many as SageMaker takes."""
        return [alarm for name, alarm in self.alarms.items() if name.rpartition("/")[2] in ROLLBACK_ALARMS][:10]

    @property
    def of_use_with_endpoint(self) -> Sequence[IConstruct]:
        """What says something only while there is an endpoint: the alarms, and the dashboard that shows them."""
        return [*self.alarms.values(), *([self.dashboard] if self.dashboard else [])]

    def _topic(self) -> sns.ITopic | None:
        if self._monitoring.alarm_topic != "new":
            return self._monitoring.alarm_topic
        from aws_cdk import aws_iam as iam
        from aws_cdk import aws_sns as sns

        topic = sns.Topic(self, "Topic", enforce_ssl=True)
        topic.grant_publish(iam.ServicePrincipal("cloudwatch.amazonaws.com"))
        return topic

    def _alarm(
        self, home: Construct, name: AlarmName, kind: AlarmKind, *, variant: str, runs_on: Hosting | Instances
    ) -> cloudwatch.Alarm | None:
        """The alarm, unless it is dropped, or the hosting has no such metric, or costs nothing while idle."""
        threshold = self._monitoring.alarms.get(name, kind.threshold)
        gpus = find_instances(runs_on)[0].gpus
        if threshold is None or not isinstance(self._hosting, kind.hosting) or (kind.per_gpu and not gpus):
            return None
        if name == "idle":
            return self._idle(home, kind, hours=threshold, variant=variant)
        alarm = cloudwatch.Alarm(
            home,
            "".join(map(str.capitalize, name.split("-"))),
            alarm_description=f"{self._name}: {kind.what}",
            metric=self._metric(kind, variant),
            threshold=threshold * kind.factor * (gpus if kind.per_gpu else 1),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=kind.periods,
            datapoints_to_alarm=kind.breaching,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        return self._tell(alarm)

    def _idle(self, home: Construct, kind: AlarmKind, *, hours: float, variant: str) -> cloudwatch.Alarm | None:
        queued = isinstance(self._hosting, Async)
        if isinstance(self._hosting, Async) and self._hosting.scaling and self._hosting.scaling.minimum == 0:
            return None
        alarm = cloudwatch.Alarm(
            home,
            "Idle",
            alarm_description=f"{self._name}: {kind.what}",
            # asynchronous endpoints publish no Invocations
            metric=request_metric(
                "TotalProcessingTime" if queued else kind.metric,
                endpoint_name=self._name,
                variant=variant,
                statistic="SampleCount" if queued else kind.statistic,
                minutes=60,
            ),
            threshold=1,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            evaluation_periods=round(hours),
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,  # no request is no data
        )
        return self._tell(alarm)

    def _metric(self, kind: AlarmKind, variant: str) -> cloudwatch.Metric:
        if kind.namespace == OWN:
            return cloudwatch.Metric(
                namespace=f"{OWN}/{self._name}",
                metric_name=kind.metric,
                statistic=kind.statistic,
                period=Duration.minutes(kind.minutes),
            )
        return request_metric(
            kind.metric,
            endpoint_name=self._name,
            # the queue belongs to the endpoint: SageMaker publishes its metrics with one dimension
            variant=None if kind.metric.startswith("Approximate") else variant,
            statistic=kind.statistic,
            namespace=kind.namespace,
            minutes=kind.minutes,
        )

    def _tell(self, alarm: cloudwatch.Alarm) -> cloudwatch.Alarm:
        if self.topic is not None:
            from aws_cdk import aws_cloudwatch_actions as actions

            action = actions.SnsAction(self.topic)
            alarm.add_alarm_action(action)
            alarm.add_ok_action(action)
        return alarm

    def _dashboard(self, variants: Sequence[str], counts_in_log: bool) -> cloudwatch.Dashboard:
        queued = isinstance(self._hosting, Async)

        def graph(title: str, *lines: tuple[str, str], namespace: str = REQUESTS) -> cloudwatch.GraphWidget:
            """Metrics with their statistics, a line for each variant."""
            return cloudwatch.GraphWidget(
                title=title,
                width=8,
                left=[
                    request_metric(
                        metric, endpoint_name=self._name, variant=variant, statistic=statistic, namespace=namespace
                    ).with_(label=" ".join([metric, statistic, *([variant] if len(variants) > 1 else [])]))
                    for variant in variants
                    for metric, statistic in lines
                ],
            )

        requests = ("TotalProcessingTime", "SampleCount") if queued else ("Invocations", "Sum")
        first = [
            graph("Requests", requests),
            graph("Errors", ("Invocation4XXErrors", "Sum"), ("Invocation5XXErrors", "Sum")),
            graph("Latency in the container (µs)", ("ModelLatency", "p50"), ("ModelLatency", "p99")),
        ]
        second = [
            graph("Memory and disk (%)", ("MemoryUtilization", "Maximum"), namespace=INSTANCES)
            if isinstance(self._hosting, Serverless)
            else graph(
                "Memory and disk (%)",
                ("MemoryUtilization", "Maximum"),
                ("DiskUtilization", "Maximum"),
                namespace=INSTANCES,
            ),
        ]
        if not isinstance(self._hosting, Serverless):
            processors = [("CPUUtilization", "Average")]
            if any(instance.gpus for instance in find_instances(self._hosting)):
                processors += [("GPUUtilization", "Average"), ("GPUMemoryUtilization", "Maximum")]
            second.append(graph("Processors (% of one)", *processors, namespace=INSTANCES))
        if queued:
            ages = [
                request_metric(metric, endpoint_name=self._name, variant=None, statistic="Maximum")
                for metric in ("ApproximateBacklogSize", "ApproximateAgeOfOldestRequest")
            ]
            second.append(cloudwatch.GraphWidget(title="Queue (requests, s)", width=8, left=ages))
        if counts_in_log:
            counted = [
                cloudwatch.Metric(namespace=f"{OWN}/{self._name}", metric_name=metric, statistic="Sum")
                for metric in _COUNTED
            ]
            second.append(cloudwatch.GraphWidget(title="Refused by the container", width=8, left=counted))
        rows: list[list[cloudwatch.IWidget]] = [list(first), list(second)]
        if self.alarms:
            rows.append([cloudwatch.AlarmStatusWidget(alarms=list(self.alarms.values()), width=24, title="Alarms")])
        return cloudwatch.Dashboard(self, "Dashboard", widgets=rows)
