"""A monitored and scheduled endpoint with proofs on the embedded AWS: its resources, and what its schedules do."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from botocore.exceptions import ClientError
from cfnlint.api import lint

from tests.support.embedded import ACCOUNT, REGION, Aws, deploy, events, execution_role, settled, wait_for
from tests.support.endpoints import answer, image

EXAMPLE = Path(__file__).parents[3] / "examples" / "operating" / "guarded.py"
NAME = "bloom-guarded"
GROUP = f"/aws/sagemaker/Endpoints/{NAME}"

Json = dict[str, Any]


def build(out: Path) -> cdk.App:
    app = cdk.App(outdir=str(out))
    runpy.run_path(str(EXAMPLE), run_name="example")["Guarded"](app, "Guarded", env=cdk.Environment(region=REGION))
    return app


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Json:
    out = tmp_path_factory.mktemp("out")
    build(out).synth()
    found: Json = json.loads((out / "Guarded.template.json").read_text())
    return found


def on_this_aws(aws: Aws, template: Json, *, image_uri: str | None = None, expect: str = "json") -> Json:
    """The template with an existing image, whose container responds `None application/json 19`."""
    (model,) = [each for each in template["Resources"].values() if each["Type"] == "AWS::SageMaker::Model"]
    dlc = model["Properties"]["PrimaryContainer"]["Image"]
    text = json.dumps(template).replace(json.dumps(dlc), json.dumps(image_uri or image(aws, "served")))
    # the permission to pull it as well
    text = re.sub(r'"(:ecr:[^:]*):763104351884:repository/[^"]*"', rf'"\1:{ACCOUNT}:repository/served"', text)
    changed: Json = json.loads(text.replace('"generated_text"', json.dumps(expect)))
    # resources of the CDK's bootstrap and uploads of its CLI do not exist here
    changed["Parameters"].pop("BootstrapVersion")
    changed.pop("Rules")
    for each in changed["Resources"].values():
        if each["Type"] == "AWS::Lambda::Function":
            each["Properties"]["Code"] = {"ZipFile": "pass"}
    return changed


def test_cfn_lint_finds_no_error(template: Json) -> None:
    assert [str(each) for each in lint(json.dumps(template), regions=[REGION]) if each.rule.severity == "error"] == []


def test_the_switch_takes_the_endpoint_and_what_looks_after_it_and_brings_them_back(aws: Aws, template: Json) -> None:
    end = deploy(aws, "Guarded", on_this_aws(aws, template), role=execution_role(aws))
    assert end["StackStatus"] == "CREATE_COMPLETE", failures(aws, "Guarded")

    # the deployed resources
    assert answer(aws, NAME) == "None None 2"
    (group,) = aws.client("logs").describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]
    assert group["retentionInDays"] == 7
    alarms = {each["MetricName"]: each for each in our_alarms(aws)}
    assert (alarms["ModelLatency"]["ExtendedStatistic"], alarms["ModelLatency"]["Threshold"]) == ("p99", 10_000_000)
    assert (alarms["Invocations"]["TreatMissingData"], alarms["Invocations"]["EvaluationPeriods"]) == ("breaching", 24)
    topics = {each["TopicArn"] for each in aws.client("sns").list_topics()["Topics"]}
    assert set(alarms["Invocation5XXErrors"]["AlarmActions"]) <= topics
    deployment = aws.client("sagemaker").describe_endpoint(EndpointName=NAME)["LastDeploymentConfig"]
    rollback = {each["AlarmName"] for each in deployment["AutoRollbackConfiguration"]["Alarms"]}
    assert rollback == {alarms[metric]["AlarmName"] for metric in ("Invocation5XXErrors", "ModelLatency")}
    assert len(our_dashboards(aws)) == 1

    # switched off by the schedule's own call, with its role
    model = aws.client("sagemaker").list_models(NameContains="BloomModel")["Models"]
    turn(aws, "cron(0 18 ? * MON-FRI *)")
    assert settled(aws, "Guarded")["StackStatus"] == "UPDATE_COMPLETE", failures(aws, "Guarded")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        aws.client("sagemaker").describe_endpoint(EndpointName=NAME)
    assert (our_alarms(aws), our_dashboards(aws), targets(aws)) == ([], [], [])
    assert aws.client("sagemaker").list_models(NameContains="BloomModel")["Models"] == model
    (kept,) = aws.client("logs").describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]
    assert kept["creationTime"] == group["creationTime"]

    # switched on again
    turn(aws, "cron(45 7 ? * MON-FRI *)")
    assert settled(aws, "Guarded")["StackStatus"] == "UPDATE_COMPLETE", failures(aws, "Guarded")
    assert answer(aws, NAME) == "None None 2"
    assert {each["MetricName"] for each in our_alarms(aws)} == alarms.keys()
    assert (len(our_dashboards(aws)), len(targets(aws))) == (1, 1)

    aws.client("cloudformation").delete_stack(StackName="Guarded")
    wait_for(lambda: aws.client("logs").describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"] == [])


def test_a_request_that_is_not_answered_as_expected_fails_the_deployment(aws: Aws, template: Json) -> None:
    end = deploy(aws, "Unproved", on_this_aws(aws, template, expect="a poem"))
    assert end["StackStatus"] == "ROLLBACK_COMPLETE"
    (reason,) = failures(aws, "Unproved").values()
    assert reason == (
        "Received response status [FAILED] from custom resource. Message returned: "
        "bloom-guarded answers without 'a poem': None application/json 19"
    )


def test_an_image_that_is_not_there_fails_before_there_is_a_model(aws: Aws, template: Json) -> None:
    absent = image(aws, "served").replace(":v1", ":v9")
    deploy(aws, "Imageless", on_this_aws(aws, template, image_uri=absent))
    ((failed, why),) = failures(aws, "Imageless").items()
    assert failed.startswith("BloomImageCheck")
    assert f"{absent} is not in its repository: publish the image first" in why


def test_a_log_group_that_is_there_already_is_refused(aws: Aws, start_aws: Callable[..., Aws]) -> None:
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": GROUP}}
    fresh = start_aws()
    fresh.client("logs").create_log_group(logGroupName=GROUP)  # SageMaker does the same at a container's first line
    end = deploy(fresh, "Late", {"Resources": {"Log": group}})
    assert end["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "already exists" in failures(fresh, "Late")["Log"]


def failures(aws: Aws, stack: str) -> dict[str, str]:
    """The failed resources of a stack, and the reasons."""
    return {each: why for each, status, why in events(aws, stack) if status.endswith("_FAILED")}


def turn(aws: Aws, expression: str) -> None:
    """Run the schedule that has this expression."""
    scheduler = aws.client("scheduler")
    for each in scheduler.list_schedules()["Schedules"]:
        schedule = scheduler.get_schedule(Name=each["Name"])
        if schedule["ScheduleExpression"] == expression:
            assert schedule["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:cloudformation:updateStack"
            done = aws.request("POST", f"/_embedded/schedules/{each['Name']}")
            assert (done.status, done.body) == (200, b"done\n")
            return
    raise AssertionError(f"no schedule has {expression}")


def our_alarms(aws: Aws) -> list[Json]:
    found = aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    return [each for each in found if {"Name": "EndpointName", "Value": NAME} in each["Dimensions"]]


def our_dashboards(aws: Aws) -> list[Json]:
    return list(aws.client("cloudwatch").list_dashboards(DashboardNamePrefix="Guarded-BloomWatch")["DashboardEntries"])


def targets(aws: Aws) -> list[Json]:
    client = aws.client("application-autoscaling")
    resource = f"endpoint/{NAME}/variant/AllTraffic"
    found = client.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])
    return list(found["ScalableTargets"])
