"""`extended-dlc rehearse`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extended_dlc.cli._groups import CommandNeeded
from extended_dlc.cli.exit_codes import FAILED, STOPPED
from extended_dlc.doctor.tools import unusable_node
from extended_dlc.facts.instances import find_instance
from extended_dlc.installed import missing_for_rehearsal, pip_words, requirement
from extended_dlc.terminal import Screen, Waiting

if TYPE_CHECKING:
    from extended_dlc.rehearsal.report import Report
    from extended_dlc.rehearsal.run import Rehearsal


@click.command()
@click.option(
    "--app",
    metavar="COMMAND|FOLDER",
    help="Command that synthesizes your app, as 'python my_app.py', or the app's folder. Default: the app of this "
    "folder's cdk.json.",
)
@click.option(
    "-c", "--context", multiple=True, metavar="KEY=VALUE", help="Context of your app, as for cdk deploy. Repeatable."
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="TYPE",
    help="Resource type that may do nothing, as AWS::Cognito::UserPool. Repeatable.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="ID=TYPE",
    help="Type of a Hub model that is not known, as my/model=llama, or with its task my/model=bert:fill-mask. "
    "Repeatable.",
)
@click.option("--fetch", is_flag=True, help="Let endpoints get the models themselves from the Hub, not tiny stand-ins.")
@click.option(
    "--scenario",
    metavar="NAME",
    type=click.Choice(["main", "tutorial", "training", "training-hosts", "embeddings", "platform"]),
    help="Play a story with the app of this package. main: BLOOM and Whisper answer. tutorial: AWS's own image fails "
    "at the first request; extended, it answers. training: a model is trained, judged, and served where it got better. "
    "training-hosts: two hosts train one model. embeddings: a real small model, and similarities that mean something. "
    "platform: an image that the cloud builds in one account serves in another.",
)
@click.option("--silent-rollbacks", is_flag=True, help="Updates that fail are rolled back without a reason.")
@click.option(
    "--shortage", "shortages", multiple=True, metavar="TYPE", help="Instance type without capacity. Repeatable."
)
@click.option("--quota", "quotas", multiple=True, metavar="TYPE=COUNT", help="Quota of an instance type. Repeatable.")
@click.option(
    "--throttle",
    "throttled",
    multiple=True,
    metavar="OPERATION=COUNT",
    help="Refuse the next calls of an operation, as sagemaker:DescribeEndpoint=3. Repeatable.",
)
@click.option("--role-seconds", type=click.FloatRange(min=0), help="How long a new role is not known to SageMaker.")
@click.option(
    "--container-seconds", type=click.FloatRange(min=0), help="After how long in service each container ends, once."
)
@click.option("--keep", is_flag=True, help="Leave everything up at the end and print the environment to export.")
@click.option("--down", is_flag=True, help="End what --keep left up.")
@click.option("--verbose", is_flag=True, help="Print every line of the programs that run.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False), help="Write each step, its seconds and its proof."
)
def rehearse(
    app: str | None,
    context: tuple[str, ...],
    ignore: tuple[str, ...],
    models: tuple[str, ...],
    fetch: bool,
    scenario: str | None,
    silent_rollbacks: bool,
    shortages: tuple[str, ...],
    quotas: tuple[str, ...],
    throttled: tuple[str, ...],
    role_seconds: float | None,
    container_seconds: float | None,
    keep: bool,
    down: bool,
    verbose: bool,
    json_file: str | None,
) -> None:
    """Deploy your CDK app for real on this machine, with no AWS account.

    The real CDK CLI and the real container engine deploy the app to AWS services embedded here. Its templates are
    looked through first; AWS's base images and the models of the Hub are stood in for; each endpoint is asked; and
    everything is destroyed, or left up with --keep for cdk deploy, diff and destroy, extended-dlc doctor and ask.

    Failures that real accounts have can be asked for: rollbacks without a reason, shortages, quotas, throttling, roles
    that need seconds to be known, containers that end in service.

    With --scenario, and in a checkout of this project, the app of this package plays a story.

    One rehearsal has the folder at a time: a second one says which process has it, and one that was kept up stays until
    --down. What a killed one left, the next takes down first.
    """
    _require_packages()
    if not down and (wrong := unusable_node()):
        raise click.ClickException(wrong)
    from extended_dlc.rehearsal.project import Project
    from extended_dlc.rehearsal.report import Report
    from extended_dlc.rehearsal.run import Rehearsal
    from extended_dlc.rehearsal.scenario_own import Wishes

    failures = scenarios_of(
        silent_rollbacks=silent_rollbacks,
        shortages=shortages,
        quotas=quotas,
        throttled=throttled,
        role_seconds=role_seconds,
        container_seconds=container_seconds,
    )
    report = Report(verbose=verbose)
    folder, command = (Path(app), None) if app and Path(app).is_dir() else (Path(), app or None)
    project_options = {"--context": context, "--ignore": ignore, "--model": models, "--fetch": fetch, "--app": command}
    plays = _plays(scenario, folder, project_options)
    with _report_end(report, json_file):
        rehearsal = Rehearsal(folder, report, failures)
        if down:
            _take_down(rehearsal)
        elif plays:
            rehearsal.run(plays, keep=keep)
        else:
            project = Project.find(folder.resolve(), command, context)
            wishes = Wishes(ignore=ignore, models=dict(map(_pair, models)), fetch=fetch)
            rehearsal.run_project(project, wishes, keep=keep)


def _require_packages() -> None:
    """Refuse to begin where the packages of the extra `rehearse` are not installed."""
    if missing := missing_for_rehearsal():
        install = f"pip install {pip_words(requirement('rehearse'))}"
        raise CommandNeeded(f"the rehearsal needs {', '.join(missing)}, which are not installed:", install)


def _plays(scenario: str | None, folder: Path, options: Mapping[str, object]) -> str | None:
    """The scenario; None where an app of the user's own is rehearsed."""
    from extended_dlc.rehearsal.project import is_shipped

    given = [name for name, value in options.items() if value]
    plays = scenario or ("main" if not given and is_shipped(folder) else None)
    if plays and given:
        raise click.UsageError(f"{given[0]} is of an app of your own: leave it out, or leave out --scenario")
    return plays


