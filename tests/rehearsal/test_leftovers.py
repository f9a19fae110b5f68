"""What a stack's deletion leaves: what its template keeps is named, and anything else is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from extended_dlc.rehearsal.client import Client
from extended_dlc.rehearsal.leftovers import Left, deployed, left
from tests.support.embedded import ACCOUNT, REGION, Aws, Image, deploy, start

Template = dict[str, Any]

OWNER = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}

KEPT: Template = {
    "Repository": {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": "kept-images"}},
    "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "kept-data"}},
    "Log": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "kept-lines"}},
    "Key": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {"Version": "2012-10-17", "Statement": [OWNER]}}},
}
KEPT_NOW: Template = {
    "Table": {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "TableName": "kept-rows",
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
        },
    }
}
GOES: Template = {
    "Gone": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "gone-data"}},
    "GoneLog": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "gone-lines"}},
}
NESTED: Template = {
    "Resources": {
        "Inside": {
            "Type": "AWS::S3::Bucket",
            "Properties": {"BucketName": "kept-inside"},
            "DeletionPolicy": "Retain",
        },
        "InsideGone": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "gone-inside"}},
    }
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    running = start(tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("engine"))
    yield running
    running.stop()


def app(aws: Aws) -> Template:
    """A template with resources that stay, that go, and that are in a nested stack."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="templates")
    s3.put_object(Bucket="templates", Key="nested.json", Body=json.dumps(NESTED).encode())
    nested = {"TemplateURL": f"{aws.url}/templates/nested.json"}
    return {
        "Resources": {
            **{name: {**each, "DeletionPolicy": "Retain"} for name, each in KEPT.items()},
            **{name: {**each, "DeletionPolicy": "RetainExceptOnCreate"} for name, each in KEPT_NOW.items()},
            **GOES,
            "Nested": {"Type": "AWS::CloudFormation::Stack", "Properties": nested},
        }
    }


def destroy(aws: Aws, stack: str, *, meanwhile: Callable[[], object] = lambda: None) -> Left:
    service = Client(port=aws.port, name="test").service
    before = deployed(service, (REGION,))
    aws.client("cloudformation").delete_stack(StackName=stack)
    aws.client("cloudformation").get_waiter("stack_delete_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    meanwhile()
    return left(service, (REGION,), before)


def test_what_the_template_keeps_is_named_with_what_it_holds_and_nothing_else_is_found(aws: Aws) -> None:
    stack = deploy(aws, "Mine", app(aws))
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    Image("held").push(aws, "kept-images", "1")
    aws.client("s3").put_object(Bucket="kept-data", Key="held", Body=b"1")
    aws.client("logs").create_log_group(logGroupName="/aws/sagemaker/Endpoints/of-a-container")
    found = destroy(aws, "Mine")
    assert found.others == ()
    names = {each.type: each.name for each in found.kept if each.name != "kept-inside"}
    key = names.pop("AWS::KMS::Key")
    assert key in {each["KeyId"] for each in aws.client("kms").list_keys()["Keys"]}
    assert names == {
        "AWS::DynamoDB::Table": "kept-rows",
        "AWS::ECR::Repository": "kept-images",
        "AWS::Logs::LogGroup": "kept-lines",
        "AWS::S3::Bucket": "kept-data",
    }
    assert "AWS::S3::Bucket kept-inside" in map(str, found.kept), "of the nested stack"


def test_what_should_have_gone_and_what_no_template_has_are_found(aws: Aws) -> None:
    replaced = {"Type": "AWS::ECR::Repository", "DeletionPolicy": "Delete", "UpdateReplacePolicy": "Retain"}
    deploy(aws, "Other", {"Resources": {**GOES, "Images": {**replaced, "Properties": {"RepositoryName": "before"}}}})
    after = {"RepositoryName": "after", "EncryptionConfiguration": {"EncryptionType": "KMS"}}
    deploy(aws, "Other", {"Resources": {**GOES, "Images": {**replaced, "Properties": after}}}, update=True)

    def leave() -> None:
        aws.client("s3").create_bucket(Bucket="gone-data")
        aws.client("logs").create_log_group(logGroupName="gone-lines")
        aws.client("ecr").create_repository(repositoryName="strange")

    found = destroy(aws, "Other", meanwhile=leave)
    assert [str(each) for each in found.kept] == ["AWS::ECR::Repository before"], "which an update replaced"
    assert {str(each) for each in found.others} >= {
        "AWS::ECR::Repository strange",
        "AWS::Logs::LogGroup gone-lines",
        "AWS::S3::Bucket gone-data",
    }
