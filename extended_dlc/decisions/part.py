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
    below = ".".join(filter(None, (endpoint.place, "hosting")))

    def part(
        name: str,
        fleet: Instances | Serverless,
        environment: Mapping[str, str] | None,
        *,
        who: str = "",
        hosting_place: str | None = None,
        gpus: int | None = None,
    ) -> Part:
        own = endpoint.parts.get(name) or PartAsked(place=endpoint.place)
        return Part(
            key=f"{number}/{name}",
            name=name,
            place=own.place,
            hosting_place=own.place if hosting_place is None else hosting_place,
            who=who,
            endpoint=endpoint,
            model=own.model or endpoint.model,
            image=own.image or endpoint.image,
            hosting=fleet,
            instances=tuple(find_instances(fleet)),
            environment=endpoint.environment if environment is None else environment,
            gpus=gpus,
        )

    if isinstance(hosting, Components):
        for each in hosting.components:
            alone = Instances(
                instance_type=hosting.instance_type,
                startup_timeout_seconds=each.startup_timeout_seconds or hosting.startup_timeout_seconds,
                download_timeout_seconds=each.download_timeout_seconds or hosting.download_timeout_seconds,
            )
            who = f"component '{each.name}'"
            yield part(each.name, alone, each.environment, who=who, hosting_place=below, gpus=each.accelerators)
        return
    yield part(MAIN_VARIANT, hosting, None, hosting_place=below)
    for variant in other_variants(hosting):
        yield part(variant.name, variant, variant.environment, who=f"variant '{variant.name}'")


def other_variants(hosting: object) -> list[Variant]:
    """The variants besides the first; a shadow is the only one."""
    if not isinstance(hosting, RealTime):
        return []
    return [*hosting.variants, *([hosting.shadow] if hosting.shadow else [])]
