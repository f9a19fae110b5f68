"""A training in its container beside the bare script: start to first step, last step to the model, and all CPU time.

    python benchmarks/training.py --image localhost/cdkasset-….:latest --model FOLDER [--rounds 5] [--json FILE]

Three candidates take turns with the same script, packages, model and data: the image as SageMaker runs it (`IMAGE
train`); the same without this project's module, as AWS's image is (`toolkit`); and the script alone, by the image's own
Python in a container that runs already. The image is a training image in the store of the engine that CDK_DOCKER names,
as `extended-dlc rehearse --scenario training` leaves one; its environment is that of `.rehearsal/engine.json`. The
model is a small classifier. Target: the image takes at most 1.1 times what the script takes. The CPU time is that of
all processes in the container, by the shell's `times`; other work on the machine changes it least.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ratios import spread

from extended_dlc.options.training import TrainingCode
from extended_dlc.training.local import LocalTraining

ROOT = Path(__file__).parents[1]
BASE_MODULE = "sagemaker_pytorch_container.training:main"
LIMIT = 1.1

Times = tuple[float, float, float]
"""Seconds from the start to the first logged step, from the last one to the end, and of CPU time."""

PARTS = ("start to first step", "last step to end", "CPU time")
ENTRY = "bash -m start_with_right_hostname.sh train"
"""The command that the image's entry point runs."""


def timed(command: list[str], environment: dict[str, str]) -> Times:
    """Run a training; its times are those of the lines that Trainer logs."""
    begun = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        steps, output = [], []
        for line in process.stdout:
            output.append(line)
            if "'loss': " in line:
                steps.append(time.monotonic())
    if process.returncode or not steps:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{''.join(output[-30:])}")
    ended = time.monotonic()
    cpu = sum(60 * int(minutes) + float(seconds) for minutes, seconds in re.findall(r"(\d+)m([\d.]+)s", output[-1]))
    return steps[0] - begun, ended - steps[-1], cpu


@contextmanager
def running(engine: str, command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """Start a container that only sleeps; yields its name, and removes it at the end."""
    (name,) = [each.removeprefix("--name=") for each in command if each.startswith("--name=")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    try:
        yield name
    finally:
        subprocess.run([engine, "rm", "--force", "--time=0", name], env=environment, check=False, capture_output=True)


class Bench:
    """The candidates; each turn has a fresh folder."""

    def __init__(self, image: str, model: Path, steps: int) -> None:
        self.image = image
        engine = json.loads((ROOT / ".rehearsal" / "engine.json").read_text())
        self.engine = os.environ.get("CDK_DOCKER") or engine["program"]
        self.environment = {**os.environ, **engine["environment"]}
        self.training = LocalTraining(
            code=TrainingCode(str(ROOT / "examples" / "training" / "classification")),
            hyperparameters={"max_steps": steps, "save_steps": steps},
            channels={"model": model},
            environment={"OMP_NUM_THREADS": "1"},
            folder=Path(),
        )

    def take(self, candidate: str) -> Times:
        """The times of one turn."""
        folder = Path(tempfile.mkdtemp(prefix="extended-dlc-bench-"))
        training = replace(self.training, folder=folder)
        if candidate == "toolkit":
            training = replace(training, environment={**training.environment, "SAGEMAKER_TRAINING_MODULE": BASE_MODULE})
        training.prepare()
        command = training.command(self.engine, self.image)
        try:
            if candidate != "script":
                before = command[: command.index(self.image)]
                counted = ["--entrypoint=bash", self.image, "-c", f"{ENTRY} && times"]
                return timed([*before, *counted], self.environment)
            waits = [*command[: command.index(self.image)], "--entrypoint=sleep", "--detach", self.image, "3600"]
            with running(self.engine, waits, self.environment) as name:
                variables = [f"--env={key}={value}" for key, value in training.variables(inside=True).items()]
                unpack = "mkdir -p /tmp/code && tar -xzf /opt/ml/input/data/code/sourcedir.tar.gz -C /tmp/code"
                ready = [self.engine, "exec", name, "bash", "-c", unpack]
                subprocess.run(ready, env=self.environment, check=True, capture_output=True)
                script = shlex.join(["python", training.program, *training.arguments()])
                run = ["--workdir=/tmp/code", name, "bash", "-c", f"{script} && times"]
                return timed([self.engine, "exec", *variables, *run], self.environment)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Measure all candidates, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    bench = Bench(given.image, given.model.resolve(), given.steps)
    candidates = ("script", "toolkit", "image")
    found: dict[str, list[Times]] = {name: [] for name in candidates}
    for number in range(given.rounds):
        for turn in range(3):
            name = candidates[(turn + number) % 3]
            found[name].append(bench.take(name))
            print(f"round {number + 1}, {name}: " + ", ".join(f"{each:.2f} s" for each in found[name][-1]), flush=True)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for part, what in enumerate(PARTS):
        least = {name: min(times[part] for times in taken) for name, taken in found.items()}
        for other in ("script", "toolkit"):
            ratios = [ours[part] / theirs[part] for ours, theirs in zip(found["image"], found[other], strict=True)]
            print(
                f"{what}: image {least['image']:.2f} s, {other} {least[other]:.2f} s, ratio of the least "
                f"{least['image'] / least[other]:.2f}, of each round {spread(ratios)}"
            )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
