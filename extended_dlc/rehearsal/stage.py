"""The stage of a rehearsal: the services in place of AWS's, and the app that the CDK deploys to them."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extended_dlc import files
from extended_dlc.app.read import lookups_file
from extended_dlc.rehearsal import leftovers, tiny_models
from extended_dlc.rehearsal.cdk import ACCOUNT, REGION, Cdk
from extended_dlc.rehearsal.host_pip import host_pip
from extended_dlc.rehearsal.processes import Servers
from extended_dlc.rehearsal.project import Project, find_cli, is_shipped, shipped_transformers
from extended_dlc.rehearsal.report import Report
from extended_dlc.rehearsal.services import NAME, Services


class Stage(Services):
    """The parts of a rehearsal, one step each; a scenario decides their order."""

    def __init__(
        self, app: Path, state: Path, report: Report, servers: Servers, project: Project | None = None
    ) -> None:
        """A stage for the app in the folder `app`.

        :param project: A user's app with its own settings. Default: the app of this package with a scenario's settings.
        """
        super().__init__(state, report, servers)
        self.app = app
        self.project = project
        self._settings_file = state / "settings.json"

    @property
    def app_settings(self) -> dict[str, Any]:
        """The settings of the shipped app."""
        return {"image": {"transformers": shipped_transformers(self.app)}}

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
            log = self.log_of("synth")
            try:
                self.cli().run("synth", "--quiet", log=log, each_line=lambda line: None)
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
                others += [f"container {each}" for each in self.containers()]
            if others:
                raise RuntimeError("cdk destroy left " + ", ".join(others))
            step.proof = left.proof

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

    def cli(self) -> Cdk:
        """The CDK CLI for the app, which sees only what is running here."""
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
            log = self.log_of(arguments[0])
            step.log = str(log)
            self.cli().run(*arguments, log=log, each_line=self.report.detail)

    def log_of(self, command: str) -> Path:
        """The file for the output of a command of the CDK CLI."""
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
