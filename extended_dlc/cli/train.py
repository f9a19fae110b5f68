"""`extended-dlc train`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import click

from extended_dlc.app.aws_names import output_name
from extended_dlc.app.read import Raw, SettingsError
from extended_dlc.cli._settings import raw_settings, require_training
from extended_dlc.cli._train_locally import train_locally
from extended_dlc.cli.exit_codes import FAILED, OK, STOPPED
from extended_dlc.running import Terminated
from extended_dlc.terminal import Passing, Screen, Style


@click.command()
@click.argument("name")
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@click.option("--region", help="Region of the training. Default: that of the settings.")
@click.option("--profile", help="AWS profile. Default: that of the environment.")
@click.option("--artifact", metavar="S3_URI", help="Train nothing: serve this artefact of an earlier run.")
@click.option("--follow", is_flag=True, help="Follow the newest run instead of starting one.")
@click.option("--stop", is_flag=True, help="Stop the newest run instead of starting one.")
@click.option("--detach", is_flag=True, help="Start, and do not wait for the end.")
@click.option("--local", is_flag=True, help="Train on this machine, in the container of --image; no AWS account.")
@click.option("--script", is_flag=True, help="With --local: the script alone, with this Python, in no container.")
@click.option("--image", metavar="REFERENCE", help="With --local: an image that is on this machine.")
@click.option("--channel", multiple=True, metavar="NAME=FOLDER", help="With --local: a folder in a channel's place.")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="With --local: another hyperparameter.")
@click.option("--output", type=click.Path(file_okay=False), help="With --local: where results go. Default: NAME-local.")
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON, and the progress beside it.")
def train(**given: Any) -> None:
    """Start the training NAME of the settings, and follow it to its end.

    NAME may also be the ARN of a state machine. Says what happens, the job's log, its progress and its metrics; Ctrl-C
    asks whether to stop the run. Ends with status 0 when a model was trained, and served where the training has an
    endpoint, 1 when it failed or was refused, with the reason, and 130 when it was stopped or left.
    """
    options = Options(**given)
    options.check()
    try:
        status = train_locally(options) if options.local else _train_on_aws(options)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(status)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    name: str
    settings: str | None
    region: str | None
    profile: str | None
    artifact: str | None
    follow: bool
    stop: bool
    detach: bool
    local: bool
    script: bool
    image: str | None
    channel: tuple[str, ...]
    given: tuple[str, ...]
    output: str | None
    as_json: bool

    def check(self) -> None:
        """Refuse options that exclude each other."""
        ways = (("--follow", self.follow), ("--stop", self.stop), ("--local", self.local))
        chosen = [option for option, is_set in ways if is_set]
        if len(chosen) > 1 or (self.artifact and chosen):
            every = [*chosen, *(["--artifact"] if self.artifact else [])]
            raise click.UsageError(f"{' and '.join(every)} exclude each other")
        if self.script and self.image:
            raise click.UsageError("--script runs in no container, and --image names one: leave one of them out")
        if not self.local and (self.script or self.image or self.channel or self.given or self.output):
            raise click.UsageError("--script, --image, --channel, --set and --output go with --local")

    def raw(self) -> Raw:
        return raw_settings(self.settings, overrides={"region": self.region})


def _train_on_aws(options: Options) -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    from extended_dlc.training.follow import Run

    try:
        session, machine = _machine(options)
        states = session.client("stepfunctions")
        if options.follow or options.stop:
            arn = _newest(states, machine, options.name)
        else:
            if not options.artifact:
                _refuse_second(states, machine, options.name)
            arn = _start(states, machine, options.artifact)
        news = _News(as_json=options.as_json)
        run = Run(
            arn=arn,
            states=states,
            sagemaker=session.client("sagemaker"),
            logs=session.client("logs"),
            say=news.say,
            progress=news.progress,
            seconds=float(os.environ.get("EXTENDED_DLC_TRAIN_SECONDS") or 5),
        )
        if options.stop:
            run.stop()
            news.say(f"stopped {arn}")
            return OK
        news.say(f"run {arn.rpartition(':')[2]}")
        if options.detach:
            if options.as_json:
                click.echo(json.dumps({"execution": arn, "status": "RUNNING"}, indent=2))
            return OK
        return _follow(run, news, options)
    except (ClientError, BotoCoreError) as error:
        raise click.ClickException(str(error)) from None


def _follow(run: Any, news: _News, options: Options) -> int:
    name = options.name
    while True:
        try:
            ended = run.follow()
            break
        except KeyboardInterrupt as error:
            news.progress("")
            status = _ask_what_now(run, terminated=isinstance(error, Terminated))
            if status is None:
                continue
            if options.as_json:
                click.echo(json.dumps({"execution": run.arn, "status": status}, indent=2))
            left = f"left; the run goes on: extended-dlc train {name} --follow, or --stop"
            news.say("stopped" if status == "ABORTED" else left)
            return STOPPED
    if options.as_json:
        click.echo(json.dumps(ended, indent=2))
    if ended["status"] == "SUCCEEDED":
        news.say(f"done: {ended['artifact']}", "ok")
        if ended["before"]:
            news.say(f"back to the model before: extended-dlc train {name} --artifact {ended['before']}")
        return OK
    news.say(f"{ended['status'].lower()}: {ended['cause'] or ended['error'] or 'no reason given'}", "problem")
    return STOPPED if ended["status"] == "ABORTED" else FAILED


def _ask_what_now(run: Any, *, terminated: bool) -> str | None:
    """The status of the run after an interruption: ABORTED, or RUNNING without its follower; None to follow on."""
    if terminated or not sys.stdin.isatty():
        return "RUNNING"
    try:
        if not click.confirm("\nStop the run?", default=False, err=True):
            return None
        run.stop()
    except (click.Abort, KeyboardInterrupt):
        return "RUNNING"
    return "ABORTED"


def _machine(options: Options) -> Any:
    """The session, and the state machine's ARN: from the stack of the settings, or NAME itself."""
    import boto3
    from botocore.exceptions import ClientError

    name = options.name
    if name.startswith("arn:"):
        if ":stateMachine:" not in name:
            raise click.ClickException(f"{name} is the ARN of no state machine: the stack's outputs have it")
        return boto3.Session(profile_name=options.profile, region_name=name.split(":")[3]), name
    raw = options.raw()
    require_training(name, raw)
    stack = f"{raw.content.get('name') or 'extended-dlc'}-training"
    session = boto3.Session(profile_name=options.profile, region_name=raw.content.get("region") or None)
    key = output_name(f"{name}StateMachine")
    try:
        (found,) = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
        raise click.ClickException(
            f"there is no stack '{stack}' in {session.region_name}: deploy it first (cdk deploy --all), or name the "
            "region with --region"
        ) from None
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}
    if key not in outputs:
        raise click.ClickException(f"the stack '{stack}' has no training '{name}' yet: deploy it (cdk deploy --all)")
    return session, outputs[key]


