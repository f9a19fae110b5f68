"""The rehearsal as a process: interrupted, failing, kept and taken down.

The servers, the engine and the containers are real. The state folder is the checkout's, so that nothing is made twice.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from extended_dlc.rehearsal.engine import LABEL, Engine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".rehearsal"

SHORT = """
from extended_dlc.rehearsal import run
from extended_dlc.rehearsal.base_image.stand_in import DLC_4_51_3

def play(stage, *, keep):
    stage.container_engine()
    stage.embedded_aws()
    base = stage.base_image(DLC_4_51_3)
    stage.models()
    stage.hub()
    image = stage.extended(base, stage.app_settings["image"]["transformers"])
    stage.bootstrap(image)
    stage.deploy("deploy", image=image, endpoints={"bloom": stage.endpoint("bigscience/bloom-560m")})
    stage.leave_up()

run.SCENARIOS = {"main": play}
"""
"""A scenario with one deployment, for the tests of what follows it."""

NO_SUCH_STANDIN = """
from dataclasses import replace
from extended_dlc.rehearsal import scenario_main
scenario_main.DLC_4_51_3 = replace(scenario_main.DLC_4_51_3, torch="0.0.1", transformers="0.0.1")
"""

NO_SUCH_RELEASE = """
from extended_dlc.rehearsal.stage import Stage
Stage.app_settings = {"image": {"transformers": "5.22.99"}}
"""


@pytest.fixture(autouse=True)
def state() -> Iterator[None]:
    """The checkout's state folder; no rehearsal is running before or after the test."""
    if not (STATE / "engine.json").exists() or not (STATE / "hub" / ".made").exists():
        pytest.skip("needs what a rehearsal makes: run 'make rehearse' once")
    if shutil.which("podman") is None and shutil.which("docker") is None:
        pytest.skip("needs a container engine: install Docker Engine or podman")
    if left():
        pytest.skip("a rehearsal of this checkout is running: wait for its end, or run 'extended-dlc rehearse --down'")
    yield
    subprocess.run([sys.executable, "-m", "extended_dlc", "rehearse", "--down"], cwd=ROOT, check=False)
    for folder in (STATE / "standin").glob("*/wheels"):
        if not (folder / "requirements.txt").exists():  # left by the test with a release that does not exist
            shutil.rmtree(folder.parent)


def rehearse(*arguments: str, first: str = "") -> subprocess.Popen[str]:
    """Start `extended-dlc rehearse` as a terminal would, after running the Python code `first` in its process."""
    # a shell's background processes and their children ignore Ctrl-C
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heard}\n{first}\nfrom extended_dlc.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-u", "-c", script, "rehearse", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """The output up to a line with this pattern, or up to its end."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            break
    return seen


def loaded() -> Engine:
    engine = Engine.load(STATE / "engine.json")
    assert engine is not None
    return engine


def left() -> list[str]:
    """What is left of a rehearsal of this checkout: servers, containers, listening ports."""
    processes = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    found = [line for line in processes.splitlines() if "extended_dlc.rehearsal." in line and str(STATE) in line]
    found += loaded().containers(f"{LABEL}={STATE}")
    for port in json.loads((STATE / "ports.json").read_text()).values():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(f"port {port}")
    return found


def test_ctrl_c_while_a_container_starts_leaves_nothing_behind() -> None:
    process = rehearse()
    seen = read_until(process, r"cdk deploy: build the image.* \.\.\.")
    deadline = time.monotonic() + 300
    while not (containers := loaded().containers(f"{LABEL}={STATE}")) and process.poll() is None:
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
    assert containers, seen
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the CDK CLI as well
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130, seen + rest
    assert "stopped by the user" in rest
    assert "everything that was started is down again" in rest
    assert left() == []


@pytest.mark.parametrize(
    ("first", "reason", "log"),
    [
        (NO_SUCH_STANDIN, r"pip cannot get the stand-in's packages \(torch==0\.0\.1, transformers==0\.0\.1, ", None),
        (NO_SUCH_RELEASE, r"image\.transformers \(5\.22\.99\): is not on PyPI", r"its log: (\S+-cdk-bootstrap\.log)"),
    ],
    ids=["no-such-stand-in", "the-app-refuses"],
)
def test_a_step_that_fails_says_why_and_stops_everything(first: str, reason: str, log: str | None) -> None:
    process = rehearse(first=first)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1, output
    assert "start the embedded AWS: ok" in output
    assert re.search(r"FAILED in [\d.]+ s", output)
    assert re.search(reason, output), output
    if log is not None:
        found = re.search(log, output)
        assert found, output
        assert re.search(reason, Path(found[1]).read_text())
    assert "Traceback" not in output
    assert left() == []


def test_what_is_kept_up_answers_boto3_until_it_is_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    process = rehearse("--keep", first=SHORT)
    output = process.communicate(timeout=180)[0]
    assert process.returncode == 0, output
    assert "to end it: extended-dlc rehearse --down" in output
    for line in re.findall(r"^ *export (.+)", output, re.MULTILINE):
        name, _, value = shlex.split(line)[0].partition("=")
        monkeypatch.setenv(name, value)
    body = json.dumps({"inputs": "Hello, my name is", "parameters": {"max_new_tokens": 5}})
    runtime: Any = boto3.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(
        EndpointName="extended-dlc-rehearsal-bloom", Body=body.encode(), ContentType="application/json"
    )
    assert json.loads(answer["Body"].read())[0]["generated_text"].startswith("Hello, my name is ")
    assert left()
    down = rehearse("--down").communicate(timeout=60)[0]
    assert "stopped: hub, aws" in down
    assert left() == []
    mounts = Path("/proc/mounts")
    assert not mounts.exists() or str(STATE) not in mounts.read_text(), "the folder could not be deleted"
