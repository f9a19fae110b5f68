"""A change to each input in turn, on one running endpoint whose instance count its scaling has changed.

`python -m tests.rehearsal.embedded.test_changes` writes the results into docs/updates.md.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from extended_dlc import Canary, ExtendedDlc, HubModel, HuggingFaceEndpoint, InvocationScaling, RealTime
from tests.support.embedded import ACCOUNT, REGION, Aws, Image, deploy, events, start, stub_engine
from tests.support.endpoints import answer

PAGE = Path(__file__).parents[3] / "docs" / "updates.md"
pytestmark = pytest.mark.slow

BEGIN, END = "<!-- begin: from the runs of make docs -->", "<!-- end -->"
NAME = "bloom"
COUNT = 3
"""The endpoint's instance count after scaling; the templates have another."""

COLUMNS = {
    "Image's copy": ("Custom::CDKECRDeployment",),
    "Role": ("AWS::IAM::Role", "AWS::IAM::Policy"),
    "Model": ("AWS::SageMaker::Model",),
    "EndpointConfig": ("AWS::SageMaker::EndpointConfig",),
    "Endpoint": ("AWS::SageMaker::Endpoint",),
    "Scaling": ("AWS::ApplicationAutoScaling::ScalableTarget", "AWS::ApplicationAutoScaling::ScalingPolicy"),
}

Json = dict[str, Any]

FIRST: Json = {
    "model": "bigscience/bloom-560m",
    "transformers": "5.22.0",
    "environment": {"GREETING": "first"},
    "hosting": {"instance_type": "ml.m5.xlarge"},
    "scaling": {"maximum": 4, "requests_per_second": 2},
    "rollout": None,
}
CHANGES: dict[str, Json] = {
    "model": {"model": "bigscience/bloom-1b1"},
    "environment": {"environment": {"GREETING": "second"}},
    "transformers: a new image": {"transformers": "5.23.0"},
    "start-up timeout": {"hosting": {"instance_type": "ml.m5.xlarge", "startup_timeout_seconds": 900}},
    "`instances` of a scaled endpoint": {"hosting": {"instance_type": "ml.m5.xlarge", "instances": 2}},
    "scaling's limits": {"scaling": {"maximum": 6, "minimum": 2, "requests_per_second": 2}},
    "rollout": {"rollout": Canary(percent=10)},
    "instance type of a scaled endpoint": {"hosting": {"instance_type": "ml.m5.2xlarge", "instances": COUNT}},
    "scaling taken away, `instances` at the count": {
        "scaling": None,
        "hosting": {"instance_type": "ml.m5.xlarge", "instances": COUNT},
    },
    "instance type": {"hosting": {"instance_type": "ml.m5.2xlarge", "instances": COUNT}},
    "scaling put back": {"scaling": {"maximum": 6, "minimum": 2, "requests_per_second": 2}},
}
"""Each is applied on top of the earlier ones, except those that are refused."""


