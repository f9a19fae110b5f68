"""The parts that all scenarios use: the container engine, the embedded AWS, the stand-in for the Hub, the CDK."""

from __future__ import annotations

import json
import os
import shlex
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extended_dlc.app.read import lookups_file
from extended_dlc.rehearsal import failures, files, leftovers, tiny_models
from extended_dlc.rehearsal.base_image import stand_in as standin
from extended_dlc.rehearsal.base_image.stand_in import Parts
from extended_dlc.rehearsal.cdk import ACCOUNT, REGION, Cdk, aws_environment, without_proxy
from extended_dlc.rehearsal.client import Client
from extended_dlc.rehearsal.engine import LABEL, Engine, EngineError, find_engine
from extended_dlc.rehearsal.engine_front import Front
from extended_dlc.rehearsal.host_pip import host_pip
from extended_dlc.rehearsal.processes import Servers
from extended_dlc.rehearsal.project import Project, find_cli, is_shipped, shipped_transformers
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


class Stage:
    """The parts of a rehearsal, one step each; a scenario decides their order."""

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

    def __init__(
        self, app: Path, state: Path, report: Report, servers: Servers, project: Project | None = None
    ) -> None:
        """A stage for the app in the folder `app`.

        :param project: A user's app with its own settings. Default: the app of this package with a scenario's settings.
        """
        self.app = app
        self.state = state
        self.report = report
        self.project = project
        self.regions: tuple[str, ...] = (REGION,)
        self.has_engine = False
        self._servers = servers
        self._port = servers.port("aws")
        self._settings_file = state / "settings.json"
        self._front: Front | None = None
        self._standins: dict[str, str] = {}
        self._hub_is_away = False

    @property
    def app_settings(self) -> dict[str, Any]:
        """The settings of the shipped app."""
        return {"image": {"transformers": shipped_transformers(self.app)}}

    @property
    def region(self) -> str:
        """The region of the app's first stack."""
        return self.regions[0]

    # ---- the machine ----

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

    # ---- the app and the CDK ----

    def endpoint(self, model: str, **more: Any) -> dict[str, Any]:
        """Settings of an endpoint that loads its model from the stand-in for the Hub."""
        return {"model": model, "environment": {"HF_ENDPOINT": self.hub_address}, **more}

    def extended(self, base: str, transformers: str, **more: Any) -> dict[str, Any]:
        """Settings of an image that is built on this machine."""
        pip = host_pip(self.state / "pip")
        build = {
            "engine": "podman" if self.engine.is_podman() else "docker",
            "pip_config": pip.pip_config,
            "ca_bundle": pip.ca_bundle,
        }
        return {"transformers": transformers, "base": base, "build": build, **more}

    def bootstrap(self, image: Mapping[str, Any]) -> None:
        """Run `cdk bootstrap`; the CLI synthesizes first, for which any valid image is enough."""
        self._write_settings(image, {"bloom": self.endpoint(tiny_models.BLOOM)})
        self.cdk("cdk bootstrap", "bootstrap", f"aws://{ACCOUNT}/{REGION}")

    def deploy(
        self,
        name: str,
        *,
        image: Mapping[str, Any],
        endpoints: Mapping[str, Any],
        training: Mapping[str, Any] | None = None,
    ) -> None:
        """Run `cdk deploy` with these settings, which the app would accept anywhere."""
        self._write_settings(image, endpoints, training)
        self.cdk(
            name,
            "deploy",
            "--all",
            "--require-approval=never",
            "--progress=events",
            "--asset-build-concurrency=2",
        )

    def synth_refuses(self, name: str, *, image: Mapping[str, Any], endpoints: Mapping[str, Any], because: str) -> None:
        """Run `cdk synth` with settings that it must refuse; the reason is the step's proof."""
        self._write_settings(image, endpoints)
        with self.report.step(name) as step:
            log = self._log("synth")
            try:
                self._cdk_cli().run("synth", "--quiet", log=log, each_line=lambda line: None)
            except RuntimeError as error:
                if because not in str(error):
                    raise
                step.proof = next(line.strip() for line in str(error).splitlines() if because in line)
            else:
                raise RuntimeError(f"cdk synth accepted the settings, and was to refuse them: {because}")

    def destroy(self) -> None:
        """Run `cdk destroy`, and check that nothing is left but what the templates keep."""
        before = leftovers.deployed(self.client.service, self.regions)
        self.cdk("cdk destroy", "destroy", "--all", "--force")
        with self.report.step(f"nothing is left{' but what the template keeps' if before.kept else ''}") as step:
            left = leftovers.left(self.client.service, self.regions, before)
            others = [str(each) for each in left.others]
            if not any(each.type in leftovers.CONTAINED for each in left.kept):
                others += [f"container {each}" for each in self._containers()]
            if others:
                raise RuntimeError("cdk destroy left " + ", ".join(others))
            step.proof = left.proof

    def _containers(self) -> list[str]:
        return self.engine.containers(f"{LABEL}={self.state}") if self.has_engine else []

    def leave_up(self) -> None:
        """Print how to use what is running, and how to stop it."""
        if self.has_engine and self.project is None:  # the caller's own apps may use AWS's base images
            self.put_in_front(self._standins)
        environment = self.environment()
        file = self.state / "environment.sh"
        exports = [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
        if unwanted := [name for name in self.hidden if name not in environment]:
            exports.insert(0, f"unset {' '.join(unwanted)}")
        files.write(file, "".join(f"{each}\n" for each in exports))
        self.report.say("everything is left up; to use it, paste:")
        for each in exports:
            self.report.say(each)
        self.report.say(f"or: . {shlex.quote(str(file))}")
        self.report.say("and to end it: extended-dlc rehearse --down")

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

    def _cdk_cli(self) -> Cdk:
        project = self.project
        if project is None:
            app = f"--app={shlex.quote(sys.executable)} -m extended_dlc.app"
            options: tuple[str, ...] = (
                () if is_shipped(self.app) else (app, f"--context=settings={self._settings_file}")
            )
            settings: Path | None = self._settings_file
        else:
            options = (f"--app={project.command}", *(f"--context={each}" for each in project.context))
            settings = None
        return Cdk(
            program=tuple(find_cli(self.app)),
            app=self.app,
            state=self.state,
            port=self._port,
            settings=settings,
            options=options,
            region=self.region,
            more=self.environment(),
        )

    def cdk(self, name: str, *arguments: str) -> None:
        """Run a command of the CDK CLI as a step."""
        with self.report.step(name) as step:
            log = self._log(arguments[0])
            step.log = str(log)
            self._cdk_cli().run(*arguments, log=log, each_line=self.report.detail)

    def _log(self, command: str) -> Path:
        return self.state / "logs" / f"{len(self.report.steps):02}-cdk-{command}.log"

    def _write_settings(
        self, image: Mapping[str, Any], endpoints: Mapping[str, Any], training: Mapping[str, Any] | None = None
    ) -> None:
        settings = {"name": NAME, "region": REGION, "image": image, "endpoints": endpoints}
        if training:
            settings["training"] = training
        # what an earlier deployment looked up belongs to its settings
        lookups_file(self._settings_file).unlink(missing_ok=True)
        files.write(self._settings_file, json.dumps(settings, indent=2) + "\n")


def _count(step: Step) -> Callable[[str, float], None]:
    """Returns a function that adds the seconds of downloads to a step."""

    def on_download(what: str, seconds: float) -> None:
        step.download_seconds += seconds

    return on_download
