"""Fixtures of the unit tests: a fresh stack, and a template from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from aws_cdk import App, Environment, Stack  # noqa: E402


@pytest.fixture
def stack() -> Stack:
    """An empty stack in us-east-1."""
    return Stack(App(), "Test", env=Environment(region="us-east-1"))


@pytest.fixture
def shipped_settings() -> dict[str, Any]:
    """The settings in the repository's own cdk.json."""
    context: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text())["context"]["extended-dlc"]
    return context
