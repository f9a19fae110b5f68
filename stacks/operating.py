"""The settings of how an endpoint is watched, switched off and proved."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Tag

from extended_dlc.facts._tables import did_you_mean
from stacks.sections import Mirror, Section, checked, kind_of, one_of


def _check_topic(topic: str) -> None:
    if topic != "new" and not topic.startswith("arn:"):
        raise ValueError("must be the ARN of a topic, or 'new' for one of the endpoint's own")


class MonitoringSettings(Mirror):
    """A log group, alarms and a dashboard, each at CloudWatch's price."""

    made: ClassVar[str] = "Monitoring"
    resources: ClassVar[frozenset[str]] = frozenset({"alarm_topic", "log_key"})

    alarms: dict[str, float | None] = {}
    """Other thresholds by the alarms' names, or `null` for no such alarm. Default: all that fit the hosting
    ([their list](operating.md#watching))."""

    alarm_topic: Annotated[str, checked(_check_topic)] | None = None
    """ARN of the topic that is told of alarms, or `new`. Default: none."""

    dashboard: bool = True
    """Whether there is a dashboard."""

    log_retention: str | None = None
    """How long the log is kept, as `one-week`, `six-months` or `infinite`. Default: `one-month`."""

    log_key: str | None = None
    """ARN of the key for the log, whose policy lets CloudWatch Logs use it. Default: CloudWatch's own."""

    def build(self, **given: Any) -> Any:
        """The object, with the CDK's name of the retention."""
        if self.log_retention is not None:
            from aws_cdk.aws_logs import RetentionDays

            known = {each.name.lower().replace("_", "-"): each for each in RetentionDays}
            if self.log_retention not in known:
                hint = did_you_mean(self.log_retention, known) or f": take one of {', '.join(known)}"
                raise ValueError(f"'log_retention' ({self.log_retention}) is not known to CloudWatch{hint}")
            given["log_retention"] = known[self.log_retention]
        return super().build(**given)


class OfficeHoursSettings(Mirror):
    """The endpoints are there in office hours, and deleted in between; their models stay."""

    made: ClassVar[str] = "OfficeHours"
    kind: Literal["office-hours"] = "office-hours"

    start: str
    """When they are made, as `07:45`."""

    end: str
    """When they are deleted, as `18:00`, on the same day."""

    days: str = "MON-FRI"
    """Days of the week, as `MON-FRI` or `MON,WED`."""

    timezone: str = "UTC"
    """The clock's, as `Europe/Berlin`."""


class ByHandSettings(Mirror):
    """The endpoints are there until `cdk deploy --parameters EndpointEnabled=false`."""

    made: ClassVar[str] = "ByHand"
    kind: Literal["by-hand"]


SCHEDULES: dict[str, type[Section]] = {"office-hours": OfficeHoursSettings, "by-hand": ByHandSettings}

ScheduleSettings = Annotated[
    Annotated[OfficeHoursSettings, Tag("office-hours")] | Annotated[ByHandSettings, Tag("by-hand")],
    one_of(SCHEDULES, kind_of("office-hours")),
]


class VerifySettings(Mirror):
    """A request that the endpoint has to answer before its deployment counts as one."""

    made: ClassVar[str] = "Proof"
    kind: ClassVar[str] = "proof"
    simple: ClassVar[frozenset[str]] = frozenset({"optional"})

    request: dict[str, Any] | str | None = None
    """The request, sent as JSON. Default: the smallest of the model's task; without a task it has to be said."""

    accept: str = "application/json"
    """What the answer shall be."""

    expect: str | None = None
    """Text that the answer must have in it. Default: any answer will do."""

    expected: Any = None
    """The answer: texts are equal, numbers within `tolerance`, lists of the same length; an object may have more keys.
    Default: any answer will do."""

    tolerance: float = 0.01
    """How far a number of `expected` may be off, 0 to 1, and where it is above 1, which part of it."""

    optional: bool = False
    """Whether a model is not asked where no request is known for it."""

    timeout_minutes: int = 30
    """How long SageMaker and the endpoint may take together, 1 to 59 min."""


VERIFICATIONS: dict[str, type[Section]] = {"proof": VerifySettings}


def _kind_of_verification(raw: Any) -> str:
    return "switch" if isinstance(raw, bool) else "proof"


Verify = Annotated[
    Annotated[VerifySettings, Tag("proof")] | Annotated[bool, Tag("switch")], Discriminator(_kind_of_verification)
]
