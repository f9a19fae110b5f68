"""Decisions for a whole endpoint: combinations that SageMaker refuses, names, and properties that all parts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from extended_dlc.decisions.access import check_zero_instances
from extended_dlc.decisions.asked import EndpointAsked
from extended_dlc.decisions.found import Finder, Found
from extended_dlc.decisions.of_part import PartDecision
from extended_dlc.facts.checks import check_endpoint_name, rule_of_case
from extended_dlc.facts.limits import most
from extended_dlc.options._values import is_token
from extended_dlc.options.hosting import Async, Components, Hosting, Instances, RealTime, Serverless
from extended_dlc.options.placement import PrefixAware
from extended_dlc.options.rollout import check_rollout, rollout_note


@dataclass(frozen=True, kw_only=True)
class EndpointDecision:
    """The decisions for an endpoint."""

    endpoint: EndpointAsked
    parts: tuple[PartDecision, ...]
    volume_gb: int | None
    """Volume of the instances that components share; None without components, and for SageMaker's default."""


def deadlines(hosting: Hosting | Instances) -> dict[str, str]:
    """The native server's variables for the time of an inference; empty if its defaults of 60 s and 480 s suffice."""
    if isinstance(hosting, Serverless):
        seconds = most("serverless.response_seconds")
    elif isinstance(hosting, Async):
        # A caller may set as much (InvocationTimeoutSeconds), and asynchronous endpoints do not stream.
        seconds = most("async.invocation_seconds")
    else:
        return {}
    return dict.fromkeys(("EXTENDED_DLC_ANSWER_SECONDS", "EXTENDED_DLC_STREAM_SECONDS"), str(seconds))


def decide_endpoint(
    endpoint: EndpointAsked, parts: tuple[PartDecision, ...], region: str | None, found: Found
) -> EndpointDecision:
    """Decide for all parts of an endpoint together."""
    finder, hosting = found.at(endpoint.section), endpoint.hosting
    if endpoint.name is not None:
        finder.check("endpoint_name", endpoint.name, partial(check_endpoint_name, endpoint.name), setting="")
    if endpoint.rollout is not None:
        rollout = endpoint.rollout
        if finder.check("rollout", None, lambda: check_rollout(rollout, hosting)):
            finder.note("rollout", rollout_note(rollout, hosting), setting="rollout")
    if endpoint.subnets is not None and endpoint.subnets < 2:
        finder.note(
            "one-subnet",
            "'subnets' has one subnet: SageMaker's guide asks for two or more in different zones, for one instance too",
            setting="network.subnets",
        )
    if endpoint.metrics is not None and isinstance(hosting, Serverless):
        finder.note(
            "serverless-metrics",
            "'metrics' is described for real-time endpoints alone (SageMaker developer guide, \"Amazon SageMaker AI "
            'detailed observability for inference endpoints"): a serverless one may publish nothing more for it',
            setting="metrics",
        )
    if endpoint.network_isolation and getattr(hosting, "ssm_access", False):
        finder.note(
            "isolated-shell",
            "'ssm_access' opens no shell in a container that 'network_isolation' keeps from the network (SageMaker "
            'developer guide, "Access containers through SSM")',
            setting="hosting.ssm_access",
        )
    if isinstance(hosting, RealTime | Components):
        _note_routing(hosting, finder)
    if endpoint.encryption_key and not isinstance(hosting, Serverless):
        _note_storage(parts, finder)
    if isinstance(hosting, Async) and any(part.image.kind == "ecr" and part.vllm is None for part in parts):
        _note_deadline(endpoint, finder)
    volume = None
    if isinstance(hosting, Components):
        _components(hosting, region, found.at(".".join(filter(None, (endpoint.section, "hosting")))))
        # All models are on the same volume.
        volumes = [part.volume_gb or 0 for part in parts]
        volume = hosting.volume_gb or (min(sum(volumes), most("volume_gb")) if volumes and all(volumes) else None)
    return EndpointDecision(endpoint=endpoint, parts=parts, volume_gb=volume)


def _note_routing(hosting: RealTime | Components, finder: Finder) -> None:
    """Say where `PrefixAware` does nothing (SageMaker API, ProductionVariantRoutingConfig)."""
    if not isinstance(hosting.routing, PrefixAware):
        return
    instances = hosting.maximum if isinstance(hosting, Components) else _most_instances(hosting)
    if not is_token(instances) and instances < 2:
        finder.note(
            "routing-of-one",
            "'routing' by PrefixAware changes nothing for one instance: raise 'instances' or 'maximum', or drop it",
            setting="hosting.routing",
        )


