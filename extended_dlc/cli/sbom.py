"""`extended-dlc sbom`."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import click

from extended_dlc import files
from extended_dlc.images import vulnerabilities as known
from extended_dlc.images.registry_login import engine_program, no_engine
from extended_dlc.programs.build_image import (
    BuildError,
    Docker,
    bill_of_materials,
    change_lines,
    compare,
    list_packages,
)
from extended_dlc.running import run
from extended_dlc.terminal import Screen, Waiting

_HOUR = 3600.0


class _Engine(Docker):
    """The engine, whose container ends with this command: in CodeBuild, for which `Docker` is, the machine ends."""

    def _run(self, *arguments: str) -> CompletedProcess[str]:
        return run([engine_program(), *arguments])


@click.command()
@click.argument("image")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write. Default: standard output."
)
@click.option(
    "--since",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An earlier bill of materials: say what changed in packages since.",
)
@click.option("--vulnerabilities", is_flag=True, help="Ask OSV which vulnerabilities the packages are known for.")
@click.option("--database", default=known.OSV, show_default=True, help="Address of a service with OSV's API.")
def sbom(image: str, output: Path | None, since: Path | None, vulnerabilities: bool, database: str) -> None:
    """Write the bill of materials of IMAGE: CycloneDX 1.6 with its Python packages, their versions and licences.

    Runs the image with the container engine (docker, or what CDK_DOCKER names) without a network, and pulls it where
    the engine does not have it. The operating system, CUDA and its drivers are AWS's part, and are not in it.

    --vulnerabilities sends the packages' names and versions to OSV, prints what is known and adds it to the file. It
    decides on nothing: the exit code is 0 whatever is found, and where the database cannot be reached.
    """
    if not re.fullmatch(r"https?://[^\s/]+\S*", database):
        raise click.BadParameter(f"'{database}' is no address: write it with https://", param_hint="--database")
    docker = _Engine(time.monotonic() + _HOUR, engine_program())
    try:
        earlier = json.loads(since.read_text("utf-8")) if since else None
        with Waiting("asking the image for its packages", out=sys.stderr):
            listed = list_packages(docker, image)
    except BuildError as error:
        raise click.ClickException(f"{error}; 'extended-dlc login' logs in to AWS's registries") from None
    except OSError as error:
        raise click.ClickException(no_engine(engine_program(), error.strerror)) from None
    except ValueError:  # not JSON, or not even text
        raise click.ClickException(f"{since} is no bill of materials: name a file that this command wrote") from None
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    bill = bill_of_materials(listed, image=image, base=None, base_digest=None, made=made)
    if earlier is not None:
        try:
            changes = change_lines(compare(earlier, bill))
        except (KeyError, TypeError):
            raise click.ClickException(f"{since} is no bill of materials of this command's form") from None
        for line in changes:
            Screen(err=True).line(line)
    if vulnerabilities:
        _look_up(bill, database)
    text = json.dumps(bill, indent=1) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    files.write(output, text)
    Screen().line(f"{output}: {len(bill['components'])} packages of {image}", "ok")


def _look_up(bill: dict[str, Any], database: str) -> None:
    """Add the known vulnerabilities to the bill; a bill without that key is of packages that nobody looked up."""
    screen = Screen(err=True)
    try:
        with Waiting("asking OSV for known vulnerabilities", out=sys.stderr):
            found = known.look_up(bill, database=database)
    except known.Unreachable as error:
        screen.line(f"known vulnerabilities were not looked up: {error}", "warning")
        return
    bill["vulnerabilities"] = found
    bill["metadata"]["properties"].append({"name": "extended-dlc:vulnerabilities-of", "value": database})
    for line in known.lines(found):
        screen.line(line)
    count = f"{len(found)} known vulnerabilities" if len(found) != 1 else "1 known vulnerability"
    screen.line(f"{count} in {len(bill['components'])} packages, by {database}", "warning" if found else "ok")
