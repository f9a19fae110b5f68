"""Two accounts in one embedded AWS: images by a repository's policy, parameters by a resource share."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from extended_dlc.rehearsal.accounts import open_account
from extended_dlc.rehearsal.client import Client
from tests.support.embedded import ACCOUNT, REGION, Aws, Image, deploy

READS = {
    "Parameters": {
        "Image": {
            "Type": "AWS::SSM::Parameter::Value<String>",
            "Default": f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/shared/text",
        }
    },
    "Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Ref": "Image"}}}},
}


def share(name: str, *accounts: str) -> dict[str, Any]:
    """A template of the owner's: a share of its parameter with these accounts."""
    arn = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{name}"
    properties = {"Name": "text", "Principals": list(accounts), "ResourceArns": [arn]}
    return {"Resources": {"Share": {"Type": "AWS::RAM::ResourceShare", "Properties": properties}}}


def test_a_parameter_is_read_by_the_accounts_that_it_is_shared_with(aws: Aws) -> None:
    client = Client(port=aws.port, name="")
    reader, stranger = open_account(client, "222222222222"), open_account(client, "333333333333")
    assert reader.service("sts").get_caller_identity()["Account"] == "222222222222"
    ssm = aws.client("ssm")
    ssm.put_parameter(Name="/shared/text", Value="one", Type="String", Tier="Advanced")
    ssm.put_parameter(Name="/shared/standard", Value="one", Type="String")
    assert (
        deploy(aws, "shares-standard", share("/shared/standard", reader.number))["StackStatus"] == "ROLLBACK_COMPLETE"
    )
    refused = r"Unable to fetch parameters \[arn:aws:ssm:.*:parameter/shared/text\] from parameter store"
    with pytest.raises(ClientError, match=refused):
        reader.service("cloudformation").create_stack(StackName="reads", TemplateBody=json.dumps(READS))
    assert deploy(aws, "shares", share("/shared/text", reader.number))["StackStatus"] == "CREATE_COMPLETE"
    with pytest.raises(ClientError, match=refused):
        stranger.service("cloudformation").create_stack(StackName="reads", TemplateBody=json.dumps(READS))
    stacks = reader.service("cloudformation")
    stacks.create_stack(StackName="reads", TemplateBody=json.dumps(READS))
    stacks.get_waiter("stack_create_complete").wait(StackName="reads", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    topics = reader.service("sns").list_topics()["Topics"]
    (arn,) = [each["TopicArn"] for each in topics if "reads" in each["TopicArn"]]
    assert f":{reader.number}:" in arn
    assert reader.service("sns").get_topic_attributes(TopicArn=arn)["Attributes"]["DisplayName"] == "one"


def test_an_account_that_a_repositorys_policy_forgets_is_refused(aws: Aws) -> None:
    client = Client(port=aws.port, name="")
    reader, forgotten = open_account(client, "444444444444"), open_account(client, "555555555555")
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName="images/read")
    assert Image("read").push(aws, "images/read", "one").status == 201
    allowed = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{reader.number}:root"},
        "Action": ["ecr:BatchGetImage"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    ecr.set_repository_policy(repositoryName="images/read", policyText=policy)
    ask = {"registryId": ACCOUNT, "repositoryName": "images/read", "imageIds": [{"imageTag": "one"}]}
    (found,) = reader.service("ecr").batch_get_image(**ask)["images"]
    assert found["imageId"]["imageTag"] == "one"
    refused = (
        rf"AccessDeniedException.* arn:aws:iam::{forgotten.number}:user/administrator is not authorized to perform: "
        rf"ecr:BatchGetImage on resource: arn:aws:ecr:{REGION}:{ACCOUNT}:repository/images/read because no resource"
    )
    with pytest.raises(ClientError, match=refused):
        forgotten.service("ecr").batch_get_image(**ask)
