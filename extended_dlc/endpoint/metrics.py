"""The metrics that SageMaker publishes for an endpoint, its variants and its components."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from extended_dlc.options.hosting import MAIN_VARIANT
from extended_dlc.options.monitoring import COPIES, INSTANCES, REQUESTS

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch

_OF_INSTANCES = re.compile(r"(CPU|Disk|GPU|GPUMemory|Memory)(Reservation|Utilization|UtilizationNormalized)")
"""Metrics of instances and of copies, which are not in the namespace of requests."""

_OF_QUEUE = re.compile(r"Approximate.*|HasBacklogWithoutCapacity")
"""Metrics of an asynchronous endpoint's queue."""

_OPTIONS = (
    *("account", "color", "id", "label", "region", "stack_account", "stack_region", "unit", "visible"),
    *("period", "statistic"),
)


def is_of_queue(metric: str) -> bool:
    """Whether a metric belongs to the whole endpoint: SageMaker publishes it without a variant's name."""
    return _OF_QUEUE.fullmatch(metric) is not None


def namespace_of(metric: str, *, component: bool) -> str:
    """The CloudWatch namespace of one of SageMaker's metrics."""
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
    target: Mapping[str, str] | None = None,
    options: cloudwatch.MetricOptions | None = None,
) -> cloudwatch.Metric:
    """One of SageMaker's metrics of an endpoint, of one of its variants or components, as SageMaker publishes it.

    :param target: The `account` and `region` of an endpoint of another environment. Default: the stack's own.
    """
    from aws_cdk import Duration
    from aws_cdk import aws_cloudwatch as cloudwatch

    dimensions = {"EndpointName": endpoint_name} | ({"VariantName": variant} if variant else {})
    if component is not None:
        dimensions = {"InferenceComponentName": component}
    if isinstance(options, Mapping):  # jsii takes a mapping for each of its structs
        options = cloudwatch.MetricOptions(**options)
    given = {name: value for name in _OPTIONS if (value := getattr(options, name, None)) is not None}
    more = getattr(options, "dimensions_map", None) or {}
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=metric,
        dimensions_map={**dimensions, **more},
        **{"statistic": statistic, "period": Duration.minutes(minutes), **(target or {}), **given},
    )


