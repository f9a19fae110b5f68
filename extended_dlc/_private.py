"""Helpers of the constructs; not part of the public interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aws_cdk import Token


def docker_folder(family: str) -> Path:
    """The build context of an image family: `docker/<family>` beside the package in a checkout, inside in a wheel."""
    package = Path(__file__).parent
    inside = package / "docker" / family
    return inside if inside.is_dir() else package.parent / "docker" / family


def require(option: str, value: Any, check: Callable[[Any], object]) -> None:
    """Run a check of `facts.checks`; raise its error with the option and the value in front. CDK tokens pass."""
    if Token.is_unresolved(value):
        return
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"'{option}' ({value}) {error}") from None
