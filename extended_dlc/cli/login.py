"""`extended-dlc login`."""

from __future__ import annotations

import click

from extended_dlc.app.read import SettingsError
from extended_dlc.cli._settings import decided, raw_settings
from extended_dlc.cli.prepare import log_in_to


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@click.option("--base", "bases", multiple=True, help="A base image of constructs of your own; instead of settings.")
def login(settings: str | None, bases: tuple[str, ...]) -> None:
    """Log the container engine in to the registries of the base images.

    Reads the settings in ./cdk.json, or the file that --settings or EXTENDED_DLC_SETTINGS names, and logs the engine
    (docker, or what CDK_DOCKER names) in to exactly the private ECR registries they need, with your AWS credentials.
    Always ends with status 0, so that it can run before every synth; what it cannot do, it says.
    """
    if bases:
        log_in_to(bases)
        return
    try:
        bases = decided(raw_settings(settings)).bases
    except SettingsError as error:
        click.echo(f"extended-dlc login: the settings cannot be read ({error}); cdk synth says more", err=True)
        return
    log_in_to(bases)