def _most_instances(hosting: RealTime) -> int:
    """The largest number of instances of the main variant at any time."""
    if hosting.scaling is None:
        return hosting.instances
    return max(hosting.scaling.maximum, *(each.maximum or 0 for each in hosting.scaling.schedules), 0)


def _components(hosting: Components, region: str | None, finder: Finder) -> None:
    if hosting.minimum == 0:
        note = finder.ask("minimum", hosting.minimum, lambda: check_zero_instances(region))
        finder.note("zero-instances", note, setting="minimum")
    if scaled := [f"{each.name} to {each.copies}" for each in hosting.components if each.scaling is not None]:
        finder.note(
            "scaled-copies",
            f"each change of a component sends its number of copies along, and so puts {', '.join(scaled)}, "
            "whatever scaling has made of it: set 'copies' to what the load needs before you change a component, "
            "or change it when the load is low; scaling goes on from there",
            setting="components",
        )


def refuse_combinations(endpoint: EndpointAsked, finder: Finder) -> None:
    """Refuse options of an endpoint that contradict each other, with any image.

    For serverless endpoints: SageMaker developer guide, "Serverless Inference", exclusions.
    """
    if endpoint.role and (endpoint.role_path or endpoint.permissions_boundary):
        finder.refuse(
            "role",
            None,
            "'role_path' and 'permissions_boundary' are for a new role: set them on the one that you pass as 'role'",
            whole=True,
        )
    if endpoint.container_alarms and endpoint.metrics is not None and endpoint.metrics.detailed is False:
        finder.refuse(
            "metrics.detailed",
            "false",
            "publishes nothing that 'monitoring.container_alarms' could ask: leave one of the two away",
        )
    if not isinstance(endpoint.hosting, Serverless):
        return
    for option, is_asked, what in (
        ("network", endpoint.network, "a VPC"),
        ("network_isolation", endpoint.network_isolation, "network isolation"),
        ("data_capture", endpoint.data_capture, "data capture"),
        ("monitoring.container_alarms", endpoint.container_alarms, "an agent that asks containers for metrics"),
    ):
        if is_asked:
            finder.refuse(option, None, f"does not go with Serverless, which has not {what}: take RealTime or Async")


def _note_storage(parts: Sequence[PartDecision], finder: Finder) -> None:
    """Note instance types with local storage: SageMaker attaches no volume that the key could encrypt."""
    instances = [instance for part in parts for instance in part.part.instances]
    if with_storage := [each.name for each in instances if each.local_storage_gb]:
        finder.note(
            "volume-key",
            f"'encryption_key' is not for the storage of {', '.join(dict.fromkeys(with_storage))}: the hardware "
            "encrypts it, and SageMaker takes no key for the endpoint's volumes",
            level="info",
            setting="encryption_key",
        )


def _note_deadline(endpoint: EndpointAsked, finder: Finder) -> None:
    """Note the timeout that an image with an unknown server may need for requests of an hour."""
    (name, seconds), *_ = deadlines(endpoint.hosting).items()
    if name not in endpoint.environment:
        finder.note(
            "deadline",
            f"the server of an EcrImage is not known: if it is this project's, it ends an answer after 60 s unless "
            f"'environment' has {name}; asynchronous requests may take {seconds}",
            level="info",
            setting="environment",
        )


def refuse_names(endpoints: Sequence[EndpointAsked], found: Found) -> None:
    """Refuse names that differ in case only: SageMaker compares them case-insensitively."""
    seen: dict[str, str] = {}
    for endpoint in endpoints:
        if endpoint.name is None:
            continue
        other = seen.setdefault(endpoint.name.lower(), endpoint.name)
        if other != endpoint.name:
            found.at(endpoint.section).refuse(
                "endpoint_name", endpoint.name, rule_of_case(endpoint.name, other), setting=""
            )


def volume_gb(hosting: Hosting, decided: EndpointDecision) -> int | None:
    """The volume of the main variant's instances, or of those that components share."""
    if isinstance(hosting, Components):
        return decided.volume_gb
    return decided.parts[0].volume_gb
