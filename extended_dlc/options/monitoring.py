"""How an endpoint is watched: the alarms there are, and `Monitoring`.

Names, dimensions, units and statistics of SageMaker's metrics are those of the SageMaker developer guide, "Amazon
SageMaker AI metrics in Amazon CloudWatch" and "Alarms and logs for tracking metrics from asynchronous endpoints".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.names import COMPONENT_LOGS, ENDPOINT_LOGS, REQUEST_METRICS
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, is_token, require_known, within
from extended_dlc.options.hosting import Async, Components, Hosting, RealTime, Serverless

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_logs as logs
    from aws_cdk import aws_sns as sns


REQUESTS = REQUEST_METRICS
"""Namespace of what SageMaker counts of requests."""


INSTANCES = ENDPOINT_LOGS
"""Namespace of what SageMaker measures on instances."""


COPIES = COMPONENT_LOGS
"""Namespace of what SageMaker measures on the copies of a component, in % of what a copy reserves."""


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


ContainerAlarmName = Literal["waiting", "cache", "failures"]
"""What an alarm on our server's own metrics may watch."""


Interval = Literal[10, 30, 60, 120, 180, 240, 300]
"""Seconds between two values of a metric (SageMaker API, MetricsConfig, `MetricPublishFrequencyInSeconds`)."""


