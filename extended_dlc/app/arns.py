"""Checks of the ARNs in the settings: their service, and the partition and region of the deployment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from extended_dlc.app.aws_names import check_arn
from extended_dlc.app.section import Section

SERVICES = {
    "alarm_topic": "sns",
    "encryption_key": "kms",
    "error_topic": "sns",
    "log_key": "kms",
    "permissions_boundary": "iam",
    "repository": "ecr",
    "role": "iam",
    "success_topic": "sns",
    "token_secret": "secretsmanager",
    "topic_key": "kms",
}
"""The settings that hold an ARN, or may hold one, with the service of the ARN."""

ONLY_ARNS = frozenset({"encryption_key", "log_key", "permissions_boundary", "role", "topic_key"})
"""The settings that take only an ARN; the others also take a name."""


def wrong_arns(section: Section, path: str, region: str) -> Iterator[str]:
    """The problems with the ARNs of the section at `path`, one line each."""
    for setting, name, value in _texts(section, path):
        service = SERVICES.get(name)
        if service is None or not (value.startswith("arn:") or name in ONLY_ARNS or "${" in value):
            continue
        try:
            check_arn(value, service=service, region=region)
        except ValueError as error:
            yield f"{setting} ({value}): {error}"


def _texts(section: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Every string in the settings, with its path and its name."""
    if isinstance(section, BaseModel):
        for name in section.model_fields_set:
            value = getattr(section, name)
            inside = f"{path}.{name}".lstrip(".")
            if isinstance(value, str):
                yield inside, name, value
            else:
                yield from _texts(value, inside)
    elif isinstance(section, dict):
        for key, value in section.items():
            if not isinstance(value, str):
                yield from _texts(value, f"{path}.{key}")
    elif isinstance(section, list):
        for number, value in enumerate(section):
            yield from _texts(value, f"{path}.{number}")
