"""Helpers of the constructs; not part of the public interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from aws_cdk import Token

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
