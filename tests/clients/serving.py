"""Endpoints of the embedded AWS whose containers are the real in-image server, each a process on one tiny model."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from extended_dlc.rehearsal.engine import Engine
from tests.support.embedded import ACCOUNT, Aws, Image, start, stub_engine, uri

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "docker" / "inference"
LONGEST_START = 180


@dataclass
class Rehearsal:
    """An embedded AWS and its endpoints."""

    folder: Path
    packages: tuple[Path, ...]
    """Folders before the installed packages: another transformers release, and further packages of the image."""

    aws: Aws = field(init=False)

    def __enter__(self) -> Rehearsal:
        import imageio_ffmpeg

        engine = self.folder / "engine"
        programs, self._ports = self.folder / "programs", self.folder / "ports"
        for each in (engine, programs, self._ports):
            each.mkdir(parents=True)
        (programs / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        saved = stub_engine(engine)
        instance = str(Path(__file__).with_name("instance.py"))
        Engine(program=str(engine / "engine"), environment={"STUB_STATE": str(engine), "STUB_SERVER": instance}).save(
            saved
        )
        environment = {
            "CLIENTS_PORTS": str(self._ports),
            "CLIENTS_PROGRAMS": str(programs),
            "PYTHONPATH": os.pathsep.join(map(str, [*self.packages, IMAGE])),
        }
        options = [f"--container-env={name}={value}" for name, value in environment.items()]
        self.aws = start(self.folder / "state", engine, f"--engine={saved}", *options)
        self.aws.client("ecr").create_repository(repositoryName="served")
        Image("served").push(self.aws, "served", "v1")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.aws.stop()

    def begin(self, name: str, model: Path, **environment: str) -> None:
        """Create an endpoint on a model without waiting for it."""
        sagemaker = self.aws.client("sagemaker")
        variables = {"CLIENTS_MODEL": str(model), "CLIENTS_ENDPOINT": name, **environment}
        role = f"arn:aws:iam::{ACCOUNT}:role/execution"
        container = {"Image": uri("served", "v1"), "Environment": variables}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
        variant = {"VariantName": "All", "ModelName": name, "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def settled(self, name: str) -> dict[str, Any]:
        """The endpoint's description after its creation has ended."""
        deadline = time.monotonic() + LONGEST_START
        while True:
            found: dict[str, Any] = self.aws.client("sagemaker").describe_endpoint(EndpointName=name)
            if found["EndpointStatus"] != "Creating":
                return found
            if time.monotonic() > deadline:
                sys.exit(f"the endpoint '{name}' does not come up within {LONGEST_START} s: {self.folder}/state/logs")
            time.sleep(0.1)

    def port(self, name: str) -> int:
        """The container's port, after its endpoint is in service."""
        found = self.settled(name)
        if found["EndpointStatus"] != "InService":
            sys.exit(f"the endpoint '{name}' is {found['EndpointStatus']}: {found.get('FailureReason')}")
        return int((self._ports / name).read_text())

    def end(self, name: str) -> None:
        """Delete an endpoint, which stops its server."""
        self.aws.client("sagemaker").delete_endpoint(EndpointName=name)
