"""`MirroredModel` deployed: the stack is complete only with the copy, and a failed copy fails the stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aws_cdk import App, Environment, Stack
from aws_cdk.assertions import Template

from extended_dlc import MirroredModel
from extended_dlc.programs import copy_model as _mirror_copy
from tests.support.embedded import ACCOUNT, REGION, Aws, deploy, events

BUCKET = f"extended-dlc-models-{ACCOUNT}-{REGION}"
KEPT = ("Custom::ExtendedDlcMirror", "AWS::CloudFormation::WaitCondition", "AWS::CloudFormation::WaitConditionHandle")


def mirroring(aws: Aws, model: str, address: str, commit: str) -> dict[str, Any]:
    """The construct's resources without the project, the function and their roles; the program is uploaded."""
    stack = Stack(App(), "Mirror", env=Environment(account=ACCOUNT, region=REGION))
    MirroredModel(stack, "Weights", model=model, revision=commit)
    resources = Template.from_stack(stack).to_json()["Resources"]
    kept = {name: resource for name, resource in resources.items() if resource["Type"] in KEPT}
    for resource in kept.values():
        resource["DependsOn"] = [name for name in resource.get("DependsOn", ()) if name in kept]
    (start,) = [resource for resource in kept.values() if resource["Type"].startswith("Custom::")]
    start["Properties"]["ServiceToken"] = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:start"
    (project,) = [name for name, resource in resources.items() if resource["Type"] == "AWS::CodeBuild::Project"]
    text = json.dumps({"Resources": kept}).replace(json.dumps({"Ref": project}), '"project"')
    text = text.replace(" --seconds=", f" --hub={address} --seconds=")
    assets = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=assets)
    key = text.partition(f"{assets}/")[2].partition(".py")[0]
    s3.put_object(Bucket=assets, Key=f"{key}.py", Body=Path(_mirror_copy.__file__).read_bytes())
    template: dict[str, Any] = json.loads(text)
    return template


def test_the_files_are_in_s3_when_the_stack_is_there(aws: Aws, hub_address: tuple[str, str]) -> None:
    address, commit = hub_address
    stack = deploy(aws, "mirror", mirroring(aws, "acme/tiny", address, commit))
    assert stack["StackStatus"] == "CREATE_COMPLETE", [why for *_, why in events(aws, "mirror")]
    found = aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"models/acme/tiny/{commit}/")["Contents"]
    assert [entry["Key"].rpartition("/")[2] for entry in found] == ["config.json", "model.safetensors"]


def test_the_whole_answer_of_codebuild_is_more_than_cloudformation_takes(
    aws: Aws, hub_address: tuple[str, str]
) -> None:
    address, commit = hub_address
    # as long as AWS's names and presigned URLs make it
    text = json.dumps(mirroring(aws, "acme/tiny", " --hub=".join([address] * 100), commit))
    assert deploy(aws, "mirror-id", json.loads(text))["StackStatus"] == "CREATE_COMPLETE", events(aws, "mirror-id")
    whole = text.replace(r"\"outputPaths\":[\"build.id\"],", "")
    assert whole != text
    assert deploy(aws, "mirror-whole", json.loads(whole))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Response object is too long." in [why for *_, why in events(aws, "mirror-whole")]


def test_a_copy_that_fails_fails_the_stack_and_says_why(aws: Aws, hub_address: tuple[str, str]) -> None:
    address, commit = hub_address
    stack = deploy(aws, "no-mirror", mirroring(aws, "acme/absent", address, commit))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("acme/absent was not copied: the Hub answers 401" in why for *_, why in events(aws, "no-mirror"))
