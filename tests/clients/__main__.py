"""Unmodified clients against the real server: python -m tests.clients [--quick] [--transformers RELEASE] [--write]

It starts one embedded AWS whose endpoints are the real in-image server on tiny models, and runs every client's calls in
each way that is possible. It fails where a call's outcome is not as expected, or differs from docs/clients.md;
`--write` updates that page.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.credentials import Credentials

from extended_dlc.endpoint.bearer import make_token
from tests.clients import environments, table
from tests.clients.serving import ROOT, Rehearsal
from tests.runtime.conftest import NEWEST
from tests.support.embedded import REGION

LLGUIDANCE = "1.9.1"
PROGRAMS = Path(__file__).with_name("programs")
SHARED = {"chat": "chat", "text": "text", "embed": "embed", "whisper": "whisper", "text-to-audio": "text-to-audio"}
"""Endpoints that several clients call, and the folder of each one's model."""

HUB_TASKS = (
    *("audio-classification", "document-question-answering", "feature-extraction", "fill-mask", "image-classification"),
    *("image-segmentation", "image-to-image", "image-to-text", "object-detection", "question-answering"),
    *("summarization", "table-question-answering", "text-classification", "token-classification", "translation"),
    *("visual-question-answering", "zero-shot-classification", "zero-shot-image-classification"),
)
"""The tasks that only `InferenceClient` calls: each has an endpoint only while it is needed."""

QUICK_TASKS = ("image-classification", "zero-shot-classification")

QUICK = ("openai_calls", "hub_calls", "litellm_calls", "agent_calls")
SLOW = ("sagemaker2_calls", "sagemaker3_calls", "cli_calls")
ENVIRONMENTS = {
    **{"openai_calls": "openai", "hub_calls": "openai", "litellm_calls": "agents", "agent_calls": "agents"},
    **{"sagemaker2_calls": "sagemaker2", "sagemaker3_calls": "sagemaker3", "cli_calls": "sagemaker3"},
}


