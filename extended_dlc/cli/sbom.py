"""`extended-dlc sbom`."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import click

from extended_dlc.images.registry_login import engine_program
from extended_dlc.programs.build_image import (
    BuildError,
    Docker,
    bill_of_materials,
    change_lines,
    compare,
    list_packages,
)
from extended_dlc.terminal import Screen, Waiting

_HOUR = 3600.0


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
def sbom(image: str, output: Path | None, since: Path | None) -> None:
    """Write the bill of materials of IMAGE: CycloneDX 1.6 with its Python packages, their versions and licences.

    Runs the image with the container engine (docker, or what CDK_DOCKER names) without a network, and pulls it where
    the engine does not have it. The operating system, CUDA and its drivers are AWS's part, and are not in it.
    """
    docker = Docker(time.monotonic() + _HOUR, engine_program())
    try:
        earlier = json.loads(since.read_text()) if since else None
        with Waiting("asking the image for its packages", out=sys.stderr):
            listed = list_packages(docker, image)
    except BuildError as error:
        raise click.ClickException(f"{error}; 'extended-dlc login' logs in to AWS's registries") from None
    except OSError as error:
        raise click.ClickException(f"{error}; install Docker, or name your engine in CDK_DOCKER") from None
    except json.JSONDecodeError:
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
    text = json.dumps(bill, indent=1) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text)
    Screen().line(f"{output}: {len(bill['components'])} packages of {image}", "ok")
