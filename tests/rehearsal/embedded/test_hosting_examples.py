"""Each app of examples/hosting: linted, deployed to the embedded AWS, and described with boto3."""

from __future__ import annotations

import functools
import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from botocore.exceptions import ClientError
from cfnlint.api import lint

from tests.support.embedded import REGION, Aws, deploy, events, start
from tests.support.endpoints import ROLE

EXAMPLES = Path(__file__).parents[3] / "examples" / "hosting"
NAMES = ("components", "private", "queued", "scaled", "serverless", "variants")

Json = dict[str, Any]


def build(name: str, out: Path | None = None) -> tuple[cdk.App, cdk.Stack]:
    """The example's stack in an app of the test's."""
    defined = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")
    (stack,) = [
        each
        for each in defined.values()
        if isinstance(each, type) and issubclass(each, cdk.Stack) and each is not cdk.Stack
    ]
    app = cdk.App(outdir=str(out) if out else None)
    # it has no asset, so no bootstrap is needed
    return app, stack(app, "Example", env=cdk.Environment(region=REGION), synthesizer=cdk.BootstraplessSynthesizer())


@functools.cache
def template(name: str) -> str:
    app, _ = build(name)
    return (Path(app.synth().directory) / "Example.template.json").read_text()


def test_every_example_is_here() -> None:
    assert sorted(file.stem for file in EXAMPLES.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_uses_public_names_only_and_says_how_it_is_deployed(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert f'npx cdk deploy --app "python3 examples/hosting/{name}.py"' in text
    assert "from extended_dlc." not in text
    assert "from extended_dlc import" in text


@pytest.mark.parametrize("name", NAMES)
def test_cfn_lint_finds_no_error(name: str) -> None:
    assert json.loads(template(name))["Resources"]
    assert [str(each) for each in lint(template(name), regions=[REGION]) if each.rule.severity == "error"] == []


@pytest.fixture(scope="module")
def own_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An embedded AWS whose endpoints have no containers, because the tests only describe resources."""
    running = start(tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("stub"))
    # resources that the private example expects to exist
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    running.client("iam").create_policy(PolicyName="models", PolicyDocument=json.dumps(everything))
    running.client("s3").create_bucket(Bucket="weights")
    running.client("s3").put_object(Bucket="weights", Key="bloom/config.json", Body=b"{}")
    yield running
    running.stop()


def deployed(aws: Aws, name: str) -> Json:
    """The final description of a stack whose deployment succeeded."""
    end = deploy(aws, name, json.loads(template(name)))
    assert end["StackStatus"] == "CREATE_COMPLETE", events(aws, name)
    return end


def config(aws: Aws, endpoint: str) -> Json:
    client = aws.client("sagemaker")
    name = client.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    found: Json = client.describe_endpoint_config(EndpointConfigName=name)
    return found


def scaling(aws: Aws, endpoint: str) -> tuple[Json, dict[str, Json]]:
    """The scalable target of the endpoint's first variant, and its policies by name."""
    client = aws.client("application-autoscaling")
    resource = f"endpoint/{endpoint}/variant/AllTraffic"
    (target,) = client.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])[
        "ScalableTargets"
    ]
    policies = client.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=resource)["ScalingPolicies"]
    return target, {each["PolicyName"]: each for each in policies}


