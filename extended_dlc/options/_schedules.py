"""Schedule expressions, which EventBridge Scheduler and Application Auto Scaling write alike."""

from __future__ import annotations

import re

_DAYS = "SUN|MON|TUE|WED|THU|FRI|SAT"
_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_FIELDS = (
    ("minutes", 0, 59, "", ""),
    ("hours", 0, 23, "", ""),
    ("day of the month", 1, 31, "", r"\?|L|LW|\d+W"),
    ("month", 1, 12, _MONTHS, ""),
    ("day of the week", 1, 7, _DAYS, rf"\?|L|(?:[1-7]|{_DAYS})L|(?:[1-7]|{_DAYS})#[1-5]"),
    ("year", 1970, 2199, "", ""),
)
"""The fields of a cron expression: name, least, most, names, and what else stands in it (EventBridge Scheduler user
guide, "Schedule types")."""

_WAY_OUT = "write it as 'cron(0 3 ? * SUN *)' (minute, hour, day, month, weekday, year) or 'rate(7 days)'"
_ONCE = re.compile(r"at\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\)")


def check_schedule(text: str) -> None:
    """Refuse what is no cron and no rate; the error completes "'schedule' (<value>) …"."""
    _check(text, _WAY_OUT)


def check_schedule_or_time(text: str) -> None:
    """As `check_schedule`, and the expression may also name one time."""
    if _ONCE.fullmatch(text) is None:
        _check(text, f"{_WAY_OUT}, or for one time as 'at(2027-01-01T00:00:00)'")


def _check(text: str, way_out: str) -> None:
    if rate := re.fullmatch(r"rate\((\d+) (minutes?|hours?|days?)\)", text):
        number, unit = int(rate[1]), rate[2]
        if number == 0 or (number == 1) == unit.endswith("s"):
            right = f"rate({number} {unit.rstrip('s')}{'s' if number != 1 else ''})" if number else "rate(1 day)"
            raise ValueError(f"is no rate: write '{right}'")
        return
    cron = re.fullmatch(r"cron\((.+)\)", text)
    if cron is None:
        raise ValueError(f"is not a schedule: {way_out}")
    fields = cron[1].split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"has {len(fields)} fields, and a schedule has {len(_FIELDS)}: {way_out}")
    for value, (name, low, high, names, other) in zip(fields, _FIELDS, strict=True):
        if not all(_is_part(part, low, high, names, other) for part in value.split(",")):
            raise ValueError(f"has '{value}' for {name}, which takes {low} to {high}: {way_out}")
    if (fields[2] == "?") == (fields[4] == "?"):
        raise ValueError(f"must have '?' for either the day of the month or the day of the week, not both: {way_out}")


def _is_part(part: str, low: int, high: int, names: str, other: str) -> bool:
    """Whether a field's part is a value, a range, a step or one of the field's own signs."""
    if other and re.fullmatch(other, part):
        return True
    number = rf"(?:\d+{f'|{names}' if names else ''})"
    if re.fullmatch(rf"(?:\*|{number}(?:-{number})?)(?:/[1-9]\d*)?", part) is None:
        return False
    head = part.partition("/")[0]
    return all(low <= int(each) <= high for each in head.split("-") if each.isdigit())
