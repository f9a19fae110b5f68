"""Services act for this account alone, where their documentation shows how, and the context takes that out again."""

from __future__ import annotations

from typing import Any

import pytest
from aws_cdk import App, Environment, Stack
from aws_cdk.assertions import Template

from extended_dlc import HuggingFaceEndpoint, MirroredModel, Monitoring, StockDlc
from extended_dlc.constructs.principals import CONTEXT

Json = dict[str, Any]
ACCOUNT, REGION = "123456789012", "us-east-1"


def statements(context: Json) -> dict[str, Json]:
    """The statement of each service that is trusted or that may publish, by the service."""
    stack = Stack(App(context=context), "Stack", env=Environment(account=ACCOUNT, region=REGION))
    HuggingFaceEndpoint(
        stack,
        "Endpoint",
        model=MirroredModel(stack, "Weights", model="bigscience/bloom-560m", revision="a" * 40),
        image=StockDlc(transformers="4.51.3"),
        monitoring=Monitoring(alarm_topic="new"),
    )
    found = {}
    for resource in Template.from_stack(stack).to_json()["Resources"].values():
        given = resource.get("Properties", {})
        document = given.get("AssumeRolePolicyDocument") or given.get("PolicyDocument") or {}
        if resource["Type"] in ("AWS::IAM::Role", "AWS::SNS::TopicPolicy"):
            for each in document["Statement"]:
                if "Service" in (each["Principal"] if isinstance(each["Principal"], dict) else {}):
                    found[each["Principal"]["Service"].partition(".")[0]] = each
    return found


def test_each_documented_service_acts_for_this_account_and_lambda_has_no_condition() -> None:
    found = statements({})
    assert found["sagemaker"]["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Join"][1][-1] == (
        f":sagemaker:{REGION}:{ACCOUNT}:*"
    )
    assert found["codebuild"]["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    assert found["cloudwatch"]["Condition"]["StringEquals"] == {"aws:SourceAccount": ACCOUNT}
    assert "alarm:*" in str(found["cloudwatch"]["Condition"]["ArnLike"]["aws:SourceArn"])
    assert "Condition" not in found["lambda"]


@pytest.mark.parametrize("value", [False, "false"])
def test_the_context_takes_all_of_the_conditions_out(value: object) -> None:
    found = statements({CONTEXT: value})
    assert {"sagemaker", "codebuild", "cloudwatch", "lambda"} <= found.keys()
    assert [name for name, each in found.items() if "Condition" in each] == []
