"""Hosting, scaling, updates, network and the like, as the app's settings say them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from stacks.endpoint_stack import EndpointStack
from stacks.settings import SettingsError, read_settings

Json = dict[str, Any]


def settings(endpoint: Json, **others: Any) -> Json:
    image = {"kind": "stock", "transformers": "4.51.3"}
    given = {"model": "bloom", **endpoint}
    return {"extended-dlc": {"region": "us-east-1", "image": image, "endpoints": {"bloom": given}, **others}}


def template(endpoint: Json, **others: Any) -> Template:
    app = cdk.App()
    read = read_settings(settings(endpoint, **others))
    return Template.from_stack(EndpointStack(app, "Stack", settings=read, env=cdk.Environment(region="us-east-1")))


def problems(endpoint: Json) -> str:
    with pytest.raises(SettingsError) as failure:
        read_settings(settings(endpoint))
    return str(failure.value)


def only(found: Template, kind: str, match: str = "") -> Json:
    (resource,) = [each for name, each in found.find_resources(kind).items() if name.startswith(match)]
    return dict(resource["Properties"])


def test_a_real_time_endpoint_scales_rolls_out_and_shares_its_requests() -> None:
    found = template(
        {
            "hosting": {
                "instance_type": ["ml.m5.xlarge", "ml.m5.2xlarge"],
                "scaling": {
                    "kind": "invocations",
                    "maximum": 4,
                    "requests_per_second": 2,
                    "schedules": [{"schedule": "rate(1 day)", "minimum": 2}],
                },
                "variants": [{"name": "Other", "weight": 0.5, "model": "openai/whisper-base"}],
            },
            "rollout": {"kind": "canary", "percent": 5, "alarms": ["errors"]},
        }
    )
    first, second = only(found, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert [each["InstanceType"] for each in first["InstancePools"]] == ["ml.m5.xlarge", "ml.m5.2xlarge"]
    assert (second["VariantName"], second["InitialVariantWeight"]) == ("Other", 0.5)
    target = only(found, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert target["ScheduledActions"][0]["ScalableTargetAction"] == {"MinCapacity": 2}
    policy = only(found, "AWS::ApplicationAutoScaling::ScalingPolicy")
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 60
    deployment = only(found, "AWS::SageMaker::Endpoint")["DeploymentConfig"]
    assert deployment["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "errors"}]}


def test_an_asynchronous_endpoint_uses_what_it_is_told_and_says_how_it_is_asked() -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:answers"
    found = template(
        {
            "hosting": {
                "kind": "async",
                "bucket": "answers",
                "success_topic": topic,
                "error_topic": "new",
                "concurrency": 2,
                "scaling": {"maximum": 2},
            }
        }
    )
    output = only(found, "AWS::SageMaker::EndpointConfig")["AsyncInferenceConfig"]["OutputConfig"]
    assert output["S3OutputPath"] == "s3://answers/extended-dlc-bloom/output"
    assert output["NotificationConfig"]["SuccessTopic"] == topic
    found.resource_count_is("AWS::SNS::Topic", 1)
    found.resource_count_is("AWS::S3::Bucket", 0)
    invoke = found.to_json()["Outputs"]["bloomInvoke"]["Value"]
    assert "invoke-endpoint-async" in invoke
    assert "--input-location s3://answers/extended-dlc-bloom/input/request.json" in invoke


def test_a_serverless_endpoint_has_no_instances() -> None:
    hosting = {"kind": "serverless", "memory_mb": 4096, "provisioned_concurrency": 1, "scaling": {"maximum": 3}}
    (variant,) = only(template({"hosting": hosting}), "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 5, "ProvisionedConcurrency": 1}


def test_network_key_capture_role_and_tags_reach_the_template() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    boundary = "arn:aws:iam::123456789012:policy/developers"
    found = template(
        {
            "network": {"vpc": "vpc-1", "subnets": ["subnet-a", "subnet-b"], "security_groups": ["sg-1"]},
            "encryption_key": key,
            "data_capture": {"sampling_percent": 5, "bucket": "captured"},
            "role_path": "/speech/",
            "permissions_boundary": boundary,
        },
        tags={"team": "speech"},
    )
    model = only(found, "AWS::SageMaker::Model")
    assert model["VpcConfig"] == {"Subnets": ["subnet-a", "subnet-b"], "SecurityGroupIds": ["sg-1"]}
    assert model["Tags"] == [{"Key": "team", "Value": "speech"}]
    config = only(found, "AWS::SageMaker::EndpointConfig")
    assert config["KmsKeyId"] == key
    assert config["DataCaptureConfig"]["DestinationS3Uri"] == "s3://captured/extended-dlc-bloom/capture"
    role = only(found, "AWS::IAM::Role", "bloomRole")
    assert (role["Path"], role["PermissionsBoundary"]) == ("/speech/", boundary)


def test_a_role_that_is_given_is_used_and_not_changed() -> None:
    found = template({"role": "arn:aws:iam::123456789012:role/speech"})
    assert only(found, "AWS::SageMaker::Model")["ExecutionRoleArn"] == "arn:aws:iam::123456789012:role/speech"
    found.resource_count_is("AWS::IAM::Role", 0)
    found.resource_count_is("AWS::IAM::Policy", 0)


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        (
            {"hosting": {"kind": "lambda"}},
            "endpoints.bloom.hosting: kind must be one of 'real-time', 'async', 'serverless'",
        ),
        (
            {"hosting": {"kind": "async", "expire_dayz": 3}},
            "endpoints.bloom.hosting.expire_dayz: is not a setting; did you mean 'expire_days'?",
        ),
        (
            {"hosting": {"kind": "serverless", "memory_mb": 3000}},
            "endpoints.bloom.hosting: 'memory_mb' (3000) must be a multiple of 1024",
        ),
        (
            {"hosting": {"scaling": {"kind": "concurrency", "maximum": 2, "concurrent_requests": 0}}},
            "endpoints.bloom.hosting.scaling: 'concurrent_requests' (0.0) must be above 0",
        ),
        (
            {"hosting": {"instance_type": ["ml.m5.xlarge", "ml.m5.xlrge"]}},
            "'ml.m5.xlrge' is not an instance type that SageMaker hosts endpoints on; did you mean 'ml.m5.xlarge'?",
        ),
        (
            {"rollout": {"kind": "linear", "percent": 5}},
            "endpoints.bloom.rollout: 'percent' (5) must be from 10 to 50",
        ),
        (
            {"data_capture": {"sampling_percent": 0}},
            "endpoints.bloom.data_capture: 'sampling_percent' (0) must be from 1 to 100",
        ),
    ],
)
def test_what_the_library_refuses_is_in_the_report_with_its_place(endpoint: Json, problem: str) -> None:
    assert problem in problems(endpoint)


def test_ordinary_settings_are_read_without_the_cdk() -> None:
    probe = (
        "import sys, json; from stacks.settings import read_settings;"
        "context = json.load(open('cdk.json'))['context']; read_settings(context);"
        "sys.exit('aws_cdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