def test_the_scaled_endpoint_has_its_pools_its_target_and_its_canary(own_aws: Aws) -> None:
    deployed(own_aws, "scaled")
    (variant,) = config(own_aws, "bloom-scaled")["ProductionVariants"]
    assert [each["InstanceType"] for each in variant["InstancePools"]] == ["ml.m5.xlarge", "ml.m5.2xlarge"]
    assert variant["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    target, policies = scaling(own_aws, "bloom-scaled")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    tracking = policies["Load"]["TargetTrackingScalingPolicyConfiguration"]
    assert float(tracking["TargetValue"]) == 60
    actions = own_aws.client("application-autoscaling").describe_scheduled_actions(ServiceNamespace="sagemaker")
    assert {each["Schedule"] for each in actions["ScheduledActions"]} == {
        "cron(0 8 ? * MON-FRI *)",
        "cron(0 18 ? * MON-FRI *)",
    }


def test_the_queued_endpoint_sleeps_wakes_and_writes_where_it_may(own_aws: Aws) -> None:
    deployed(own_aws, "queued")
    found = config(own_aws, "whisper-queued")
    output = found["AsyncInferenceConfig"]["OutputConfig"]
    bucket = output["S3OutputPath"].split("/")[2]
    assert output["S3OutputPath"] == f"s3://{bucket}/whisper-queued/output"
    assert output["S3FailurePath"] == f"s3://{bucket}/whisper-queued/failure"
    assert output["KmsKeyId"] == found["KmsKeyId"]
    assert found["AsyncInferenceConfig"]["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 1}
    topics = [each["TopicArn"] for each in own_aws.client("sns").list_topics()["Topics"]]
    assert output["NotificationConfig"] == {"ErrorTopic": topics[0]}
    target, policies = scaling(own_aws, "whisper-queued")
    assert target["MinCapacity"] == 0
    metric = policies["Load"]["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert metric["Dimensions"] == [{"Name": "EndpointName", "Value": "whisper-queued"}]
    alarms = own_aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    (wake_up,) = [each for each in alarms if each["MetricName"] == "HasBacklogWithoutCapacity"]
    assert wake_up["AlarmActions"] == [policies["WakeUp"]["PolicyARN"]]


def test_the_serverless_endpoint_has_warm_containers(own_aws: Aws) -> None:
    deployed(own_aws, "serverless")
    (variant,) = config(own_aws, "sentiment")["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 20, "ProvisionedConcurrency": 2}


def test_the_variants_share_the_requests_and_the_shadow_gets_a_copy(own_aws: Aws) -> None:
    deployed(own_aws, "variants")
    shared = config(own_aws, "whisper-shared")["ProductionVariants"]
    assert {each["VariantName"]: each["InitialVariantWeight"] for each in shared} == {"AllTraffic": 9, "Small": 1}
    (shadow,) = config(own_aws, "whisper-shadowed")["ShadowProductionVariants"]
    model = own_aws.client("sagemaker").describe_model(ModelName=shadow["ModelName"])
    assert model["PrimaryContainer"]["Environment"]["HF_MODEL_ID"] == "openai/whisper-small"


def test_the_private_endpoint_is_in_its_subnets_and_cannot_leave(own_aws: Aws) -> None:
    deployed(own_aws, "private")
    found = config(own_aws, "own")
    (variant,) = found["ProductionVariants"]
    model = own_aws.client("sagemaker").describe_model(ModelName=variant["ModelName"])
    assert model["EnableNetworkIsolation"] is True
    subnets = own_aws.client("ec2").describe_subnets(SubnetIds=model["VpcConfig"]["Subnets"])["Subnets"]
    assert len({each["AvailabilityZone"] for each in subnets}) == 2
    assert variant["VolumeSizeInGB"] == 100
    assert found["DataCaptureConfig"]["InitialSamplingPercentage"] == 20
    assert found["DataCaptureConfig"]["KmsKeyId"] == found["KmsKeyId"]
    role = own_aws.client("iam").get_role(RoleName=model["ExecutionRoleArn"].rpartition("/")[2])["Role"]
    assert role["Path"] == "/models/"
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith(":policy/models")


def test_the_components_share_instances_and_go_before_their_endpoint(own_aws: Aws) -> None:
    deployed(own_aws, "components")
    found = config(own_aws, "shared")
    (variant,) = found["ProductionVariants"]
    assert variant["ManagedInstanceScaling"] == {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
    assert found["ExecutionRoleArn"].startswith("arn:aws:iam::")
    client = own_aws.client("sagemaker")
    component = client.describe_inference_component(InferenceComponentName="shared-whisper")
    assert (component["EndpointName"], component["VariantName"]) == ("shared", "AllTraffic")
    assert component["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    asked = component["Specification"]["ComputeResourceRequirements"]
    assert asked == {"MinMemoryRequiredInMb": 4096, "NumberOfCpuCoresRequired": 2}
    model = client.describe_model(ModelName=component["Specification"]["ModelName"])
    assert model["PrimaryContainer"]["Environment"]["HF_MODEL_ID"] == "openai/whisper-base"
    alarms = own_aws.client("cloudwatch").describe_alarms(AlarmNamePrefix="components-")["MetricAlarms"]
    whisper = [{"Name": "InferenceComponentName", "Value": "shared-whisper"}]
    of_whisper = {each["MetricName"]: each["AlarmName"] for each in alarms if each["Dimensions"] == whisper}
    assert {"Invocation4XXErrors", "ModelLatency", "MemoryUtilizationNormalized"} <= of_whisper.keys()
    assert "LastDeploymentConfig" not in component  # only updates have it
    changed = template("components").replace('"MinMemoryRequiredInMb": 4096', '"MinMemoryRequiredInMb": 5120')
    deploy(own_aws, "components", json.loads(changed), update=True)
    updated = client.describe_inference_component(InferenceComponentName="shared-whisper")
    assert updated["Specification"]["ComputeResourceRequirements"]["MinMemoryRequiredInMb"] == 5120
    deployment = updated["LastDeploymentConfig"]
    assert deployment["RollingUpdatePolicy"]["MaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": 50}
    names = [each["AlarmName"] for each in deployment["AutoRollbackConfiguration"]["Alarms"]]
    assert names == [of_whisper["Invocation5XXErrors"], of_whisper["ModelLatency"]]
    cloudformation = own_aws.client("cloudformation")
    cloudformation.delete_stack(StackName="components")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="components", WaiterConfig={"Delay": 1})
    with pytest.raises(ClientError, match="Could not find inference component"):
        client.describe_inference_component(InferenceComponentName="shared-whisper")


NEEDS: Json = {"ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1024}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RuntimeConfig": {"CopyCount": 0}}, "copy count an integer larger than 0"),
        ({"EndpointName": "none"}, 'Could not find endpoint "none"'),
        ({"Specification": {"ModelName": "none", **NEEDS}}, 'Could not find model "none"'),
    ],
)
def test_the_embedded_sagemaker_refuses_a_component_that_cannot_be(own_aws: Aws, changed: Json, message: str) -> None:
    client = own_aws.client("sagemaker")
    variant = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName="bare", ExecutionRoleArn=ROLE, ProductionVariants=[variant])
    client.create_endpoint(EndpointName="bare", EndpointConfigName="bare")
    given = {"EndpointName": "bare", "RuntimeConfig": {"CopyCount": 1}, "Specification": NEEDS, **changed}
    try:
        with pytest.raises(ClientError, match=message):
            client.create_inference_component(InferenceComponentName="bare", VariantName="AllTraffic", **given)
    finally:
        client.delete_endpoint(EndpointName="bare")
        client.delete_endpoint_config(EndpointConfigName="bare")
