"""The background servers: started, waited for, found again and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from extended_dlc.rehearsal.processes import Servers


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


def test_a_process_that_took_over_the_id_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (tmp_path / "servers.json").write_text(f'{{"hub": {stranger.pid}}}')
        assert Servers(tmp_path).stop() == []
        time.sleep(0.2)
        assert stranger.poll() is None
    finally:
        os.kill(stranger.pid, signal.SIGKILL)
        stranger.wait()