def _take_down(rehearsal: Rehearsal) -> None:
    with Waiting("taking down what is up"):
        stopped = rehearsal.down()
    Screen().line(stopped, "ok")


@contextmanager
def _report_end(report: Report, json_file: str | None) -> Iterator[None]:
    """Tell how the rehearsal ended, as a line, as the exit status, and in the JSON file."""
    from extended_dlc.rehearsal.report import StepFailed

    try:
        yield
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    except StepFailed:
        sys.exit(FAILED)
    except KeyboardInterrupt:
        Screen(err=True).line("stopped; everything that was started is down again", "warning")
        sys.exit(STOPPED)
    finally:
        if json_file and report.steps:
            report.write(Path(json_file))
    if report.steps:
        downloads = f", downloads {report.download_seconds:.0f} s" if report.download_seconds >= 1 else ""
        Screen().line(f"the rehearsal passed in {report.seconds:.0f} s{downloads}", "ok")


def _pair(given: str) -> tuple[str, str]:
    name, _, model_type = given.partition("=")
    if not name or not model_type:
        raise click.UsageError(f"'--model' ({given[:100]}) must be ID=TYPE, as --model my/model=llama")
    return name, model_type


def scenarios_of(
    *,
    silent_rollbacks: bool,
    shortages: Sequence[str],
    quotas: Sequence[str],
    throttled: Sequence[str],
    role_seconds: float | None,
    container_seconds: float | None,
) -> dict[str, object]:
    """The failures that were asked for, as the embedded AWS takes them."""
    asked: dict[str, object] = {
        "silent_rollbacks": silent_rollbacks,
        "shortages": [_instance("--shortage", each) for each in shortages],
        "quotas": dict(map(_quota, quotas)),
        "throttled": dict(map(_throttle, throttled)),
        "role_seconds": role_seconds,
        "container_seconds": container_seconds,
    }
    return {name: value for name, value in asked.items() if value}


def _instance(option: str, name: str) -> str:
    """An instance type's name, checked."""
    try:
        return find_instance(name).name
    except ValueError as error:
        raise click.UsageError(f"'{option}' ({name[:100]}) {error}") from None


def _quota(given: str) -> tuple[str, int]:
    name, _, count = given.partition("=")
    if not count.isdecimal():
        raise click.UsageError(f"'--quota' ({given[:100]}) must be TYPE=COUNT, as --quota ml.g5.xlarge=0")
    return _instance("--quota", name), int(count)


def _throttle(given: str) -> tuple[str, int]:
    if not (found := _THROTTLED.fullmatch(given)):
        raise click.UsageError(
            f"'--throttle' ({given[:100]}) must be OPERATION=COUNT, as --throttle sagemaker:DescribeEndpoint=3"
        )
    service, _, operation = found[1].partition(":")
    known = _operations(service)
    if operation not in known:
        near = get_close_matches(operation if known else service, known or _services(), n=1)
        what = f"operation of {service}" if known else "service"
        raise click.UsageError(
            f"'--throttle' ({found[1][:100]}) is no {what} that botocore knows"
            + (f": did you mean {f'{service}:' if known else ''}{near[0]}?" if near else "")
        )
    return found[1], int(found[2])


def _services() -> list[str]:
    from botocore.session import get_session

    found: list[str] = get_session().get_available_services()
    return found


def _operations(service: str) -> list[str]:
    """The operations of a service; none where there is no such service."""
    from botocore.session import get_session

    return list(get_session().get_service_model(service).operation_names) if service in _services() else []


_THROTTLED = re.compile(r"([a-z][a-z0-9-]*:[A-Z][A-Za-z0-9]*)=(\d+)")