class EndpointMetrics:
    """The CloudWatch metrics of an endpoint; `options` overrides properties such as the period."""

    @property
    def endpoint_name(self) -> str:
        """The endpoint's name."""
        raise NotImplementedError

    @property
    def _metrics_at(self) -> Mapping[str, str]:
        """The account and region that publish the metrics. Default: the stack's own."""
        return {}

    def metric(
        self,
        name: str,
        *,
        variant: str | None = MAIN_VARIANT,
        statistic: str = "Average",
        component: str | None = None,
        options: cloudwatch.MetricOptions | None = None,
    ) -> cloudwatch.Metric:
        """One of SageMaker's metrics of a variant, one value a minute: of its requests, such as `ModelLatency` (in µs),
        or of its instances, such as `CPUUtilization`, which CloudWatch has in another namespace.

        :param component: Name of the component, for an endpoint of `Components`. Default: none.
        :param name: As in the SageMaker developer guide, "Amazon SageMaker AI metrics in Amazon CloudWatch".
        :param statistic: As CloudWatch calls it: `Sum`, `Average`, `p99`.
        :param options: More properties of the metric, such as `MetricOptions(period=…)`. Default: a value a minute.
        """
        return request_metric(
            name,
            endpoint_name=self.endpoint_name,
            variant=None if is_of_queue(name) else variant,
            statistic=statistic,
            namespace=namespace_of(name, component=component is not None),
            component=component,
            target=self._metrics_at,
            options=options,
        )

    # requests

    def metric_invocations(
        self, *, variant: str = MAIN_VARIANT, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How many requests a variant gets. Asynchronous endpoints do not publish it."""
        return self.metric("Invocations", variant=variant, statistic="Sum", options=options)

    def metric_invocations_per_instance(
        self, *, variant: str = MAIN_VARIANT, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How many requests an instance of a variant gets."""
        return self.metric("InvocationsPerInstance", variant=variant, statistic="Sum", options=options)

    def metric_invocations_per_copy(
        self, component: str, *, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How many requests a copy of a component gets."""
        return self.metric("InvocationsPerCopy", component=component, statistic="Sum", options=options)

    def metric_client_errors(
        self, *, variant: str = MAIN_VARIANT, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How many requests the container refuses (4xx)."""
        return self.metric("Invocation4XXErrors", variant=variant, statistic="Sum", options=options)

    def metric_server_errors(
        self, *, variant: str = MAIN_VARIANT, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How many requests fail in the container (5xx)."""
        return self.metric("Invocation5XXErrors", variant=variant, statistic="Sum", options=options)

    def metric_model_errors(
        self, *, variant: str = MAIN_VARIANT, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How many requests got no response with a 2xx status from the container in the last minute."""
        return self.metric("InvocationModelErrors", variant=variant, statistic="Sum", options=options)

    def metric_mid_stream_errors(
        self, *, variant: str = MAIN_VARIANT, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How many streams fail after their first part."""
        return self.metric("MidStreamErrors", variant=variant, statistic="Sum", options=options)

    def metric_model_latency(
        self, *, variant: str = MAIN_VARIANT, statistic: str = "p99", options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How long requests take in the container, in microseconds."""
        return self.metric("ModelLatency", variant=variant, statistic=statistic, options=options)

    def metric_overhead_latency(
        self, *, variant: str = MAIN_VARIANT, statistic: str = "p99", options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How long requests take in SageMaker outside the container, in microseconds; not of asynchronous endpoints."""
        return self.metric("OverheadLatency", variant=variant, statistic=statistic, options=options)

    def metric_first_chunk_latency(
        self, *, variant: str = MAIN_VARIANT, statistic: str = "p99", options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How long the first part of a stream takes, in microseconds."""
        return self.metric("FirstChunkLatency", variant=variant, statistic=statistic, options=options)

    def metric_model_setup_time(
        self, *, variant: str = MAIN_VARIANT, statistic: str = "p99", options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How long a serverless endpoint takes to start a container, in microseconds."""
        return self.metric("ModelSetupTime", variant=variant, statistic=statistic, options=options)

    def metric_concurrent_requests(
        self, *, variant: str = MAIN_VARIANT, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How many requests a variant has at the same time."""
        return self.metric("ConcurrentRequestsPerModel", variant=variant, statistic="Maximum", options=options)

    # instances, or the copies of a component

    def metric_cpu_utilization(
        self,
        *,
        variant: str = MAIN_VARIANT,
        component: str | None = None,
        options: cloudwatch.MetricOptions | None = None,
    ) -> cloudwatch.Metric:
        """Per cent of one core; of a component, of what it has reserved."""
        return self._utilization("CPUUtilization", "Average", variant, component, options)

    def metric_memory_utilization(
        self,
        *,
        variant: str = MAIN_VARIANT,
        component: str | None = None,
        options: cloudwatch.MetricOptions | None = None,
    ) -> cloudwatch.Metric:
        """Per cent of the memory; of a component, of what it has reserved."""
        return self._utilization("MemoryUtilization", "Maximum", variant, component, options)

    def metric_gpu_utilization(
        self,
        *,
        variant: str = MAIN_VARIANT,
        component: str | None = None,
        options: cloudwatch.MetricOptions | None = None,
    ) -> cloudwatch.Metric:
        """Per cent of one GPU, so that all four of an instance make 400; of a component, of what it has reserved."""
        return self._utilization("GPUUtilization", "Average", variant, component, options)

    def metric_gpu_memory_utilization(
        self,
        *,
        variant: str = MAIN_VARIANT,
        component: str | None = None,
        options: cloudwatch.MetricOptions | None = None,
    ) -> cloudwatch.Metric:
        """Per cent of one GPU's memory; of a component, of what it has reserved."""
        return self._utilization("GPUMemoryUtilization", "Maximum", variant, component, options)

    def metric_disk_utilization(
        self, *, variant: str = MAIN_VARIANT, options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """Per cent of the disk of an instance. Serverless endpoints do not publish it."""
        return self.metric("DiskUtilization", variant=variant, statistic="Maximum", options=options)

    # the queue of an asynchronous endpoint

    def metric_backlog_size(self, *, options: cloudwatch.MetricOptions | None = None) -> cloudwatch.Metric:
        """How many requests wait or are being answered."""
        return self.metric("ApproximateBacklogSize", statistic="Maximum", options=options)

    def metric_backlog_size_per_instance(self, *, options: cloudwatch.MetricOptions | None = None) -> cloudwatch.Metric:
        """How many requests wait or are being answered for each instance; scaling follows this metric."""
        return self.metric("ApproximateBacklogSizePerInstance", statistic="Maximum", options=options)

    def metric_backlog_age(self, *, options: cloudwatch.MetricOptions | None = None) -> cloudwatch.Metric:
        """How long the oldest request has waited, in seconds."""
        return self.metric("ApproximateAgeOfOldestRequest", statistic="Maximum", options=options)

    def metric_backlog_without_capacity(self, *, options: cloudwatch.MetricOptions | None = None) -> cloudwatch.Metric:
        """1 where requests wait and no instance runs, otherwise 0."""
        return self.metric("HasBacklogWithoutCapacity", statistic="Maximum", options=options)

    def metric_processing_time(
        self, *, variant: str = MAIN_VARIANT, statistic: str = "p99", options: cloudwatch.MetricOptions | None = None
    ) -> cloudwatch.Metric:
        """How long an asynchronous request takes from the queue to its answer in S3, in milliseconds."""
        return self.metric("TotalProcessingTime", variant=variant, statistic=statistic, options=options)

    def _utilization(
        self,
        name: str,
        statistic: str,
        variant: str,
        component: str | None,
        options: cloudwatch.MetricOptions | None,
    ) -> cloudwatch.Metric:
        metric = f"{name}Normalized" if component is not None else name
        return self.metric(metric, variant=variant, statistic=statistic, component=component, options=options)
