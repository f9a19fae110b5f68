"""The properties of the served model that requests depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..reading.parameter_table import Limits
from ..reading.parameter_types import Type
from ..reading.tasks import Kind


@dataclass(frozen=True, kw_only=True)
class Served:
    """The properties of the served model that requests depend on."""

    task: str
    kind: Kind | None
    """None where user code reads the request bodies."""

    parameters: Mapping[str, Type] = field(default_factory=dict)
    """Name -> type of the parameters that requests may have."""

    limits: Limits | None = None
    """Limits for the fields of the OpenAI-compatible routes; None for a model without text generation."""

    images_in_chats: bool = False
    embeds: bool = False
    reranks: bool = False
