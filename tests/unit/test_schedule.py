"""The off switch in a template, and the clock that turns it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aws_cdk import (
    App,
    CfnOutput,
    CfnParameter,
    CliCredentialsStackSynthesizer,
    DefaultStackSynthesizer,
    LegacyStackSynthesizer,
    NestedStack,
    Stack,
)
from aws_cdk import aws_sns as sns
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    ByHand,
    EcrImage,
    HubModel,
    HuggingFaceEndpoint,
    InvocationScaling,
    Monitoring,
    OfficeHours,
    Proof,
    RealTime,
    StockDlc,
    Switch,
)
from tests.support.stacks import ACCOUNT, new_stack

CPU = "registry.example.com/huggingface-pytorch-inference:2.6.0-transformers4.51.3-cpu-py312-ubuntu22.04-v2.0"


def switched(stack: Stack, schedule: OfficeHours | ByHand | Switch, **options: Any) -> HuggingFaceEndpoint:
    model = HubModel("bigscience/bloom-560m", revision="a" * 40, task="text-generation")
    image = StockDlc(base=CPU)
    return HuggingFaceEndpoint(
        stack, "Bloom", endpoint_name="bloom", model=model, image=image, schedule=schedule, **options
    )


def test_the_switch_takes_the_endpoint_and_what_watches_and_scales_and_proves_it_and_keeps_the_rest(
    stack: Stack,
) -> None:
    switched(
        stack,
        ByHand(),
        hosting=RealTime(scaling=InvocationScaling(maximum=2, requests_per_second=1)),
        monitoring=Monitoring(),
        verify=Proof(),
    )
    template = Template.from_stack(stack).to_json()
    (condition,) = template["Conditions"]
    (parameter,) = set(template["Parameters"]) - {"BootstrapVersion"}
    assert template["Conditions"][condition] == {"Fn::Equals": [{"Ref": parameter}, "true"]}
    assert template["Parameters"][parameter]["Default"] == "true"
    conditional = {each["Type"] for each in template["Resources"].values() if each.get("Condition") == condition}
    assert conditional == {
        "AWS::SageMaker::Endpoint",
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
        "Custom::ExtendedDlcProof",
    }
    kept = {each["Type"] for each in template["Resources"].values() if "Condition" not in each}
    assert {"AWS::SageMaker::Model", "AWS::SageMaker::EndpointConfig", "AWS::Logs::LogGroup"} <= kept


def test_the_image_s_proof_stays_because_the_model_waits_for_it(stack: Stack) -> None:
    switched(stack, ByHand(), verify=Proof())
    proofs = Template.from_stack(stack).find_resources("Custom::ExtendedDlcProof").values()
    checks = {each["Properties"]["Check"]: "Condition" in each for each in proofs}
    assert checks == {"image": False, "endpoint": True}


def test_the_clock_updates_the_stack_with_its_previous_template_and_one_parameter(stack: Stack) -> None:
    CfnParameter(stack, "Theirs", default="x")
    switched(stack, OfficeHours(start="07:45", end="18:00", days="MON-THU,SAT", timezone="Europe/Berlin"))
    template = Template.from_stack(stack)
    schedules = template.find_resources("AWS::Scheduler::Schedule").values()
    turned = {}
    for each in schedules:
        properties = each["Properties"]
        assert properties["ScheduleExpressionTimezone"] == "Europe/Berlin"
        target = json.loads(properties["Target"]["Input"])
        assert target["StackName"] == "Test"
        assert target["UsePreviousTemplate"] is True
        assert not {"TemplateBody", "TemplateURL"} & set(target), "the clock brings no template"
        parameters = {entry.pop("ParameterKey"): entry for entry in target["Parameters"]}
        assert set(parameters) == set(template.to_json()["Parameters"])
        for kept in ("Theirs", "BootstrapVersion"):
            assert parameters.pop(kept) == {"UsePreviousValue": True}
        (value,) = parameters.values()
        turned[properties["ScheduleExpression"]] = value["ParameterValue"]
    assert turned == {"cron(45 7 ? * MON-THU,SAT *)": "true", "cron(0 18 ? * MON-THU,SAT *)": "false"}


def test_the_clock_may_update_this_stack_with_the_cdk_s_parameter_and_nothing_else(stack: Stack) -> None:
    switched(stack, OfficeHours(start="08:00", end="18:00"))
    Template.from_stack(stack).has_resource_properties(
        "AWS::IAM::Policy",
        {
            "PolicyDocument": {
                "Statement": [
                    {"Action": "cloudformation:UpdateStack", "Effect": "Allow", "Resource": {"Ref": "AWS::StackId"}},
                    {"Action": "ssm:GetParameters", "Effect": "Allow", "Resource": Match.any_value()},
                ],
                "Version": Match.any_value(),
            }
        },
    )


def inputs_of_schedules(template: Template) -> list[dict[str, Any]]:
    schedules = template.find_resources("AWS::Scheduler::Schedule").values()
    return [json.loads(each["Properties"]["Target"]["Input"]) for each in schedules]


def test_the_clock_says_nothing_of_the_parameters_of_stacks_below(stack: Stack) -> None:
    """CloudFormation refuses an update that names a parameter which the template does not have."""
    topic = sns.Topic(stack, "Topic")
    nested = NestedStack(stack, "Nested")
    CfnParameter(nested, "Nesteds", default="x")
    CfnOutput(nested, "Named", value=topic.topic_arn)  # the CDK makes a parameter of it
    CfnParameter(Stack(stack, "Below"), "Belows", default="x")
    switched(stack, OfficeHours(start="08:00", end="18:00"))
    template = Template.from_stack(stack)
    for asked in inputs_of_schedules(template):
        names = [entry["ParameterKey"] for entry in asked["Parameters"]]
        assert sorted(names) == sorted(template.to_json()["Parameters"])


def test_the_clock_may_read_each_parameter_of_systems_manager_that_the_template_names() -> None:
    """CloudFormation reads them with the clock's permissions, also those that the stack gets after the switch."""
    stack = new_stack(account=ACCOUNT)
    image = EcrImage.from_parameter(stack, "Image", "/images/text/inference/5.24.0/cpu")
    model = HubModel("bloom", revision="a" * 40)
    hours = OfficeHours(start="08:00", end="18:00")
    HuggingFaceEndpoint(stack, "Bloom", model=model, image=image, schedule=hours)
    shared = "arn:aws:ssm:us-east-1:222222222222:parameter/theirs"
    kind = "AWS::SSM::Parameter::Value<String>"
    for number, name in enumerate(("plain", shared, "/aws/service/ami-amazon-linux-latest/x", None)):
        CfnParameter(stack, f"Later{number}", type=kind, default=name)
    CfnParameter(stack, "NoneOfIts", default="/other")
    policies = Template.from_stack(stack).find_resources("AWS::IAM::Policy").values()
    statements = [each for policy in policies for each in policy["Properties"]["PolicyDocument"]["Statement"]]
    (resources,) = [each["Resource"] for each in statements if each["Action"] == "ssm:GetParameters"]
    assert {json.dumps(each).partition(":ssm:")[2].rstrip('"]}') for each in resources} == {
        "us-east-1:111111111111:parameter/cdk-bootstrap/hnb659fds/version",
        "us-east-1:111111111111:parameter/images/text/inference/5.24.0/cpu",
        "us-east-1:111111111111:parameter/plain",
        shared.partition(":ssm:")[2],
        "us-east-1::parameter/aws/service/ami-amazon-linux-latest/x",
    }


