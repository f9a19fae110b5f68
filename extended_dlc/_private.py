"""Helpers of the constructs; not part of the public interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from aws_cdk import Aws, Stack, Token
from constructs import Construct

from extended_dlc.facts.limits import limit


def docker_folder(family: str) -> Path:
    """The build context of an image family: `docker/<family>` beside the package in a checkout, inside in a wheel."""
    package = Path(__file__).parent
    inside = package / "docker" / family
    return inside if inside.is_dir() else package.parent / "docker" / family


def is_token(value: object) -> bool:
    """Whether a value stands for one that CloudFormation knows later.

    A plain number or text is told from a token here: an endpoint has dozens, and each question to the CDK is a call to
    another process. The CDK writes a numeric token as a double near -1.9e289.
    """
    if isinstance(value, (int, float)):
        return value < -1e280
    if isinstance(value, str):
        return "Token[" in value
    return bool(Token.is_unresolved(value))


@dataclass(frozen=True)
class Place:
    """The stack that a construct is in, and where that is deployed: texts, or tokens where it may be anywhere."""

    stack: Stack
    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        """The ARN of something there, as `Stack.format_arn` makes it."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def component_arns(self, name: str) -> list[str]:
        """Of an inference component: policies are compared with the name as it was given, or in small letters."""
        return [self.arn("sagemaker", f"inference-component/{each}") for each in sorted({name, name.lower()})]


# kept, because each question to the CDK is a call to another process: those of one endpoint, and of few stacks
_stack_of = lru_cache(maxsize=1)(Stack.of)


@lru_cache(maxsize=8)
def _place_of(stack: Stack) -> Place:
    return Place(stack, stack.partition, stack.region, stack.account)


def place_of(scope: Construct) -> Place:
    """Where a construct is deployed."""
    return _place_of(_stack_of(scope))


@cache
def any_partition() -> str:
    """The token for AWS's partition, the same in all stacks."""
    return Aws.PARTITION


T = TypeVar("T")


def require(option: str, value: Any, check: Callable[[Any], T]) -> T | None:
    """What a check of `facts` finds; its error gets the option and the value in front. CDK tokens pass, as None."""
    if is_token(value):
        return None
    return decide(option, value, lambda: check(value))


def decide(option: str, value: object, decision: Callable[[], T]) -> T:
    """What a decision of `facts` comes to; its error gets the option and the value that it was about in front."""
    try:
        return decision()
    except ValueError as error:
        raise ValueError(f"'{option}' ({value}) {error}") from None


def within(option: str, value: float | None, low: float, high: float | None, way_out: str) -> None:
    """Refuse a number outside a range, whose upper end may be open. None and CDK tokens pass."""
    if value is None or any(map(is_token, (value, low, high))):
        return
    if value < low or (high is not None and value > high):
        limits = f"{low:g} or more" if high is None else f"from {low:g} to {high:g}"
        raise ValueError(f"'{option}' ({value}) must be {limits}: {way_out}")


def within_limit(option: str, value: float | None, name: str, way_out: str) -> None:
    """Refuse a number outside one of SageMaker's limits."""
    found = limit(name)
    within(option, value, found.min or 0, found.max, way_out)
