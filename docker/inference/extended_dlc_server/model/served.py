"""What is served, as far as it can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..reading.parameter_table import Limits
from ..reading.parameter_types import Type
from ..reading.tasks import Kind


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is served, as far as it can be asked."""

    task: str
    kind: Kind | None
    """None where code of the user's own reads the bodies."""

    parameters: Mapping[str, Type] = field(default_factory=dict)
    """What `parameters` may hold."""

    limits: Limits | None = None
    """What the fields of OpenAI's interfaces depend on; None for a model that continues no prompt."""

    images_in_chats: bool = False
    embeds: bool = False
    reranks: bool = False
