"""Real-time hosting and what all hostings have: instances, variants, and every option at once."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aws_cdk import CfnParameter, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    Async,
    BacklogScaling,
    Canary,
    ConcurrencyScaling,
    DataCapture,
    HubModel,
    InvocationScaling,
    Network,
    PrefixAware,
    RealTime,
    StockDlc,
    Variant,
)
from extended_dlc.options._values import is_token
from tests.support.hosting import GPU, Json, config, endpoint_in, properties, variant

ARN = {"Fn::GetAtt": Match.any_value()}


# instances


def test_instance_types_in_order_of_preference_are_pools_instead_of_a_type(stack: Stack) -> None:
    endpoint_in(stack, hosting=RealTime(instance_type=["ml.g6.xlarge", "ml.g5.xlarge"], instances=2), base=GPU)
    found = variant(stack)
    assert found["InstancePools"] == [
        {"InstanceType": "ml.g6.xlarge", "Priority": 1},
        {"InstanceType": "ml.g5.xlarge", "Priority": 2},
    ]
    assert "InstanceType" not in found
    assert found["InitialInstanceCount"] == 2


def test_volume_timeouts_and_routing_reach_the_variant(stack: Stack) -> None:
    hosting = RealTime(
        volume_gb=100,
        startup_timeout_seconds=1800,
        download_timeout_seconds=1200,
        routing="least-outstanding-requests",
    )
    endpoint_in(stack, hosting=hosting)
    found = variant(stack)
    assert found["VolumeSizeInGB"] == 100
    assert found["ContainerStartupHealthCheckTimeoutInSeconds"] == 1800
    assert found["ModelDataDownloadTimeoutInSeconds"] == 1200
    assert found["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}


def test_a_routing_by_prefix_says_where_it_does_nothing(stack: Stack) -> None:
    routing = PrefixAware(prefix_length=1024, concurrency=4)
    endpoint_in(stack, "One", hosting=RealTime(routing=routing), endpoint_name="one")
    scaling = InvocationScaling(maximum=2, requests_per_second=1)
    endpoint_in(stack, "Scaled", hosting=RealTime(routing=routing, scaling=scaling), endpoint_name="scaled")
    found = Annotations.from_stack(stack).find_warning("*", Match.string_like_regexp("'routing' by PrefixAware"))
    assert [note.id for note in found] == ["/Test/One"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instance_type": []}, r"'instance_type' \(0\) must be from 1 to 5: name the likeliest"),
        ({"instance_type": ["ml.m5.large"] * 2}, r"'instance_type' \(ml.m5.large, ml.m5.large\) names a type twice"),
        (
            {"instance_type": ["ml.m5.large", "ml.g5.xlarge"]},
            r"'instance_type' \(ml.m5.large with cpu, ml.g5.xlarge with gpu\) must all compute with the same",
        ),
        ({"instance_type": ["ml.m5.large", "ml.m5.lage"]}, r"'instance_type' \(ml.m5.lage\) .*did you mean"),
        ({"volume_gb": 513}, r"'volume_gb' \(513\) must be from 1 to 512"),
        ({"volume_gb": 50, "instance_type": "ml.g5.xlarge"}, "cannot be chosen for ml.g5.xlarge, which has storage of"),
        ({"download_timeout_seconds": 59}, r"'download_timeout_seconds' \(59\) must be from 60 to 3600"),
        ({"routing": "sticky"}, r"'routing' \(sticky\) must be one of least-outstanding-requests, random"),
        ({"weight": -1}, r"'weight' \(-1\) must be 0 or more"),
        (
            {"scaling": InvocationScaling(maximum=2, requests_per_second=1), "instances": 3},
            r"'instances' \(3\) must be between what 'scaling' may choose \(1 to 2\)",
        ),
        (
            {"scaling": InvocationScaling(maximum=2, requests_per_second=1), "instance_type": "ml.t2.medium"},
            "'scaling' does not go with ml.t2.medium: SageMaker does not scale burstable types",
        ),
        ({"variants": [Variant(name="B"), Variant(name="B")]}, "'variants' has two of the name 'B'"),
        ({"variants": [Variant(name=f"V{n}") for n in range(10)]}, r"'variants' \(11\) must be from 1 to 10"),
        ({"variants": [Variant(name="B")], "shadow": Variant(name="C")}, r"'shadow' \(C\) needs an endpoint of one"),
        (
            {"shadow": Variant(name="C", scaling=InvocationScaling(maximum=2, requests_per_second=1))},
            r"'scaling' of the shadow \(C\)",
        ),
    ],
)
def test_real_time_hosting_that_cannot_be_is_refused(options: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RealTime(**options)


def test_a_variants_name_is_one_and_not_the_first_ones() -> None:
    with pytest.raises(ValueError, match=r"'name' \(a b\) cannot be an endpoint name"):
        Variant(name="a b")
    with pytest.raises(ValueError, match=r"'name' \(AllTraffic\) is the endpoint's own first variant"):
        Variant(name="AllTraffic")


# several variants


def test_variants_share_the_requests_by_their_weights_each_with_its_own_model(stack: Stack) -> None:
    candidate = Variant(
        name="Candidate",
        weight=0.5,
        instance_type="ml.c5.xlarge",
        model=HubModel("whisper", revision="b" * 40),
        environment={"MORE": "1"},
        scaling=ConcurrencyScaling(maximum=2, concurrent_requests=4),
    )
    endpoint_in(stack, hosting=RealTime(weight=9, variants=[candidate]), environment={"LESS": "1"})
    first, second = config(stack)["ProductionVariants"]
    assert (first["VariantName"], first["InitialVariantWeight"]) == ("AllTraffic", 9)
    assert (second["VariantName"], second["InitialVariantWeight"]) == ("Candidate", 0.5)
    assert (first["InstanceType"], second["InstanceType"]) == ("ml.m5.xlarge", "ml.c5.xlarge")
    assert first["ModelName"] != second["ModelName"]
    models = Template.from_stack(stack).find_resources("AWS::SageMaker::Model").values()
    environments = [each["Properties"]["PrimaryContainer"]["Environment"] for each in models]
    assert {each["HF_MODEL_ID"]: {*each} & {"MORE", "LESS"} for each in environments} == {
        "bigscience/bloom-560m": {"LESS"},
        "openai/whisper-base": {"MORE"},
    }
    target = properties(stack, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert target["ResourceId"] == "endpoint/bloom/variant/Candidate"


def test_a_shadow_gets_a_copy_and_is_no_production_variant(stack: Stack) -> None:
    endpoint_in(
        stack, hosting=RealTime(shadow=Variant(name="Shadow", image=StockDlc(base=GPU), instance_type="ml.g5.xlarge"))
    )
    found = config(stack)
    assert [each["VariantName"] for each in found["ProductionVariants"]] == ["AllTraffic"]
    (shadow,) = found["ShadowProductionVariants"]
    assert (shadow["VariantName"], shadow["InstanceType"]) == ("Shadow", "ml.g5.xlarge")
    assert shadow["InferenceAmiVersion"] == "al2-ami-sagemaker-inference-gpu-3-1"
    assert "InferenceAmiVersion" not in found["ProductionVariants"][0]


def test_each_type_of_a_variant_must_run_its_image(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'instance_type' \(ml.m5.xlarge\) computes with cpu and the image is built"):
        endpoint_in(stack, base=GPU, hosting=RealTime(instance_type=["ml.m5.xlarge", "ml.m5.large"]))


# all at once


def references(value: Any) -> set[str]:
    """The logical ids that a piece of a template refers to or depends on."""
    if isinstance(value, dict):
        found = {value["Ref"]} if isinstance(value.get("Ref"), str) else set()
        if "Fn::GetAtt" in value:
            found.add(value["Fn::GetAtt"][0])
        for key, each in value.items():
            found |= set([each] if isinstance(each, str) else each) if key == "DependsOn" else references(each)
        return found
    return set().union(*map(references, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("kind", ["real-time", "async"])
def test_with_every_option_on_nothing_waits_for_itself_and_all_that_watches_knows_the_name(
    stack: Stack, kind: str
) -> None:
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
    hosting: RealTime | Async
    if kind == "async":
        hosting = Async(scaling=BacklogScaling(maximum=3), success_topic="new", error_topic="new", concurrency=2)
    else:
        scaling = InvocationScaling(maximum=3, requests_per_second=2)
        hosting = RealTime(scaling=scaling, variants=[Variant(name="B", scaling=scaling)], routing="random")
    endpoint = endpoint_in(
        stack,
        hosting=hosting,
        rollout=Canary(alarms=["errors"]),
        network=Network(vpc=vpc),
        encryption_key=kms.Key(stack, "Key"),
        data_capture=DataCapture(),
        role_path="/speech/",
        permissions_boundary=iam.ManagedPolicy.from_managed_policy_name(stack, "Boundary", "developers"),
        environment={"MORE": "1"},
    )
    endpoint.grant_invoke(iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))
    found = Template.from_stack(stack).to_json()["Resources"]  # which itself refuses a cycle
    needs = {name: references(each) & set(found) for name, each in found.items()}

    def all_that(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        assert name not in seen, f"{name} waits for itself"
        return set().union({name}, *(all_that(each, seen | {name}) for each in needs[name]))

    for name in found:
        all_that(name)
    (endpoint_id,) = [name for name, each in found.items() if each["Type"] == "AWS::SageMaker::Endpoint"]
    behind = {found[name]["Type"] for name in found if endpoint_id in all_that(name) - {name}}
    assert behind <= {
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::CloudWatch::Alarm",
        "Custom::ExtendedDlcProof",
    }, "nothing but the scaling and the proof has to wait for the endpoint"
    names = re.findall(r"endpoint/([a-z]+)/variant", str(found))
    assert set(names) == {"bloom"}


def test_what_cloudformation_knows_later_is_not_refused_now(stack: Stack) -> None:
    number = CfnParameter(stack, "Number", type="Number").value_as_number
    text = CfnParameter(stack, "Text").value_as_string
    several = CfnParameter(stack, "Several", type="CommaDelimitedList").value_as_list
    assert [is_token(each) for each in (number, text, several, f"a-{text}")] == [True] * 4
    assert [is_token(each) for each in (-1, 0.5, 10**9, "bloom", ["bloom"], None)] == [False] * 6
    endpoint_in(stack, hosting=RealTime(instances=number, volume_gb=number))
    assert variant(stack)["InitialInstanceCount"] == {"Ref": "Number"}


def test_several_types_need_a_cdk_that_knows_instance_pools(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("aws_cdk.aws_sagemaker.CfnEndpointConfig.InstancePoolProperty")  # as in 2.220.0
    with pytest.raises(ValueError, match=r"'instance_type' \(ml.g6.xlarge, ml.g5.xlarge\) needs an aws-cdk-lib that"):
        endpoint_in(stack, hosting=RealTime(instance_type=["ml.g6.xlarge", "ml.g5.xlarge"]), base=GPU)
    endpoint_in(stack, "Other", hosting=RealTime(instance_type="ml.g6.xlarge"), base=GPU, endpoint_name="other")
