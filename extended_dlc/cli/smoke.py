"""`extended-dlc smoke`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import click

from extended_dlc import files
from extended_dlc.app.read import SettingsError
from extended_dlc.cli._settings import raw_settings
from extended_dlc.cli.exit_codes import FAILED, LEFT, OK, STOPPED
from extended_dlc.terminal import Screen

if TYPE_CHECKING:
    from extended_dlc.smoke import SmokeTest


@click.command()
@click.argument("region")
@click.option("--hourly-price", type=click.FloatRange(min=0, min_open=True), help="USD an hour of one instance there.")
@click.option(
    "--max-cost", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="USD in all."
)
@click.option("--max-minutes", type=click.FloatRange(min=0, min_open=True), help="Destroy after so many minutes.")
@click.option("--instance-type", default="ml.m5.xlarge", show_default=True, help="Of the two endpoints.")
@click.option("--yes", is_flag=True, help="Do not ask before it costs.")
@click.option("--settings", type=click.Path(dir_okay=False), help="Image and models. Default: those in cdk.json.")
@click.option("--app", type=click.Path(file_okay=False, exists=True), default=".", help="Folder of the app.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write steps, seconds, proofs and cost.")
@click.option(
    "--report",
    "confirmation",
    type=click.Path(dir_okay=False),
    is_flag=False,
    flag_value="smoke-report.json",
    help="Write which lines of docs/unconfirmed.md are confirmed, without the account's id. Default "
    "file: smoke-report.json.",
)
@click.option("--destroy", is_flag=True, help="Only destroy what a test that was killed left.")
@click.option("-v", "--verbose", is_flag=True, help="Print every line of the build and of the CDK.")
def smoke(
    region: str,
    hourly_price: float | None,
    max_cost: float,
    max_minutes: float | None,
    instance_type: str,
    yes: bool,
    settings: str | None,
    app: str,
    json_file: str | None,
    confirmation: str | None,
    destroy: bool,
    verbose: bool,
) -> None:
    """Deploy the app to your AWS account, ask BLOOM and Whisper, and destroy it. This costs money.

    Everything is destroyed again whatever happens: a failure, Ctrl-C, SIGTERM, the time limit. Ends with status 0 when
    both have answered and nothing is left, 1 when a step failed and 130 when it was stopped, with nothing left either,
    and 3 when something is left.
    """
    if not hasattr(signal, "SIGALRM"):
        raise click.ClickException("the time limit needs a signal that Windows has not: run it in WSL")
    from botocore.exceptions import BotoCoreError

    from extended_dlc.app.aws_names import check_region
    from extended_dlc.facts.instances import find_instance
    from extended_dlc.rehearsal.report import Report
    from extended_dlc.smoke import Budget, SmokeTest
    from extended_dlc.smoke.interrupts import Heedless

    report = Report(out=cast(TextIO, Heedless(sys.stdout)), verbose=verbose)
    minutes = 1 if destroy else max_minutes
    for name, value, check in (("REGION", region, check_region), ("--instance-type", instance_type, find_instance)):
        try:
            check(value)
        except ValueError as error:
            raise click.UsageError(f"'{name}' ({value[:100]}) {error}") from None
    try:
        budget = Budget(instance_type=instance_type, hourly_price=hourly_price, max_cost=max_cost, max_minutes=minutes)
        given = raw_settings(settings, folder=Path(app)).content
        file = Path(confirmation) if confirmation else None
        test = SmokeTest(Path(app), region, budget=budget, report=report, settings=given, confirmation=file)
    except (SettingsError, ValueError, OSError, BotoCoreError) as error:
        raise click.ClickException(str(error)) from None
    try:
        status = _run(test, destroy=destroy, yes=yes)
    finally:
        if json_file and report.steps:
            _write(test, Path(json_file))
    if status == OK and not destroy:
        _say_passed(test)
    sys.exit(status)


def _run(test: SmokeTest, *, destroy: bool, yes: bool) -> int:
    """Run the test, or destroy what an earlier one left; returns the exit status."""
    from botocore.exceptions import BotoCoreError, ClientError

    from extended_dlc.rehearsal.report import StepFailed
    from extended_dlc.smoke import SomethingIsLeft

    try:
        if destroy:
            test.destroy()
        else:
            click.echo(f"account {test.account()}, {test.region}: {test.budget.description()}")
            if not yes:
                click.confirm("Deploy?", abort=True)
            test.run()
    except (SettingsError, ValueError, OSError, BotoCoreError, ClientError) as error:
        raise click.ClickException(str(error)) from None
    except StepFailed:
        return FAILED
    except KeyboardInterrupt:
        Screen(err=True).line("stopped; what was deployed is destroyed", "warning")
        return STOPPED
    except SomethingIsLeft as error:
        Screen(err=True).line(f"SOMETHING IS LEFT IN YOUR ACCOUNT: {error}", "problem")
        return LEFT
    return OK if all(step.ok for step in test.report.steps) else FAILED


def _write(test: SmokeTest, file: Path) -> None:
    """Write the report, with what the test ran on and its cost."""
    test.report.write(file)
    content = json.loads(file.read_text("utf-8"))
    files.write(file, json.dumps({**content, **test.summary()}, indent=2) + "\n")


def _say_passed(test: SmokeTest) -> None:
    cost = test.summary()["estimated_cost_usd"]
    costs = f", about USD {cost:.2f}" if cost else ""
    Screen().line(f"the smoke test passed in {test.report.seconds:.0f} s{costs}", "ok")
