"""Permissions: a whole deployment whose roles call the embedded AWS, then again with each permission removed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from aws_cdk import App, Environment, Stack
from botocore.config import Config
from botocore.exceptions import ClientError

from extended_dlc import (
    ExtendedDlc,
    HuggingFaceEndpoint,
    InvocationScaling,
    MirroredModel,
    Monitoring,
    OfficeHours,
    Proof,
    RealTime,
)
from extended_dlc.programs import copy_model as _mirror_copy
from extended_dlc.rehearsal.embedded.policies import Policies, Request, evaluate, matches, rights_of, statements_of
from tests.support.embedded import (
    ACCOUNT,
    REGION,
    Aws,
    Image,
    deploy,
    events,
    execution_role,
    settled,
    start,
    stub_engine,
)

Json = dict[str, Any]

ASSETS = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
REPOSITORY = f"cdk-hnb659fds-container-assets-{ACCOUNT}-{REGION}"


@dataclass
class Deployed:
    """A deployment, and the permissions that its roles used."""

    aws: Aws
    template: Json
    policies: dict[str, list[Json]]
    """Role ARN to the role's policies."""

    asked: list[Json]


def synthesized(out: Path, address: str, commit: str) -> Json:
    """A stack with every role that a deployment can have: copies, proof, schedule, endpoint."""
    app = App(outdir=str(out))
    stack = Stack(app, "Whole", env=Environment(account=ACCOUNT, region=REGION))
    HuggingFaceEndpoint(
        stack,
        "Bloom",
        endpoint_name="whole",
        model=MirroredModel(stack, "Weights", model="acme/tiny", revision=commit, model_type="bloom"),
        image=ExtendedDlc(stack, "Image", transformers="5.24.0", model_types=["bloom"]),
        hosting=RealTime(
            instance_type="ml.m5.xlarge", scaling=InvocationScaling(minimum=1, maximum=2, requests_per_second=2)
        ),
        monitoring=Monitoring(alarm_topic="new"),
        verify=Proof(request={"inputs": "Hello"}, expect="application/json"),
        schedule=OfficeHours(start="07:45", end="18:00", timezone="Europe/Berlin"),
    )
    app.synth()
    text = (out / "Whole.template.json").read_text()
    text = text.replace(" --seconds=", f" --hub={address} --seconds=")
    template: Json = json.loads(text)
    template.pop("Rules")
    for each in template["Resources"].values():
        if each["Type"] == "AWS::Lambda::Function":  # the embedded AWS runs this machine's own copy of the function
            each["Properties"]["Code"] = {"ZipFile": "pass"}
    return template


def prepare(aws: Aws, template: Json) -> None:
    """Create the resources of the CDK's bootstrap and the uploads of its CLI."""
    s3, text = aws.client("s3"), json.dumps(template)
    s3.create_bucket(Bucket=ASSETS)
    key = re.search(rf"{ASSETS}/([0-9a-f]+\.py)", text)
    assert key is not None
    s3.put_object(Bucket=ASSETS, Key=key[1], Body=Path(_mirror_copy.__file__).read_bytes())
    aws.client("ecr").create_repository(repositoryName=REPOSITORY)
    tag = re.search(rf"{REPOSITORY}:([0-9a-f]+)", text)
    assert tag is not None
    Image("whole").push(aws, REPOSITORY, tag[1])
    name = template["Parameters"]["BootstrapVersion"]["Default"]
    aws.client("ssm").put_parameter(Name=name, Value="30", Type="String")


def turn(aws: Aws, stack: str) -> None:
    """Run the schedules that switch the endpoint off and on again."""
    scheduler = aws.client("scheduler")
    schedules = {
        json.loads(scheduler.get_schedule(Name=each["Name"])["Target"]["Input"])["Parameters"][0][
            "ParameterValue"
        ]: each
        for each in scheduler.list_schedules()["Schedules"]
    }
    for value in ("false", "true"):
        done = aws.request("POST", f"/_embedded/schedules/{schedules[value]['Name']}")
        assert (done.status, done.body) == (200, b"done\n")
        assert settled(aws, stack)["StackStatus"] == "UPDATE_COMPLETE"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, hub_address: tuple[str, str]) -> Iterator[Deployed]:
    """The deployment, whose container is a process, after its schedules switched it off and on."""
    stub = tmp_path_factory.mktemp("engine")
    aws = start(tmp_path_factory.mktemp("state"), stub, f"--engine={stub_engine(stub)}")
    try:
        template = synthesized(tmp_path_factory.mktemp("out"), *hub_address)
        prepare(aws, template)
        end = deploy(aws, "Whole", template, role=execution_role(aws))
        assert end["StackStatus"] == "CREATE_COMPLETE", [each for each in events(aws, "Whole") if "FAILED" in each[1]]
        turn(aws, "Whole")
        lines = (aws.state / "logs" / "rights.jsonl").read_text().splitlines()
        asked = [json.loads(line) for line in lines]
        yield Deployed(aws, template, policies_of(aws), [each for each in asked if ":role/Whole-" in each["principal"]])
    finally:
        aws.stop()


