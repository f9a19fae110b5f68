"""Writes what a smoke test confirmed to a file that can be shared: `write_confirmation`."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("extended-dlc", "aws-cdk-lib", "cdk-ecr-deployment", "boto3")


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """The environment of a test."""

    account: str
    """The account's id, which is not written to the file."""

    date: str
    """Such as 2026-11-27."""

    region: str
    instance_type: str
    base: str | None
    transformers: str | None
    engine: str
    """The container engine's name and version."""

    builder: str
    """BuildKit's version and the image store."""

    cdk: str
    """The release of the CDK CLI."""

    passed: bool


def write_confirmation(file: Path, seen: Circumstances, claims: Mapping[str, tuple[bool, str]]) -> None:
    """Write the confirmed and the open claims as JSON, without the account's id."""
    installed = {name: _version(name) for name in _PACKAGES}
    with_what = f"{seen.engine}, {seen.builder}"
    content = {
        "date": seen.date,
        "region": seen.region,
        "passed": seen.passed,
        "instance_type": seen.instance_type,
        "base": seen.base,
        "engine": seen.engine,
        "builder": seen.builder,
        "transformers": seen.transformers,
        "packages": {**installed, "aws-cdk": seen.cdk, "python": platform.python_version()},
        "confirmed": {
            name: f"{seen.date}, {seen.region}, {with_what}: {why}" for name, (done, why) in claims.items() if done
        },
        "open": {name: why for name, (done, why) in claims.items() if not done},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(without_account(content, seen.account), indent=2) + "\n")


def without_account(content: Any, account: str) -> Any:
    """The content with `ACCOUNT` instead of the account's id, in keys too and with any separators."""
    # Other ids of twelve digits stay, such as those of AWS's registries.
    pattern = re.compile(rf"(?<!\d){'[- ]?'.join(map(re.escape, account))}(?!\d)")
    if isinstance(content, str):
        return pattern.sub("ACCOUNT", content)
    if isinstance(content, Mapping):
        return {without_account(key, account): without_account(value, account) for key, value in content.items()}
    return [without_account(each, account) for each in content] if isinstance(content, list | tuple) else content


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
