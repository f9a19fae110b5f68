"""What a smoke test confirmed, as a file that others may read: `write_confirmation`."""

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
    """Where and with what a test ran."""

    account: str
    """The account's id, which is in no line of the file."""

    date: str
    """As 2026-11-27."""

    region: str
    instance_type: str
    base: str | None
    transformers: str | None
    engine: str
    """The container engine's name and version."""

    builder: str
    """BuildKit's version and the image store."""

    cdk: str
    """The release of the CDK's command line."""

    passed: bool


def write_confirmation(file: Path, seen: Circumstances, claims: Mapping[str, tuple[bool, str]]) -> None:
    """Write what was confirmed and what is still open, as JSON without the account's id."""
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
    """The content with `ACCOUNT` in the place of the account's id, in keys and however it is written."""
    # AWS's own registries have ids of twelve digits, too: those stay
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
