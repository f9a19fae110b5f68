"""When an endpoint exists, and is billed: `OfficeHours` or `ByHand`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, check_timezone


@check_types
@dataclass(frozen=True, kw_only=True)
class ByHand:
    """A switch that somebody turns: `cdk deploy --parameters NAME=false`, or UpdateStack with the previous template."""


@check_types
@dataclass(frozen=True, kw_only=True)
class OfficeHours:
    """A switch that EventBridge Scheduler turns on and off."""

    start: str
    """When the endpoint is created, such as `07:45`; it answers some minutes later."""

    end: str
    """When it is deleted on the same day, such as `18:00`."""

    days: str = "MON-FRI"
    """Days of the week, `MON` to `SUN`: some (`MON,WED`), from one to another (`MON-FRI`), or both. Default: Monday to
    Friday."""

    timezone: str = "UTC"
    """The time zone of both times, such as `Europe/Berlin`. Default: `UTC`."""

    def __post_init__(self) -> None:
        """Refuse times, days and time zones that EventBridge Scheduler does not know."""
        for option, value in (("start", self.start), ("end", self.end)):
            if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
                raise OptionError(option, value, "must be a time of day such as 07:45")
        if self.end <= self.start:
            raise OptionError("end", self.end, f"must be later on the day than 'start' ({self.start}): exchange them")
        day = "(MON|TUE|WED|THU|FRI|SAT|SUN)"
        if not re.fullmatch(f"{day}(-{day})?(,{day}(-{day})?)*", self.days):
            raise OptionError("days", self.days, "must be days of the week such as MON-FRI or MON,WED,FRI")
        check_timezone(self.timezone)