def policies_of(aws: Aws) -> dict[str, list[Json]]:
    iam, found = aws.client("iam"), {}
    for role in iam.list_roles()["Roles"]:
        name = role["RoleName"]
        if name.startswith("Whole-"):
            names = iam.list_role_policies(RoleName=name)["PolicyNames"]
            found[role["Arn"]] = [
                iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"] for each in names
            ]
    return found


def request_of(asked: Json) -> Request:
    context = {"aws:SecureTransport": True, "aws:ResourceAccount": ACCOUNT, **asked["context"]}
    return Request(action=asked["action"], resource=asked["resource"], principal=asked["principal"], context=context)


def role_of(arn: str) -> str:
    """A role's purpose by its ARN."""
    kinds = {
        "ImageCopyRole": "copy",
        "ExtendedDlcProver": "proof",
        "BloomRole": "endpoint",
        "WeightsProjectRole": "mirror",
        "SchedulerRole": "schedule",
        "AWS679f53fac002430cb0da5b7982bd2287": "start of the mirror",
    }
    return next((kind for part, kind in kinds.items() if part in arn), arn)


def test_every_role_of_the_deployment_calls_the_embedded_aws_as_itself(whole: Deployed) -> None:
    asked = {role_of(each["principal"]) for each in whole.asked}
    assert asked == {"copy", "proof", "endpoint", "mirror", "schedule", "start of the mirror"}
    assert all(each["allowed"] for each in whole.asked), [each for each in whole.asked if not each["allowed"]]


def test_each_right_that_is_taken_away_is_missed_by_its_name(whole: Deployed) -> None:
    distinct = {json.dumps(each, sort_keys=True): each for each in whole.asked}.values()
    taken = 0
    for asked in distinct:
        request = request_of(asked)
        documents = whole.policies[asked["principal"]]
        if not evaluate(request, Policies(identity=documents)).allowed:
            continue  # allowed by a managed policy of AWS or by the resource's policy
        left = [{**each, "Statement": without(each, request)} for each in documents]
        decision = evaluate(request, Policies(identity=left))
        assert not decision.allowed
        assert decision.reason == f"because no identity-based policy allows the {asked['action']} action"
        taken += 1
    assert taken >= 40


def without(document: Json, request: Request) -> list[Json]:
    """A policy's statements without the actions that allow a request."""
    kept = []
    for statement in statements_of(document):
        named = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        rest = [each for each in named if not matches({**statement, "Action": each}, request, with_principal=False)]
        if rest:
            kept.append({**statement, "Action": rest})
    return kept


PULLS = "the CDK's grant_pull and grant_pull_push give all of a puller's or pusher's rights at either end"
LOGS = "Lambda and CodeBuild write their logs, which no function and no build has here"
PARTS = "large files only: what is interrupted goes on in its parts, and what is compared is moved"

