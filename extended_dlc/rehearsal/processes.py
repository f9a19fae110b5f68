"""A rehearsal's processes: its lock, its background servers, and how they and the CDK CLI are found."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from extended_dlc import files

_NAMES = {
    r"-m extended_dlc\.rehearsal\.embedded": "aws",
    r"-m extended_dlc\.rehearsal\.hub": "hub",
    r"/(?:\.bin|bin)/cdk\b|\baws-cdk@": "cdk",
}
"""The processes of a rehearsal by their command lines."""


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Lock the state folder. Raises `ValueError` with the process that holds the lock.

    The lock is the kernel's (flock), so it is released when this process ends in any way.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "which has not written its id yet"
            raise ValueError(
                f"another rehearsal of {state.parent} is running (process {holder}): wait for its end, or interrupt it "
                f"with kill -INT {holder}; it takes down what it started"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
        lock.truncate(0)


class Servers:
    """The background servers of one rehearsal; any process can find them by their arguments and stop them."""

    def __init__(self, state: Path) -> None:
        """Manages the servers with a path in `state` among their arguments; `state` also has their ports and logs."""
        self._argument = re.compile(rf"\s--[a-z]+={re.escape(str(state))}(?=[/\s]|$)")
        self._ports = state / "ports.json"
        self._logs = state / "logs"

    def port(self, name: str) -> int:
        """A free loopback port; the server's last one where it is free.

        Container engines cache by host and port which layers a registry has, so the same port saves a push.
        """
        found = files.read_json(self._ports)
        ports = {key: each for key, each in found.items() if isinstance(each, int)} if isinstance(found, dict) else {}
        self._ports.parent.mkdir(parents=True, exist_ok=True)
        for wanted in (ports.get(name, 0), 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", wanted))
                except (OSError, OverflowError):
                    continue
                ports[name] = probe.getsockname()[1]
            files.write(self._ports, json.dumps(ports))
            return ports[name]
        raise RuntimeError("no free port on 127.0.0.1: end some programs and try again")

    def start(
        self, name: str, *command: str, ready: str, timeout: float = 60, environment: Mapping[str, str] | None = None
    ) -> Path:
        """Start `python -m command…` and wait until the URL `ready` responds; returns the log's path.

        Raises `RuntimeError` with the log's last lines.

        :param environment: Variables beside this program's own.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                [sys.executable, "-m", *command],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C goes to the rehearsal only, which then stops its servers in order
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            if _answers(ready):
                return log
            time.sleep(0.1)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{name} did not start:\n{tail}\nits log: {log}")

    def running(self) -> dict[int, str]:
        """The running processes' IDs and names, the latest first."""
        found = {}
        for pid, command in sorted(_commands().items(), reverse=True):
            name = next((name for pattern, name in _NAMES.items() if re.search(pattern, command)), None)
            if name is not None and pid != os.getpid() and self._argument.search(command):
                found[pid] = name
        return found

    def stop(self, grace: float = 45, *, names: Collection[str] | None = None) -> list[str]:
        """Stop all servers and a killed rehearsal's CDK CLI, or only those of these names; returns their names."""
        # the CLI first, or it would go on without a server
        running = sorted(self.running().items(), key=lambda each: each[1] != "cdk")
        running = [each for each in running if names is None or each[1] in names]
        for pid, _ in running:
            self._end(pid, grace)
        return [name for _, name in running]

    def _end(self, pid: int, grace: float) -> None:
        """End a process with its children: each leads its own session."""
        with suppress(ProcessLookupError):
            end = os.killpg if os.getpgid(pid) == pid else os.kill
            end(pid, signal.SIGTERM)
            deadline = time.monotonic() + grace
            while pid in self.running() and time.monotonic() < deadline:
                time.sleep(0.1)
            end(pid, signal.SIGKILL)  # the process itself, or the rest of its session


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - a loopback address
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _commands() -> dict[int, str]:
    """The command lines of all processes by ID; a zombie's is empty."""
    proc = Path("/proc")
    if (proc / "self" / "cmdline").exists():
        found = {}
        for each in proc.iterdir():
            if each.name.isdigit():
                with suppress(OSError):  # the process ends at this moment, or is another user's
                    command = (each / "cmdline").read_bytes()
                    found[int(each.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found
    listed = subprocess.run(
        ["ps", "-axww", "-o", "pid=,command="],  # noqa: S607 - the system's ps
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    lines = (line.split(maxsplit=1) for line in listed.splitlines())
    return {int(line[0]): line[1] for line in lines if len(line) == 2}
