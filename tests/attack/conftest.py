"""`make attack`: attacks on real servers with tiny models. `--minutes 3` runs the part that fits into so many."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attack.targets import TARGETS, Body, Target
from tests.runtime.conftest import (  # noqa: F401 - fixtures
    NEWEST,
    Answer,
    Server,
    Start,
    ffmpeg_folder,
    models,
    overlay,
    start_server,
)

MOST_SERVERS = 2
"""The number of servers that run at once: CI has two cores."""

DEADLINE = 3
"""Seconds that an answer may take from the attacked servers."""

STARTING = 8
"""Seconds for the start of a server, in addition to the share of its kind."""

GIGABYTE = 1024**3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=0, help="run the part of the attacks that fits; default: all")


def minutes(config: pytest.Config) -> float:
    return float(config.getoption("--minutes", default=0))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the attacks only if the command names this folder: they load the whole machine."""
    here = Path(__file__).parent
    if minutes(config):  # first the tests of what no other suite covers
        last = {"test_security_md.py": -1, "test_health.py": 1, "test_connections.py": 2}
        kinds = list(TARGETS)

        def order_of(item: pytest.Item) -> tuple[int, int, bool]:
            call = getattr(item, "callspec", None)
            kind = call.params.get("kind") if call else None
            order = kinds.index(kind) if kind else 0
            return last.get(item.path.name, 0), order, item.path.name == "test_random.py"

        items.sort(key=order_of)
    asked = any("attack" in str(argument) for argument in config.args)
    for item in items:
        if here not in item.path.parents:
            continue
        if not asked:
            item.add_marker(pytest.mark.skip(reason="make attack"))
        elif minutes(config) and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes longer than --minutes"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: not in the part of the attacks that has few minutes")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `kind` and names none runs against each server; all tests of one run before the next one's."""
    named = any("kind" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "kind" in metafunc.fixturenames and not named:
        short = minutes(metafunc.config) > 0
        kinds = [kind for kind, target in TARGETS.items() if target.in_short or not short]
        metafunc.parametrize("kind", kinds, scope="session")


@pytest.fixture(scope="session")
def began() -> float:
    return time.monotonic()


@pytest.fixture(scope="session")
def seconds_left(request: pytest.FixtureRequest, began: float) -> Callable[[float], float]:
    """The seconds that an open-ended test may take: those it wants, or its share of `--minutes`."""

    def left(wanted: float) -> float:
        given = minutes(request.config)
        return min(wanted, max(1, began + 60 * given - time.monotonic()), 60 * given / 30) if given else wanted

    return left


@pytest.fixture(scope="session")
def first_asked() -> dict[str, float]:
    """Kind -> when the first test of it began."""
    return {}


@pytest.fixture(autouse=True)
def within_minutes(request: pytest.FixtureRequest, began: float, first_asked: dict[str, float]) -> None:
    """Each kind has its share of `--minutes`; what does not fit is skipped, and runs in the whole suite."""
    seconds, now = 60 * minutes(request.config), time.monotonic()
    if not seconds or request.path.name == "test_security_md.py":
        return
    call = getattr(request.node, "callspec", None)
    kind = call.params.get("kind") if call else None
    if kind is None or request.path.name == "test_random.py":
        over = now > began + 1.5 * seconds
    else:
        short = [target for target in TARGETS.values() if target.in_short]
        over = now > first_asked.setdefault(kind, now) + seconds / len(short) + STARTING
    if over:
        pytest.skip("the minutes are over")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model, which is made at its first use."""
    folder = tmp_path_factory.mktemp("attacked")

    def make(model: str) -> Path:
        if not (folder / model / "config.json").exists():
            program = Path(__file__).with_name("models.py")
            subprocess.run([sys.executable, program, folder, model], check=True, capture_output=True)
        return folder / model

    return make


@pytest.fixture(scope="session")
def serve(start_server: Start, made: Callable[[str], Path]) -> Callable[..., Attacked]:  # noqa: F811
    """The server of a target; it runs until newer ones exceed `MOST_SERVERS`."""
    running: dict[str, Attacked] = {}

    def start(kind: str) -> Attacked:
        if kind not in running or running[kind].server.process.poll() is not None:
            while len(running) >= MOST_SERVERS:
                oldest = next(iter(running))
                running.pop(oldest).server.stop()
            target = TARGETS[kind]
            limits = {"EXTENDED_DLC_ANSWER_SECONDS": str(DEADLINE), "EXTENDED_DLC_STREAM_SECONDS": str(DEADLINE)}
            environment = {"HF_TASK": target.task, "HF_TOKEN": "hf_secretsecretsecret", **limits}
            server = start_server(made(target.model), target.release, **environment, **target.environment)
            running[kind] = Attacked(server.wait_until_ready(), kind, target)
        return running[kind]

    return start


class Attacked:
    """A server, with a control request and its answer."""

    def __init__(self, server: Server, kind: str, target: Target) -> None:
        self.server, self.kind, self.target = server, kind, target
        self.control = server.ask(target.control)
        assert self.control.status == 200, self.control.body
        mapped = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        # a limit, so that a decompression bomb fails a test and not the machine
        most = mapped + 6 * GIGABYTE
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (most, most))
        self.answers_alike = server.ask(target.control).body == self.control.body

    def ask(self, body: Body | bytes, timeout: float = 30, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.server.request(
            "POST", "/invocations", data, {"Content-Type": "application/json", **headers}, timeout
        )

    def check(self, body: Any = None) -> None:
        """Assert that the server runs and answers its control request as before."""
        assert self.server.process.poll() is None, (shortened(body), self.server.log[-2000:])
        answer = self.ask(self.target.control)
        assert answer.status == 200, (shortened(body), answer.body)
        if self.answers_alike:
            assert answer.body == self.control.body, shortened(body)

    def expect_honesty(self, body: Body | bytes, timeout: float = 30) -> Answer:
        """Send any request; assert an answer, or a caller's error that says what to do."""
        answer = self.ask(body, timeout)
        assert answer.status < 500 or answer.status == 507, (shortened(body), answer.status, answer.body[:500])
        if answer.status >= 400:
            message = answer.error[2]
            assert 20 < len(message) < 4000, (shortened(body), message)
            # on a GPU an index out of range ends the process
            assert "IndexError" not in message, (shortened(body), message)
        return answer

    @property
    def resident(self) -> int:
        """The server's resident memory in megabytes."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]


def shortened(body: Any) -> str:
    text = body[:400].decode("utf-8", "replace") if isinstance(body, bytes) else json.dumps(body)
    return text if len(text) < 400 else f"{text[:200]} … {text[-150:]}"


@pytest.fixture
def attacked(kind: str, serve: Callable[[str], Attacked]) -> Attacked:
    return serve(kind)


class Listener:
    """A port that the server must not connect to, and a file that it must not open."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.calls: list[bytes] = []
        self.file = folder / "canary.png"
        self.file.write_bytes(b"\x89PNG\r\n\x1a\n")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.inotify_init1(os.O_NONBLOCK)
        opened_or_read = 0x20 | 0x1
        assert self._libc.inotify_add_watch(self._watch, str(self.file).encode(), opened_or_read) >= 0
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def names(self) -> tuple[str, ...]:
        return (
            *(str(self.file), f"file://{self.file}", f"http://127.0.0.1:{self.port}/a.png"),
            *(f"HTTP://127.0.0.1:{self.port}/b.wav", f"data:image/png,http://127.0.0.1:{self.port}/"),
        )

    @property
    def opened(self) -> bytes:
        try:
            return os.read(self._watch, 4096)
        except BlockingIOError:
            return b""

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            self.calls.append(b"connected")
            connection.close()


@pytest.fixture(scope="session")
def forbidden(tmp_path_factory: pytest.TempPathFactory) -> Listener:
    return Listener(tmp_path_factory.mktemp("forbidden"))