UNUSED = {
    ("copy", "ecr:BatchCheckLayerAvailability"): PULLS,
    ("copy", "ecr:BatchGetImage"): PULLS,
    ("copy", "ecr:GetDownloadUrlForLayer"): PULLS,
    ("copy", "logs:CreateLogStream"): LOGS,
    ("copy", "logs:PutLogEvents"): LOGS,
    ("endpoint", "cloudwatch:PutMetricData"): "SageMaker publishes the instances' metrics, and there are no instances",
    ("endpoint", "logs:CreateLogGroup"): "without `monitoring` no group is there before the first line",
    ("mirror", "logs:CreateLogGroup"): LOGS,
    ("mirror", "logs:CreateLogStream"): LOGS,
    ("mirror", "logs:PutLogEvents"): LOGS,
    ("mirror", "s3:AbortMultipartUpload"): PARTS,
    ("mirror", "s3:DeleteObject"): PARTS,
    ("mirror", "s3:GetObject"): PARTS,
    ("mirror", "s3:ListBucketMultipartUploads"): PARTS,
    ("mirror", "s3:ListMultipartUploadParts"): PARTS,
    ("mirror", "s3:PutObject"): PARTS,
    ("proof", "ecr:BatchCheckLayerAvailability"): PULLS,
    ("proof", "ecr:GetAuthorizationToken"): PULLS,
    ("proof", "lambda:InvokeFunction"): "an answer that takes longer than a function may: it goes on in the next call",
    ("proof", "logs:CreateLogStream"): LOGS,
    ("proof", "logs:DescribeLogStreams"): "a failure is told with the container's last lines",
    ("proof", "logs:GetLogEvents"): "a failure is told with the container's last lines",
    ("proof", "logs:PutLogEvents"): LOGS,
    ("proof", "sagemaker:InvokeEndpointAsync"): "`grant_invoke` gives what every kind of endpoint needs",
    ("proof", "sagemaker:InvokeEndpointWithResponseStream"): "`grant_invoke` gives what every kind of endpoint needs",
}
"""Permissions that no call of the deployment uses, with the reason for each."""


def test_a_right_that_no_call_used_has_a_reason(whole: Deployed) -> None:
    unused = set()
    for arn, documents in whole.policies.items():
        requests = [request_of(each) for each in whole.asked if each["principal"] == arn]
        for document in documents:
            for _, action, right in rights_of(document):
                if not any(matches(right, request, with_principal=False) for request in requests):
                    unused.add((role_of(arn), action))
    assert sorted(unused) == sorted(UNUSED), "\n".join(map(str, sorted(unused)))
    assert all(UNUSED.values())


def strip(template: Json, role: str, action: str) -> Json:
    """The template without one permission of one role."""
    stripped = copy.deepcopy(template)
    count = 0
    for name, resource in stripped["Resources"].items():
        if resource["Type"] == "AWS::IAM::Policy" and name.startswith(role):
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                if isinstance(statement["Action"], list) and action in statement["Action"]:
                    statement["Action"].remove(action)
                    count += 1
                elif statement["Action"] == action:
                    statement["Action"] = "sts:GetCallerIdentity"
                    count += 1
    assert count
    return stripped


@pytest.mark.parametrize(
    ("role", "action", "failed", "words"),
    [
        ("ImageCopyRole", "ecr:PutImage", "ImageCopy", "is not authorized to perform: ecr:PutImage on resource: "),
        ("BloomRole", "s3:GetObject", "BloomEndpoint", "is not authorized to perform: s3:GetObject on resource: "),
    ],
)
def test_without_one_right_the_deployment_fails_and_names_it(
    whole: Deployed, role: str, action: str, failed: str, words: str
) -> None:
    if settled_or_none(whole.aws, "Whole"):
        whole.aws.client("cloudformation").delete_stack(StackName="Whole")
        whole.aws.client("cloudformation").get_waiter("stack_delete_complete").wait(
            StackName="Whole", WaiterConfig={"Delay": 1}
        )
    stack = f"Without-{role}"
    assert deploy(whole.aws, stack, strip(whole.template, role, action))["StackStatus"] == "ROLLBACK_COMPLETE"
    reasons = {name: why for name, status, why in events(whole.aws, stack) if status == "CREATE_FAILED"}
    ((name, why),) = reasons.items()
    assert name.startswith(failed)
    assert words in why
    whole.aws.client("cloudformation").delete_stack(StackName=stack)


def settled_or_none(aws: Aws, name: str) -> Json | None:
    with suppress(ClientError):
        return settled(aws, name)
    return None


def test_a_session_may_do_what_its_role_and_its_own_policy_both_allow(whole: Deployed) -> None:
    both = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}
    owner, policy = f"arn:aws:iam::{ACCOUNT}:root", {"Version": "2012-10-17", "Statement": [both]}
    arn = whole.aws.create_role("both", owner, Both=policy)
    one = json.dumps({"Version": "2012-10-17", "Statement": [{**both, "Action": "s3:ListBucket"}]})
    given = whole.aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="session", Policy=one)["Credentials"]
    s3 = boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=whole.aws.url,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    assert s3.list_objects_v2(Bucket=ASSETS)["Contents"]
    with pytest.raises(
        ClientError, match="assumed-role/both/session is not authorized to perform: s3:GetObject on resource"
    ):
        s3.get_object(Bucket=ASSETS, Key="x")
