"""One monitored part of an endpoint, and the names of its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from extended_dlc.endpoint.metrics import is_of_queue, request_metric
from extended_dlc.facts.instances import Instance
from extended_dlc.options.hosting import MAIN_VARIANT, Component, Components, Hosting, Instances, find_instances
from extended_dlc.options.monitoring import COPIES, INSTANCES, OWN, REQUESTS, AlarmKind

if TYPE_CHECKING:
    from extended_dlc.endpoint.parts import ServedPart

COUNTED = {"OutOfMemory": "out-of-memory", "QueueFull": "queue-full"}
"""Metric -> error code in the server's log, one line of JSON per request (docker/inference/README.md, "The log")."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A monitored variant or component, with the endpoint's hosting that it runs on."""

    home: Construct
    """The scope of its alarms."""

    endpoint_name: str
    name: str
    hosting: Hosting
    """Hosting of the endpoint."""

    runs_on: Hosting | Instances | Component
    is_first: bool
    """Whether it is the main variant, whose alarms have no name of a part in their keys."""

    logs_requests: bool
    """Whether its own container logs each request as a line of JSON."""

    counted_in: str | None
    """The namespace of the metrics that are counted in its log; None where there are none."""

    @property
    def component(self) -> Component | None:
        """The options of the component; None for a variant."""
        return self.runs_on if isinstance(self.runs_on, Component) else None

    @property
    def component_name(self) -> str | None:
        """Its name as a component; None for a variant."""
        return self.name if isinstance(self.runs_on, Component) else None

    @property
    def instance(self) -> Instance:
        """The first type of its instances."""
        return find_instances(self.hosting if isinstance(self.runs_on, Component) else self.runs_on)[0]

    @property
    def title(self) -> str:
        """The endpoint, and the component in it, as alarms name them."""
        return f"{self.endpoint_name}/{self.name}" if self.component else self.endpoint_name

    def key(self, alarm: str) -> str:
        """The name of an alarm among those of all parts."""
        return alarm if self.is_first else f"{self.name}/{alarm}"

    def metric(self, kind: AlarmKind) -> cloudwatch.Metric:
        """The metric of an alarm of this kind."""
        if kind.namespace == OWN:
            return cloudwatch.Metric(
                namespace=own_namespace(self.endpoint_name, self.component_name),
                metric_name=kind.metric,
                statistic=kind.statistic,
                period=Duration.minutes(kind.minutes),
            )
        of_copies = self.component is not None and kind.namespace == INSTANCES
        return self.request_metric(
            f"{kind.metric}Normalized" if of_copies else kind.metric,
            statistic=kind.statistic,
            namespace=COPIES if of_copies else kind.namespace,
            minutes=kind.minutes,
        )

    def request_metric(
        self, metric: str, *, statistic: str, namespace: str = REQUESTS, minutes: int = 1
    ) -> cloudwatch.Metric:
        """One of SageMaker's metrics of this part."""
        return request_metric(
            metric,
            endpoint_name=self.endpoint_name,
            variant=None if is_of_queue(metric) else self.name,
            statistic=statistic,
            namespace=namespace,
            minutes=minutes,
            component=self.component_name,
        )


def own_namespace(endpoint_name: str, component: str | None = None) -> str:
    """Namespace of the metrics that are counted in the log of the endpoint or of a component."""
    return "/".join([OWN, endpoint_name, *([component] if component else [])])


def watched_parts(watch: Construct, endpoint_name: str, hosting: Hosting, parts: Sequence[ServedPart]) -> list[Watched]:
    """The monitored parts: the main variant first, then other variants, or the components that run on it."""

    def watched(home: Construct, part: ServedPart | None, counted_in: str | None, *, is_first: bool) -> Watched:
        return Watched(
            home=home,
            endpoint_name=endpoint_name,
            name=part.name if part is not None else MAIN_VARIANT,
            hosting=hosting,
            runs_on=part.runs_on if part is not None else hosting,
            is_first=is_first,
            # Instances that components share run no server themselves.
            logs_requests=part is not None and part.logs_requests,
            counted_in=counted_in,
        )

    if isinstance(hosting, Components):
        components = Construct(watch, "Components")
        return [
            watched(watch, None, None, is_first=True),
            *(
                watched(
                    Construct(components, part.name),
                    part,
                    own_namespace(endpoint_name, part.name) if part.logs_requests else None,
                    is_first=False,
                )
                for part in parts
            ),
        ]
    counted_in = own_namespace(endpoint_name) if any(part.logs_requests for part in parts) else None
    first, *others = parts
    return [
        watched(watch, first, counted_in, is_first=True),
        *(watched(Construct(watch, part.name), part, counted_in, is_first=False) for part in others),
    ]
