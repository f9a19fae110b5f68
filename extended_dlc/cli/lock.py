"""`extended-dlc lock`."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from extended_dlc import files
from extended_dlc.app.read import SettingsError
from extended_dlc.cli._settings import decided, raw_settings
from extended_dlc.facts.compat import check_stock_server
from extended_dlc.images.registry_login import engine_program, no_engine
from extended_dlc.installed import docker_folder
from extended_dlc.options.lock import write_lock
from extended_dlc.running import run
from extended_dlc.terminal import Screen, Waiting

_OF_ENGINE = (125, 126, 127)
"""The exit statuses of `docker run` and `podman run` that are the engine's own, and not the container's."""


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@click.option("--output", default="extended-dlc.lock", show_default=True, type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print what was locked as JSON.")
def lock(settings: str | None, output: str, as_json: bool) -> None:
    """Write down what the image's layer installs: names, versions and hashes, for the base's own Python.

    Runs the base with the container engine (docker, or what CDK_DOCKER names), asks its pip what it would install, and
    installs nothing. Commit the file and name it as image.lock in the settings, or ExtendedDlc(lock=…). Builds then
    install just that until you lock again.
    """
    try:
        image = decided(raw_settings(settings)).decision.image
    except SettingsError as error:
        raise click.ClickException(f"the settings do not say which image: {error}; cdk synth says more") from None
    if image.kind != "extended" or image.base is None:
        raise click.ClickException("there is nothing to lock: the image is not extended")
    with Waiting("asking the base's pip what it would install", out=sys.stderr):
        report = _report(image)
    text = write_lock(report, base=image.base, day=datetime.now(timezone.utc).date().isoformat())
    files.write(Path(output), text)
    count = text.count("--hash=")
    if as_json:
        click.echo(json.dumps({"file": output, "base": image.base, "packages": count}, indent=2))
        return
    Screen().line(f"{output}: {count} packages for {image.base}; commit it, and name it as image.lock", "ok")


def _report(image: Any) -> Any:
    """The installation report of the base's pip, which installs nothing."""
    family = "training" if image.family == "training" else "inference"
    server = image.family if image.family in ("training", "vllm") else image.server
    python = "python3" if server == "vllm" else "python"
    along = check_stock_server(image.base, image.transformers).needs if server == "stock" else ()
    requirements = docker_folder(family) / "requirements.txt"
    at = "/opt/extended-dlc/build"
    mounts = [(docker_folder("inference") / name, f"{at}/{name}") for name in ("install.py", "protected.txt")]
    command = [
        *(engine_program(), "run", "--rm", f"--entrypoint={python}"),
        *(f"--volume={source}:{target}:ro" for source, target in (*mounts, (requirements, f"{at}/requirements.txt"))),
        *(image.base, "-B", f"{at}/install.py", "--report", f"--server={server}", image.transformers, " ".join(along)),
    ]
    try:
        done = run(command)
    except OSError as error:
        raise click.ClickException(no_engine(command[0], error.strerror)) from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()[-5:]
        says_no = "the base's pip says no:"
        if done.returncode in _OF_ENGINE:
            says_no = f"{command[0]} cannot run {image.base}; for AWS's images log in: extended-dlc login"
        raise click.ClickException("\n".join([says_no, *lines]))
    return json.loads(done.stdout[done.stdout.index("{") :])
