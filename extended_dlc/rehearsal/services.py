"""The services of a rehearsal: the container engine, the embedded AWS, stand-in images and the stand-in for the Hub."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from extended_dlc.rehearsal import failures, tiny_models
from extended_dlc.rehearsal.base_image import stand_in as standin
from extended_dlc.rehearsal.base_image.stand_in import Parts
from extended_dlc.rehearsal.cdk import REGION, aws_environment, without_proxy
from extended_dlc.rehearsal.client import Client
from extended_dlc.rehearsal.engine import LABEL, Engine, EngineError, find_engine
from extended_dlc.rehearsal.engine_front import Front
from extended_dlc.rehearsal.host_pip import host_pip
from extended_dlc.rehearsal.processes import Servers
from extended_dlc.rehearsal.report import Report, Step

STANDINS: Mapping[str, Parts] = {
    "huggingface-pytorch-inference": standin.DLC_4_51_3,
    "huggingface-pytorch-training": standin.TRAINING_5_3_0,
    "pytorch": standin.DLC_4_51_3,
    "pytorch-inference": standin.DLC_4_51_3,
}
"""Repository of AWS's to the packages of the stand-in for its images with any tag."""

NAME = "extended-dlc-rehearsal"
"""The stack's name, and the prefix of each endpoint's name."""

NOBODY = "http://127.0.0.1:9"
"""An address at which nothing listens: the port of the discard service."""


