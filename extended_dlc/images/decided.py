"""Translates constructs to the input of `decide`, and its result to errors and annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

from aws_cdk import Annotations, Stack
from constructs import Construct

from extended_dlc.constructs.helpers import target_of
from extended_dlc.decisions.asked import OF_HUB, VARIABLES, ImageAsked, ModelAsked, PartAsked, Source
from extended_dlc.decisions.decide import Decision
from extended_dlc.decisions.found import Note
from extended_dlc.decisions.part import other_variants
from extended_dlc.facts.models import ModelFacts, context_key, know_model
from extended_dlc.models.model import ServedModel
from extended_dlc.options._values import is_token
from extended_dlc.options.hosting import Components, Hosting
from extended_dlc.options.network import Network


def region_of(scope: Construct) -> str | None:
    """The region that a construct is deployed to; None where it is a token."""
    region = target_of(scope).region
    return None if is_token(region) else region


def model_asked(scope: Construct, model: ServedModel) -> ModelAsked:
    """A model as input of `decide`: the facts by its name and from `cdk.context.json`, and the user's options."""
    source = source_of(model)
    return ModelAsked(
        facts=model_facts(scope, model),
        source=source,
        task=model.task,
        revision=getattr(model, "revision", None) if source in OF_HUB else None,
        trust_remote_code=bool(getattr(model, "trust_remote_code", False)),
        licence=getattr(model, "licence", None),
        token=model.token is not None,
        code=model.code,
        variables=VARIABLES[source] or model.variables,
    )


def source_of(model: ServedModel) -> Source:
    """The source of the model's weights."""
    # Read from the attribute: importing MirroredModel would load CDK modules that only it needs.
    source = getattr(model, "source", "other")
    return cast("Source", source) if source in VARIABLES else "other"


def model_facts(scope: Construct, model: ServedModel) -> ModelFacts:
    """The facts of the model, such as its type and size."""
    named = {"hub": "id", "mirrored": "model_id"}.get(source_of(model))
    given = getattr(model, named) if named else None
    name = None if given is None or is_token(given) else given
    return know_model(
        name,
        looked_up=_looked_up(target_of(scope).stack, name) if name else None,
        revision=getattr(model, "revision", None),
        model_type=model.model_type,
        parameters=getattr(model, "parameters", None),
        task=model.task,
    )


# Cached, because several endpoints can serve one model and each CDK call goes to another process.
@lru_cache(maxsize=8)
def _looked_up(stack: Stack, name: str) -> Any:
    return stack.node.try_get_context(context_key(name))


def image_asked(image: object) -> ImageAsked:
    """An image as input of `decide`; nothing is known of a user-defined image class."""
    asked = getattr(image, "asked", None)
    return asked if isinstance(asked, ImageAsked) else ImageAsked(key=str(id(image)))


def parts_asked(scope: Construct, hosting: Hosting) -> Mapping[str, PartAsked]:
    """The models and images that variants and components name themselves."""
    parts = hosting.components if isinstance(hosting, Components) else other_variants(hosting)
    return {
        part.name: PartAsked(
            section="",
            model=None if part.model is None else model_asked(scope, part.model),
            image=None if part.image is None else image_asked(part.image),
        )
        for part in parts
    }


def way_out(network: Network, *, has_address: bool = True) -> bool | None:
    """Whether the subnets have a route to the internet: False where all are isolated, None where it is not known.

    :param has_address: Whether what runs there gets a public address, without which a public subnet has none either.
    """
    vpc = network.vpc
    closed = {subnet.node.path for subnet in (*vpc.isolated_subnets, *(() if has_address else vpc.public_subnets))}
    subnets = network.subnets or vpc.private_subnets or vpc.isolated_subnets
    subnets = subnets or (() if has_address else vpc.public_subnets)
    return False if subnets and all(subnet.node.path in closed for subnet in subnets) else None


def refuse(decision: Decision) -> None:
    """Raise the first refusal, if there is one."""
    for refusal in decision.refusals:
        raise ValueError(refusal.sentence)


def annotate(scope: Construct, notes: Iterable[Note]) -> None:
    """Annotate a construct."""
    annotations = Annotations.of(scope)
    for note in notes:
        add = annotations.add_info_v2 if note.level == "info" else annotations.add_warning_v2
        add(f"extended-dlc:{note.kind}", note.text)


def notes_of_image(notes: Iterable[Note], key: str | None) -> list[Note]:
    """The notes about the image with this key, or with None the notes that are not about an image."""
    if key is None:
        return [note for note in notes if not note.section.startswith("image")]
    return [note for note in notes if note.section == f"image:{key}"]
