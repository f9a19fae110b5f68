"""`extended-dlc rehearse`."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import click


@click.command()
@click.option(
    "--app", type=click.Path(file_okay=False, exists=True), default=".", help="Folder of the app. Default: here."
)
@click.option(
    "--scenario",
    type=click.Choice(["main", "tutorial", "training", "training-hosts"]),
    default="main",
    show_default=True,
    help="main: BLOOM and Whisper answer. tutorial: AWS's own image fails at the first request; extended, it answers. "
    "training: a model is trained, judged, and served where it got better. training-hosts: two hosts train one model.",
)
@click.option("--keep", is_flag=True, help="Leave everything up at the end and print the environment to export.")
@click.option("--down", is_flag=True, help="End what --keep left up.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False), help="Write each step, its seconds and its proof."
)
def rehearse(app: str, scenario: str, keep: bool, down: bool, json_file: str | None) -> None:
    """Deploy the app for real on this machine, with no AWS account.

    The real CDK CLI and the real container engine deploy the app in this folder to AWS services embedded here; then
    BLOOM and Whisper answer through boto3, the model is changed and changed back, and everything is destroyed.

    One rehearsal has the folder at a time: a second one says which process has it, and one that was kept up stays until
    --down. What a killed one left, the next takes down first.
    """
    if missing := [package for package in ("moto", "werkzeug", "yaml") if find_spec(package) is None]:
        raise click.ClickException(
            f"the rehearsal needs {', '.join(missing)}: install it with pip install 'extended-dlc[rehearse]'"
        )
    from extended_dlc.rehearsal.report import Report, StepFailed
    from extended_dlc.rehearsal.run import Rehearsal

    signal.signal(signal.SIGTERM, _as_interrupt)
    report = Report()
    try:
        rehearsal = Rehearsal(Path(app), report)
        if down:
            click.echo(rehearsal.down())
            return
        rehearsal.run(scenario, keep=keep)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    except StepFailed:
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("stopped; everything that was started is down again", err=True)
        sys.exit(130)
    finally:
        if json_file and report.steps:
            report.write(Path(json_file))
    if report.steps:
        downloads = f", downloads {report.download_seconds:.0f} s" if report.download_seconds >= 1 else ""
        click.echo(f"the rehearsal passed in {report.seconds:.0f} s{downloads}")


def _as_interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
