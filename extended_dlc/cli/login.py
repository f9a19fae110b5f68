"""`extended-dlc login`."""

from __future__ import annotations

import click

from extended_dlc.app.read import SettingsError
from extended_dlc.cli._settings import decided, raw_settings
from extended_dlc.login import LoginFailed, bases_to_pull, ecr_registries, engine_program, log_in


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
        registries = ecr_registries(bases or bases_to_pull(decided(raw_settings(settings)).decision))
    except SettingsError as error:
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
