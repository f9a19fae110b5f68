"""The rehearsal: the real `cdk deploy` of the real app, with AWS embedded on this machine.

Each scenario is a function whose steps can be read in order: `scenario_main.play`, `scenario_tutorial.play` …
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
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
from extended_dlc.rehearsal.cdk import only_this_machine
from extended_dlc.rehearsal.engine import LABEL, Engine, unmount_store
from extended_dlc.rehearsal.processes import Servers, locked
from extended_dlc.rehearsal.project import Project, find_cli
from extended_dlc.rehearsal.report import Report, StepFailed
from extended_dlc.rehearsal.scenario_own import Wishes
from extended_dlc.rehearsal.stage import Stage
from extended_dlc.terminal import Waiting


class Play(Protocol):
    """The signature of a scenario's function."""

    def __call__(self, stage: Stage, *, keep: bool) -> None:
        """Run it; with `keep`, everything is left running."""


SCENARIOS: Mapping[str, Play] = {
    "main": scenario_main.play,
    "tutorial": scenario_tutorial.play,
    "training": scenario_training.play,
    "training-hosts": scenario_training.play_hosts,
    "embeddings": scenario_embeddings.play,
    "platform": scenario_platform.play,
}


class Rehearsal:
    """One rehearsal of the app in a folder; its state is in `.rehearsal` there."""

    def __init__(self, app: Path, report: Report, failures: Mapping[str, object] | None = None) -> None:
        """Rehearse in the folder `app`, with these failures on request (`embedded/scenarios.py`)."""
        self._failures = failures or {}
        self.app = app.resolve()
        self.state = self.app / ".rehearsal"
        self.report = report
        self.servers = Servers(self.state)
        self._kept = self.state / "kept"

    def run(self, scenario: str = "main", *, keep: bool = False) -> None:
        """Run a scenario with the app of this package, then stop everything.

        What a killed rehearsal left is stopped first. Raises `StepFailed` where a step fails, and `ValueError` while
        another rehearsal runs or is kept, or where there is no CDK CLI.
        """
        self._alone(SCENARIOS[scenario], None, keep=keep)

    def run_project(self, project: Project, wishes: Wishes, *, keep: bool = False) -> None:
        """Deploy a user's app, invoke its endpoints, then stop everything. Raises as `run` does."""
        self._alone(partial(scenario_own.play, wishes=wishes), project, keep=keep)

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """A stage for the caller's own steps; everything is stopped at its end. Raises `ValueError` as `run` does."""
        with locked(self.state):
            self._refuse_while_kept()
            self._clear()
            try:
                yield Stage(self.app, self.state, self.report, self.servers)
            finally:
                self._take_down()

    def _alone(self, play: Play, project: Project | None, *, keep: bool) -> None:
        find_cli(self.app)
        with locked(self.state), only_this_machine() as hidden:
            self._refuse_while_kept()
            self._play(play, project, hidden, keep=keep)

    def _refuse_while_kept(self) -> None:
        if self._kept.exists() and self.servers.running():
            raise ValueError(f"a rehearsal of {self.app} is kept up (--keep): end it with extended-dlc rehearse --down")

    def down(self) -> str:
        """Stop what was kept or left over; returns what was stopped. Raises `ValueError` while a rehearsal runs."""
        with locked(self.state):
            return self._take_down()

    def _play(self, play: Play, project: Project | None, hidden: Sequence[str], *, keep: bool) -> None:
        self._clear()
        stage = Stage(self.app, self.state, self.report, self.servers, project)
        stage.failures = self._failures
        stage.hidden = hidden
        try:
            play(stage, keep=keep)
            if self._failures:
                with self.report.step("which of the failures on request came up") as step:
                    step.proof = "\n".join(stage.failures_met())
        except BaseException as error:
            if isinstance(error, StepFailed):
                for line in stage.failures_met():
                    self.report.say(line)
            with Waiting("taking down what was started", out=self.report.out):
                self._take_down()
            raise
        if keep:
            self._kept.touch()
        else:
            with self.report.step("stop what was started") as step:
                step.proof = self._take_down()

    def _clear(self) -> None:
        """Stop what a killed rehearsal left, and delete its logs."""
        with Waiting("taking down what an earlier rehearsal left", out=self.report.out):
            self._take_down()
        logs = self.state / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)

    def _take_down(self) -> str:
        """Stop the servers and remove this folder's containers; returns what was stopped."""
        stopped = self.servers.stop()
        self._kept.unlink(missing_ok=True)
        engine = Engine.load(self.state / "engine.json")
        removed = engine.remove_containers(f"{LABEL}={self.state}") if engine else []
        if engine:
            engine.remove_interrupted_builds()
        unmount_store(self.state)
        return f"stopped: {', '.join(stopped) or 'nothing'}; containers removed: {len(removed)}"
