"""Fixtures of the rehearsal's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from extended_dlc.rehearsal.engine import Engine, EngineError, find_engine

STATE = Path(__file__).parents[2] / ".rehearsal"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes 10 s or more; leave them out with -m 'not slow'")


@pytest.fixture(scope="module")
def engine() -> Engine:
    """This machine's container engine with the rehearsal's store, so that images are made only once."""
    if not (shutil.which("docker") or shutil.which("podman")):
        pytest.skip("needs a container engine: install Docker Engine or podman, or run 'extended-dlc rehearse' once")
    try:
        return find_engine(STATE, registry="127.0.0.1:5000", say=lambda _: None)
    except EngineError as error:
        pytest.skip(f"needs a container engine: {error}")
