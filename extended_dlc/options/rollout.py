"""How an endpoint goes over to a new configuration: `AllAtOnce`, `Canary`, `Linear` or `Rolling`.

Blue/green, which all but `Rolling` are: SageMaker starts a second fleet, moves the requests over, watches the alarms
while it bakes, and stops the first. Where an alarm goes off, the first fleet gets the requests back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, is_token, require_length, within, within_limit

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch

    from extended_dlc.options.hosting import Hosting


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The options of every kind of update."""

    alarms: Sequence[cloudwatch.IAlarm | str] = ()
    """Alarms, or names of alarms, that roll an update back when they go off; 10 at most. Default: those of the
    endpoint's own for server errors, latency and memory, where it has `monitoring`, and for a component its own;
    otherwise only instances that do not become healthy roll it back."""

    bake_seconds: int = 300
    """How long the alarms are watched after each step, 0 to 3600 s. Default: 300 s."""

    timeout_seconds: int | None = None
    """How long the whole update may take, 600 to 28800 s. Default: SageMaker's own."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        require_length("alarms", self.alarms)
        if self.alarms:
            within_limit("alarms", len(self.alarms), "rollout.alarms", "combine some in a composite alarm")
        within_limit(
            "bake_seconds",
            self.bake_seconds,
            "rollout.wait_seconds",
            "alarms that need longer cannot roll back an update",
        )
        within_limit(
            "timeout_seconds",
            self.timeout_seconds,
            "rollout.maximum_execution_seconds",
            "leave it out for SageMaker's own",
        )
        waits = self.bake_seconds + self._keeps_old()
        if self.timeout_seconds is not None and not any(map(is_token, (waits, self.timeout_seconds))):
            within("timeout_seconds", self.timeout_seconds, waits + 1, None, "the waits alone take longer")

    def _keeps_old(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class _BlueGreen(Rollout):
    keep_old_seconds: int = 0
    """How long the first fleet is kept, and paid, after the last request to it, 0 to 3600 s. Default: 0."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        within_limit(
            "keep_old_seconds",
            self.keep_old_seconds,
            "rollout.termination_wait_seconds",
            "an update back needs no fleet that still runs",
        )
        super().__post_init__()

    def _keeps_old(self) -> int:
        return self.keep_old_seconds


@check_types
@dataclass(frozen=True, kw_only=True)
class AllAtOnce(_BlueGreen):
    """All requests go to the second fleet at once."""


@check_types
@dataclass(frozen=True, kw_only=True)
class Canary(_BlueGreen):
    """A small part of the requests goes to the second fleet first; the rest follows after the baking time."""

    percent: int = 10
    """The small part, 1 to 50 % of the capacity. Default: 10 %."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        super().__post_init__()
        within_limit(
            "percent", self.percent, "rollout.canary_percent", "a canary is the smaller part; AllAtOnce moves all"
        )


@check_types
@dataclass(frozen=True, kw_only=True)
class Linear(_BlueGreen):
    """The requests go to the second fleet in equal steps."""

    percent: int = 25
    """One step, 10 to 50 % of the capacity. Default: 25 %."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        super().__post_init__()
        within_limit(
            "percent",
            self.percent,
            "rollout.linear_percent",
            "a smaller first step is a Canary; AllAtOnce has one step",
        )


@check_types
@dataclass(frozen=True, kw_only=True)
class Rolling(Rollout):
    """Instances, or copies of `Components`, are replaced a batch at a time, so that no second fleet is paid."""

    percent: int = 25
    """One batch, 5 to 50 % of the capacity. Default: 25 %."""

    rollback_percent: int | None = None
    """One batch of a rollback, 5 to 100 %. Default: all at once."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        super().__post_init__()
        within_limit("percent", self.percent, "rollout.rolling_batch_percent", "AllAtOnce replaces all")
        within("rollback_percent", self.rollback_percent, 5, 100, "leave it out to roll back at once")


def check_rollout(rollout: Rollout, hosting: Hosting) -> None:
    """Refuse a way of updating that SageMaker does not know for this hosting (guide, "Deployment guardrails")."""
    from extended_dlc.options.hosting import Components, RealTime, Serverless

    name = type(rollout).__name__
    if isinstance(hosting, Serverless):
        raise OptionError("rollout", name, "is for instances, and Serverless has none: leave it out")
    if isinstance(hosting, Components) and not isinstance(rollout, Rolling):
        raise OptionError(
            "rollout", name, "is for variants, and SageMaker updates components in batches of copies: take Rolling"
        )
    several = isinstance(hosting, RealTime) and (hosting.variants or hosting.shadow)
    if isinstance(rollout, Rolling) and several:
        raise OptionError("rollout", "Rolling", "is for one variant: take AllAtOnce, Canary or Linear")


def rollout_note(rollout: Rollout, hosting: Hosting) -> str | None:
    """A note about an unknown: how SageMaker rounds a part of a single instance or copy."""
    from extended_dlc.options.hosting import MAIN_VARIANT, Components, RealTime, Serverless

    if isinstance(rollout, AllAtOnce) or isinstance(hosting, Serverless):
        return None
    if isinstance(hosting, Components):
        option, counts = "copies", {each.name: each.copies for each in hosting.components}
    else:
        option, counts = "instances", {MAIN_VARIANT: hosting.instances}
        if isinstance(hosting, RealTime):
            counts |= {each.name: each.instances for each in hosting.variants}
    single = [name for name, count in counts.items() if not is_token(count) and count < 2]
    if not single:
        return None
    return (
        f"'rollout' ({type(rollout).__name__}) of {', '.join(single)} with one of its '{option}': any part of one is "
        "all of it, and AWS documents no rounding, so that the update may move at once or be refused: take 2 or more, "
        "or AllAtOnce"
    )
