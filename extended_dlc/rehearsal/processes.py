"""The servers of a rehearsal: started in the background, found again by `--down`, stopped by their process ids."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path


class Servers:
    """The background servers of one rehearsal, written down in a file so that another process can stop them."""

    def __init__(self, state: Path) -> None:
        """Servers whose process ids, ports and logs live below `state`."""
        self._file = state / "servers.json"
        self._ports = state / "ports.json"
        self._logs = state / "logs"

    def port(self, name: str) -> int:
        """A free loopback port: the one that this server had last time where it is free.

        A container engine remembers by host and port which layers a registry has; the same port saves a push.
        """
        ports: dict[str, int] = json.loads(self._ports.read_text()) if self._ports.exists() else {}
        for wanted in (ports.get(name, 0), 0):
            with socket.socket() as probe, suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", wanted))
                ports[name] = probe.getsockname()[1]
                self._ports.write_text(json.dumps(ports))
                return ports[name]
        raise RuntimeError("no free port on 127.0.0.1: end some programs and try again")

    def start(self, name: str, *command: str, ready: str, timeout: float = 60) -> Path:
        """Start `python -m command…` and wait until `ready` answers; returns its log, raises with its last lines."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # a Ctrl-C in the terminal is for the rehearsal, which then stops its servers in order
                start_new_session=True,
            )
        running = self._read()
        running[name] = process.pid
        self._file.write_text(json.dumps(running))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            if _answers(ready):
                return log
            time.sleep(0.1)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{name} did not start:\n{tail}\nits log: {log}")

    def stop(self, grace: float = 45) -> list[str]:
        """Stop all servers in the reverse order of their start; returns their names."""
        stopped = []
        for name, pid in reversed(self._read().items()):
            if _is_ours(pid):
                _end(pid, grace)
                stopped.append(name)
        self._file.unlink(missing_ok=True)
        return stopped

    def _read(self) -> dict[str, int]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own loopback address
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _is_ours(pid: int) -> bool:
    """Whether the process still runs and is one of ours: ids are used again, and one that ended has no command."""
    try:
        command = subprocess.run(  # noqa: S603
            ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except OSError:
        return False
    return "extended_dlc.rehearsal" in command


def _end(pid: int, grace: float) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while _is_ours(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.1)
