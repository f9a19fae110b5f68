"""Hosting, scaling, updates, network and the like, as the app's settings say them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from stacks.endpoint_stack import EndpointStack
from tests.support.settings import SettingsError, read, read_settings

Json = dict[str, Any]


def settings(endpoint: Json, **others: Any) -> Json:
    image = {"kind": "stock", "transformers": "4.51.3"}
    given = {"model": "bloom", **endpoint}
    return {"extended-dlc": {"region": "us-east-1", "image": image, "endpoints": {"bloom": given}, **others}}


def template(endpoint: Json, **others: Any) -> Template:
    app = cdk.App()
    found = read(settings(endpoint, **others))
    return Template.from_stack(EndpointStack(app, "Stack", read=found, env=cdk.Environment(region="us-east-1")))


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
    assert invoke.startswith("""echo '{"inputs": "Hello, my name is"}' | aws s3 cp - s3://answers/""")
    assert "--input-location s3://answers/extended-dlc-bloom/input/request.json" in invoke


def test_an_option_of_the_library_is_a_setting_without_a_word_more() -> None:
    """`ssm_access` stands in the library's `Instances` and in what builds a variant, and nowhere else."""
    for hosting in (
        {},
        {"kind": "async"},
        {"kind": "components", "maximum": 1, "components": {"a": {"memory_mb": 512}}},
    ):
        config = only(template({"hosting": {**hosting, "ssm_access": True}}), "AWS::SageMaker::EndpointConfig")
        assert config["ProductionVariants"][0]["EnableSSMAccess"] is True
    config = only(template({}), "AWS::SageMaker::EndpointConfig")
    assert "EnableSSMAccess" not in config["ProductionVariants"][0]


