"""The use of a rehearsal's folder: one rehearsal at a time, kept until `--down`, cleaned after a killed one.

The scenario starts only one server, so that no container engine is needed.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.rehearsal.cdk import aws_environment, only_this_machine
from extended_dlc.rehearsal.client import connect
from extended_dlc.rehearsal.processes import Servers
from extended_dlc.rehearsal.report import Report
from extended_dlc.rehearsal.run import Rehearsal
from extended_dlc.rehearsal.stage import Stage

PLAY = """
import io, os, pathlib, signal, sys, time
from extended_dlc.rehearsal import run
from extended_dlc.rehearsal.report import Report

def play(stage, *, keep):
    port = stage._servers.port("hub")
    address = f"http://127.0.0.1:{port}/api/models/x"
    stage._servers.start("hub", "extended_dlc.rehearsal.hub", f"--root={stage.state}", f"--port={port}", ready=address)
    print(address, flush=True)
    if sys.argv[2] == "wait":
        time.sleep(60)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

run.SCENARIOS = {"main": play}
try:
    run.Rehearsal(pathlib.Path(sys.argv[1]), Report(io.StringIO())).run(keep=sys.argv[2] == "keep")
except ValueError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Path]:
    """As much of an app as a rehearsal needs; nothing of it is running before or after the test."""
    (tmp_path / "cdk.json").write_text("{}")
    program = tmp_path / "node_modules" / ".bin" / "cdk"
    program.parent.mkdir(parents=True)
    program.touch()
    yield tmp_path
    rehearsal_in(tmp_path).down()


def rehearsal_in(app: Path) -> Rehearsal:
    return Rehearsal(app, Report())


def start(app: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PLAY, str(app), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def played(app: Path, how: str) -> tuple[int, str, str]:
    """The exit status, the server's URL, and the message of a refusal."""
    process = start(app, how)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output.strip(), errors.strip()


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.mark.thorough
def test_a_second_one_in_the_folder_is_told_who_is_there_and_takes_nothing_down(app: Path) -> None:
    first = start(app, "wait")
    try:
        assert first.stdout is not None
        address = first.stdout.readline().strip()
        code, _, said = played(app, "through")
        assert code == 1
        assert f"another rehearsal of {app} is running (process {first.pid}): wait for its end" in said
        with pytest.raises(ValueError, match=f"process {first.pid}"):
            rehearsal_in(app).down()
        assert answers(address)
    finally:
        os.killpg(first.pid, signal.SIGINT)
        first.communicate(timeout=60)
    assert not answers(address)


def test_what_is_kept_up_stays_until_somebody_says_so(app: Path) -> None:
    code, address, said = played(app, "keep")
    assert (code, said) == (0, "")
    code, _, said = played(app, "through")
    assert code == 1
    assert f"a rehearsal of {app} is kept up (--keep): end it with extended-dlc rehearse --down" in said
    assert answers(address)
    assert rehearsal_in(app).down().startswith("stopped: hub;")
    assert not answers(address)
    assert played(app, "through")[0] == 0


def test_what_was_kept_and_is_gone_since_keeps_nobody_out(app: Path) -> None:
    played(app, "keep")
    rehearsal_in(app).servers.stop()  # like a restart of the machine
    assert played(app, "through")[0] == 0


def test_one_that_was_killed_leaves_nothing_that_the_next_cannot_clean(app: Path) -> None:
    code, address, _ = played(app, "killed")
    assert code == -signal.SIGKILL
    assert answers(address)
    for name in ("ports.json", "engine.json"):  # as a full disk leaves them
        (app / ".rehearsal" / name).write_text("")
    code, again, said = played(app, "through")
    assert (code, said) == (0, "")
    assert not answers(address)
    assert not answers(again)


def test_what_needed_no_container_engine_is_left_up_without_one(tmp_path: Path) -> None:
    said = io.StringIO()
    stage = Stage(tmp_path, tmp_path, Report(said), Servers(tmp_path))
    stage.regions = ("eu-west-1", "us-east-1")
    stage.leave_up()
    script = (tmp_path / "environment.sh").read_text()
    assert "export AWS_REGION=eu-west-1\n" in script
    assert "CDK_DOCKER" not in script
    assert f"or: . {tmp_path}/environment.sh" in said.getvalue()
    assert "extended-dlc rehearse --down" in said.getvalue()


LEADS_ELSEWHERE = {
    "AWS_PROFILE": "no-such-profile",
    "AWS_SESSION_TOKEN": "a-real-one",
    "AWS_ENDPOINT_URL_SAGEMAKER": "http://127.0.0.1:9",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "no_proxy": "internal.example",
}


def test_no_variable_of_the_caller_leads_past_the_embedded_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in a rehearsal asks this machine, whatever profile, token, address or proxy its caller has set."""
    for name, value in LEADS_ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    program = "import boto3; print(boto3.client('sagemaker').list_models())"
    with listening() as (port, heard):
        with only_this_machine() as hidden:
            inside = {**os.environ, **aws_environment(port)}
            connect("sagemaker", aws_environment(port)).list_models()
            done = subprocess.run(
                [sys.executable, "-c", program], env=inside, capture_output=True, text=True, check=False
            )
        connect("sagemaker", aws_environment(port)).list_models()
    assert done.returncode == 0, done.stderr
    assert len(heard) == 3
    assert not any("a-real-one" in str(headers) for headers in heard)
    assert {name for name in LEADS_ELSEWHERE if name.startswith("AWS_")} <= set(hidden)
    assert inside["NO_PROXY"] == inside["no_proxy"] == "internal.example,localhost,127.0.0.1"
    assert dict(os.environ) == before


@contextmanager
def listening() -> Iterator[tuple[int, list[Any]]]:
    """A server that answers every request with an empty object: its port, and the headers of its requests."""
    heard: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], heard
    finally:
        server.shutdown()
        server.server_close()
