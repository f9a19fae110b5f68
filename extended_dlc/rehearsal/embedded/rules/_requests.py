"""What rules of several of SageMaker's operations read from requests: containers, variants and instance types."""

from __future__ import annotations

from collections.abc import Iterator

from extended_dlc.facts.instances import Instance, find_instance
from extended_dlc.rehearsal.embedded.calls import Parameters


def containers_of(given: Parameters) -> list[Parameters]:
    """The containers of CreateModel."""
    return [given["PrimaryContainer"]] if given.get("PrimaryContainer") else list(given.get("Containers", ()))


def variants_of(given: Parameters) -> list[Parameters]:
    return [*given.get("ProductionVariants", ()), *given.get("ShadowProductionVariants", ())]


def types_of(variant: Parameters) -> list[str]:
    pools = [each["InstanceType"] for each in variant.get("InstancePools", ())]
    return [*([variant["InstanceType"]] if variant.get("InstanceType") else []), *pools]


def instances_of(variant: Parameters) -> Iterator[Instance]:
    for name in types_of(variant):
        try:
            yield find_instance(name)
        except ValueError:  # the shapes refuse the type
            continue
