"""Where requests and the copies of components go: `PrefixAware`, `Placement` and `Consolidation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, within_limit

RoutingStrategy = Literal["least-outstanding-requests", "random"]
"""How an endpoint chooses the instance that gets a request, where that has no options of its own."""

ROUTING: Mapping[str, str] = {
    "least-outstanding-requests": "LEAST_OUTSTANDING_REQUESTS",
    "random": "RANDOM",
}
"""SageMaker's names of these strategies."""

STRATEGIES: Mapping[str, str] = {"spread": "SPREAD", "binpack": "BINPACK"}
"""SageMaker's placement strategies, by the names of the option."""


@check_types
@dataclass(frozen=True, kw_only=True)
class PrefixAware:
    """Routing by the beginning of a request: those that share it go to the same instance, and there to the same copy.

    A server that keeps what it computed for a prompt's beginning, as vLLM and the native server do, then finds it
    again. SageMaker applies it where two or more instances serve (SageMaker API, ProductionVariantRoutingConfig).
    """

    prefix_length: int
    """How much of the beginning decides, 1024 to 65536: bytes of the request's body or, on the OpenAI route, characters
    of the messages' text. It should hold what requests share, as a system prompt, and some of what differs."""

    concurrency: int
    """From how many unanswered requests of an instance or copy on the next go to another, 1 to 1024: as many as the
    smallest can serve at a time."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        way_out = "count the system prompt and what comes before it in a request"
        within_limit("prefix_length", self.prefix_length, "routing.prefix_length", way_out)
        within_limit("concurrency", self.concurrency, "routing.concurrency", "take what one instance serves at a time")


@check_types
@dataclass(frozen=True, kw_only=True)
class Placement:
    """How the copies of a component are placed on the instances that there are."""

    strategy: Literal["spread", "binpack"]
    """`spread` puts them evenly on all instances, so that fewer are lost with one; `binpack` puts them on few
    instances, so that others stay free."""

    zone_imbalance: int | None = None
    """By how many copies two Availability Zones may differ, 0 to 100; SageMaker keeps to it as far as there is room.
    Default: SageMaker's own, 0."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        way_out = "0 for zones that are as equal as can be"
        within_limit("zone_imbalance", self.zone_imbalance, "component.zone_imbalance", way_out)


@check_types
@dataclass(frozen=True, kw_only=True)
class Consolidation:
    """Copies are moved together onto fewer instances, and the instances that become free are removed."""

    step: int = 1
    """How many instances are removed at a time, at most, 1 to 100. Default: 1."""

    cooldown_minutes: int = 20
    """How long after the last change of the endpoint it is looked for, 5 to 1440 minutes. Default: 20."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        within_limit("step", self.step, "consolidation.step", "1 is the most careful")
        way_out = "leave consolidation out to keep the instances as they are"
        within_limit("cooldown_minutes", self.cooldown_minutes, "consolidation.cooldown_minutes", way_out)


def check_routing(routing: object) -> None:
    """`OptionError` for a routing that is neither one of the names nor `PrefixAware`."""
    if routing is None or isinstance(routing, PrefixAware) or (isinstance(routing, str) and routing in ROUTING):
        return
    raise OptionError("routing", str(routing), f"must be one of {', '.join(ROUTING)}, or PrefixAware(…)")
