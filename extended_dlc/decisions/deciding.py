"""Shared parts of the checks of a variant or a component."""

from __future__ import annotations

from dataclasses import dataclass

from extended_dlc.decisions.found import Finder, Found
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.decisions.part import Part
from extended_dlc.decisions.sizing import Load, Spread


@dataclass(frozen=True)
class Deciding:
    """A variant or a component under decision, with the collectors of refusals and notes."""

    part: Part
    image: ImageDecision
    region: str | None
    load: Load
    found: Found

    @property
    def model(self) -> Finder:
        """The collector for refusals and notes on the model."""
        return self.found.at(self.part.section, self.part.who)

    @property
    def hosting(self) -> Finder:
        """The collector for refusals and notes on the instances."""
        return self.found.at(self.part.hosting_section, self.part.who)

    @property
    def task(self) -> str | None:
        """The task to set: the container infers it, but AWS's server takes speech models for others."""
        model = self.part.model
        return model.task or (model.facts.task if model.facts.is_speech else None)

    @property
    def spread(self) -> Spread:
        """AWS's server uses one GPU; this project's spreads a larger model over all, and so may the user's code."""
        return "one" if self.image.server == "stock" and self.part.model.code is None else "all"

    @property
    def load_with_dtype(self) -> Load:
        """The load, with the number format that the container's environment asks for."""
        return Load(
            context=self.load.context, batch=self.load.batch, dtype=self.part.environment.get("EXTENDED_DLC_DTYPE")
        )
