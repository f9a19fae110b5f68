"""`DataCapture`: which requests and answers SageMaker writes to S3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, is_token, within, within_limit

if TYPE_CHECKING:
    from aws_cdk import aws_s3 as s3


@check_types
@dataclass(frozen=True, kw_only=True)
class DataCapture:
    """Requests and answers that SageMaker writes to S3 while the endpoint serves."""

    sampling_percent: int = 100
    """The share of requests that is captured, 1 to 100 %. Default: all."""

    capture: Sequence[Literal["input", "output"]] = ("input", "output")
    """Whether requests (`input`), answers (`output`) or both are captured. Default: both."""

    json_content_types: Sequence[str] = ()
    """Content types whose bodies are recorded as JSON instead of Base64, such as `application/json`; 10 at most.
    Default: none."""

    csv_content_types: Sequence[str] = ()
    """Content types whose bodies are recorded as CSV instead of Base64, as `text/csv`; 10 at most. Default: none."""

    bucket: s3.IBucket | None = None
    """The bucket, with the records under `ENDPOINT/capture/`. Default: a new encrypted one, which stays when the stack
    is deleted."""

    expire_days: int | None = None
    """Days after which records in the new bucket are deleted. ValueError with `bucket`. Default: 30."""

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
    """Refuse an expiry out of range, or one for a bucket that is not the endpoint's."""
    within("expire_days", expire_days, 1, 36500, "pass a bucket= whose rules you make")
    if bucket is not None and expire_days is not None:
        raise OptionError("expire_days", expire_days, "is for a new bucket: put a rule on the one you pass")