LogRetention = Literal[
    "one-day",
    "three-days",
    "five-days",
    "one-week",
    "two-weeks",
    "one-month",
    "two-months",
    "three-months",
    "four-months",
    "five-months",
    "six-months",
    "one-year",
    "thirteen-months",
    "eighteen-months",
    "two-years",
    "three-years",
    "five-years",
    "six-years",
    "seven-years",
    "eight-years",
    "nine-years",
    "ten-years",
    "infinite",
]
"""How long CloudWatch Logs keeps a log (PutRetentionPolicy API), by the CDK's names."""

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

    hosting: tuple[type[Hosting], ...] = (RealTime, Async, Serverless, Components)
    """The kinds of hosting whose metric it is."""

    per_gpu: bool = False
    """Whether SageMaker adds up the percentages of all GPUs, but for components; there is no alarm without one."""


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
        hosting=(RealTime, Serverless, Components),
    ),
    "overhead": AlarmKind(
        what="One request in a hundred spends too long in SageMaker, outside the container",
        threshold=5,
        unit="s",
        factor=1_000_000,
        metric="OverheadLatency",
        statistic="p99",
        hosting=(RealTime, Components),  # a cold start of a serverless container is overhead by design
    ),
    "idle": AlarmKind(
        what="Nobody has called it, and its instances cost money",
        threshold=24,
        unit="h without a request, at most 168",
        metric="Invocations",
        statistic="Sum",
        hosting=(RealTime, Async, Components),
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
        hosting=(RealTime, Components),  # a queue is there to keep them busy
        per_gpu=True,
    ),
    "gpu-memory": AlarmKind(
        what="The GPUs have little memory left",
        threshold=95,
        unit="% of all GPUs",
        metric="GPUMemoryUtilization",
        namespace=INSTANCES,
        statistic="Maximum",
        hosting=(RealTime, Async, Components),
        per_gpu=True,
    ),
    "disk": AlarmKind(
        what="The disk of an instance fills up",
        threshold=85,
        unit="%",
        metric="DiskUtilization",
        namespace=INSTANCES,
        statistic="Maximum",
        hosting=(RealTime, Async, Components),
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


@dataclass(frozen=True, kw_only=True)
class ContainerAlarm:
    """An alarm on a metric of the in-image server: a query in CloudWatch's PromQL."""

    what: str
    """The description of the alarm."""

    query: str
    """The expression to compare with the threshold; `SELECTOR` stands for the labels of an endpoint or its part."""

    unit: str
    factor: float = 1
    """The value of the query that is one `unit`."""

    minutes: int = 3
    """Minutes above the threshold until the alarm goes off."""


CONTAINER_ALARMS: Mapping[ContainerAlarmName, ContainerAlarm] = {
    "waiting": ContainerAlarm(
        what="Requests wait for their turn in a container: add instances, or scale sooner",
        query="max(extended_dlc_num_requests_waiting{SELECTOR})",
        unit="requests in the queue of a container",
    ),
    "cache": ContainerAlarm(
        what="The memory for keys and values of texts is nearly full: texts will wait for each other",
        query="max(extended_dlc_kv_cache_usage_perc{SELECTOR})",
        unit="% of that memory",
        factor=0.01,
    ),
    "failures": ContainerAlarm(
        what="Requests fail in the container (5xx), streams that had begun among them",
        query='60 * sum(rate(extended_dlc_requests_total{SELECTOR,status="5xx"}[5m]))',
        unit="requests a minute",
    ),
}
"""The alarms on the metrics of the in-image server's `GET /metrics`, by name."""


@check_types
@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics that SageMaker publishes in addition to those of every endpoint, and how often. CloudWatch bills them."""

    detailed: bool | None = None
    """Whether an agent on each instance asks the container's `GET /metrics`, the GPUs and the host, and publishes what
    they tell as OpenTelemetry metrics, for queries in PromQL (SageMaker API, MetricsConfig,
    `EnableDetailedObservability`). Default: SageMaker's own, it does."""

    enhanced: bool | None = None
    """Whether SageMaker's metrics of requests and utilization come for each instance and container too (SageMaker API,
    MetricsConfig, `EnableEnhancedMetrics`). Default: SageMaker's own, for a variant or component as a whole."""

    interval_seconds: Interval | None = None
    """Seconds between two values: 10, 30, 60, 120, 180, 240 or 300. ValueError for others. Default: SageMaker's own,
    60."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        known = get_args(Interval)
        interval = self.interval_seconds
        if interval is not None and not is_token(interval) and interval not in known:
            raise OptionError(
                "interval_seconds", self.interval_seconds, f"must be one of: {', '.join(map(str, known))}"
            )


_CONVERTED = "it is converted into the unit of the metric"


@check_types
@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """How an endpoint is watched. Each alarm and each counted metric has CloudWatch's price, the dashboard too."""

    alarms: Mapping[AlarmName, float | None] = field(default_factory=dict)
    """Other thresholds than those of `ALARMS`, in its units, or None for no such alarm: `{"model-latency": 5,
    "idle": None}`. ValueError for a name that is not in the table. Default: all alarms that fit the hosting, with their
    own thresholds."""

    container_alarms: Mapping[ContainerAlarmName, float] = field(default_factory=dict)
    """Alarms on what our server tells of itself, each with its threshold in the unit of `CONTAINER_ALARMS`:
    `{"waiting": 16}`. They ask the metrics of `Metrics.detailed` and roll nothing back. ValueError for a name that is
    not in the table, and where no container has that server or nothing is published. Default: none."""

    alarm_topic: sns.ITopic | Literal["new"] | None = None
    """Topic that gets a message when an alarm goes off and when it ends, or `"new"` for a topic of the endpoint's own,
    without subscribers. Default: none; CloudWatch only shows the alarms."""

    dashboard: bool = True
    """Whether there is a dashboard. Default: True."""

    log_retention: logs.RetentionDays | LogRetention = "one-month"
    """How long the log is kept, as the CDK's `RetentionDays` or its name in small letters: `one-week`, `six-months`,
    `infinite`. ValueError for another. Default: `one-month`."""

    log_key: kms.IKey | None = None
    """Key that the log is encrypted with. What CloudWatch Logs needs is added to its policy where the app makes that,
    and printed as an annotation otherwise. Default: the endpoint's `encryption_key` where the app makes its policy,
    otherwise CloudWatch's own."""

    topic_key: kms.IKey | None = None
    """Key of the new topic, likewise; CloudWatch's alarms need it. ValueError without `alarm_topic="new"`. Default: the
    endpoint's `encryption_key` where the app makes its policy, otherwise none."""

    def __post_init__(self) -> None:
        """Refuse unknown alarms, and values that CloudWatch would refuse."""
        if isinstance(self.log_retention, str) and self.log_retention not in get_args(LogRetention):
            known = get_args(LogRetention)
            hint = did_you_mean(self.log_retention, known) or f": take one of {', '.join(known)}"
            raise OptionError("log_retention", self.log_retention, f"is not known to CloudWatch{hint}")
        for name, threshold in self.alarms.items():
            if name not in ALARMS:
                hint = did_you_mean(name, ALARMS) or f": there are {', '.join(ALARMS)}"
                raise OptionError("alarms", name, f"is no alarm{hint}")
            option = f"alarms.{name}"
            require_known(option, threshold, _CONVERTED)
            if threshold is not None and name == "idle":
                within(option, threshold, 1, 168, "CloudWatch looks back a week at most; None for no such alarm")
            elif threshold is not None:
                within(option, threshold, 0, None, "None for no such alarm")
        for asked, above in self.container_alarms.items():
            if asked not in CONTAINER_ALARMS:
                hint = did_you_mean(asked, CONTAINER_ALARMS) or f": there are {', '.join(CONTAINER_ALARMS)}"
                raise OptionError("container_alarms", asked, f"is no alarm{hint}")
            require_known(f"container_alarms.{asked}", above, _CONVERTED)
            within(f"container_alarms.{asked}", above, 0, None, "leave it out for no such alarm")
        if self.topic_key is not None and self.alarm_topic != "new":
            raise OptionError("topic_key", rule="is for a new topic: pass alarm_topic='new', or set it on the topic")
        if isinstance(self.alarm_topic, str) and self.alarm_topic != "new":
            raise OptionError(
                "alarm_topic", self.alarm_topic, "must be a topic, or 'new' for one of the endpoint's own"
            )
