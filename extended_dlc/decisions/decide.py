"""Decides from the options of an image and its endpoints, and the region, what is built, or refuses it.

The app's report of wrong settings, `plan`, `login`, `doctor`, `smoke` and the constructs all use this decision. It
needs neither the CDK nor a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extended_dlc.decisions.asked import EndpointAsked, ImageAsked
from extended_dlc.decisions.deciding import Deciding
from extended_dlc.decisions.found import Found, Note, Refusal
from extended_dlc.decisions.image import ImageDecision, choose_image
from extended_dlc.decisions.of_endpoint import EndpointDecision, decide_endpoint, refuse_combinations, refuse_names
from extended_dlc.decisions.of_part import decide_part
from extended_dlc.decisions.part import parts_of
from extended_dlc.decisions.sizing import Load


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The decisions for an image and its endpoints, with all notes and refusals."""

    image: ImageDecision
    """The decision for the given image, on the first part's instances."""

    endpoints: tuple[EndpointDecision, ...]
    notes: tuple[Note, ...]
    refusals: tuple[Refusal, ...]


def decide(
    image: ImageAsked, endpoints: Sequence[EndpointAsked], *, region: str | None, load: Load | None = None
) -> Decision:
    """Decide for an image and the endpoints that it serves, and collect all refusals.

    :param region: Region of the deployment; None if it is not known at synth.
    :param load: The load that `plan` assumes. Default: one request of 2048 tokens at a time.
    """
    found = Found()
    asked = [part for number, endpoint in enumerate(endpoints) for part in parts_of(endpoint, number)]
    images: dict[str, ImageDecision] = {}
    for key in dict.fromkeys([image, *(part.image for part in asked)]):
        mine = [part for part in asked if part.image == key]
        if mine or key == image:
            images |= choose_image(key, mine, region=region, found=found)
    image_decision = next((images[part.key] for part in asked if part.image == image), None)
    decided = []
    for number, endpoint in enumerate(endpoints):
        refuse_combinations(endpoint, found.at(endpoint.section))
        parts = tuple(
            decide_part(Deciding(part, images[part.key], region, load or Load(), found))
            for part in asked
            if part.key.startswith(f"{number}/")
        )
        decided.append(decide_endpoint(endpoint, parts, region, found))
    refuse_names(endpoints, found)
    return Decision(
        image=image_decision or images.get("") or ImageDecision(kind=image.kind),
        endpoints=tuple(decided),
        notes=tuple(found.notes),
        refusals=tuple(found.refusals),
    )