@dataclass
class Program:
    """A running program of calls."""

    name: str
    python: Path
    environment: dict[str, str]
    rows: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [self.python, PROGRAMS / f"{self.name}.py"],
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            text=True,
            env={**self.environment, "CALLS_OUTPUT": str(writing)},
            pass_fds=(writing,),
        )
        os.close(writing)
        self._results = os.fdopen(reading)

    def ask(self, asked: dict[str, Any]) -> None:
        """Run one round."""
        assert self._process.stdin is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        for line in self._results:
            if line == "\n":
                return
            row = json.loads(line)
            self.rows.append(row)
            if row["outcome"] == "wrong":
                print(f"WRONG {row['client']}: {row['call']} by {row['way']}: {row['reason']}", flush=True)
        sys.exit(f"the program '{self.name}' ended with {self._process.wait()}")

    def close(self) -> None:
        """Close the program's input, which ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._results.close()


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    names = options.only or [*QUICK, *(() if options.quick else SLOW)]
    with tempfile.TemporaryDirectory(prefix="clients-") as folder, ThreadPoolExecutor() as side:
        rows = Run(Path(folder), options.transformers, names, side, whole=not options.quick).rows()
    wrong = [row for row in rows if row["outcome"] == "wrong"]
    summary = f"{len(rows) - len(wrong)} passed, {len(wrong)} failed"
    if options.write and not wrong:
        table.keep(options.transformers, rows, instead=not options.quick)
        print(f"{table.PAGE} is written")
        differing = []
    else:
        differing = list(table.differing(options.transformers, rows))
    for line in differing:
        print(f"not as docs/clients.md has it (--write): {line}")
    print(summary)
    return 1 if wrong or differing else 0


class Run:
    """One run of some programs against one transformers release."""

    def __init__(self, folder: Path, release: str, names: list[str], side: ThreadPoolExecutor, *, whole: bool) -> None:
        self._folder, self._release, self._names, self._side, self._whole = folder, release, names, side, whole
        self._started = time.monotonic()

    def rows(self) -> list[dict[str, str]]:
        """The outcome of every call."""
        pythons = {
            name: self._side.submit(environments.made, name)
            for name in dict.fromkeys(ENVIRONMENTS[name] for name in self._names)
        }
        packages = tuple(_packages(self._release))
        models = _make_models(self._folder / "models", packages)
        self._say(f"{len(models)} models are made")
        with Rehearsal(self._folder, packages) as rehearsal:
            for name in SHARED:
                rehearsal.begin(name, self._folder / "models" / SHARED[name], **_task(name))
            asked = {
                "aws": rehearsal.aws.url,
                "region": REGION,
                "token": make_token(Credentials("testing", "testing"), region=REGION, seconds=3600),
                "ports": {name: rehearsal.port(name) for name in SHARED},
                "release": self._release,
            }
            self._say("the shared endpoints are in service")
            done = [self._side.submit(self._run, name, pythons, asked, rehearsal, models) for name in self._names]
            return [row for each in done for row in each.result()]

    def _run(
        self,
        name: str,
        pythons: dict[str, Future[Path]],
        asked: dict[str, Any],
        rehearsal: Rehearsal,
        models: list[str],
    ) -> list[dict[str, str]]:
        program = Program(name, pythons[ENVIRONMENTS[name]].result(), _client_environment(rehearsal.aws.url))
        program.ask(asked)
        if name == "hub_calls":
            self._ask_each_task(program, asked, rehearsal, models)
        program.close()
        self._say(f"{name}: {len(program.rows)} calls")
        return program.rows

    def _ask_each_task(self, program: Program, asked: dict[str, Any], rehearsal: Rehearsal, models: list[str]) -> None:
        served = [task for task in (HUB_TASKS if self._whole else QUICK_TASKS) if task in models]
        absent = [task for task in HUB_TASKS if task not in models] if self._whole else []
        lock = threading.Lock()

        def ask(task: str) -> None:
            model, reason = task if task in models else "text", ""
            rehearsal.begin(task, self._folder / "models" / model, HF_TASK=task)
            if task in models:
                ports = {task: rehearsal.port(task)}
            else:
                ports, reason = {f"absent {task}": 0}, rehearsal.settled(task).get("FailureReason", "in service")
            with lock:
                program.ask({**asked, "ports": ports, "reason": reason})
            rehearsal.end(task)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(ask, [*served, *absent]))

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._started:5.0f} s  {what}", flush=True)


def _task(name: str) -> dict[str, str]:
    return {"HF_TASK": name} if name in ("text-to-audio",) else {}


def _packages(release: str) -> Iterator[Path]:
    """Folders on the server's Python path before the installed packages."""
    kept = ROOT / ".cache"
    wanted = {f"llguidance-{LLGUIDANCE}": [f"llguidance=={LLGUIDANCE}"]}
    if release != NEWEST:
        tokenizers = {"4.46.3": ["tokenizers==0.20.3", "huggingface_hub==0.36.2"]}.get(release, [])
        wanted[f"transformers-{release}"] = [f"transformers=={release}", *tokenizers]
    for name, requirements in wanted.items():
        if not (kept / name).is_dir():
            command = [*environments.UV, "pip", "install", "--quiet", "--no-deps", "--target", kept / name]
            subprocess.run([*command, *requirements], check=True)
        yield kept / name


def _make_models(folder: Path, packages: tuple[Path, ...]) -> list[str]:
    """Make the models; returns the names of those that the release supports."""
    folder.mkdir()
    helpers = (ROOT / "tests" / "runtime", ROOT / "docker" / "inference")
    path = os.pathsep.join(map(str, [*packages, *helpers]))
    command = [sys.executable, Path(__file__).with_name("models.py"), folder, "text-to-audio", *HUB_TASKS]
    made = subprocess.run(command, env={"PYTHONPATH": path}, check=True, stdout=subprocess.PIPE, text=True)
    found: list[str] = json.loads(made.stdout.splitlines()[-1])
    return found


def _client_environment(aws: str) -> dict[str, str]:
    """The clients' environment variables: the embedded AWS, and none of this machine's settings."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "PYTHONPATH": str(PROGRAMS / "stubs"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_ENDPOINT_URL": aws,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OTEL_SDK_DISABLED": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the SageMaker SDKs, the CLI and absent tasks")
    parser.add_argument("--transformers", default=NEWEST, metavar="RELEASE", help="the release that serves")
    parser.add_argument("--only", action="append", choices=[*QUICK, *SLOW], help="these programs alone")
    parser.add_argument("--write", action="store_true", help="write docs/clients.md and its data from this run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
