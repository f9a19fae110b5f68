"""What the doctor is asked about, programs that it finds on the path, and how its findings are read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from extended_dlc.doctor import Finding, Ok, Problem, Target, Unknown

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
REGION = "us-east-1"
OURS = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/ours"
Programs = Callable[..., Path]


def settings(base: str | None = None, **hosting: Any) -> dict[str, Any]:
    return {
        "region": REGION,
        "image": {"transformers": "5.23.0", "base": base},
        "endpoints": {"bloom": {"model": "bigscience/bloom-560m", "hosting": hosting}},
    }


def target(folder: Path, raw: Mapping[str, Any] | None = None, program: str = "docker") -> Target:
    return Target(folder=folder, settings=settings() if raw is None else raw, engine=program)


def assert_problem(finding: Finding, message: str, remedy: str) -> None:
    assert isinstance(finding, Problem), finding
    assert re.search(message, finding.message), finding.message
    assert re.search(remedy, finding.remedy), finding.remedy


def assert_ok(finding: Finding, message: str) -> None:
    assert isinstance(finding, Ok), finding
    assert re.search(message, finding.message), finding.message


def assert_unknown(finding: Finding, message: str) -> None:
    assert isinstance(finding, Unknown), finding
    assert re.search(message, finding.message), finding.message


def says(**answers: str) -> str:
    """The source of a program that prints an answer to its first words, and otherwise fails."""
    return (
        f"for start, answer in {list(answers.items())!r}:\n"
        "    if ' '.join(words).startswith(start.replace('_', ' ')):\n        sys.exit(print(answer))\n"
        "sys.exit('unknown command')"
    )


DOCKER = (
    "if words == ['--version']: print('Docker version 28.2.2, build e6534b4')\n"
    "elif words[0] == 'info':\n"
    "    print({{'{{{{.ServerVersion}}}}': '28.2.2', '{{{{.Architecture}}}}': {architecture!r},"
    " '{{{{.DockerRootDir}}}}': {root!r}, '{{{{json .DriverStatus}}}}': {store!r}}}[words[-1]])\n"
    "elif words[:2] == ['buildx', 'version']: print('github.com/docker/buildx v0.24.0 abc')\n"
    "elif words == ['build', '--help']: print({build_options!r})\n"
    "elif words[:2] == ['buildx', 'inspect']: print('{buildkit}\\nPlatforms: {platforms}')\n"
    "else: sys.exit('docker: unknown command')"
)
STOPPED = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
# as Docker 28 does it: the client's part, a line about the server on standard error, and status 1
STOPPED_DOCKER = (
    f"if words == ['--version']: print('Docker version 28.2.2, build e6534b4')\nelse: print(); sys.exit({STOPPED!r})"
)


def docker(
    architecture: str = "x86_64",
    root: str = "/",
    platforms: str = "linux/amd64",
    store: str = '[["Backing Filesystem","extfs"]]',
    buildkit: str = "",
    build_options: str = "--load --output stringArray",
) -> str:
    return DOCKER.format(
        architecture=architecture,
        root=root,
        platforms=platforms,
        store=store,
        buildkit=buildkit,
        build_options=build_options,
    )


def podman(architecture: str = "amd64") -> str:
    return (
        "if words == ['--version']: print('podman version 4.3.1')\n"
        f"else: print({{'{{{{.Version.Version}}}}': '4.3.1', '{{{{.Host.Arch}}}}': {architecture!r},"
        " '{{.Store.GraphRoot}}': '/'}[words[-1]])"
    )


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for variable in [name for name in os.environ if name.startswith(("AWS_", "EXTENDED_DLC"))]:
        monkeypatch.delenv(variable)
    given = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return url


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


def publish() -> str:
    """Put ours:1 into its repository."""
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    digest = f"sha256:{'1' * 64}"
    ecr = client("ecr")
    ecr.put_image(repositoryName="ours", imageTag="1", imageManifest=json.dumps(manifest), imageDigest=digest)
    return digest


def mirrored(**weights: str) -> dict[str, Any]:
    """Settings of an endpoint whose first component has mirrored weights."""
    found = settings()
    model = {"model": "openai/whisper-base", "revision": "a" * 40, "weights": {"kind": "mirrored", **weights}}
    parts = {"a": {"memory_mb": 512, **model}, "b": {"memory_mb": 512}}
    hosting = {"kind": "components", "maximum": 1, "components": parts}
    found["endpoints"]["shared"] = {"model": "bigscience/bloom-560m", "hosting": hosting}
    return found


def app(folder: Path, pinned: str = "2.1148.1") -> Target:
    (folder / "package.json").write_text(json.dumps({"devDependencies": {"aws-cdk": pinned}}))
    (folder / "package-lock.json").touch()
    return target(folder)
