"""The rehearsal: the real `cdk deploy` of the real app, on AWS services embedded on this machine.

Each scenario is a story to read from top to bottom: `scenario_main.play`, `scenario_tutorial.play` …
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from extended_dlc.rehearsal import (
    scenario_embeddings,
    scenario_main,
    scenario_own,
    scenario_platform,
    scenario_training,
    scenario_tutorial,
)
from extended_dlc.rehearsal.engine import LABEL, Engine
from extended_dlc.rehearsal.processes import Servers, locked
from extended_dlc.rehearsal.project import Project, find_cli
from extended_dlc.rehearsal.report import Report
from extended_dlc.rehearsal.scenario_own import Wishes
from extended_dlc.rehearsal.stage import Stage


class Play(Protocol):
    """A scenario."""

    def __call__(self, stage: Stage, *, keep: bool) -> None:
        """Play it; with `keep`, leave everything up at the end."""


SCENARIOS: Mapping[str, Play] = {
    "main": scenario_main.play,
    "tutorial": scenario_tutorial.play,
    "training": scenario_training.play,
    "training-hosts": scenario_training.play_hosts,
    "embeddings": scenario_embeddings.play,
    "platform": scenario_platform.play,
}


class Rehearsal:
    """One rehearsal of the app in a folder; its state lives in `.rehearsal` there."""

    def __init__(self, app: Path, report: Report) -> None:
        """Rehearse in the folder `app`."""
        self.app = app.resolve()
        self.state = self.app / ".rehearsal"
        self.report = report
        self.servers = Servers(self.state)
        self._kept = self.state / "kept"

    def run(self, scenario: str = "main", *, keep: bool = False) -> None:
        """Play a scenario with the app of this package, and take everything down again.

        `StepFailed` with the reason when a step fails. What a killed rehearsal left is taken down first. ValueError
        while another one runs, or is kept up, and where no CDK CLI is found.
        """
        self._alone(SCENARIOS[scenario], None, keep=keep)

    def run_project(self, project: Project, wishes: Wishes, *, keep: bool = False) -> None:
        """Deploy somebody's app, ask its endpoints, and take everything down again, as `run` does."""
        self._alone(partial(scenario_own.play, wishes=wishes), project, keep=keep)

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """A stage for a story of the caller's; all is taken down at its end, and ValueError raised as by `run`."""
        with locked(self.state):
            self._refuse_while_kept()
            self._clear()
            try:
                yield Stage(self.app, self.state, self.report, self.servers)
            finally:
                self._take_down()

    def _alone(self, play: Play, project: Project | None, *, keep: bool) -> None:
        find_cli(self.app)
        with locked(self.state):
            self._refuse_while_kept()
            self._play(play, project, keep=keep)

    def _refuse_while_kept(self) -> None:
        if self._kept.exists() and self.servers.running():
            raise ValueError(f"a rehearsal of {self.app} is kept up (--keep): end it with extended-dlc rehearse --down")

    def down(self) -> str:
        """Take down what was kept up or left; says what was stopped. ValueError while a rehearsal runs."""
        with locked(self.state):
            return self._take_down()

    def _play(self, play: Play, project: Project | None, *, keep: bool) -> None:
        self._clear()
        try:
            play(Stage(self.app, self.state, self.report, self.servers, project), keep=keep)
        except BaseException:
            self._take_down()
            raise
        if keep:
            self._kept.touch()
        else:
            with self.report.step("stop what was started") as step:
                step.proof = self._take_down()

    def _clear(self) -> None:
        """Take down what a killed one left, and forget its logs."""
        self._take_down()
        logs = self.state / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)

    def _take_down(self) -> str:
        """Stop the servers and remove this folder's containers; says what was stopped."""
        stopped = self.servers.stop()
        self._kept.unlink(missing_ok=True)
        engine = Engine.load(self.state / "engine.json")
        removed = engine.remove_containers(f"{LABEL}={self.state}") if engine else []
        return f"stopped: {', '.join(stopped) or 'nothing'}; containers removed: {len(removed)}"