def stack(inputs: Json) -> tuple[Json, list[str]]:
    """The endpoint's template, and the tags of the images that the CDK CLI would have built and pushed."""
    with tempfile.TemporaryDirectory() as out:
        app = cdk.App(outdir=out)
        home = cdk.Stack(app, "Changes", env=cdk.Environment(account=ACCOUNT, region=REGION))
        scaling = inputs["scaling"]
        HuggingFaceEndpoint(
            home,
            "Bloom",
            endpoint_name=NAME,
            model=HubModel(inputs["model"]),
            image=ExtendedDlc(home, "Image", transformers=inputs["transformers"]),
            environment=inputs["environment"],
            hosting=RealTime(scaling=InvocationScaling(**scaling) if scaling else None, **inputs["hosting"]),
            rollout=inputs["rollout"],
        )
        app.synth()
        template: Json = json.loads((Path(out) / "Changes.template.json").read_text())
        assets = json.loads((Path(out) / "Changes.assets.json").read_text())
    # resources of the CDK's bootstrap and uploads of its CLI do not exist here
    template["Parameters"].pop("BootstrapVersion")
    template.pop("Rules")
    for each in template["Resources"].values():
        if each["Type"] == "AWS::Lambda::Function":
            each["Properties"]["Code"] = {"ZipFile": "pass"}
    pushed = [each for image in assets["dockerImages"].values() for each in image["destinations"].values()]
    return template, [each["imageTag"] for each in pushed]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The outcome of one change."""

    cells: dict[str, str]
    refused: str
    """The reason of a failure; empty without one."""

    name: str
    count: int
    answer: str


def run_all(aws: Aws) -> dict[str, Run]:
    """Deploy the first state, let scaling move the count, and deploy each change."""
    repository = f"cdk-hnb659fds-container-assets-{ACCOUNT}-{REGION}"
    aws.client("ecr").create_repository(repositoryName=repository)
    sagemaker, runs, inputs = aws.client("sagemaker"), {}, FIRST
    for change, values in [("", {}), *CHANGES.items()]:
        template, tags = stack({**inputs, **values})
        for tag in tags:
            Image(tag).push(aws, repository, tag)
        before, seen = ({}, 0) if not change else (physical(aws), len(events(aws, "Changes")))
        end = deploy(aws, "Changes", template, update=bool(change))["StackStatus"]
        since = events(aws, "Changes")[seen:]
        refused = "; ".join(why for _, status, why in since if status.endswith("_FAILED"))
        assert end in ("CREATE_COMPLETE", "UPDATE_COMPLETE") or "Auto Scaling" in refused, since
        if not change:
            given = {"VariantName": "AllTraffic", "DesiredInstanceCount": COUNT}
            sagemaker.update_endpoint_weights_and_capacities(EndpointName=NAME, DesiredWeightsAndCapacities=[given])
            continue
        (endpoint,) = sagemaker.list_endpoints()["Endpoints"]
        (variant,) = sagemaker.describe_endpoint(EndpointName=endpoint["EndpointName"])["ProductionVariants"]
        runs[change] = Run(
            cells={
                column: outcome(kinds, before, physical(aws), {each for each, *_ in since})
                if not refused
                else "untouched"
                for column, kinds in COLUMNS.items()
            },
            refused=refused,
            name=endpoint["EndpointName"],
            count=variant["CurrentInstanceCount"],
            answer=answer(aws, NAME).split()[0],
        )
        if refused:
            assert physical(aws) == before
            runs[change].cells["Endpoint"] = "refused"
        else:
            inputs = {**inputs, **values}
    return runs


def physical(aws: Aws) -> dict[str, tuple[str, str]]:
    """The type and physical ID of each resource in the table."""
    found = aws.client("cloudformation").describe_stack_resources(StackName="Changes")["StackResources"]
    return {
        each["LogicalResourceId"]: (each["ResourceType"], each["PhysicalResourceId"])
        for each in found
        if each["LogicalResourceId"].startswith(("Bloom", "Image"))
    }


def outcome(
    kinds: tuple[str, ...],
    before: dict[str, tuple[str, str]],
    after: dict[str, tuple[str, str]],
    touched: set[str],
) -> str:
    """What happened to the resources of these types."""
    words = set()
    for each, (kind, _) in {**before, **after}.items():
        if kind not in kinds:
            continue
        if each not in before or each not in after:
            words.add("made" if each in after else "removed")
        elif before[each] != after[each]:
            words.add("replaced")
        elif each in touched:
            words.add("updated in place")
    return ", ".join(sorted(words)) or "untouched"


def table(runs: dict[str, Run]) -> str:
    """The runs as the table of docs/updates.md."""
    lines = [f"| change | {' | '.join(COLUMNS)} | count |", "|---" * (len(COLUMNS) + 2) + "|"]
    lines += [f"| {change} | {' | '.join(run.cells.values())} | {run.count} |" for change, run in runs.items()]
    return "\n".join(lines)


def page(runs: dict[str, Run]) -> str:
    """docs/updates.md with the table of these runs."""
    head, rest = PAGE.read_text().split(BEGIN)
    return f"{head}{BEGIN}\n{table(runs)}\n{END}{rest.split(END)[1]}"


def with_aws(folder: Path) -> Iterator[Aws]:
    """An embedded AWS whose containers are processes."""
    folder.mkdir(exist_ok=True)
    aws = start(folder / "state", folder, f"--engine={stub_engine(folder)}")
    yield aws
    aws.stop()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    for aws in with_aws(tmp_path_factory.mktemp("changes")):
        yield run_all(aws)


def test_the_page_says_what_the_runs_did(runs: dict[str, Run]) -> None:
    assert PAGE.read_text() == page(runs), "run 'make docs'"


def test_no_change_loses_the_endpoints_name_or_its_scaled_count(runs: dict[str, Run]) -> None:
    assert {change: (run.name, run.count) for change, run in runs.items()} == dict.fromkeys(CHANGES, (NAME, COUNT))


def test_the_endpoint_answers_after_every_change_with_what_was_asked_for(runs: dict[str, Run]) -> None:
    answers = [run.answer for run in runs.values()]
    assert answers == ["first"] + ["second"] * (len(CHANGES) - 1)


def test_only_another_instance_type_under_scaling_is_refused_and_says_the_way_out(runs: dict[str, Run]) -> None:
    ((change, why),) = ((change, run.refused) for change, run in runs.items() if run.refused)
    assert change == "instance type of a scaled endpoint"
    assert "cannot change from ml.m5.xlarge to ml.m5.2xlarge" in why
    assert "Deregister the scalable target first" in why


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for running in with_aws(Path(temporary)):
            PAGE.write_text(page(run_all(running)))
