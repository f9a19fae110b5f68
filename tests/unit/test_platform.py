"""`PlatformDefaults`: what a platform gives and refuses, and the roles of everything below an app."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aws_cdk import App, Environment, Stack, Stage
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk.assertions import Match, Template

from extended_dlc import (
    CloudBuild,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    InvocationScaling,
    MirroredModel,
    Monitoring,
    Network,
    PlatformDefaults,
    Proof,
    RealTime,
    Serverless,
    StockDlc,
)

BOUNDARY = "arn:aws:iam::123456789012:policy/ml-boundary"


def endpoint_under(rules: PlatformDefaults, **options: Any) -> Template:
    app = App()
    rules.apply(app)
    stack = Stack(app, "Team", env=Environment(region="us-east-1"))
    given = {"model": HubModel("bloom"), "image": StockDlc(transformers="4.51.3"), "verify": False, **options}
    HuggingFaceEndpoint(stack, "Endpoint", **given)
    return Template.from_stack(stack)


def test_endpoints_get_the_platforms_vpc_key_monitoring_and_proof_and_roles_its_boundary_path_and_names() -> None:
    app = App()
    shared = Stack(app, "Shared", env=Environment(account="123456789012", region="us-east-1"))
    vpc = ec2.Vpc.from_vpc_attributes(
        shared, "Vpc", vpc_id="vpc-1", availability_zones=["a", "b"], private_subnet_ids=["subnet-1", "subnet-2"]
    )
    PlatformDefaults(
        network=Network(vpc=vpc),
        encryption_key=kms.Key.from_key_arn(shared, "Key", "arn:aws:kms:us-east-1:123456789012:key/1"),
        monitoring=Monitoring(),
        proof=Proof(optional=True),
        permissions_boundary=iam.ManagedPolicy.from_managed_policy_arn(shared, "Boundary", BOUNDARY),
        role_path="/ml/",
        role_name_prefix="acme-ml-",
        log_retention_days=90,
        tags={"cost-centre": "42"},
    ).apply(app)
    stack = Stack(app, "Team", env=Environment(account="123456789012", region="us-east-1"))
    local = ExtendedDlc(stack, "Local", transformers="5.23.0", accelerator="cpu")
    ExtendedDlc(stack, "Cloud", transformers="5.23.0", accelerator="cpu", build=CloudBuild())
    weights = MirroredModel(stack, "Weights", model="bloom", revision="a" * 40)
    HuggingFaceEndpoint(stack, "Endpoint", model=weights, image=local)
    logs.CfnLogGroup(stack, "Kept")
    logs.CfnLogGroup(stack, "Own", retention_in_days=7)
    template = Template.from_stack(stack)
    roles = template.find_resources("AWS::IAM::Role")
    # the copy's, the build's, the endpoint's, the mirror's and the CDK's own
    for made in ("ImageCopyRole", "CloudProjectRole", "EndpointRole", "WeightsProjectRole", "AWS679f"):
        assert any(name.startswith(made) for name in roles)
    names = []
    for role in roles.values():
        properties = role["Properties"]
        assert (properties["PermissionsBoundary"], properties["Path"]) == (BOUNDARY, "/ml/")
        names.append(json.dumps(properties["RoleName"]))
    assert all("acme-ml-" in each for each in names)
    assert len(set(names)) == len(roles) >= 5
    template.has_resource_properties("AWS::SageMaker::Model", {"VpcConfig": {"Subnets": ["subnet-1", "subnet-2"]}})
    template.has_resource_properties("AWS::SageMaker::EndpointConfig", {"KmsKeyId": Match.any_value()})
    proofs = template.find_resources("Custom::ExtendedDlcProof").values()
    assert any("Body" in each["Properties"] for each in proofs), [each["Properties"] for each in proofs]
    template.has_resource_properties("AWS::Logs::LogGroup", {"RetentionInDays": 90})
    template.has_resource_properties("AWS::Logs::LogGroup", {"RetentionInDays": 7})
    tag = {"Key": "cost-centre", "Value": "42"}
    template.has_resource_properties("AWS::SageMaker::Model", {"Tags": Match.array_with([tag])})


ASK = "ask #ml-platform"


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        (
            {"instance_types": ["ml.m5.*", "ml.m6i.xlarge"]},
            {"hosting": RealTime(instance_type=["ml.m5.large", "ml.m6i.large"])},
            r"'instance_type' \(ml\.m6i\.large\) is none of the platform's: ml\.m5\.\*, ml\.m6i\.xlarge: ask #ml-",
        ),
        (
            {"organisations": ["mistralai"]},
            {},
            r"'model' \(bigscience/bloom-560m\) is of 'bigscience', and the platform takes models of mistralai: ask",
        ),
        (
            {"licences": ["apache-2.0"]},
            {},
            r"'model' \(bigscience/bloom-560m\) is under 'bigscience-bloom-rail-1\.0', and the platform takes apache",
        ),
        (
            {"licences": ["apache-2.0"]},
            {"model": HubModel("acme/unheard", model_type="bloom")},
            r"is under a licence that nobody knows here \(say licence=\)",
        ),
        (
            {"greatest_hourly_price": 1, "prices": {"ml.m5.xlarge": 0.25}},
            {"hosting": RealTime(scaling=InvocationScaling(maximum=5, requests_per_second=10))},
            r"'hosting' \(1\.25 an hour\) costs more than 1 an hour with all its instances: ask #ml-platform",
        ),
        ({"proof": Proof(optional=True)}, {}, r"'verify' \(False\) leaves the endpoint unproved"),
    ],
)
def test_what_a_platform_does_not_allow_is_refused_at_synth_in_its_own_words(
    rules: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        endpoint_under(PlatformDefaults(message=ASK, **rules), **options)


def test_what_a_platform_allows_passes_and_the_nearest_rules_win() -> None:
    rules = PlatformDefaults(
        instance_types=["ml.m5.*"],
        organisations=["bigscience"],
        licences=["bigscience-bloom-rail-1.0"],
        greatest_hourly_price=1,
        prices={"ml.m5.xlarge": 0.25},
    )
    endpoint_under(rules, hosting=RealTime(instances=4)).resource_count_is("AWS::SageMaker::Endpoint", 1)
    app = App()
    PlatformDefaults(instance_types=["ml.m5.*"]).apply(app)
    stage = Stage(app, "Research", env=Environment(region="us-east-1"))
    PlatformDefaults(instance_types=["ml.g5.*"]).apply(stage)
    hosting = RealTime(instance_type="ml.g5.xlarge")
    image = StockDlc(transformers="4.51.3")
    HuggingFaceEndpoint(Stack(stage, "Team"), "E", model=HubModel("bloom"), image=image, hosting=hosting)
    team = Stack(app, "Own", env=Environment(region="us-east-1"))
    PlatformDefaults(own_images=False).apply(team)
    own_image = ExtendedDlc(team, "Image", transformers="5.23.0", accelerator="cpu")
    with pytest.raises(ValueError, match=r"'image' \(ExtendedDlc\) is built by yourself: take an image"):
        HuggingFaceEndpoint(team, "E", model=HubModel("bloom"), image=own_image)
    other = Stack(app, "Other", env=Environment(region="us-east-1"))
    PlatformDefaults(network=Network(vpc=ec2.Vpc(other, "Vpc"))).apply(other)
    with pytest.raises(ValueError, match=r"'hosting' \(Serverless\) can be in no VPC"):
        HuggingFaceEndpoint(other, "E", model=HubModel("bloom"), image=image, hosting=Serverless())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role_path": "ml"}, r"'role_path' \(ml\) must begin and end with a slash"),
        ({"role_name_prefix": "a" * 21}, r"'role_name_prefix' .* must be 1 to 20"),
        ({"log_retention_days": 42}, r"'log_retention_days' \(42\) must be one of 1, 3, 5"),
        ({"greatest_hourly_price": 5}, r"'greatest_hourly_price' \(5\) needs 'prices'"),
    ],
)
def test_rules_that_could_not_be_enforced_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlatformDefaults(**options)
