"""Fixtures of the unit tests: a fresh stack, the shipped settings, and moto in the place of AWS."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import boto3  # noqa: E402
from aws_cdk import Stack  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

from tests.support.doctor import Programs, use  # noqa: E402
from tests.support.stacks import new_stack  # noqa: E402


@pytest.fixture
def stack() -> Stack:
    """An empty stack in us-east-1."""
    return new_stack()


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
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    # moto loads a service at its first request; beside other processes that takes longer than the doctor waits (4 s)
    calls = {"sts": "get_caller_identity", "ssm": "describe_parameters", "ecr": "describe_repositories"}
    for service, operation in calls.items():
        getattr(boto3.client(service, region_name="us-east-1", endpoint_url=url, **keys), operation)()
    yield url
    server.stop()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A search path with nothing on it, and a way to put programs of Python's own there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("CDK_DOCKER", "BUILDAH_FORMAT"):
        monkeypatch.delenv(variable, raising=False)

    def put(name: str, source: str, *, into: Path = folder) -> Path:
        into.mkdir(parents=True, exist_ok=True)
        program = into / name
        program.write_text(f"#!{sys.executable}\nimport sys\nwords = sys.argv[1:]\n{source}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    return put


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """moto as the AWS of the caller's environment."""
    return use(moto, monkeypatch)
