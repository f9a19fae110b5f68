"""Repositories of an embedded AWS."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tests.support.embedded import Aws


def repository(aws: Aws, name: str, **options: Any) -> str:
    """A repository of this name, made where a test comes first to it."""
    ecr = aws.client("ecr")
    with suppress(ecr.exceptions.RepositoryAlreadyExistsException):
        ecr.create_repository(repositoryName=name, **options)
    return name
