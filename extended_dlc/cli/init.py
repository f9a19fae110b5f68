"""`extended-dlc init`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extended_dlc.installed import missing_for_rehearsal
from extended_dlc.terminal import Screen

if TYPE_CHECKING:
    from extended_dlc.app.new_project import NewProject

_QUESTIONS = {
    "model": ("Model of the Hugging Face Hub", "bigscience/bloom-560m"),
    "instance_type": ("Instance type, or 'serverless'", "ml.m5.xlarge"),
    "region": ("Region", "us-east-1"),
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option("--model", help=f"Model of the Hugging Face Hub. Default: {_QUESTIONS['model'][1]}.")
@click.option(
    "--instance-type",
    metavar="TYPE|serverless",
    help=f"SageMaker's instance type, or serverless. Default: {_QUESTIONS['instance_type'][1]}.",
)
@click.option("--region", help="Region that it is deployed to. Default: AWS_REGION, else us-east-1.")
@click.option("--yes", is_flag=True, help="Ask nothing; take the defaults for what is not given.")
@click.option("--json", "as_json", is_flag=True, help="Ask nothing, and print the files and the next commands as JSON.")
def init(
    folder: Path, model: str | None, instance_type: str | None, region: str | None, yes: bool, as_json: bool
) -> None:
    """Write a new project into FOLDER, which is empty or does not exist. Default: this folder.

    An app, its settings with their schema, a test and pinned tools. On a terminal three questions are asked, but for
    what is given.
    """
    from extended_dlc.app.new_project import NewProject, check_empty

    given = {"model": model, "instance_type": instance_type, "region": region}
    known = {name: value for name, value in given.items() if value is not None}
    open_questions = [name for name in given if name not in known]
    try:
        check_empty(folder)
        project = NewProject(**{"region": _default("region"), **known})
        if not (yes or as_json) and sys.stdin.isatty() and sys.stdout.isatty():
            project.check(*known)
            for name in open_questions:
                project = _ask(name, project)
        written = project.write(folder)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error.strerror or error}") from None
    steps = [] if folder == Path() else [f"cd {shlex.quote(str(folder))}"]
    if missing_for_rehearsal():
        steps.append("pip install -r requirements.txt")
    steps += ["extended-dlc plan", "extended-dlc rehearse"]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "files": written, "next": steps}, indent=2))
        return
    where = "this folder" if folder == Path() else str(folder)
    screen = Screen()
    screen.line(f"a project is in {where}: {', '.join(written)}", "ok")
    screen.title("next:")
    for step in steps:
        screen.line(f"  {step}", hang=None)  # it is copied
    screen.line("README.md there has the rest", "quiet")


def _default(name: str) -> str:
    """What is taken for a question that nobody answers."""
    default = _QUESTIONS[name][1]
    if name == "region":
        return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or default
    return default


def _ask(name: str, project: NewProject) -> NewProject:
    """The project with the user's answer to a question, which is asked again until the app takes the answer."""

    def answered(value: str) -> NewProject:
        answer = replace(project, **{name: value})
        try:
            answer.check(name)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return answer

    answer: NewProject = click.prompt(_QUESTIONS[name][0], default=_default(name), value_proc=answered)
    return answer
