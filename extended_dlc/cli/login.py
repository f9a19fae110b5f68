"""`extended-dlc login`."""

from __future__ import annotations

import json

import click

from extended_dlc.app.read import SettingsError
from extended_dlc.cli._settings import decided, raw_settings
from extended_dlc.cli.prepare import log_in_to
from extended_dlc.terminal import Screen


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@click.option("--base", "bases", multiple=True, help="A base image of constructs of your own; instead of settings.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON to which registries, and why not to the others.")
def login(settings: str | None, bases: tuple[str, ...], as_json: bool) -> None:
    """Log the container engine in to the registries of the base images.

    Reads the settings in ./cdk.json, or the file that --settings or EXTENDED_DLC_SETTINGS names, and logs the engine
    (docker, or what CDK_DOCKER names) in to exactly the private ECR registries they need, with your AWS credentials.
    Always ends with status 0, so that it can run before every synth; what it cannot do, it says.
    """
    error: str | None = None
    if not bases:
        try:
            bases = decided(raw_settings(settings)).bases
        except SettingsError as wrong:
            error = f"the settings cannot be read ({wrong}); cdk synth says more. Without settings: --base IMAGE"
            Screen(err=True).line(f"extended-dlc login: {error}", "warning")
    done = {} if error else log_in_to(bases)
    if not done and error is None:
        names = ", ".join(f"'{base[:200]}'" for base in bases) or "no base image"
        Screen(err=True).line(
            f"extended-dlc login: nothing to log in to: {names} is in no private ECR registry "
            "(ACCOUNT.dkr.ecr.REGION.amazonaws.com/…)"
        )
    if as_json:
        registries = [{"registry": host, "logged_in": why is None, "error": why} for host, why in done.items()]
        click.echo(json.dumps({"registries": registries, "error": error}, indent=2))
