"""Runs the real CDK CLI against the embedded AWS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ACCOUNT = "123456789012"
REGION = "us-east-1"


def aws_environment(port: int, region: str = REGION) -> dict[str, str]:
    """The environment variables that send an AWS client to the embedded AWS only."""
    return {
        # the host name, because moto misreads a template's URL with 127.0.0.1 as a bucket of another URL style
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def only_this_machine() -> Iterator[list[str]]:
    """Inside, no variable of the caller's leads past the embedded AWS; yields the names of those that would have.

    A profile, a session's token and the address of a single service win over `aws_environment`, and so does a proxy.
    """
    hidden = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    unproxied = without_proxy(os.environ)
    before = {name: os.environ.get(name) for name in unproxied}
    for name in hidden:
        del os.environ[name]
    os.environ.update(unproxied)
    try:
        yield sorted(hidden)
    finally:
        for name in unproxied:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None} | hidden)


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep requests to this machine away from an environment's proxies; none without proxies."""
    if not any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in environment):
        return {}
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = dict.fromkeys([*filter(None, given.split(",")), "localhost", "127.0.0.1"])
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(names))


@dataclass(frozen=True, kw_only=True)
class Cdk:
    """The CDK CLI, which runs in the app's folder."""

    program: tuple[str, ...]
    app: Path
    state: Path
    port: int
    settings: Path | None = None
    """The app's settings file. Default: the one that the app reads itself."""

    options: tuple[str, ...] = ()
    """Options of every command: `--app` and `--context`."""

    region: str = REGION
    """The region of stacks without a region of their own."""

    more: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables."""

    def environment(self) -> dict[str, str]:
        """The CLI's environment variables, beside the caller's."""
        return {
            **aws_environment(self.port, self.region),
            **({} if self.settings is None else {"EXTENDED_DLC_SETTINGS": str(self.settings)}),
            # the CLI caches accounts by access key, and every rehearsal's key is `testing`
            "CDK_HOME": str(self.state / "cdk-home"),
            # the project's tests run cfn-lint on the template; the built-in validator takes seconds a command
            "CDK_VALIDATION": "false",
            "CDK_DISABLE_CLI_TELEMETRY": "1",
            "CDK_DISABLE_VERSION_CHECK": "1",
            "NODE_NO_WARNINGS": "1",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
            # `python3 app.py` must run this interpreter
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            **self.more,
        }

    def run(self, *arguments: str, log: Path, each_line: Callable[[str], None]) -> None:
        """Run `cdk arguments…`; every line goes to `log` and `each_line`. Raises `RuntimeError` where it fails."""
        inherited = without_settings(os.environ) if self.settings is not None else os.environ
        environment = {**inherited, **self.environment()}
        # an argument and no environment variable, because `Servers` finds a killed rehearsal's CLI by it
        output = f"--output={self.state / 'cdk.out'}"
        run_cdk([*self.program, *arguments, *self.options, output], self.app, environment, log, each_line)


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without the variables that override settings: a run has its own settings."""
    return {name: value for name, value in environment.items() if not name.startswith("EXTENDED_DLC_")}


def run_cdk(
    command: list[str], folder: Path, environment: Mapping[str, str], log: Path, each_line: Callable[[str], None]
) -> None:
    """Run the CLI; its lines go to `log` and `each_line`. Raises `RuntimeError` where it fails."""
    last: deque[str] = deque(maxlen=15)
    with log.open("a") as file:
        file.write(f"$ cdk {' '.join(command[1:])}\n")
        process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C goes to this process only, which then ends the CLI and its children
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                each_line(line.rstrip())
                last.append(line.rstrip())
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    if code != 0:
        what = next((each for each in command[1:] if each.isalpha()), "")  # npx has arguments before it
        raise RuntimeError("\n".join([f"cdk {what} failed with exit status {code}:", *last]))


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and its children, such as the container engine's client."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return
