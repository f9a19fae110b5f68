"""Reads, checks and decides the app's settings for commands, as the app does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from extended_dlc.app.read import OVERRIDES, Raw, SettingsError, known_models, read_context_file, read_raw
from extended_dlc.decisions.sizing import Load

F = TypeVar("F", bound=Callable[..., Any])


def override_options(command: F) -> F:
    """Add the options that override single settings, as `-c` does for the app."""
    for override in reversed(list(OVERRIDES.values())):
        command = click.option(f"--{override.key.replace('_', '-')}", help=f"{override.what.capitalize()}.")(command)
    return command


def raw_settings(file: str | None, *, folder: Path = Path(), overrides: Mapping[str, str | None] | None = None) -> Raw:
    """The unchecked content of the settings; raises `SettingsError` if they cannot be read.

    Without a region in the settings it is the one that the CDK CLI would deploy to.
    """
    raw = read_raw({"settings": file, **(overrides or {})}, folder=folder)
    if raw.base_region is None and (region := cli_region()):
        raw.content["region"] = raw.content.get("region") or region
        raw = replace(raw, base_region=region)
    return raw


def decided(raw: Raw, *, folder: Path = Path(), load: Load | None = None) -> Any:
    """The settings with their types and decisions (`extended_dlc.app.settings.Read`)."""
    from extended_dlc.app.settings import read  # importing pydantic takes half a second

    return read(raw, looked_up=known_models(raw.file, folder), load=load)


def looked_up() -> dict[str, Any]:
    """The content of cdk.context.json; ends the command if it cannot be read."""
    try:
        return read_context_file()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def cli_region() -> str | None:
    """The region that the CDK CLI would deploy to: that of the environment, or of the AWS profile."""
    if named := os.environ.get("AWS_REGION"):
        return named
    import boto3

    try:
        region: str | None = boto3.Session().region_name
    except Exception:  # an unreadable profile, which other code reports
        return None
    return region


def require_training(name: str, raw: Raw) -> None:
    """Refuse a name that is no training of the settings."""
    from extended_dlc.facts._tables import did_you_mean

    trainings = raw.content.get("training")
    known = sorted(trainings) if isinstance(trainings, dict) else []
    if name not in known:
        choices = f": there are {', '.join(known)}" if known else ": the settings have none under 'training'"
        raise click.ClickException(f"'{name}' is no training of the settings{did_you_mean(name, known) or choices}")
