"""The options of `ImageStack`: the images, the accounts that may pull them, and when they are built again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from extended_dlc.facts.compat import Family, Server
from extended_dlc.facts.limits import most
from extended_dlc.options._kinds import check_types
from extended_dlc.options._schedules import check_schedule_or_time
from extended_dlc.options._values import OptionError, check_timezone, is_token, require, require_length

if TYPE_CHECKING:
    from aws_cdk import aws_sns as sns


_ARN_CHARACTERS = 40
"""Of an account in a policy, with its quotes and comma and its share of the rest."""


@check_types
@dataclass(frozen=True, kw_only=True)
class Readers:
    """Other accounts that may pull images."""

    accounts: Sequence[str] = ()
    """Their account numbers, as strings. ValueError for anything else. Default: none."""

    organisation: str | None = None
    """An organisation whose accounts may all pull, such as `o-abcdefghij`: the condition `aws:PrincipalOrgID`. Default:
    none."""

    def __post_init__(self) -> None:
        """Refuse values that are no account number and no organisation."""
        require_length("accounts", self.accounts)
        for account in self.accounts:
            if not is_token(account) and not re.fullmatch(r"\d{12}", account):
                raise OptionError("accounts", account, "must be the number of an account, 12 digits as a text")
        if len(self.accounts) > (room := most("repository.policy_characters") // _ARN_CHARACTERS):
            rule = f"are more than a repository's policy has room for, about {room}: name the organisation"
            raise OptionError("accounts", f"{len(self.accounts)} accounts", rule)
        organisation = self.organisation
        is_known = organisation is not None and not is_token(organisation)
        if is_known and not re.fullmatch(r"o-[a-z0-9]{10,32}", str(organisation)):
            raise OptionError("organisation", organisation, "must be the id of an organisation, as o-abcdefghij")
        if not self.accounts and organisation is None:
            raise OptionError("accounts", rule="and 'organisation' are both empty: leave the readers out")


@check_types
@dataclass(frozen=True, kw_only=True)
class Rebuilds:
    """When images are built again, with the base and the packages that are current at that time."""

    schedule: str = "rate(7 days)"
    """An expression of EventBridge Scheduler: `rate(7 days)`, `cron(0 3 ? * SUN *)`. Default: every seven days."""

    timezone: str = "UTC"
    """The time zone of `schedule`, such as `Europe/Berlin`. Default: `UTC`."""

    only_for_newer_base: bool = False
    """Whether a rebuild is left out while the base's tag names the image that the latest build used. Bases of other
    registries than ECR are always rebuilt. Default: False, because packages change too."""

    failure_topic: sns.ITopic | None = None
    """A topic that gets a message for each rebuild that fails, for example because of the scan. Default: none."""

    def __post_init__(self) -> None:
        """Refuse expressions and time zones that EventBridge Scheduler does not know."""
        require("schedule", self.schedule, check_schedule_or_time)
        check_timezone(self.timezone)


@check_types
@dataclass(frozen=True, kw_only=True)
class ImageVersion:
    """An image that is published: the options of `ExtendedDlc` that decide its content."""

    transformers: str
    """As of `ExtendedDlc`."""

    accelerator: Literal["cpu", "gpu"] | None = None
    """As of `ExtendedDlc`; needed where neither the base nor the family says it. Default: what they say."""

    base: str | None = None
    """As of `ExtendedDlc`. Default: the newest base that can carry the release."""

    base_region: str | None = None
    """As of `ExtendedDlc`. Default: the stack's region."""

    family: Family | None = None
    """As of `ExtendedDlc`. Default: what the base says, otherwise `inference`."""

    server: Server = "native"
    """As of `ExtendedDlc`. Default: `native`."""

    model_types: Sequence[str] = ()
    """As of `ExtendedDlc`. Default: none."""

    rebuild: str | None = None
    """As of `ExtendedDlc`. Default: none."""


_NAME = re.compile(
    r"(?P<repository>[a-z0-9]+(?:[._/-][a-z0-9]+)*)/(?P<family>inference|vllm|training)"
    r"/(?P<transformers>\d+(?:\.\d+)+[a-z0-9.]*)/(?P<target>cpu|gpu|cu\d+)"
)


def parameter_name(repository: str, *, family: str, transformers: str, accelerator: str, cuda: str | None) -> str:
    """The name of an image's parameter: `/PREFIX/KEY/FAMILY/RELEASE/CUDA`, for an image in the repository `PREFIX/KEY`.

    The name contains what a synth must know of the image, so that a new value of the parameter never changes it.
    """
    return f"/{repository}/{family}/{transformers}/{cuda or accelerator}"


IMAGE_FACTS = ("family", "transformers", "accelerator", "cuda")
"""The options that describe an image that is published already."""


def facts_of_parameter(parameter: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the image: by the parameter's name, and by the options in `said`."""
    _check_parameter(parameter)
    found = _parse_parameter(parameter)
    known: dict[str, Any] = {}
    if found is not None:
        target = found["target"]
        known = {
            "family": found["family"],
            "transformers": found["transformers"],
            "accelerator": "cpu" if target == "cpu" else "gpu",
            "cuda": target if target.startswith("cu") else None,
        }
    for option, value in said.items():
        if value is None:
            continue
        if known.get(option) not in (None, value):
            raise OptionError(
                option,
                value,
                f"contradicts the parameter's name, which says {known[option]}: leave it out, or name the parameter of "
                "the image that you mean",
            )
        known[option] = value
    return known


def _check_parameter(parameter: str) -> None:
    if is_token(parameter):
        return
    if parameter.startswith("arn:"):
        if not re.fullmatch(r"arn:[\w-]+:ssm:[\w-]+:\d{12}:parameter/[\w./-]+", parameter):
            rule = "is no ARN of a parameter: write it as arn:aws:ssm:REGION:ACCOUNT:parameter/NAME"
            raise OptionError("parameter", parameter, rule)
    elif not re.fullmatch(r"[\w.-]+|(/[\w.-]+)+", parameter):
        rule = "is no name of a parameter: write it with a '/' in front of each part, as /images/text"
        raise OptionError("parameter", parameter, rule)


def _parse_parameter(parameter: str) -> re.Match[str] | None:
    if is_token(parameter):
        return None
    name = parameter.partition(":parameter/")[2] if parameter.startswith("arn:") else parameter.lstrip("/")
    return _NAME.fullmatch(name)


def repository_of_parameter(parameter: str) -> str:
    """The repository of the image by the parameter's name; `*` where the name has another form."""
    found = _parse_parameter(parameter)
    return found["repository"] if found is not None else "*"
