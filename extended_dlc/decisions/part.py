"""The parts of an endpoint for `decide`: each variant or component, with its model."""

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
    """A variant or a component, with its model, image and instances."""

    key: str
    """Unique among all parts of a decision."""

    name: str
    """Name of the variant or the component."""

    section: str
    """Place of its model in the settings."""

    hosting_section: str
    """Place of its instances in the settings."""

    who: str
    """The variant or component, in words; empty for the main variant."""

    endpoint: EndpointAsked
    model: ModelAsked
    image: ImageAsked
    hosting: Instances | Serverless
    """Its instances; for a component the shared ones, with its own timeouts."""

    instances: tuple[Instance, ...]
    environment: Mapping[str, str]
    gpus: int | None = None
    """Number of GPUs of a component's copy; None for all of the instance."""

    @property
    def words(self) -> str:
        """The part in a sentence."""
        return " ".join(filter(None, (self.endpoint.section or self.endpoint.name or "the endpoint", self.who)))


def parts_of(endpoint: EndpointAsked, number: int = 0) -> Iterator[Part]:
    """The parts of an endpoint: its variants and a shadow, or its components."""
    hosting = endpoint.hosting
    below = ".".join(filter(None, (endpoint.section, "hosting")))

    def part(
        name: str,
        fleet: Instances | Serverless,
        environment: Mapping[str, str] | None,
        *,
        who: str = "",
        hosting_section: str | None = None,
        gpus: int | None = None,
    ) -> Part:
        asked = endpoint.parts.get(name) or PartAsked(section=endpoint.section)
        return Part(
            key=f"{number}/{name}",
            name=name,
            section=asked.section,
            hosting_section=asked.section if hosting_section is None else hosting_section,
            who=who,
            endpoint=endpoint,
            model=asked.model or endpoint.model,
            image=asked.image or endpoint.image,
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
            yield part(each.name, alone, each.environment, who=who, hosting_section=below, gpus=each.accelerators)
        return
    yield part(MAIN_VARIANT, hosting, None, hosting_section=below)
    for variant in other_variants(hosting):
        yield part(variant.name, variant, variant.environment, who=f"variant '{variant.name}'")


def other_variants(hosting: object) -> list[Variant]:
    """The variants besides the main one; a shadow variant excludes others."""
    if not isinstance(hosting, RealTime):
        return []
    return [*hosting.variants, *([hosting.shadow] if hosting.shadow else [])]
