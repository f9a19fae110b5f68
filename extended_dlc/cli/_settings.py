"""The app's settings for commands: read, checked and decided as the app does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from extended_dlc.app.read import OVERRIDES, Raw, read_lookups, read_raw
from extended_dlc.facts.sizing import Load

F = TypeVar("F", bound=Callable[..., Any])


def override_options(command: F) -> F:
    """The options of a command that go over single settings, as `-c` does for the app."""
    for override in reversed(list(OVERRIDES.values())):
        command = click.option(f"--{override.key.replace('_', '-')}", help=f"{override.what.capitalize()}.")(command)
    return command


def raw_settings(file: str | None, *, folder: Path = Path(), overrides: Mapping[str, str | None] | None = None) -> Raw:
    """The settings as they stand; `SettingsError` for what cannot be read.

    The region of settings that name none is the one that the CDK CLI would deploy to.
    """
    raw = read_raw({"settings": file, **(overrides or {})}, folder=folder)
    if not raw.content.get("region") and (region := cli_region()):
        raw.content["region"] = region
    return raw


def decided(raw: Raw, *, folder: Path = Path(), load: Load | None = None) -> Any:
    """The settings, typed and decided (`extended_dlc.app.settings.Read`)."""
    from extended_dlc.app.settings import read  # pydantic takes half a second

    return read(raw, looked_up={**read_lookups(raw.file, folder), **looked_up(folder)}, load=load)


def looked_up(folder: Path = Path()) -> dict[str, Any]:
    """What cdk.context.json holds; nothing where there is none."""
    try:
        context = json.loads((folder / "cdk.context.json").read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise click.ClickException(f"cdk.context.json cannot be read: {error}") from None
    return context if isinstance(context, dict) else {}


def cli_region() -> str | None:
    """The region that the CDK CLI would deploy to: of the environment, or of the caller's AWS profile."""
    if named := os.environ.get("AWS_REGION"):
        return named
    import boto3

    try:
        region: str | None = boto3.Session().region_name
    except Exception:  # a profile that cannot be read, which others report
        return None
    return region