def test_a_serverless_endpoint_has_no_instances() -> None:
    hosting = {"kind": "serverless", "memory_mb": 4096, "provisioned_concurrency": 1, "scaling": {"maximum": 3}}
    (variant,) = only(template({"hosting": hosting}), "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 5, "ProvisionedConcurrency": 1}


MIRRORED = {"weights": {"kind": "mirrored"}, "revision": "a" * 40}
PREFIX = {"weights": {"kind": "s3", "bucket": "b", "key": "bert/"}}
ARCHIVE = {"weights": {"kind": "s3", "bucket": "b", "key": "bert.tar.gz"}}


@pytest.mark.parametrize("weights", [MIRRORED, PREFIX])
def test_weights_that_a_serverless_endpoint_does_not_take_are_reported_with_their_place(weights: Json) -> None:
    serverless = {"hosting": {"kind": "serverless"}}
    said = "endpoints.bloom.weights (files in S3 as they are): does not go with Serverless, which takes one archive"
    assert said in problems({**serverless, **weights})
    read_settings(settings({**serverless, **ARCHIVE}))


def test_no_instance_in_a_region_that_refuses_it_is_reported_with_its_place() -> None:
    endpoint = shared(text={"memory_mb": 1024})
    endpoint["hosting"]["minimum"] = 0
    given = {**settings(endpoint), "region": "eu-west-3"}
    with pytest.raises(
        SettingsError, match=r"endpoints\.bloom\.hosting\.minimum \(0\): is refused by SageMaker in eu-west-3"
    ):
        read_settings(given)
    read_settings({**given, "region": "us-east-1"})


def shared(**components: Json) -> Json:
    return {"hosting": {"kind": "components", "instance_type": "ml.m5.2xlarge", "maximum": 2, "components": components}}


def test_each_component_that_answers_chats_has_an_output_with_its_base_url() -> None:
    endpoint = shared(talks={"memory_mb": 4096}, hears={"memory_mb": 1024, "model": "whisper"})

    def outputs(**options: Any) -> Json:
        found = template(endpoint, **options).to_json()["Outputs"]
        return {name: each["Value"] for name, each in found.items() if "OpenAI" in name}

    found = outputs(image={"transformers": "5.23.0"})
    assert set(found) == {"bloomOpenAIBaseUrltalks"}
    path = "/endpoints/extended-dlc-bloom/inference-components/extended-dlc-bloom-talks/openai/v1"
    assert found["bloomOpenAIBaseUrltalks"]["Fn::Join"][1][-1] == path
    assert outputs() == {}, "AWS's server answers no chats"


def test_components_have_models_from_anywhere_and_rooms_of_their_own() -> None:
    whisper = {
        "model": "whisper",
        "weights": {"kind": "s3", "bucket": "models", "key": "whisper.tar.gz"},
        "environment": {"OMP_NUM_THREADS": "2"},
        "memory_mb": 1024,
        "copies": 2,
        "cpu_cores": 1.5,
    }
    endpoint = {"environment": {"LOG_LEVEL": "debug"}, **shared(bloom={"memory_mb": 4096}, whisper=whisper)}
    found = template({**endpoint, "rollout": {"kind": "rolling", "percent": 50}})
    components = {
        each["Properties"]["InferenceComponentName"]: each["Properties"]
        for each in found.find_resources("AWS::SageMaker::InferenceComponent").values()
    }
    assert set(components) == {"extended-dlc-bloom-bloom", "extended-dlc-bloom-whisper"}
    speech = components["extended-dlc-bloom-whisper"]
    assert speech["RuntimeConfig"] == {"CopyCount": 2}
    assert speech["Specification"]["ComputeResourceRequirements"] == {
        "MinMemoryRequiredInMb": 1024,
        "NumberOfCpuCoresRequired": 1.5,
    }
    containers = [
        each["Properties"]["PrimaryContainer"] for each in found.find_resources("AWS::SageMaker::Model").values()
    ]
    by_weights = {"ModelDataSource" in each: each["Environment"] for each in containers}
    assert by_weights[False]["HF_MODEL_ID"] == "bigscience/bloom-560m"
    assert by_weights[False]["LOG_LEVEL"] == "debug"
    assert by_weights[True]["OMP_NUM_THREADS"] == "2"
    assert "LOG_LEVEL" not in by_weights[True], "a component's own variables stand for the endpoint's"


def test_settings_say_where_requests_and_copies_go() -> None:
    speech = {
        "memory_mb": 1024,
        "cached": True,
        "placement": {"strategy": "spread", "zone_imbalance": 2},
        "scaling": {"kind": "concurrency", "maximum": 3, "concurrent_requests": 4},
    }
    endpoint = shared(speech=speech)
    endpoint["hosting"] |= {
        "routing": {"prefix_length": 2048, "concurrency": 8},
        "consolidation": {"cooldown_minutes": 30},
    }
    found = template(endpoint)
    (component,) = found.find_resources("AWS::SageMaker::InferenceComponent").values()
    specification = component["Properties"]["Specification"]
    assert specification["SchedulingConfig"]["AvailabilityZoneBalance"]["MaxImbalance"] == 2
    assert specification["DataCacheConfig"] == {"EnableCaching": True}
    (config,) = found.find_resources("AWS::SageMaker::EndpointConfig").values()
    (variant,) = config["Properties"]["ProductionVariants"]
    assert variant["RoutingConfig"]["PrefixAwareRoutingConfig"] == {"PrefixLength": 2048, "ConcurrencyThreshold": 8}
    assert variant["ManagedInstanceScaling"]["ScaleInPolicy"]["CooldownInMinutes"] == 30
    (policy,) = found.find_resources("AWS::ApplicationAutoScaling::ScalingPolicy").values()
    assert policy["Properties"]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 4


@pytest.mark.parametrize(
    ("hosting", "message"),
    [
        (
            {"routing": "nearest"},
            r'routing \("nearest"\): must be .*random.\n.*an object of settings \(concurrency, prefix',
        ),
        ({"routing": {"prefix_length": 10, "concurrency": 8}}, r"prefix_length \(10\): must be from 1024 to 65536"),
        ({"consolidation": {"steps": 2}}, r"consolidation.steps: is not a setting; did you mean 'step'"),
    ],
)
def test_a_placement_in_the_settings_that_cannot_be_is_named(hosting: Json, message: str) -> None:
    endpoint = shared(speech={"memory_mb": 1024})
    endpoint["hosting"] |= hosting
    with pytest.raises(SettingsError, match=message):
        template(endpoint)


@pytest.mark.parametrize(
    ("parts", "path", "problem"),
    [
        ({"a": {}}, ".hosting.components.a.memory_mb", ": field required"),
        (
            {"a": {"memory_mb": 512, "copiez": 2}},
            ".hosting.components.a.copiez",
            ": is not a setting; did you mean 'copies'?",
        ),
        ({"a": {"memory_mb": 100}}, ".hosting.components.a.memory_mb", " (100): must be 128 or more"),
        (
            {"a": {"memory_mb": 512, "scaling": {"maximum": 2, "requests_per_second": 0}}},
            ".hosting.components.a.scaling",
            ".requests_per_second (0.0): must be above 0",
        ),
        (
            {"a": {"memory_mb": 512, "model": "x/y", "weights": {"kind": "s3", "bucket": "b", "kee": "k"}}},
            ".hosting.components.a.weights.kee",
            ": is not a setting; did you mean 'key'?",
        ),
        (
            {"a": {"memory_mb": 512, "model": "x/y", "weights": {"kind": "mirrored"}}},
            ".hosting.components.a",
            ".revision (None): is not a commit",
        ),
        ({"a": {"memory_mb": 512, "task": "summarization"}}, ".hosting.components.a", ".task: is said of a model"),
        ({"a": {"memory_mb": 99999}}, ".hosting.components.a.memory_mb", " (99999): is more than ml.m5.2xlarge has"),
        ({}, ".hosting", ".components (none): must be one or more"),
        ({"a": {"memory_mb": 512, "model": "whisper"}}, ".model", " (bigscience/bloom-560m): no component serves it"),
        (
            {"a" * 50: {"memory_mb": 512}},
            f".hosting.components.{'a' * 50}",
            ": it would be called 'extended-dlc-bloom-a",
        ),
        (
            {"a": {"memory_mb": 512}, "b": {"memory_mb": 512, "model": "x/y", "model_type": "qwen3_5"}},
            ".hosting.components.b.model",
            " (x/y): transformers 4.51.3 in huggingface-pytorch-inference:",
        ),
        (
            {"a": {"memory_mb": 512}, "b": {"memory_mb": 512, "model": "x/y", "task": "any-to-any"}},
            ".hosting.components.b.task",
            " (any-to-any): is no task of transformers 4.51.3",
        ),
    ],
)
def test_what_is_wrong_with_a_component_is_in_the_report_with_its_place(parts: Json, path: str, problem: str) -> None:
    assert f"  endpoints.bloom{path}{problem}" in problems(shared(**parts))


def test_a_proof_needs_a_request_for_each_component() -> None:
    singing = {"memory_mb": 512, "model": "x/y", "task": "singing"}
    found = problems({**shared(a={"memory_mb": 512}, b=singing), "task": "text-generation", "verify": {}})
    assert "endpoints.bloom.hosting.components.b.verify: needs a request, because no request is known for" in found


def test_problems_of_several_components_are_reported_at_once() -> None:
    found = problems(shared(a={}, b={"memory_mb": "much"}))
    assert "endpoints.bloom.hosting.components.a.memory_mb: field required" in found
    assert 'endpoints.bloom.hosting.components.b.memory_mb: input should be a valid integer, got "much"' in found


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
    found = template({"role": "arn:aws:iam::123456789012:role/speech", "verify": False})
    assert only(found, "AWS::SageMaker::Model")["ExecutionRoleArn"] == "arn:aws:iam::123456789012:role/speech"
    found.resource_count_is("AWS::IAM::Role", 0)
    found.resource_count_is("AWS::IAM::Policy", 0)


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        (
            {"hosting": {"kind": "lambda"}},
            "endpoints.bloom.hosting: kind must be one of 'real-time', 'async', 'serverless', 'components'",
        ),
        (
            {"hosting": {"kind": "async", "expire_dayz": 3}},
            "endpoints.bloom.hosting.expire_dayz: is not a setting; did you mean 'expire_days'?",
        ),
        (
            {"hosting": {"kind": "serverless", "memory_mb": 3000}},
            "endpoints.bloom.hosting.memory_mb (3000): must be a multiple of 1024",
        ),
        (
            {"hosting": {"scaling": {"kind": "concurrency", "maximum": 2, "concurrent_requests": 0}}},
            "endpoints.bloom.hosting.scaling.concurrent_requests (0.0): must be above 0",
        ),
        (
            {"hosting": {"instance_type": ["ml.m5.xlarge", "ml.m5.xlrge"]}},
            "endpoints.bloom.hosting.instance_type (ml.m5.xlrge): is not an instance type that SageMaker hosts "
            "endpoints on; did you mean 'ml.m5.xlarge'?",
        ),
        (
            {"rollout": {"kind": "linear", "percent": 5}},
            "endpoints.bloom.rollout.percent (5): must be from 10 to 50",
        ),
        (
            {"data_capture": {"sampling_percent": 0}},
            "endpoints.bloom.data_capture.sampling_percent (0): must be from 1 to 100",
        ),
    ],
)
def test_what_the_library_refuses_is_in_the_report_with_its_place(endpoint: Json, problem: str) -> None:
    assert problem in problems(endpoint)


def test_ordinary_settings_are_read_without_the_cdk() -> None:
    probe = (
        "import sys, json; from tests.support.settings import read_settings;"
        "context = json.load(open('cdk.json'))['context']; read_settings(context);"
        "sys.exit('aws_cdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
