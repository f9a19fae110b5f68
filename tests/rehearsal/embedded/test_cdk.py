"""The real CDK CLI against the embedded AWS, as `extended-dlc rehearse` runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from extended_dlc.rehearsal.engine import LABEL, Engine, find_engine
from tests.support.embedded import ACCOUNT, REGION, Aws, Image, cdk_environment, digest, free_port, start
from tests.support.endpoints import answer

CLI = Path(__file__).parents[3] / "node_modules" / ".bin" / "cdk"
APP = Path(__file__).parent / "app.py"

pytestmark = pytest.mark.skipif(not CLI.exists(), reason="the CDK CLI is not installed: run `make setup`")


@dataclass
class Cdk:
    """Runs the CDK CLI with its environment."""

    aws: Aws
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, fails: bool = False, **environment: str) -> str:
        done = subprocess.run(
            [str(CLI), *arguments, "--no-notices"],
            cwd=self.folder,
            env=cdk_environment(self.aws, self.folder) | self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def bootstrap(self) -> str:
        return self("bootstrap", f"aws://{ACCOUNT}/{REGION}")

    def deploy(self, greeting: str, *, fails: bool = False) -> str:
        options = ("--require-approval=never", "--outputs-file=outputs.json")
        return self("deploy", f"--app={sys.executable} {APP}", *options, GREETING=greeting, fails=fails)

    def destroy(self) -> str:
        return self("destroy", f"--app={sys.executable} {APP}", "--force")


def endpoint_config(aws: Aws) -> str:
    return str(aws.client("sagemaker").describe_endpoint(EndpointName="tiny")["EndpointConfigName"])


def test_a_stack_is_deployed_updated_rolled_back_and_destroyed(start_aws: Callable[..., Aws], tmp_path: Path) -> None:
    aws = start_aws("--engine")
    aws.client("ecr").create_repository(repositoryName="source")
    Image("cdk").push(aws, "source", "v1")
    cdk = Cdk(aws, tmp_path, {"IMAGE": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/source:v1"})
    cdk.bootstrap()
    assert "no changes" in cdk.bootstrap()
    bootstrapped = aws.left()

    cdk.deploy("a")
    outputs = json.loads((tmp_path / "outputs.json").read_text())["Tiny"]
    assert outputs["Name"] == "tiny"
    assert outputs["Uri"].startswith(f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/tiny-repository")
    assert answer(aws, "tiny").startswith("a ")
    first = endpoint_config(aws)

    cdk.deploy("b")
    assert answer(aws, "tiny").startswith("b ")
    second = endpoint_config(aws)
    assert second != first

    failure = cdk.deploy("crash", fails=True)
    stack = aws.client("cloudformation").describe_stacks(StackName="Tiny")["Stacks"][0]
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "cannot load the model: out of luck" in failure
    assert answer(aws, "tiny").startswith("b ")
    assert endpoint_config(aws) == second

    assert "no changes" in cdk.deploy("b")
    aws.client("s3").put_object(
        Bucket=next(each for each in aws.left()["buckets"] if each.startswith("tiny-")), Key="k", Body=b""
    )
    cdk.destroy()
    assert aws.left() == bootstrapped


@pytest.mark.thorough
def test_failures_on_request_end_as_at_aws(start_aws: Callable[..., Aws], tmp_path: Path) -> None:
    throttled = {"cloudformation:DescribeStacks": 2, "sagemaker:CreateModel": 3}
    aws = start_aws("--engine", f"--scenarios={json.dumps({'throttled': throttled, 'role_seconds': 3})}")
    aws.client("ecr").create_repository(repositoryName="source")
    Image("cdk").push(aws, "source", "v1")
    cdk = Cdk(aws, tmp_path, {"IMAGE": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/source:v1"})
    cdk.bootstrap()
    cdk.deploy("a")
    met = json.loads(aws.request("GET", "/_embedded/scenarios").body)["met"]
    assert {name: met[f"throttled: {name}"] for name in throttled} == throttled
    assert met["role_seconds"] >= 1
    first = endpoint_config(aws)

    aws.request("POST", "/_embedded/scenarios", '{"shortages": ["ml.g6.xlarge"]}')
    assert "InsufficientInstanceCapacity" in cdk.deploy("b", fails=True)
    assert endpoint_config(aws) == first
    assert answer(aws, "tiny").startswith("a ")


@pytest.mark.skipif(
    not (shutil.which("podman") or shutil.which("docker")) or not shutil.which("gcc"),
    reason="needs a container engine, and gcc for a server that fits an empty image",
)
@pytest.mark.thorough
def test_an_image_asset_is_built_pushed_copied_pulled_by_digest_and_run(tmp_path: Path) -> None:
    image, state = tmp_path / "image", tmp_path / "state"
    image.mkdir()
    (image / "Dockerfile").write_text('FROM scratch\nCOPY server /server\nENTRYPOINT ["/server"]\n')
    source = Path(__file__).parent / "server.c"
    subprocess.run(["gcc", "-static", "-o", str(image / "server"), str(source)], check=True)
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="engine"))  # a short path, because the engine puts sockets in it
    engine = find_engine(folder, registry=f"127.0.0.1:{port}", say=print)
    engine.save(tmp_path / "engine.json")
    aws = start(state, tmp_path, f"--engine={tmp_path / 'engine.json'}", port=port)
    try:
        cdk = Cdk(aws, tmp_path, {**engine.environment, "CDK_DOCKER": engine.program, "IMAGE_FOLDER": str(image)})
        cdk.bootstrap()
        cdk.deploy("good day")
        assert answer(aws, "tiny") == "good day"
        deployed = aws.client("sagemaker").describe_endpoint(EndpointName="tiny")["ProductionVariants"][0]
        resolved = deployed["DeployedImages"][0]["ResolvedImage"]
        repository, _, wanted = resolved.rpartition("/")[2].partition("@")
        assert digest(aws.request("GET", f"/v2/{repository}/manifests/{wanted}").body) == wanted
        assert len(engine.containers(f"{LABEL}={state}", running_only=True)) == 1
        assert "cannot load the model: crash" in cdk.deploy("crash", fails=True)
        assert answer(aws, "tiny") == "good day"
        cdk.destroy()
        assert engine.containers(f"{LABEL}={state}") == []
    finally:
        aws.stop()
        remove_store(engine, state)
        shutil.rmtree(folder, ignore_errors=True)


def remove_store(engine: Engine, state: Path) -> None:
    """Remove the test's containers and images from the machine's engine."""
    engine.remove_containers(f"{LABEL}={state}")
    if engine.is_podman() and engine.environment:
        engine.call("system", "reset", "--force")
    assert os.path.isdir(state)