class Services:
    """What an app finds on this machine in place of AWS and the Hub; each is started by a step of its own."""

    engine: Engine
    """The container engine, after `container_engine`."""
    client: Client
    """The client of the embedded AWS, after `embedded_aws`."""
    failures: Mapping[str, object] = {}
    """The embedded AWS's scenarios on request (`embedded/scenarios.py`)."""
    hidden: Sequence[str] = ()
    """The caller's variables that would lead a client of AWS's past the embedded one."""
    hub_address: str = ""
    """The URL of the stand-in for the Hub, after `hub`."""

    def __init__(self, state: Path, report: Report, servers: Servers) -> None:
        """Services with their files in the folder `state`; none of them runs yet."""
        self.state = state
        self.report = report
        self.regions: tuple[str, ...] = (REGION,)
        self.has_engine = False
        self._servers = servers
        self._port = servers.port("aws")
        self._front: Front | None = None
        self._standins: dict[str, str] = {}
        self._hub_is_away = False

    @property
    def region(self) -> str:
        """The region of the app's first stack."""
        return self.regions[0]

    def container_engine(self) -> None:
        with self.report.step("find a container engine") as step:
            self.engine = find_engine(
                self.state,
                registry=f"127.0.0.1:{self._port}",
                say=self.report.say,
                on_download=_count(step),
            )
            self.engine.save(self.state / "engine.json")
            self.has_engine = True
            step.proof = self.engine.version()
            if self.engine.has_one_exporter:
                step.proof += "; cdk deploy to AWS needs Docker 23 or newer, which builds with buildx"
                self.put_in_front({})

    def embedded_aws(self, containers: Mapping[str, str] | None = None) -> None:
        """Start the embedded AWS.

        :param containers: Environment variables of every endpoint's container and of every model copy. Default: the URL
            of the stand-in for the Hub, which starts later.
        """
        if containers is None:
            containers = {"HF_ENDPOINT": f"http://127.0.0.1:{self._servers.port('hub')}"}
        with self.report.step("start the embedded AWS") as step:
            port = self._port
            log = self._servers.start(
                "aws",
                "extended_dlc.rehearsal.embedded",
                f"--state={self.state}",
                f"--port={port}",
                *([f"--engine={self.state / 'engine.json'}"] if self.has_engine else []),
                *(f"--container-env={name}={value}" for name, value in containers.items()),
                *([f"--scenarios={json.dumps(self.failures)}"] if self.failures else []),
                ready=f"http://127.0.0.1:{port}/v2/",
                environment=containers,
            )
            self.client = Client(port=port, name=NAME)
            step.log = str(log)
            step.proof = f"AWS's APIs, ECR's registry and the SageMaker runtime on 127.0.0.1:{port}"

    def base_image(self, parts: Parts) -> str:
        """Make the stand-in of these packages; returns its name in the engine's store."""
        with self.report.step("make the stand-in for AWS's base image") as step:
            base = standin.make_standin(
                self.engine, self.state, parts=parts, say=self.report.detail, on_download=_count(step)
            )
            self._standins |= {repository: base for repository, made in STANDINS.items() if made.family == parts.family}
            step.proof = f"{base}: a stand-in, made from the same PyPI packages as the DLC, which cannot be pulled here"
            return base

    def models(self) -> None:
        """Make the tiny models in the inference stand-in."""
        with self.report.step("make tiny random models") as step:
            image = standin.make_standin(self.engine, self.state, say=self.report.detail, on_download=_count(step))
            made = tiny_models.make_models(self.engine, image, self.state / "hub")
            step.proof = f"{', '.join(made)}: the real architectures, a few hundred thousand random weights"

    def hub(self, folder: str = "hub") -> None:
        """Start the stand-in for the Hub with the models in a folder of the state."""
        with self.report.step("start the stand-in for the Hugging Face Hub") as step:
            port = self._servers.port("hub")
            log = self._servers.start(
                "hub",
                "extended_dlc.rehearsal.hub",
                f"--root={self.state / folder}",
                f"--port={port}",
                ready=f"http://127.0.0.1:{port}/api/models/{tiny_models.BLOOM}",
            )
            step.log = str(log)
            self.hub_address = f"http://127.0.0.1:{port}"
            step.proof = f"HF_ENDPOINT={self.hub_address}"

    def failures_met(self) -> list[str]:
        """A line for each failure on request, while the embedded AWS is up: how often it came up."""
        if not self.failures or not self.is_up:
            return []
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/_embedded/scenarios", timeout=10) as answer:
            met = json.load(answer)["met"]
        return list(failures.came_up(self.failures, met))

    @property
    def is_up(self) -> bool:
        """Whether the embedded AWS is running."""
        return "aws" in self._servers.running().values()

    def stop(self, name: str) -> None:
        """Stop one server, if it runs."""
        self._servers.stop(names=(name,))

    def containers(self) -> list[str]:
        """The containers of the rehearsal that the engine has."""
        return self.engine.containers(f"{LABEL}={self.state}") if self.has_engine else []

    def environment(self) -> dict[str, str]:
        """The environment variables with which the CDK, extended-dlc and AWS clients use only what is running here."""
        engine: dict[str, str] = {}
        if self._front is not None:
            engine = {"CDK_DOCKER": str(self._front.install(self.state / "front"))}
        elif self.has_engine:
            engine = {"CDK_DOCKER": self.engine.program, **self.engine.environment}
        return {
            **aws_environment(self._port, self.region),
            **engine,
            # the CLI caches accounts by access key, and every rehearsal's key is `testing`
            "CDK_HOME": str(self.state / "cdk-home"),
            **without_proxy(os.environ),
            **({"HF_ENDPOINT": NOBODY if self._hub_is_away else self.hub_address} if self.hub_address else {}),
        }

    @contextmanager
    def hub_away(self) -> Iterator[None]:
        """Inside, no program of the deployer's reaches a Hub, so that nothing is looked up."""
        self._hub_is_away = True
        try:
            yield
        finally:
            self._hub_is_away = False

    def put_in_front(self, standins: Mapping[str, str], by_name: tuple[str, ...] = ()) -> None:
        """Let builds use stand-ins for AWS's images, and this machine's pip settings, from now on."""
        if by_name and self.engine.has_one_exporter:
            raise EngineError(
                f"a Dockerfile names {by_name[0]} in its FROM, and Docker before 23 cannot put its "
                "stand-in there: update Docker, or name the image by an ARG"
            )
        pip = host_pip(self.state / "pip")
        secrets = {"pip-config": pip.pip_config, "ca-bundle": pip.ca_bundle}
        self._front = Front(
            program=self.engine.program,
            environment=self.engine.environment,
            is_podman=self.engine.is_podman(),
            has_one_exporter=self.engine.has_one_exporter,
            standins=standins,
            by_name=by_name,
            secrets={name: file for name, file in secrets.items() if file},
        )


def _count(step: Step) -> Callable[[str, float], None]:
    """Returns a function that adds the seconds of downloads to a step."""

    def on_download(what: str, seconds: float) -> None:
        step.download_seconds += seconds

    return on_download
