"""What of the requests and answers SageMaker writes to S3: `DataCapture`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from extended_dlc.options._values import OptionError, is_token, within, within_limit

if TYPE_CHECKING:
    from aws_cdk import aws_s3 as s3


@dataclass(frozen=True, kw_only=True)
class DataCapture:
    """Requests and answers that SageMaker writes to S3 as they come."""

    sampling_percent: int = 100
    """Which part of the requests, 1 to 100 %. Default: all."""

    capture: Sequence[Literal["input", "output"]] = ("input", "output")
    """What of each. Default: both."""

    json_content_types: Sequence[str] = ()
    """Content types of which the text is written as JSON in the record, 10 at most, as `application/json`. Default:
    none, all that is captured is in Base64."""

    csv_content_types: Sequence[str] = ()
    """Content types of which the text is written as CSV in the record, 10 at most, as `text/csv`. Default: none."""

    bucket: s3.IBucket | None = None
    """Where, under `ENDPOINT/capture/`. Default: a new one, encrypted, kept when the stack is deleted."""

    expire_days: int | None = None
    """After how many days what is in the new bucket is deleted. ValueError with `bucket`. Default: 30."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        within("sampling_percent", self.sampling_percent, 1, 100, "pass no DataCapture to capture nothing")
        if not self.capture or not {"input", "output"}.issuperset(self.capture):
            raise OptionError("capture", ", ".join(self.capture), "must be 'input', 'output' or both")
        for option in ("json_content_types", "csv_content_types"):
            given = getattr(self, option)
            within_limit(option, len(given), "capture.content_types", "name those that your requests have")
            if wrong := next((each for each in given if not is_token(each) and "/" not in each), None):
                raise OptionError(option, wrong, "is no content type: write it as application/json")
        check_expiry(self.bucket, self.expire_days)


def check_expiry(bucket: s3.IBucket | None, expire_days: int | None) -> None:
    """Refuse an expiry that cannot be, or that the endpoint cannot set."""
    within("expire_days", expire_days, 1, 36500, "pass a bucket= whose rules you make")
    if bucket is not None and expire_days is not None:
        raise OptionError("expire_days", expire_days, "is for a new bucket: put a rule on the one you pass")
