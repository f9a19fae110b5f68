"""Helpers of the constructs; not part of the public interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from aws_cdk import Token


def docker_folder(family: str) -> Path:
    """The build context of an image family: `docker/<family>` beside the package in a checkout, inside in a wheel."""
    package = Path(__file__).parent
    inside = package / "docker" / family
    return inside if inside.is_dir() else package.parent / "docker" / family


T = TypeVar("T")


def require(option: str, value: Any, check: Callable[[Any], T]) -> T | None:
    """What a check of `facts` finds; its error gets the option and the value in front. CDK tokens pass, as None."""
    if Token.is_unresolved(value):
        return None
    return decide(option, value, lambda: check(value))


def decide(option: str, value: object, decision: Callable[[], T]) -> T:
    """What a decision of `facts` comes to; its error gets the option and the value that it was about in front."""
    try:
        return decision()
    except ValueError as error:
        raise ValueError(f"'{option}' ({value}) {error}") from None
