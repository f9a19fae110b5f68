"""The real CDK CLI against the embedded AWS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ACCOUNT = "123456789012"
REGION = "us-east-1"


def aws_environment(port: int, region: str = REGION) -> dict[str, str]:
    """What an AWS client needs to talk to the embedded AWS and to nothing else."""
    return {
        # the name: from 127.0.0.1 moto takes a template's URL for a bucket of another style
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@dataclass(frozen=True, kw_only=True)
class Cdk:
    """The CDK CLI, run in the app's folder."""

    program: tuple[str, ...]
    app: Path
    state: Path
    port: int
    settings: Path | None = None
    """The settings file of the app. Default: what the app reads by itself."""

    options: tuple[str, ...] = ()
    """Of every command: `--app` and `--context`."""

    region: str = REGION
    """Of stacks that name none."""

    more: Mapping[str, str] = field(default_factory=dict)
    """What else is in the environment."""

    def environment(self) -> dict[str, str]:
        """The environment of the CLI, beyond the caller's own."""
        return {
            **aws_environment(self.port, self.region),
            **({} if self.settings is None else {"EXTENDED_DLC_SETTINGS": str(self.settings)}),
            # the CLI remembers accounts by access key, and `testing` is everybody's
            "CDK_HOME": str(self.state / "cdk-home"),
            # cfn-lint looks at the template in the project's tests; the built-in validator costs seconds a command
            "CDK_VALIDATION": "false",
            "CDK_DISABLE_CLI_TELEMETRY": "1",
            "CDK_DISABLE_VERSION_CHECK": "1",
            "NODE_NO_WARNINGS": "1",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
            # `python3 app.py` is this very interpreter
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            **self.more,
        }

    def run(self, *arguments: str, log: Path, each_line: Callable[[str], None]) -> None:
        """Run `cdk arguments…`; every line goes to `log` and `each_line`. `RuntimeError` when it fails."""
        own = without_settings(os.environ) if self.settings is not None else os.environ
        environment = {**own, **self.environment()}
        # as an argument, and not in the environment: `Servers` finds the CLI of a killed rehearsal by it
        output = f"--output={self.state / 'cdk.out'}"
        run_cdk([*self.program, *arguments, *self.options, output], self.app, environment, log, each_line)


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment but for what would change the settings, of which a run has its own."""
    return {name: value for name, value in environment.items() if not name.startswith("EXTENDED_DLC_")}


def run_cdk(
    command: list[str], folder: Path, environment: Mapping[str, str], log: Path, each_line: Callable[[str], None]
) -> None:
    """Run the CLI, its lines going to `log` and `each_line`; `RuntimeError` when it fails. It ends when we do."""
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
            # a Ctrl-C in the terminal is for us, who then end it with all that it started
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
    """End a program and all that it started, its container engine's client for instance."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return
