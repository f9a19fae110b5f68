"""`extended-dlc doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import click

from extended_dlc.app.read import Raw, SettingsError
from extended_dlc.cli._settings import decided, raw_settings
from extended_dlc.cli.exit_codes import FAILED, OK
from extended_dlc.doctor import CHECKS, Finding, Ok, Problem, Target, examine
from extended_dlc.images.registry_login import engine_program
from extended_dlc.terminal import Screen, Waiting


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@click.option(
    "--skip", multiple=True, metavar="CHECK", type=click.Choice([check.name for check in CHECKS]), help="Leave one out."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(settings: str | None, skip: tuple[str, ...], as_json: bool) -> None:
    """Find out what would stop a deployment, and say what to type next.

    Looks at this machine, at your AWS account and at the settings in ./cdk.json, or in the file that --settings or
    EXTENDED_DLC_SETTINGS names. Changes nothing. Ends with status 1 when there is a problem; what cannot be found out
    is 'unknown' and stops nothing.
    """
    found: list[tuple[str, Finding]] = []
    raw = Raw(origin="nowhere", content={})
    try:
        raw = raw_settings(settings)
        wrong = decided(raw).problems
        if wrong:
            found.append(("settings", Problem("; ".join(wrong), "correct them, then: extended-dlc plan")))
    except SettingsError as error:
        remedy = "go to the folder of the app (cd), or name the file: extended-dlc doctor --settings FILE"
        found.append(("settings", Problem(str(error), remedy)))
    target = Target(folder=Path(), settings=raw.content, file=raw.file, engine=engine_program())
    checks = [check for check in CHECKS if check.name not in skip]
    with Waiting("looking", out=sys.stderr) as waiting:
        for name, finding in examine(target, checks):
            waiting.detail(name)
            found.append((name, finding))
    problems = sum(isinstance(finding, Problem) for _, finding in found)
    if as_json:
        click.echo(json.dumps({"ok": not problems, "checks": [_as_json(*each) for each in found]}, indent=2))
    else:
        _print(found)
    raise SystemExit(FAILED if problems else OK)


def _state(finding: Finding) -> Literal["ok", "problem", "unknown"]:
    return "ok" if isinstance(finding, Ok) else "problem" if isinstance(finding, Problem) else "unknown"


def _as_json(name: str, finding: Finding) -> dict[str, str | None]:
    remedy = finding.remedy if isinstance(finding, Problem) else None
    return {"check": name, "state": _state(finding), "message": finding.message, "remedy": remedy}


def _print(found: list[tuple[str, Finding]]) -> None:
    """Print problems first, then unknown results, then good ones, each in the order of the checks."""
    screen = Screen()
    order = ("problem", "unknown", "ok")
    for name, finding in sorted(found, key=lambda each: order.index(_state(each[1]))):
        state = _state(finding)
        remedy = finding.remedy if isinstance(finding, Problem) else None
        screen.finding(state, state, name, finding.message, remedy, width=15)
