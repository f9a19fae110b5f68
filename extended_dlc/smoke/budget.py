"""The cost limit of a smoke test."""

from __future__ import annotations

import math
from dataclasses import dataclass

INSTANCES = 2
"""One for each endpoint."""

DEPLOY_MINUTES = 15
"""Shortest time limit with which a test makes sense. An estimate: it was never measured on AWS."""

DESTROY_MINUTES = 10
"""Minutes reserved for deleting the endpoints. An estimate: it was never measured on AWS."""

LONGEST_MINUTES = 120
"""The time limit for any `max_cost`; only `max_minutes` overrides it."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A time limit, given directly or computed from a price and a cost limit."""

    instance_type: str
    hourly_price: float | None
    """USD per hour of one instance in the region. None if unknown; then only the time is limited."""

    max_cost: float
    """Cost limit of all instances together, in USD. Used only with a price."""

    max_minutes: float | None
    """Minutes until the destruction starts at the latest. None for what `max_cost` allows, two hours at most."""

    def __post_init__(self) -> None:
        """Refuse a budget without a limit, or with too low a limit."""
        if self.hourly_price is None:
            if self.max_minutes is None:
                raise ValueError(
                    f"what an hour of {self.instance_type} costs is not known here: prices differ by region and "
                    "change. Look it up (https://aws.amazon.com/sagemaker/ai/pricing) and give --hourly-price USD, or "
                    "limit the time alone with --max-minutes"
                )
            return
        wanted = min(DEPLOY_MINUTES, self.max_minutes or DEPLOY_MINUTES)
        if self._affordable(self.hourly_price) < wanted:
            needed = math.ceil(INSTANCES * self.hourly_price * (wanted + DESTROY_MINUTES) / 60 * 100) / 100
            raise ValueError(
                f"'--max-cost' ({self.max_cost:.2f}) is too little for {INSTANCES} {self.instance_type}, which want "
                f"{wanted + DESTROY_MINUTES:g} minutes or more: give --max-cost {needed:.2f} or more"
            )

    @property
    def minutes(self) -> float:
        """Minutes until the destruction starts at the latest."""
        longest = LONGEST_MINUTES if self.max_minutes is None else self.max_minutes
        return longest if self.hourly_price is None else min(longest, self._affordable(self.hourly_price))

    def cost(self, seconds: float) -> float | None:
        """USD for `seconds` of all instances; None without a price."""
        return None if self.hourly_price is None else INSTANCES * self.hourly_price * seconds / 3600

    def description(self) -> str:
        """The limits and the maximum cost in words, to show before the deployment."""
        most = self.cost((self.minutes + DESTROY_MINUTES) * 60)
        money = (
            "no price was given, so what it costs is not known"
            if most is None
            else f"at most about USD {most:.2f}, at USD {self.hourly_price} an hour each"
        )
        return (
            f"{INSTANCES} {self.instance_type}, destroyed after {self.minutes:g} minutes at the latest, and that "
            f"takes about {DESTROY_MINUTES} more: {money}; storage and requests are cents"
        )

    def _affordable(self, price: float) -> float:
        """The minutes that `max_cost` pays for, without those reserved for the destruction."""
        return self.max_cost / (INSTANCES * price) * 60 - DESTROY_MINUTES
