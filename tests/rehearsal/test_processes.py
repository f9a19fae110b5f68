"""The background servers: started, awaited, found again and stopped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from extended_dlc.rehearsal.processes import Servers, locked


def hub(servers: Servers, folder: Path) -> int:
    port = servers.port("hub")
    servers.start(
        "hub",
        "extended_dlc.rehearsal.hub",
        f"--root={folder}",
        f"--port={port}",
        ready=f"http://127.0.0.1:{port}/api/models/x",
    )
    return port


def test_a_server_answers_until_another_process_stops_it(tmp_path: Path) -> None:
    port = hub(Servers(tmp_path), tmp_path)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/models/x", timeout=5)
    stop = "import sys, pathlib; from extended_dlc.rehearsal.processes import Servers;"
    stop += "print(Servers(pathlib.Path(sys.argv[1])).stop())"
    stopped = subprocess.run([sys.executable, "-c", stop, str(tmp_path)], capture_output=True, text=True, check=True)
    assert stopped.stdout.strip() == "['hub']"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    assert Servers(tmp_path).stop() == [], "stopping twice is harmless"


def test_a_server_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)hub did not start:.*--root.*its log: .*hub\.log"):
        Servers(tmp_path).start("hub", "extended_dlc.rehearsal.hub", ready="http://127.0.0.1:9/")


def test_a_port_is_kept_between_runs_unless_another_has_it(tmp_path: Path) -> None:
    first = Servers(tmp_path).port("aws")
    assert Servers(tmp_path).port("aws") == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert Servers(tmp_path).port("aws") != first


def sleeping(*arguments: str) -> subprocess.Popen[bytes]:
    """A process with these arguments, which ends by a signal or after a minute."""
    program = "import sys, time; print(flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "extended_dlc.rehearsal.hub", "--root={}-other"),
        ("-m", "extended_dlc.rehearsal.hub", "--root=/elsewhere{}"),
        ("-m", "extended_dlc.rehearsal.hub", "{}"),
        ("/app/node_modules/.bin/cdk", "deploy", "--output=cdk.out"),
        ("-m", "http.server", "--directory={}"),
    ],
    ids=["a-longer-name", "a-deeper-folder", "no-argument-of-ours", "the-users-own-deployment", "another-program"],
)
def test_a_process_of_somebody_else_is_left_alone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    stranger = sleeping(*(each.format(tmp_path) for each in arguments))
    try:
        assert Servers(tmp_path).stop() == []
        time.sleep(0.2)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_cdk_cli_that_a_killed_rehearsal_left_is_ended_first_with_what_it_started(tmp_path: Path) -> None:
    servers = Servers(tmp_path)
    hub(servers, tmp_path)
    started = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    left = subprocess.Popen(
        [sys.executable, "-c", started, "/app/node_modules/.bin/cdk", "deploy", f"--output={tmp_path / 'cdk.out'}"],
        start_new_session=True,
    )
    while b"sleep" not in (children := children_of(left.pid)):
        assert left.poll() is None, children
    assert servers.stop() == ["cdk", "hub"]
    assert left.wait(5) != 0
    states = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    group = [line.split()[1] for line in states.splitlines() if line.split()[0] == str(left.pid)]
    assert not [state for state in group if not state.startswith("Z")], "what it started is ended too"


def children_of(pid: int) -> bytes:
    return subprocess.run(["ps", "-o", "args=", "--ppid", str(pid)], capture_output=True, check=False).stdout


@pytest.mark.parametrize("content", ["", "[]", '{"hub": "x"}', '{"hub": 99999999}', "{"])
def test_a_file_of_ports_that_was_cut_off_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    port = Servers(tmp_path).port("hub")
    assert json.loads((tmp_path / "ports.json").read_text()) == {"hub": port}


def test_the_state_is_one_rehearsals_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    state = tmp_path / ".rehearsal"
    hold = "import sys, pathlib, time; from extended_dlc.rehearsal.processes import locked\n"
    hold += "with locked(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(state)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with (
        pytest.raises(ValueError, match=rf"of {tmp_path} is running \(process {holder.pid}\).*kill -INT"),
        locked(state),
    ):
        pass
    holder.kill()
    holder.wait()
    with locked(state):
        assert (state / "lock").read_text() == str(os.getpid())
