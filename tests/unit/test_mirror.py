"""The mirrored model: what is copied where, who may, who waits, and what the endpoint is told."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Duration, Environment, Stack
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import HuggingFaceEndpoint, MirroredModel, StockDlc

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PREFIX = f"models/bigscience/bloom-560m/{COMMIT}/"


def mirror_in(stack: Stack, **options: Any) -> MirroredModel:
    return MirroredModel(stack, "Weights", **{"model": "bloom", "revision": COMMIT, **options})


def call_of(template: Template, event: str = "Create") -> dict[str, Any]:
    """The call of CodeBuild's API, with `*` for what only the deployment knows."""
    (start,) = template.find_resources("Custom::ExtendedDlcMirror").values()
    pieces = start["Properties"][event]["Fn::Join"][1]
    call: dict[str, Any] = json.loads("".join(piece if isinstance(piece, str) else "*" for piece in pieces))
    return call


def start_of(template: Template) -> dict[str, Any]:
    """What CodeBuild is asked for."""
    parameters: dict[str, Any] = call_of(template)["parameters"]
    return parameters


def variables_of(template: Template) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in start_of(template)["environmentVariablesOverride"]}


def statements_of(template: Template, role: str) -> dict[str, list[str]]:
    """Resource -> actions, with the bucket's account and region as `*`."""
    found: dict[str, list[str]] = {}
    for name, policy in template.find_resources("AWS::IAM::Policy").items():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"] if name.startswith(role) else ():
            actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            for arn in statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]:
                pieces = arn["Fn::Join"][1] if "Fn::Join" in arn else [arn]
                key = "".join(piece if isinstance(piece, str) else "*" for piece in pieces)
                found.setdefault(key, []).extend(actions)
    return found


def test_the_endpoint_waits_for_the_copy_and_serves_it_offline_and_isolated(stack: Stack) -> None:
    image = StockDlc(transformers="4.51.3")
    HuggingFaceEndpoint(stack, "Bloom", model=mirror_in(stack, task="text-generation"), image=image)
    template = Template.from_stack(stack)
    (model,) = template.find_resources("AWS::SageMaker::Model").values()
    (wait,) = template.find_resources("AWS::CloudFormation::WaitCondition")
    assert wait in model["DependsOn"]
    assert model["Properties"]["EnableNetworkIsolation"] is True
    container = model["Properties"]["PrimaryContainer"]
    assert container["Environment"] == {"HF_HUB_OFFLINE": "1", "HF_TASK": "text-generation"}
    source = container["ModelDataSource"]["S3DataSource"]
    assert (source["S3DataType"], source["CompressionType"]) == ("S3Prefix", "None")
    assert source["S3Uri"]["Fn::Join"][1][-1] == f"/{PREFIX}"


def test_the_copy_is_told_what_and_where_and_ends_before_codebuild_and_the_stack_give_up(stack: Stack) -> None:
    mirror_in(stack, timeout=Duration.hours(2))
    template = Template.from_stack(stack)
    start, variables = start_of(template), variables_of(template)
    assert variables["ARGUMENTS"].split() == [
        "--model=bigscience/bloom-560m",
        f"--revision={COMMIT}",
        "--bucket=extended-dlc-models-*-*",
        f"--prefix={PREFIX}",
        "--seconds=7080",
        "--make-bucket-in=*",
    ]
    assert start["timeoutInMinutesOverride"] == 120
    (wait,) = template.find_resources("AWS::CloudFormation::WaitCondition").values()
    assert int(wait["Properties"]["Timeout"]) == 7200 + 1800
    commands = json.loads(start["buildspecOverride"])["phases"]["build"]["commands"]
    assert commands[-1] == 'python3 copy_model.py $ARGUMENTS --signal "$SIGNAL"'


def test_the_copy_asks_for_the_machine_that_a_new_account_may_have(stack: Stack) -> None:
    mirror_in(stack)
    (project,) = Template.from_stack(stack).find_resources("AWS::CodeBuild::Project").values()
    assert project["Properties"]["Environment"]["ComputeType"] == "BUILD_GENERAL1_SMALL"


def test_a_copy_in_china_is_annotated_because_it_reads_the_hub() -> None:
    stack = Stack(App(), "Test", env=Environment(region="cn-north-1"))
    mirror_in(stack)
    said = Match.string_like_regexp("out of reach in cn-north-1 .*copy of model 'bigscience/bloom-560m'.*S3Model")
    Annotations.from_stack(stack).has_warning("/Test/Weights", said)


def sdk_calls(tree: ast.AST) -> list[ast.Call]:
    return [each for each in ast.walk(tree) if isinstance(each, ast.Call) and "AwsSdkCall" in ast.unparse(each.func)]


def test_every_call_of_an_api_by_the_stack_keeps_what_it_names_of_the_answer_alone() -> None:
    """CloudFormation takes 4096 bytes of an answer, and whoever may describe the stack reads it."""
    sources = [file for folder in ("extended_dlc", "stacks") for file in (ROOT / folder).rglob("*.py")]
    calls = [call for file in sources for call in sdk_calls(ast.parse(file.read_text()))]
    assert calls
    assert all("output_paths" in [each.arg for each in call.keywords] for call in calls)


def test_of_codebuilds_answer_the_id_is_kept_and_no_signed_address(stack: Stack) -> None:
    mirror_in(stack)
    for event in ("Create", "Update"):
        call = call_of(Template.from_stack(stack), event)
        assert call["outputPaths"] == ["build.id"]


