"""The embedded AWS as a process, boto3 clients for it, and an image made with only the standard library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from extended_dlc.rehearsal import hub
from tests.support.embedded import (
    Aws,
    start,
    stub_engine,
)
from tests.support.training import training_aws


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """One embedded AWS for all tests of a process; each test uses its own names."""
    stub = tmp_path_factory.mktemp("engine")
    options = ("--invoke-seconds=2", "--container-env=PLATFORM=embedded", f"--engine={stub_engine(stub)}")
    running = start(tmp_path_factory.mktemp("state"), stub, *options)
    yield running
    running.stop()


@pytest.fixture
def start_aws(tmp_path: Path) -> Iterator[Callable[..., Aws]]:
    """Starts an embedded AWS for one test, and stops it at the test's end."""
    started: list[Aws] = []

    def begin(*options: str, state: Path = tmp_path / "state") -> Aws:
        stub = tmp_path / f"engine{len(started)}"
        stub.mkdir()
        if "--engine" in options:
            options = (*(each for each in options if each != "--engine"), f"--engine={stub_engine(stub)}")
        started.append(start(state, stub, *options))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.stop()


@pytest.fixture(scope="module")
def hub_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A stand-in for the Hub with one model: its URL and the model's commit."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "acme" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bloom"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    server = make_server("127.0.0.1", 0, hub.Hub(root), threaded=True, request_handler=hub._Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.port}", hub.Snapshot(model="acme/tiny", folder=folder, private=False).commit()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An embedded AWS with an image, a role and training data."""
    with training_aws(tmp_path_factory) as running:
        yield running
