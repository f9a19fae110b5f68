"""Rules of EventBridge: schedules, and rules that run on a schedule."""

from __future__ import annotations

import re
import zoneinfo
from datetime import datetime
from typing import Any

from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")


_AT = re.compile(r"at\(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\)")


_CRON = re.compile(r"cron\(([^()]*)\)")


_CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (1970, 2199))
"""Of the six fields: minutes, hours, day of the month, month, day of the week, year."""


def is_schedule(expression: str) -> bool:
    """Whether an expression is a time, a rate, or six cron fields whose numbers are within their bounds."""
    if found := _RATE.fullmatch(expression):
        return int(found[1]) > 0
    if _AT.fullmatch(expression):
        return True
    found = _CRON.fullmatch(expression)
    fields = found[1].split() if found else []
    return len(fields) == len(_CRON_BOUNDS) and all(
        least <= int(number) <= most
        for field, (least, most) in zip(fields, _CRON_BOUNDS, strict=True)
        for number in re.findall(r"(?<![/\w])\d+(?!\w)", field)
    )


def _schedule_expression(world: World, given: Parameters) -> str | None:
    expression = given["ScheduleExpression"]
    return None if is_schedule(expression) else f"Invalid Schedule Expression {expression}."


def _schedule_role(world: World, given: Parameters) -> str | None:
    # aws:SourceArn is the schedule's group (EventBridge Scheduler user guide, "Confused deputy prevention")
    prefix = f"arn:{get_partition(world.region)}:scheduler:{world.region}:{world.account_id}"
    source = f"{prefix}:schedule-group/{given.get('GroupName', 'default')}"
    if world.trusts(given["Target"]["RoleArn"], "scheduler.amazonaws.com", source=source):
        return None
    return "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."


def _schedule_window(world: World, given: Parameters) -> str | None:
    window = given["FlexibleTimeWindow"]
    if (window["Mode"] == "FLEXIBLE") == ("MaximumWindowInMinutes" in window):
        return None
    return "MaximumWindowInMinutes is required for the mode FLEXIBLE, and not allowed for OFF."


def _schedule_times(world: World, given: Parameters) -> str | None:
    zone = given.get("ScheduleExpressionTimezone")
    if zone and zone not in zoneinfo.available_timezones():
        return f"Invalid ScheduleExpressionTimezone {zone}."
    begin, end = given.get("StartDate"), given.get("EndDate")
    if begin is None or end is None or _seconds(begin) < _seconds(end):
        return None
    return "The StartDate must come before the EndDate."


def _seconds(when: Any) -> float:
    """A time of a request, or of a template, in seconds."""
    if isinstance(when, (int, float)):
        return float(when)
    made = when if isinstance(when, datetime) else datetime.fromisoformat(str(when).replace("Z", "+00:00"))
    return made.timestamp()


def _rate_or_cron(world: World, given: Parameters) -> str | None:
    expression = given.get("ScheduleExpression")
    if expression is None:
        return None
    rate = re.fullmatch(r"rate\(([1-9]\d*) (minute|hour|day)(s?)\)", expression)
    if rate and (int(rate[1]) == 1) != bool(rate[3]):
        return None
    cron = re.fullmatch(r"cron\((\S+ \S+ \S+ \S+ \S+ \S+)\)", expression)
    if cron and (cron[1].split()[2] == "?") != (cron[1].split()[4] == "?"):
        return None
    return "Parameter ScheduleExpression is not valid."


def _two_days(world: World, given: Parameters) -> str | None:
    expression = given.get("ScheduleExpression", "")
    fields = expression.removeprefix("cron(").removesuffix(")").split() if expression.startswith("cron(") else []
    if len(fields) == 6 and (fields[2] == "?") == (fields[4] == "?"):
        return f"Invalid Schedule Expression {expression}."
    return None


RULES: tuple[Rule, ...] = (
    Rule(
        name="a schedule's times",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="an unknown time zone, and an end that is not after the start",
        source="EventBridge Scheduler API reference, CreateSchedule ScheduleExpressionTimezone, StartDate, EndDate",
        check=_schedule_times,
        own_words=True,
    ),
    Rule(
        name="a schedule's expression",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="an expression that is no at(), rate() or cron() of six fields within their bounds",
        source="EventBridge Scheduler API reference, CreateSchedule ScheduleExpression; localstack/localstack#9284",
        check=_schedule_expression,
    ),
    Rule(
        name="a schedule's role",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="a role that is not there, or does not let EventBridge Scheduler assume it for this account",
        source="aws/aws-sdk-js-v3#6494: the words",
        check=_schedule_role,
    ),
    Rule(
        name="a schedule's window",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="a flexible window without its length, and a length without a flexible window",
        source="EventBridge Scheduler API reference, FlexibleTimeWindow",
        check=_schedule_window,
        own_words=True,
    ),
    Rule(
        name="a rule's schedule",
        operations=("events:PutRule",),
        refuses="what is no rate (1 minute, 2 minutes) and no cron of six fields with one ? for the day",
        source="EventBridge user guide, cron and rate expressions; getmoto/moto, events/models.py: the words",
        check=_rate_or_cron,
    ),
    Rule(
        name="a schedule's days",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="a cron with both a day of the month and a day of the week, or with neither",
        source="EventBridge Scheduler user guide, cron-based schedules: 'you must use a ? in the other'; "
        "localstack/localstack#9284: the words",
        check=_two_days,
    ),
)