def test_two_endpoints_of_a_stack_have_a_switch_each(stack: Stack) -> None:
    for name in ("One", "Two"):
        model = HubModel("bloom", revision="a" * 40)
        HuggingFaceEndpoint(stack, name, model=model, image=StockDlc(base=CPU), schedule=ByHand())
    assert len(Template.from_stack(stack).to_json()["Conditions"]) == 2


def test_endpoints_share_a_switch_of_their_stack(stack: Stack) -> None:
    switch = Switch(stack, "Switch", schedule=OfficeHours(start="08:00", end="18:00"), what="each endpoint")
    for name in ("One", "Two"):
        model = HubModel("bloom", revision="a" * 40)
        HuggingFaceEndpoint(stack, name, model=model, image=StockDlc(base=CPU), schedule=switch)
    template = Template.from_stack(stack)
    assert len(template.to_json()["Conditions"]) == 1
    template.resource_count_is("AWS::Scheduler::Schedule", 2)


def test_a_switch_of_another_stack_is_refused(stack: Stack) -> None:
    switch = Switch(Stack(stack.node.root, "Other"), "Switch", schedule=ByHand(), what="each endpoint")
    with pytest.raises(
        ValueError, match=r"'schedule' \(a switch of Other\) must be in the stack of what it turns, Test"
    ):
        switched(stack, switch)


def test_a_switch_in_a_nested_stack_whose_parent_would_turn_it_on_again_is_refused(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'schedule' \(in the nested stack Test/Below\) is a parameter of its stack"):
        switched(NestedStack(stack, "Below"), ByHand())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "7:45", "end": "18:00"}, r"'start' \(7:45\) must be a time of day such as 07:45"),
        ({"start": "08:00", "end": "24:00"}, r"'end' \(24:00\) must be a time of day"),
        ({"start": "18:00", "end": "08:00"}, r"'end' \(08:00\) must be later on the day than 'start' \(18:00\)"),
        ({"start": "08:00", "end": "18:00", "days": "Mon-Fri"}, r"'days' \(Mon-Fri\) must be days of the week"),
        ({"start": "08:00", "end": "18:00", "timezone": "CET+1"}, r"'timezone' \(CET\+1\) is not in the time zone"),
    ],
)
def test_hours_that_no_clock_has_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OfficeHours(**options)


@pytest.mark.parametrize(
    ("synthesizer", "warns"),
    [(DefaultStackSynthesizer, False), (CliCredentialsStackSynthesizer, True), (LegacyStackSynthesizer, True)],
)
def test_a_schedule_in_a_stack_that_is_deployed_without_a_role_is_warned_of(synthesizer: Any, warns: bool) -> None:
    stack = Stack(App(), "Speech", synthesizer=synthesizer())
    switched(stack, OfficeHours(start="07:45", end="18:00", timezone="Europe/Berlin"))
    found = Annotations.from_stack(stack).find_warning("*", Match.string_like_regexp("'cdk deploy --role-arn'"))
    assert bool(found) is warns
