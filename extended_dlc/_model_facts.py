"""What is known at synth of the model that a construct is given."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from aws_cdk import Stack
from constructs import Construct

from extended_dlc._private import is_token, place_of
from extended_dlc.facts.models import ModelFacts, context_key, know_model
from extended_dlc.mirror import MirroredModel
from extended_dlc.model import HubModel, ServedModel


def model_facts(scope: Construct, model: ServedModel) -> ModelFacts:
    """The model's kind and size: by its name, from `cdk.context.json`, and what the user says."""
    given = model.id if isinstance(model, HubModel) else model.model_id if isinstance(model, MirroredModel) else None
    name = None if given is None or is_token(given) else given
    hub = model if isinstance(model, HubModel) else None
    return know_model(
        name,
        looked_up=_looked_up(place_of(scope).stack, name) if name else None,
        revision=hub.revision if hub else None,
        model_type=model.model_type,
        parameters=hub.parameters if hub else None,
        task=model.task,
    )


# endpoints of one model are many, and each question to the CDK is a call to another process
@lru_cache(maxsize=8)
def _looked_up(stack: Stack, name: str) -> Any:
    return stack.node.try_get_context(context_key(name))