def test_the_copy_starts_after_its_rights_and_the_wait_after_it(stack: Stack) -> None:
    mirror_in(stack)
    template = Template.from_stack(stack)
    (start_id,) = template.find_resources("Custom::ExtendedDlcMirror")
    (start,) = template.find_resources("Custom::ExtendedDlcMirror").values()
    (wait,) = template.find_resources("AWS::CloudFormation::WaitCondition").values()
    policies = [name for name in template.find_resources("AWS::IAM::Policy") if name.startswith("WeightsProjectRole")]
    assert set(policies) <= set(start["DependsOn"])
    assert start_id in wait["DependsOn"]


def test_another_commit_waits_for_a_signal_of_its_own(stack: Stack) -> None:
    """A wait condition hears one signal in its life."""
    other = Stack(App(), "Test", env=Environment(region="us-east-1"))
    mirror_in(stack)
    mirror_in(other, revision="f" * 40)
    kind = "AWS::CloudFormation::WaitCondition"
    assert set(Template.from_stack(stack).find_resources(kind)).isdisjoint(
        Template.from_stack(other).find_resources(kind)
    )


def test_the_copy_may_write_this_model_and_nothing_else(stack: Stack) -> None:
    mirror_in(stack)
    rights = statements_of(Template.from_stack(stack), "WeightsProjectRole")
    ours = {
        arn.split(":s3:::")[1]: actions for arn, actions in rights.items() if ":s3:::" in arn and "asset" not in arn
    }
    bucket = "extended-dlc-models-*-*"
    written = {key for key, actions in ours.items() if "s3:PutObject" in actions}
    assert written == {f"{bucket}/{PREFIX}*", f"{bucket}/unverified/{PREFIX}*", f"{bucket}/{PREFIX[:-1]}.json"}
    assert {key for key, actions in ours.items() if "s3:DeleteObject" in actions} == {f"{bucket}/unverified/{PREFIX}*"}
    assert ours[bucket] == [
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:CreateBucket",
        "s3:PutBucketPublicAccessBlock",
        "s3:GetLifecycleConfiguration",
        "s3:PutLifecycleConfiguration",
        "s3:GetBucketPolicy",
        "s3:PutBucketPolicy",
    ]
    assert "*" not in rights


def test_the_endpoint_may_read_this_model_and_list_no_other(stack: Stack) -> None:
    HuggingFaceEndpoint(stack, "Bloom", model=mirror_in(stack), image=StockDlc(transformers="4.51.3"))
    rights = statements_of(Template.from_stack(stack), "BloomRole")
    ours = {arn.split(":s3:::")[1]: actions for arn, actions in rights.items() if ":s3:::" in arn}
    assert ours == {
        f"extended-dlc-models-*-*/{PREFIX}*": ["s3:GetObject"],
        "extended-dlc-models-*-*": ["s3:ListBucket"],
    }


def test_the_program_travels_as_one_file(stack: Stack) -> None:
    mirror_in(stack)
    template = Template.from_stack(stack)
    app = stack.node.root
    assert isinstance(app, App)
    assembly = Path(app.synth().directory)
    key = variables_of(template)["PROGRAM"].rpartition("/")[2]
    assert "Copies one commit of a Hub model to S3" in (assembly / f"asset.{key}").read_text()


def test_a_secret_is_read_by_the_copy_and_not_by_the_container(stack: Stack) -> None:
    token = secretsmanager.Secret.from_secret_name_v2(stack, "Token", "hub-token")
    HuggingFaceEndpoint(stack, "Bloom", model=mirror_in(stack, token=token), image=StockDlc(transformers="4.51.3"))
    template = Template.from_stack(stack)
    assert "--token-secret=arn:*:secretsmanager:us-east-1:*:secret:hub-token" in variables_of(template)["ARGUMENTS"]
    assert any(":secret:hub-token" in arn for arn in statements_of(template, "WeightsProjectRole"))
    assert not any(":secret:" in arn for arn in statements_of(template, "BloomRole"))


def test_a_bucket_that_was_given_is_used_and_not_made(stack: Stack) -> None:
    bucket = s3.Bucket.from_bucket_attributes(
        stack, "Bucket", bucket_name="weights", encryption_key=kms.Key(stack, "Key")
    )
    model = mirror_in(stack, bucket=bucket)
    template = Template.from_stack(stack)
    assert "--make-bucket-in" not in variables_of(template)["ARGUMENTS"]
    assert model.s3_uri == f"s3://weights/{PREFIX}"
    rights = statements_of(template, "WeightsProjectRole")
    assert not any("s3:CreateBucket" in actions for actions in rights.values())
    assert any("kms:Decrypt" in actions for actions in rights.values())


def test_a_project_that_was_given_copies(stack: Stack) -> None:
    role = iam.Role(stack, "Builder", assumed_by=iam.ServicePrincipal("codebuild.amazonaws.com"))
    project = codebuild.Project(
        stack, "Own", role=role, build_spec=codebuild.BuildSpec.from_object({"version": "0.2", "phases": {}})
    )
    mirror_in(stack, project=project)
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::CodeBuild::Project", 1)
    start = start_of(template)
    assert start["sourceTypeOverride"] == "NO_SOURCE"
    assert "copy_model.py" in start["buildspecOverride"]
    assert any(PREFIX in arn for arn in statements_of(template, "Builder"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"revision": "main"}, r"'revision' \(main\) is not a commit, and the files of a tag"),
        ({"model": "a b"}, r"'model' \(a b\) is not a Hub model id"),
        ({"timeout": Duration.hours(9)}, r"'timeout' \(32400 s\) must be from 10 minutes to 8 hours"),
        ({"token": "hf_abcdefghijklmnop"}, r"'token' is a text"),
    ],
)
def test_what_cannot_be_copied_is_refused(stack: Stack, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        mirror_in(stack, **options)
