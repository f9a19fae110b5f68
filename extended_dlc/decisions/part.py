"""A variant or a component, with its model: what is decided for each of them, and for the whole endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from extended_dlc.decisions.asked import EndpointAsked, ImageAsked, ModelAsked, PartAsked
from extended_dlc.facts.instances import Instance
from extended_dlc.options.hosting import (
    MAIN_VARIANT,
    Components,
    Instances,
    RealTime,
    Serverless,
    Variant,
    find_instances,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one model runs on."""

    key: str
    """What tells it from all others that are decided with it."""

    name: str
    """Of the variant or the component."""

    place: str
    """Where its model is said in the settings."""

    hosting_place: str
    """Where its instances are said in the settings."""

    who: str
    """Which variant or component it is, in words; empty for an endpoint's only one."""

    endpoint: EndpointAsked
    model: ModelAsked
    image: ImageAsked
    hosting: Instances | Serverless
    """Its instances; a component's are those of all, with its own time-outs."""

    instances: tuple[Instance, ...]
    environment: Mapping[str, str]
    gpus: int | None = None
    """How many GPUs a copy has. None: those of the instance."""

    @property
    def words(self) -> str:
        """The part in a sentence."""
        return " ".join(filter(None, (self.endpoint.place or self.endpoint.name or "the endpoint", self.who)))


def parts_of(endpoint: EndpointAsked, number: int = 0) -> Iterator[Part]:
    """The parts of an endpoint: its variants and a shadow, or its components."""
    hosting = endpoint.hosting
    if isinstance(hosting, Components):
        for each in hosting.components:
            own = endpoint.parts.get(each.name) or PartAsked(place=endpoint.place)
            alone = Instances(
                instance_type=hosting.instance_type,
                startup_timeout_seconds=each.startup_timeout_seconds or hosting.startup_timeout_seconds,
                download_timeout_seconds=each.download_timeout_seconds or hosting.download_timeout_seconds,
            )
            yield Part(
                key=f"{number}/{each.name}",
                name=each.name,
                place=own.place,
                hosting_place=_below(endpoint.place, "hosting"),
                who=f"component '{each.name}'",
                endpoint=endpoint,
                model=own.model or endpoint.model,
                image=own.image or endpoint.image,
                hosting=alone,
                instances=tuple(find_instances(alone)),
                environment=endpoint.environment if each.environment is None else each.environment,
                gpus=each.accelerators,
            )
        return
    yield Part(
        key=f"{number}/{MAIN_VARIANT}",
        name=MAIN_VARIANT,
        place=endpoint.place,
        hosting_place=_below(endpoint.place, "hosting"),
        who="",
        endpoint=endpoint,
        model=endpoint.model,
        image=endpoint.image,
        hosting=hosting,
        instances=tuple(find_instances(hosting)),
        environment=endpoint.environment,
    )
    for variant in other_variants(hosting):
        own = endpoint.parts.get(variant.name) or PartAsked(place=endpoint.place)
        yield Part(
            key=f"{number}/{variant.name}",
            name=variant.name,
            place=own.place,
            hosting_place=own.place,
            who=f"variant '{variant.name}'",
            endpoint=endpoint,
            model=own.model or endpoint.model,
            image=own.image or endpoint.image,
            hosting=variant,
            instances=tuple(find_instances(variant)),
            environment=endpoint.environment if variant.environment is None else variant.environment,
        )


def other_variants(hosting: object) -> list[Variant]:
    """The variants besides the first; a shadow is the only one."""
    if not isinstance(hosting, RealTime):
        return []
    return [*hosting.variants, *([hosting.shadow] if hosting.shadow else [])]


def _below(place: str, section: str) -> str:
    return ".".join(filter(None, (place, section)))
