"""Scaling of an endpoint's capacity, on the metrics that SageMaker publishes for its hosting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extended_dlc.options._kinds import check_types
from extended_dlc.options._schedules import check_schedule_or_time
from extended_dlc.options._values import OptionError, check_timezone, is_token, require, require_known, within

COOLDOWN_SECONDS = 300
"""The cooldown that Application Auto Scaling itself uses for a SageMaker variant."""


@check_types
@dataclass(frozen=True, kw_only=True)
class ScheduledCapacity:
    """Limits of the capacity from a time on, until the next such action."""

    schedule: str
    """When, in the words of Application Auto Scaling: `cron(0 8 ? * MON-FRI *)`, `rate(1 day)` or
    `at(2027-01-01T00:00:00)`."""

    minimum: int | None = None
    """The minimum from then on. Default: unchanged."""

    maximum: int | None = None
    """The maximum from then on. Default: unchanged."""

    timezone: str = "UTC"
    """IANA name of the time zone that `schedule` is in. Default: UTC."""

    def __post_init__(self) -> None:
        """Refuse what Application Auto Scaling would refuse."""
        require("schedule", self.schedule, check_schedule_or_time)
        check_timezone(self.timezone)
        if self.minimum is None and self.maximum is None:
            raise OptionError("schedule", self.schedule, "changes nothing: set minimum, maximum or both")


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """The options of every kind of scaling."""

    maximum: int
    """The maximum."""

    minimum: int = 1
    """The minimum. Default: 1."""

    scale_in_seconds: int = COOLDOWN_SECONDS
    """How long to wait after a removal before the next. Default: 300 s."""

    scale_out_seconds: int = COOLDOWN_SECONDS
    """How long to wait after an addition before the next; about what an instance needs to serve. Default: 300 s."""

    schedules: Sequence[ScheduledCapacity] = ()
    """Times at which the limits change. Default: none."""

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        lowest = self._lowest()
        within("minimum", self.minimum, lowest, None, f"{type(self).__name__} keeps {lowest} or more")
        if not any(map(is_token, (self.minimum, self.maximum))) and self.maximum < max(self.minimum, 1):
            raise OptionError(
                "minimum",
                self.minimum,
                f"must not exceed 'maximum' ({self.maximum}), and that not be 0: raise maximum or lower minimum",
            )
        within("scale_in_seconds", self.scale_in_seconds, 0, None, "0 for no wait")
        within("scale_out_seconds", self.scale_out_seconds, 0, None, "0 for no wait")
        for each in self.schedules:
            within("schedules.minimum", each.minimum, lowest, None, f"{type(self).__name__} keeps {lowest} or more")

    def _lowest(self) -> int:
        return 1


@dataclass(frozen=True, kw_only=True)
class _RequestScaling(Scaling):
    requests_per_second: float
    """The requests a second that one instance or copy can serve, as measured by a load test."""

    safety_factor: float = 0.5
    """Which part of that to aim at, above 0 and at most 1: the rest is for the time that a new one needs. Default: 0.5,
    what AWS starts with (developer guide, "Load testing your auto scaling configuration")."""

    def __post_init__(self) -> None:
        """Refuse a load out of range."""
        super().__post_init__()
        for option in ("requests_per_second", "safety_factor"):
            require_known(option, getattr(self, option), "the target is the product of the two")
        _above_zero("requests_per_second", self.requests_per_second, "what one bore in a load test")
        _above_zero("safety_factor", self.safety_factor, "a part of the measured load, as 0.5", most=1)


@check_types
@dataclass(frozen=True, kw_only=True)
class InvocationScaling(_RequestScaling):
    """Instances by the number of requests a minute that each gets; right where all requests cost about the same."""


@check_types
@dataclass(frozen=True, kw_only=True)
class CopyScaling(_RequestScaling):
    """Copies of a component by the number of requests a minute that each gets, down to none with `minimum=0`.

    The first request after that fails and wakes one, which takes minutes; requests fail until it serves.
    """

    def _lowest(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class _ConcurrentScaling(Scaling):
    concurrent_requests: float
    """The number of concurrent requests to aim at for one instance or copy."""

    def __post_init__(self) -> None:
        """Refuse a load out of range."""
        super().__post_init__()
        _above_zero("concurrent_requests", self.concurrent_requests, "how many one can work on at a time")


@check_types
@dataclass(frozen=True, kw_only=True)
class CopyConcurrencyScaling(_ConcurrentScaling):
    """Copies of a component by the number of requests that each works on at a time, as `ConcurrencyScaling`.

    With `minimum=0` down to none, as `CopyScaling`.
    """

    def _lowest(self) -> int:
        return 0


@check_types
@dataclass(frozen=True, kw_only=True)
class ConcurrencyScaling(_ConcurrentScaling):
    """Instances by the number of requests that each works on at a time, measured every 10 s: reacts within a minute.

    Right for models whose requests take long and differ, as those that generate text.
    """


@check_types
@dataclass(frozen=True, kw_only=True)
class BacklogScaling(Scaling):
    """Instances of an asynchronous endpoint by the requests that wait for each, down to none.

    The first request after that wakes one, which takes minutes; the request waits in the queue.
    """

    minimum: int = 0
    """The minimum. Default: 0."""

    backlog_per_instance: float = 5
    """How many requests may wait for each instance. Default: 5."""

    def __post_init__(self) -> None:
        """Refuse a load out of range."""
        super().__post_init__()
        _above_zero("backlog_per_instance", self.backlog_per_instance, "how many requests may wait for one instance")

    def _lowest(self) -> int:
        return 0


@check_types
@dataclass(frozen=True, kw_only=True)
class ProvisionedScaling(Scaling):
    """The provisioned concurrency of a serverless endpoint by the part of it that is in use."""

    utilization: float = 0.7
    """Which part of the provisioned concurrency is to be in use, above 0 and at most 1. Default: 0.7."""

    def __post_init__(self) -> None:
        """Refuse a load out of range."""
        super().__post_init__()
        _above_zero("utilization", self.utilization, "a part of the provisioned concurrency, as 0.7", most=1)


def _above_zero(option: str, value: float, what: str, *, most: float | None = None) -> None:
    if not is_token(value) and not (value > 0 and (most is None or value <= most)):
        limit = f" and at most {most:g}" if most is not None else ""
        raise OptionError(option, value, f"must be above 0{limit}: give {what}")
