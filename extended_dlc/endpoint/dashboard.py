"""The CloudWatch dashboard of an endpoint: a table of widgets, each with the hosting whose metrics it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import Aws
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from extended_dlc.endpoint.alarms import selector
from extended_dlc.endpoint.metrics import request_metric
from extended_dlc.endpoint.watched import COUNTED, Watched
from extended_dlc.options.hosting import Async, Components, Serverless, find_instances
from extended_dlc.options.monitoring import COPIES, INSTANCES, REQUESTS

QUERIES: Mapping[str, str] = {
    "Requests in the queue": "max(extended_dlc_num_requests_waiting{SELECTOR})",
    "Tokens a second": "sum(rate(extended_dlc_generation_tokens_total{SELECTOR}[5m]))",
    "Memory for keys and values in use": "max(extended_dlc_kv_cache_usage_perc{SELECTOR})",
    "Errors by their code": "sum by (code) (rate(extended_dlc_errors_total{SELECTOR}[5m]))",
}
"""PromQL queries for the metrics of this project's server that users need first."""


@dataclass(frozen=True)
class Shown:
    """The parts of an endpoint on its dashboard, and the conditions of the widgets."""

    parts: Sequence[Watched]

    @property
    def is_async(self) -> bool:
        """Whether requests come from a queue."""
        return isinstance(self.parts[0].hosting, Async)

    @property
    def is_serverless(self) -> bool:
        """Whether the endpoint is serverless, and so has no instances."""
        return isinstance(self.parts[0].hosting, Serverless)

    @property
    def is_shared(self) -> bool:
        """Whether components share the instances."""
        return isinstance(self.parts[0].hosting, Components)

    @property
    def has_gpus(self) -> bool:
        """Whether the endpoint's own instances have GPUs."""
        return any(instance.gpus for instance in find_instances(self.parts[0].hosting))

    def lines(self, namespace: str) -> list[Watched]:
        """The parts that have a line each: components if there are any, but the variant for metrics of instances."""
        with_components = self.is_shared and namespace != INSTANCES
        return [part for part in self.parts if (part.component is not None) == with_components]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A widget with a line for each metric and part."""

    title: str
    metrics: Callable[[Shown], Sequence[tuple[str, str]]]
    """Names and statistics of the metrics."""

    namespace: str = REQUESTS
    when: Callable[[Shown], bool] = lambda shown: True
    """Whether the endpoint has these metrics."""

    def widget(self, shown: Shown) -> cloudwatch.GraphWidget:
        """The CloudWatch widget of this graph."""
        parts = shown.lines(self.namespace)
        lines = [
            part.request_metric(metric, statistic=statistic, namespace=self.namespace).with_(
                label=" ".join([metric, statistic, *([part.name] if len(parts) > 1 else [])])
            )
            for part in parts
            for metric, statistic in self.metrics(shown)
        ]
        return cloudwatch.GraphWidget(title=self.title, width=8, left=list(lines))


def _requests(shown: Shown) -> list[tuple[str, str]]:
    counted = ("TotalProcessingTime", "SampleCount") if shown.is_async else ("Invocations", "Sum")
    return [counted, *([("InvocationsPerCopy", "Sum")] if shown.is_shared else [])]


def _processors(shown: Shown) -> list[tuple[str, str]]:
    gpus = [("GPUUtilization", "Average"), ("GPUMemoryUtilization", "Maximum")] if shown.has_gpus else []
    return [("CPUUtilization", "Average"), *gpus]


_DISK = ("DiskUtilization", "Maximum")

FIRST_ROW = (
    Graph(title="Requests", metrics=_requests),
    Graph(title="Errors", metrics=lambda shown: [("Invocation4XXErrors", "Sum"), ("Invocation5XXErrors", "Sum")]),
    Graph(
        title="Latency in the container (µs)",
        metrics=lambda shown: [("ModelLatency", "p50"), ("ModelLatency", "p99")],
    ),
)
SECOND_ROW = (
    Graph(
        title="Memory of a copy (% of its own)",
        metrics=lambda shown: [("MemoryUtilizationNormalized", "Maximum")],
        namespace=COPIES,
        when=lambda shown: shown.is_shared,
    ),
    Graph(
        title="Processors of a copy (% of its own)",
        metrics=lambda shown: [(f"{metric}Normalized", statistic) for metric, statistic in _processors(shown)],
        namespace=COPIES,
        when=lambda shown: shown.is_shared,
    ),
    Graph(
        title="Disk (%)",
        metrics=lambda shown: [_DISK],
        namespace=INSTANCES,
        when=lambda shown: shown.is_shared,
    ),
    Graph(
        title="Memory and disk (%)",
        metrics=lambda shown: [("MemoryUtilization", "Maximum"), *([] if shown.is_serverless else [_DISK])],
        namespace=INSTANCES,
        when=lambda shown: not shown.is_shared,
    ),
    Graph(
        title="Processors (% of one)",
        metrics=_processors,
        namespace=INSTANCES,
        when=lambda shown: not shown.is_shared and not shown.is_serverless,
    ),
)


def make_dashboard(
    scope: Construct, parts: Sequence[Watched], alarms: Sequence[cloudwatch.IAlarm]
) -> cloudwatch.Dashboard:
    """The dashboard of the parts of an endpoint, and of its alarms."""
    shown = Shown(parts)
    second: list[cloudwatch.IWidget] = [graph.widget(shown) for graph in SECOND_ROW if graph.when(shown)]
    rows: list[list[cloudwatch.IWidget]] = [
        [graph.widget(shown) for graph in FIRST_ROW],
        [*second, *([_queue(parts[0])] if shown.is_async else []), *_counted(parts)],
    ]
    if any(part.logs_requests for part in parts) and not shown.is_serverless:
        rows.append([cloudwatch.TextWidget(markdown=_queries(parts[0].endpoint_name), width=24, height=5)])
    if alarms:
        rows.append([cloudwatch.AlarmStatusWidget(alarms=list(alarms), width=24, title="Alarms")])
    return cloudwatch.Dashboard(scope, "Dashboard", widgets=rows)


def _queue(part: Watched) -> cloudwatch.GraphWidget:
    ages = [
        request_metric(metric, endpoint_name=part.endpoint_name, variant=None, statistic="Maximum")
        for metric in ("ApproximateBacklogSize", "ApproximateAgeOfOldestRequest")
    ]
    return cloudwatch.GraphWidget(title="Queue (requests, s)", width=8, left=list(ages))


def _counted(parts: Sequence[Watched]) -> list[cloudwatch.IWidget]:
    """The graph of errors that metric filters count in the logs, if there are any filters."""
    namespaces = dict.fromkeys(part.counted_in for part in parts if part.counted_in is not None)
    counted = [
        cloudwatch.Metric(namespace=namespace, metric_name=metric, statistic="Sum")
        for namespace in namespaces
        for metric in COUNTED
    ]
    return [cloudwatch.GraphWidget(title="Refused by the container", width=8, left=list(counted))] if counted else []


def _queries(endpoint_name: str) -> str:
    """The dashboard's text on metrics that only PromQL can query: its graphs show no OpenTelemetry metrics."""
    lines = [f"- {what}: `{query.replace('SELECTOR', selector(endpoint_name))}`" for what, query in QUERIES.items()]
    where = f"https://{Aws.REGION}.console.aws.amazon.com/cloudwatch/home?region={Aws.REGION}"
    head = f"The containers' own metrics are OpenTelemetry ones: ask them in [Query Studio]({where}) in PromQL."
    return "\n".join([head, "", *lines])
