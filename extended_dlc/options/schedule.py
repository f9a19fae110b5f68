"""When an endpoint is there, and paid: `OfficeHours` or `ByHand`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from zoneinfo import available_timezones

from extended_dlc.options._values import OptionError


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """A switch that somebody turns: `cdk deploy --parameters NAME=false`, or UpdateStack with the previous template."""


@dataclass(frozen=True, kw_only=True)
class OfficeHours:
    """A switch that is turned on and off by the clock."""

    start: str
    """When the endpoint is to be made, as `07:45`; it takes minutes until it answers."""

    end: str
    """When it is deleted, as `18:00`, on the same day."""

    days: str = "MON-FRI"
    """Days of the week, `MON` to `SUN`: some (`MON,WED`), from one to another (`MON-FRI`), or both. Default: Monday to
    Friday."""

    timezone: str = "UTC"
    """The clock's, as the time zone database calls it: `Europe/Berlin`. Default: `UTC`."""

    def __post_init__(self) -> None:
        """Refuse what the clock does not know."""
        for option, value in (("start", self.start), ("end", self.end)):
            if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
                raise OptionError(option, value, "must be a time of day such as 07:45")
        if self.end <= self.start:
            raise OptionError("end", self.end, f"must be later on the day than 'start' ({self.start}): exchange them")
        day = "(MON|TUE|WED|THU|FRI|SAT|SUN)"
        if not re.fullmatch(f"{day}(-{day})?(,{day}(-{day})?)*", self.days):
            raise OptionError("days", self.days, "must be days of the week such as MON-FRI or MON,WED,FRI")
        if self.timezone not in available_timezones():
            raise OptionError("timezone", self.timezone, "is not in the time zone database: say Europe/Berlin or UTC")
