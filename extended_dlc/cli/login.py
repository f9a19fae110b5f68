"""`extended-dlc login`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from extended_dlc.login import LoginFailed, base_images, ecr_registries, engine_program, log_in


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@click.option("--base", "bases", multiple=True, help="A base image of constructs of your own; instead of settings.")
def login(settings: str | None, bases: tuple[str, ...]) -> None:
    """Log the container engine in to the registries of the base images.

    Reads the settings in ./cdk.json, or the file that --settings or EXTENDED_DLC_SETTINGS names, and logs the engine
    (docker, or what CDK_DOCKER names) in to exactly the private ECR registries they need, with your AWS credentials.
    Always ends with status 0, so that it can run before every synth; what it cannot do, it says.
    """
    engine = engine_program()
    try:
        registries = ecr_registries(bases or base_images(_read(settings or os.environ.get("EXTENDED_DLC_SETTINGS"))))
    except (OSError, ValueError) as error:
        click.echo(f"extended-dlc login: the settings cannot be read ({error}); cdk synth says more", err=True)
        return
    for registry in registries:
        try:
            log_in(registry, engine)
            click.echo(f"extended-dlc login: {engine} is logged in to {registry.host}", err=True)
        except LoginFailed as error:
            click.echo(
                f"extended-dlc login: not logged in to {registry.host}, from which the base image comes: {error}.\n"
                "  A synth works without; to build the image, run 'extended-dlc login' again before 'cdk deploy'.",
                err=True,
            )


def _read(file: str | None) -> dict[str, Any]:
    """The settings as they stand, with the `EXTENDED_DLC_` variables that decide on the base."""
    if file is None:
        raw = json.loads(Path("cdk.json").read_text()).get("context", {}).get("extended-dlc", {})
    elif file.endswith(".json"):
        raw = json.loads(Path(file).read_text())
    else:
        import yaml

        try:
            raw = yaml.safe_load(Path(file).read_text())
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    if not isinstance(raw, dict):
        raise ValueError("they are no object")
    if region := os.environ.get("EXTENDED_DLC_REGION"):
        raw["region"] = region
    if (release := os.environ.get("EXTENDED_DLC_TRANSFORMERS")) and isinstance(raw.get("image"), dict):
        raw["image"]["transformers"] = release
    if instance_type := os.environ.get("EXTENDED_DLC_INSTANCE_TYPE"):
        for endpoint in (raw.get("endpoints") or {}).values():
            endpoint.setdefault("hosting", {})["instance_type"] = instance_type
    return raw
