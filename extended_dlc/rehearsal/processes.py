"""The processes of a rehearsal: its lock, its servers in the background, and how they and the CDK CLI are found."""

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

from extended_dlc.rehearsal import files

_NAMES = {
    r"-m extended_dlc\.rehearsal\.embedded": "aws",
    r"-m extended_dlc\.rehearsal\.hub": "hub",
    r"/(?:\.bin|bin)/cdk\b|\baws-cdk@": "cdk",
}
"""What runs beside a rehearsal, by its command."""


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Have the state to oneself; ValueError with the process that has it.

    The kernel holds the lock for this process, so that it ends with it, however that ends.
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
    """The background servers of one rehearsal, known by their arguments, so that any process can stop them."""

    def __init__(self, state: Path) -> None:
        """Servers that have a folder or file of `state` among their arguments; their ports and logs are below it."""
        self._argument = re.compile(rf"\s--[a-z]+={re.escape(str(state))}(?=[/\s]|$)")
        self._ports = state / "ports.json"
        self._logs = state / "logs"

    def port(self, name: str) -> int:
        """A free loopback port: the one that this server had last time where it is free.

        A container engine remembers by host and port which layers a registry has; the same port saves a push.
        """
        found = files.read_json(self._ports)
        ports = {key: each for key, each in found.items() if isinstance(each, int)} if isinstance(found, dict) else {}
        for wanted in (ports.get(name, 0), 0):
            with socket.socket() as probe, suppress(OSError, OverflowError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", wanted))
                ports[name] = probe.getsockname()[1]
                files.write(self._ports, json.dumps(ports))
                return ports[name]
        raise RuntimeError("no free port on 127.0.0.1: end some programs and try again")

    def start(
        self, name: str, *command: str, ready: str, timeout: float = 60, environment: Mapping[str, str] | None = None
    ) -> Path:
        """Start `python -m command…` and wait until `ready` answers; returns its log, raises with its last lines.

        :param environment: What it has beside this program's own.
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
                # a Ctrl-C in the terminal is for the rehearsal, which then stops its servers in order
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
        """The process ids of what runs, and the name of each; the last to start comes first."""
        found = {}
        for pid, command in sorted(_commands().items(), reverse=True):
            name = next((name for pattern, name in _NAMES.items() if re.search(pattern, command)), None)
            if name is not None and pid != os.getpid() and self._argument.search(command):
                found[pid] = name
        return found

    def stop(self, grace: float = 45, *, names: Collection[str] | None = None) -> list[str]:
        """Stop all servers and a CDK CLI that a killed rehearsal left, or those of these names; returns their names."""
        # the CLI first, or it would go on with a server that is not there
        running = sorted(self.running().items(), key=lambda each: each[1] != "cdk")
        running = [each for each in running if names is None or each[1] in names]
        for pid, _ in running:
            self._end(pid, grace)
        return [name for _, name in running]

    def _end(self, pid: int, grace: float) -> None:
        """End a process with all that it started: each is the first of a session of its own."""
        with suppress(ProcessLookupError):
            end = os.killpg if os.getpgid(pid) == pid else os.kill
            end(pid, signal.SIGTERM)
            deadline = time.monotonic() + grace
            while pid in self.running() and time.monotonic() < deadline:
                time.sleep(0.1)
            end(pid, signal.SIGKILL)  # the first itself, or what is left of its session


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own loopback address
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _commands() -> dict[int, str]:
    """The command lines of all processes by their ids; one that has ended and is not yet buried has an empty one."""
    proc = Path("/proc")
    if (proc / "self" / "cmdline").exists():
        found = {}
        for each in proc.iterdir():
            if each.name.isdigit():
                with suppress(OSError):  # it ends in this moment, or is another user's
                    command = (each / "cmdline").read_bytes()
                    found[int(each.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found
    listed = subprocess.run(
        ["ps", "-axww", "-o", "pid=,command="],  # noqa: S607 - the system's
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    lines = (line.split(maxsplit=1) for line in listed.splitlines())
    return {int(line[0]): line[1] for line in lines if len(line) == 2}
