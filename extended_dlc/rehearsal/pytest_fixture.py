"""A pytest fixture: the real CDK CLI deploys an app to the embedded AWS.

    from extended_dlc.rehearsal.pytest_fixture import rehearsal  # in conftest.py

    def test_the_queue_is_there(rehearsal):
        outputs = rehearsal.deploy("python3 app.py")
        rehearsal.client("sqs").get_queue_attributes(QueueUrl=outputs["Mine"]["QueueUrl"])

The fixture has session scope: servers start with the first deployment and end after the last test. A container engine
is needed only where an image is built or an endpoint is deployed. The state is in `.rehearsal` of pytest's root folder,
which allows one rehearsal at a time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Rehearsed", "rehearsal"]


class Rehearsed:
    """An AWS account on this machine, and the CDK CLI that deploys to it."""

    def __init__(self, folder: Path) -> None:
        """Use a folder's `.rehearsal`; nothing starts yet. Raises `ValueError` while another rehearsal uses it."""
        from extended_dlc.rehearsal.report import Report
        from extended_dlc.rehearsal.run import Rehearsal

        self._said = io.StringIO()
        self._rehearsal = Rehearsal(folder, Report(self._said))
        self._open = ExitStack()
        self._stage: Any = None

    def deploy(
        self,
        app: str,
        *,
        folder: Path | None = None,
        context: Mapping[str, str] | None = None,
        ignore: Sequence[str] = (),
        models: Mapping[str, str] | None = None,
    ) -> dict[str, dict[str, str]]:
        """Deploy all stacks of an app; returns the outputs of each stack by its name.

        :param app: The command that synthesizes it, as for `cdk deploy --app`.
        :param folder: The folder in which it runs. Default: pytest's root folder.
        :param context: As for `-c`.
        :param ignore: Resource types that are only recorded.
        :param models: Types of Hub models that are not known, by their IDs.

        Raises `ValueError` or `RuntimeError` with the reason and everything that was printed.
        """
        from extended_dlc.rehearsal import scenario_own
        from extended_dlc.rehearsal.cdk import only_this_machine
        from extended_dlc.rehearsal.project import Project
        from extended_dlc.rehearsal.report import StepFailed

        where = (folder or self._rehearsal.app).resolve()
        given = tuple(f"{key}={value}" for key, value in (context or {}).items())
        project = Project.find(where, app, given)
        wishes = scenario_own.Wishes(ignore=tuple(ignore), models=models or {})
        if self._stage is None:
            self._stage = self._open.enter_context(self._rehearsal.stage())
        stage = self._stage
        stage.app, stage.project = where, project
        try:
            with only_this_machine():
                looked = scenario_own.look(stage, wishes)
                if looked.assembly.needs_engine() and not stage.has_engine:
                    stage.stop("aws")  # it was started without an engine; its earlier deployments are lost
                    stage.container_engine()
                if not stage.is_up:
                    scenario_own.start(stage)
                scenario_own.deploy(stage, looked)
        except StepFailed as error:
            raise RuntimeError(f"{error}\n{self._said.getvalue()}") from None
        return self._outputs(looked.regions)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables with which a program uses this account only."""
        found: dict[str, str] = self._stage.environment()
        return found

    def client(self, service: str, *, region: str | None = None) -> Any:
        """A boto3 client of the account. Default: in the region of the app's first stack."""
        return self._stage.client.service(service, region=region or self._stage.region)

    def close(self) -> None:
        """Stop everything that was started."""
        self._open.close()

    def _outputs(self, regions: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for region in regions:
            for stack in self.client("cloudformation", region=region).describe_stacks()["Stacks"]:
                outputs = stack.get("Outputs", ())
                found[stack["StackName"]] = {each["OutputKey"]: each["OutputValue"] for each in outputs}
        return found


@pytest.fixture(scope="session")
def rehearsal(request: pytest.FixtureRequest) -> Iterator[Rehearsed]:
    """An AWS account on this machine for the session."""
    rehearsed = Rehearsed(request.config.rootpath)
    yield rehearsed
    rehearsed.close()
