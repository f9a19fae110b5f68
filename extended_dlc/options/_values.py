"""Errors about options, and the test for values that only CloudFormation knows (CDK tokens)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from extended_dlc.facts.checks import check_tags
from extended_dlc.facts.limits import limit

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2

    from extended_dlc.facts.instances import Instance

T = TypeVar("T")

_NOT_NAMED: Any = object()


class OptionError(ValueError):
    """An option that is refused: its name, its value, and the rule with the way out."""

    def __init__(self, option: str, value: object = _NOT_NAMED, rule: str = "") -> None:
        """Refuse `option`; without a value, the message has the rule alone."""
        self.option = option
        self.value = None if value is _NOT_NAMED else "a CDK token" if is_token(value) else str(value)
        self.rule = rule
        self.others: tuple[OptionError, ...] = ()
        """Further errors, where one check finds several."""
        super().__init__(f"'{option}' {rule}" if self.value is None else f"'{option}' ({self.value}) {rule}")


def refuse_all(errors: Iterable[OptionError]) -> None:
    """Raise the first of these errors, with the others in `others`; do nothing without errors."""
    found = tuple(errors)
    if found:
        found[0].others = found[1:]
        raise found[0]


def is_token(value: object) -> bool:
    """Whether a value is a CDK token, which only CloudFormation resolves.

    The form shows it: the CDK encodes a string with `${Token[`, a number as a double near -1.9e289, a list as one
    element that begins with `#{Token[`, and any other value as an object that has `resolve`, which paths have too.
    """
    if isinstance(value, (int, float)):
        return -1e290 < value < -1e280  # and not infinity, which is no token
    if isinstance(value, str):
        return "Token[" in value
    if isinstance(value, (list, tuple)):
        return len(value) == 1 and isinstance(value[0], str) and value[0].startswith("#{Token[")
    return hasattr(value, "resolve") and not isinstance(value, PurePath)


def holds_token(value: object) -> bool:
    """Whether a value is a CDK token, or a list or a mapping with one at any depth."""
    if is_token(value):
        return True
    if isinstance(value, Mapping):
        return any(map(holds_token, (*value.keys(), *value.values())))
    return isinstance(value, (list, tuple)) and any(map(holds_token, value))


def require_known(option: str, value: object, because: str) -> None:
    """Refuse a CDK token, or what holds one, in an option that the synth itself reads."""
    if holds_token(value):
        raise OptionError(
            option,
            "a CDK token",
            f"must be known at synth, because {because}: pass the value itself, as from the CDK's context (-c)",
        )


def require_length(option: str, value: object) -> None:
    """Refuse a CDK token in the place of a list whose elements become parts of the template; elements may be tokens."""
    if isinstance(value, (list, tuple)) and is_token(value):
        raise OptionError(
            option,
            "a CDK token",
            "must be a list whose length is known at synth: pass its elements, as [Fn.select(0, …), Fn.select(1, …)]",
        )


def require(option: str, value: Any, check: Callable[[Any], T]) -> T | None:
    """The result of a check of `facts`; its error gets the option and the value in front. None for a CDK token."""
    if is_token(value):
        return None
    return naming_option(option, value, lambda: check(value))


def naming_option(option: str, value: object, decision: Callable[[], T]) -> T:
    """The result of a decision of `facts`; its error gets the option and the value in front."""
    try:
        return decision()
    except ValueError as error:
        raise OptionError(option, value, str(error)) from None


def require_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that AWS refuses; a key or a value that is a CDK token passes."""
    try:
        check_tags({key: "" if is_token(value) else value for key, value in tags.items() if not is_token(key)})
    except ValueError as error:
        raise OptionError("tags", rule=str(error)) from None


def within(option: str, value: float | None, low: float, high: float | None, way_out: str) -> None:
    """Refuse a number outside a range, whose upper end may be open. None and CDK tokens pass."""
    if value is None or any(map(is_token, (value, low, high))):
        return
    if value < low or (high is not None and value > high):
        limits = f"{low:.15g} or more" if high is None else f"from {low:.15g} to {high:.15g}"
        raise OptionError(option, value, f"must be {limits}: {way_out}")


def within_limit(option: str, value: float | None, name: str, way_out: str) -> None:
    """Refuse a number outside one of SageMaker's limits."""
    found = limit(name)
    within(option, value, found.min or 0, found.max, way_out)


def refuse_wildcards(key: str) -> None:
    """Refuse a key of S3 with a character that a policy takes for others; the error completes "`key` (<value>) …"."""
    if found := next((each for each in "*?" if each in key), None):
        raise ValueError(
            f"has a '{found}', for which a role's policy would take any characters, and so grant other objects: copy "
            "the objects to keys without it"
        )


def check_timezone(timezone: str) -> None:
    """Refuse a name that is not in IANA's database. A CDK token passes."""
    from zoneinfo import available_timezones  # imported here because few apps have a schedule

    if not is_token(timezone) and timezone not in available_timezones():
        raise OptionError("timezone", timezone, "is not in the time zone database: say Europe/Berlin or UTC")


def instance_names(given: str | ec2.InstanceType | Sequence[str | ec2.InstanceType]) -> tuple[str, ...]:
    """SageMaker's names of instance types: EC2's names get the prefix `ml.`. `OptionError` for any other object."""
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if several is given and is_token(given):
        raise OptionError(
            "instance_type", rule="is a CDK token of a list, whose length must be known: pass [Fn.select(0, types)]"
        )
    return tuple(map(_instance_name, several))


def check_fleet(names: Sequence[str], found: Sequence[Instance], does: str) -> None:
    """Refuse a type that is named twice, and types that compute with different accelerators.

    :param does: What one image does on each of them: `serves`.
    """
    if len(set(names)) < len(names):
        raise OptionError("instance_type", ", ".join(names), "names a type twice: name each once")
    if len({each.accelerator for each in found}) > 1:
        raise OptionError(
            "instance_type",
            ", ".join(f"{each.name} with {each.accelerator}" for each in found),
            f"must all compute with the same, because one image {does} on each: name types of one kind",
        )


def _instance_name(given: object) -> str:
    if isinstance(given, str):
        return given
    # Compared by the name of the class, because options do not import the CDK.
    if type(given).__name__ != "InstanceType" or not hasattr(given, "to_string"):
        raise OptionError(
            "instance_type",
            repr(given),
            'must be the name of a type, an ec2.InstanceType or a list of these: write "ml.g5.xlarge"',
        )
    name = str(given.to_string())
    return name if name.startswith("ml.") else f"ml.{name}"