def _start(states: Any, machine: str, artifact: str | None) -> str:
    if artifact is not None and not artifact.startswith("s3://"):
        raise click.ClickException(f"'--artifact' ({artifact}) is not in S3: give the address that an earlier run said")
    given = {"artifact": artifact} if artifact else {}
    return str(states.start_execution(stateMachineArn=machine, input=json.dumps(given))["executionArn"])


def _refuse_second(states: Any, machine: str, name: str) -> None:
    """Refuse to train beside a run that goes on: both would cost, and the later one decide what is served."""
    from botocore.exceptions import ClientError

    try:
        running = _running(states, machine)
    except ClientError as error:
        if error.response["Error"]["Code"] == "AccessDeniedException":  # whoever may only start may not look
            return
        raise
    if running is not None:
        raise click.ClickException(
            f"a run of '{name}' goes on since {running['startDate']:%Y-%m-%d %H:%M} ({running['name']}), and a second "
            f"one would train beside it: follow it with extended-dlc train {name} --follow, or end it with --stop"
        )


def _newest(states: Any, machine: str, name: str) -> str:
    running = _running(states, machine)
    if running is None:
        raise click.ClickException(f"no run of '{name}' goes on: start one with extended-dlc train {name}")
    return str(running["executionArn"])


def _running(states: Any, machine: str) -> Any:
    """The newest run that goes on; None where none does."""
    found = states.list_executions(stateMachineArn=machine, statusFilter="RUNNING", maxResults=1)["executions"]
    return found[0] if found else None


class _News:
    """Prints progress to standard output, or to standard error with `--json`."""

    def __init__(self, *, as_json: bool) -> None:
        out = sys.stderr if as_json else sys.stdout
        self._screen = Screen(out)
        self._passing = Passing(out)

    def say(self, line: str, style: Style = "") -> None:
        self._passing.clear()
        self._screen.line(line, style)

    def progress(self, line: str) -> None:
        """Show a line that the next one replaces, on a terminal."""
        if line:
            self._passing.show(line)
        else:
            self._passing.clear()
