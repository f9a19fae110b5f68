"""Fixtures of the unit tests: a fresh stack, the shipped settings, and moto in the place of AWS."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from aws_cdk import App, Environment, Stack  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402


@pytest.fixture
def stack() -> Stack:
    """An empty stack in us-east-1."""
    return Stack(App(), "Test", env=Environment(region="us-east-1"))


@pytest.fixture
def shipped_settings() -> dict[str, Any]:
    """The settings in the repository's own cdk.json."""
    context: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text())["context"]["extended-dlc"]
    return context


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of moto's server: STS, SSM and ECR among others."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
