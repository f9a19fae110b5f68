"""Where containers are and what protects their data: VPC, China, keys, capture, the role, tags."""

from __future__ import annotations

import pytest
from aws_cdk import App, Environment, Stack, Tags
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    Async,
    BacklogScaling,
    DataCapture,
    Network,
    PrivateAccess,
    RealTime,
    S3Model,
    Serverless,
)
from tests.support.hosting import GPU, Json, allowed, config, endpoint_in, properties, statements

ARN = {"Fn::GetAtt": Match.any_value()}


# China


@pytest.mark.parametrize(
    ("region", "options", "warned"),
    [
        ("cn-north-1", {}, True),
        ("cn-northwest-1", {"hosting": Serverless()}, True),
        ("cn-north-1", {"environment": {"HF_ENDPOINT": "https://hub.example.cn"}}, False),
        ("eu-west-1", {}, False),
    ],
)
def test_a_hub_model_in_china_is_annotated_unless_it_names_another_hub(
    region: str, options: Json, warned: bool
) -> None:
    stack = Stack(App(), "Test", env=Environment(region=region))
    endpoint_in(stack, **options)
    said = Match.string_like_regexp(f"out of reach in {region} .*HF_ENDPOINT.*S3Model")
    assert bool(Annotations.from_stack(stack).find_warning("/Test/Bloom", said)) == warned


# network


def test_containers_in_a_vpc_have_its_private_subnets_and_a_group_of_their_own(stack: Stack) -> None:
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
    endpoint_in(stack, network=Network(vpc=vpc))
    found = properties(stack, "AWS::SageMaker::Model")["VpcConfig"]
    assert found["Subnets"] == [stack.resolve(each.subnet_id) for each in vpc.private_subnets]
    group = properties(stack, "AWS::EC2::SecurityGroup", "BloomSecurityGroup")
    assert "SecurityGroupIngress" not in group
    assert (
        found["SecurityGroupIds"] == [{"Fn::GetAtt": [Match.any_value(), "GroupId"]}]
        or len(found["SecurityGroupIds"]) == 1
    )


def test_the_role_may_connect_containers_to_these_subnets_alone(stack: Stack) -> None:
    subnets = [ec2.Subnet.from_subnet_id(stack, name, f"subnet-{name}") for name in ("a", "b")]
    group = ec2.SecurityGroup.from_security_group_id(stack, "Group", "sg-1")
    vpc = ec2.Vpc.from_vpc_attributes(stack, "Vpc", vpc_id="vpc-1", availability_zones=["us-east-1a"])
    endpoint_in(stack, network=Network(vpc=vpc, subnets=subnets, security_groups=[group]))
    assert properties(stack, "AWS::SageMaker::Model")["VpcConfig"] == {
        "Subnets": ["subnet-a", "subnet-b"],
        "SecurityGroupIds": ["sg-1"],
    }
    ends = [each["Fn::Join"][1][-1].rpartition(":")[2] for each in allowed(stack, "ec2:CreateNetworkInterface")]
    assert ends == ["network-interface/*", "subnet/subnet-a", "subnet/subnet-b", "security-group/sg-1"]
    assert allowed(stack, "ec2:DescribeVpcs") == "*"


def test_one_subnet_is_annotated_and_too_many_are_refused(stack: Stack) -> None:
    subnet = ec2.Subnet.from_subnet_id(stack, "Subnet", "subnet-a")
    vpc = ec2.Vpc.from_vpc_attributes(stack, "Vpc", vpc_id="vpc-1", availability_zones=["us-east-1a"])
    endpoint_in(stack, network=Network(vpc=vpc, subnets=[subnet]))
    Annotations.from_stack(stack).has_warning("/Test/Bloom", Match.string_like_regexp("'subnets' has one subnet"))
    with pytest.raises(ValueError, match=r"'subnets' \(17\) must be from 1 to 16"):
        Network(vpc=vpc, subnets=[subnet] * 17)
    group = ec2.SecurityGroup.from_security_group_id(stack, "Group", "sg-1")
    with pytest.raises(ValueError, match=r"'security_groups' \(6\) must be from 1 to 5"):
        Network(vpc=vpc, security_groups=[group] * 6)


def test_a_vpc_without_internet_gets_the_endpoints_of_the_services_that_are_used(stack: Stack) -> None:
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2, nat_gateways=0)
    PrivateAccess(stack, "Access", vpc=vpc, services=["secretsmanager", "sagemaker.runtime"])
    found = Template.from_stack(stack).find_resources("AWS::EC2::VPCEndpoint").values()
    kinds = {each["Properties"]["VpcEndpointType"] for each in found}
    names = {str(each["Properties"]["ServiceName"]) for each in found}
    assert kinds == {"Gateway", "Interface"}
    assert len(names) == 3
    assert {"com.amazonaws.us-east-1.secretsmanager", "com.amazonaws.us-east-1.sagemaker.runtime"} < names
    with pytest.raises(ValueError, match=r"'services' \(sqs\) has what no endpoint uses: choose from ecr.api, "):
        PrivateAccess(stack, "More", vpc=vpc, services=["sqs"])


def test_an_isolated_container_cannot_download_from_the_hub(stack: Stack) -> None:
    with pytest.raises(ValueError, match="'network_isolation' leaves the container no way to the Hub"):
        endpoint_in(stack, "Hub", network_isolation=True)
    weights = S3Model(s3.Bucket.from_bucket_name(stack, "Weights", "weights"), "bloom/")
    endpoint_in(stack, "Own", model=weights, network_isolation=True)
    assert properties(stack, "AWS::SageMaker::Model", "Own")["EnableNetworkIsolation"] is True


# encryption, capture, role, tags


def test_a_key_encrypts_volumes_captured_data_answers_and_topics(stack: Stack) -> None:
    key = kms.Key(stack, "Key")
    hosting = Async(success_topic="new", error_topic="new")
    endpoint_in(stack, hosting=hosting, encryption_key=key, data_capture=DataCapture())
    arn = stack.resolve(key.key_arn)
    found = config(stack)
    assert found["KmsKeyId"] == arn
    assert found["DataCaptureConfig"]["KmsKeyId"] == arn
    assert found["AsyncInferenceConfig"]["OutputConfig"]["KmsKeyId"] == arn
    template = Template.from_stack(stack)
    for topic in template.find_resources("AWS::SNS::Topic").values():
        assert topic["Properties"]["KmsMasterKeyId"] == arn
    buckets = template.find_resources("AWS::S3::Bucket").values()
    assert len(buckets) == 2
    for bucket in buckets:
        (rule,) = bucket["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {"KMSMasterKeyID": arn, "SSEAlgorithm": "aws:kms"}
    assert allowed(stack, "kms:CreateGrant") == arn


def test_a_key_is_not_for_storage_that_the_hardware_encrypts(stack: Stack) -> None:
    endpoint_in(stack, encryption_key=kms.Key(stack, "Key"), hosting=RealTime(instance_type="ml.g5.xlarge"), base=GPU)
    assert "KmsKeyId" not in config(stack)
    Annotations.from_stack(stack).has_info(
        "/Test/Bloom", Match.string_like_regexp("not for the storage of ml.g5.xlarge")
    )
    assert all("kms:CreateGrant" not in each["Action"] for each in statements(stack))


def test_data_is_captured_where_the_role_may_write(stack: Stack) -> None:
    endpoint = endpoint_in(stack, data_capture=DataCapture(sampling_percent=10, capture=["output"], expire_days=7))
    found = config(stack)["DataCaptureConfig"]
    assert found["EnableCapture"] is True
    assert found["InitialSamplingPercentage"] == 10
    assert found["CaptureOptions"] == [{"CaptureMode": "Output"}]
    assert found["DestinationS3Uri"]["Fn::Join"][1][-1] == "/bloom/capture"
    assert allowed(stack, "s3:PutObject")["Fn::Join"][1][-1] == "/bloom/capture/*"
    assert properties(stack, "AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] == 7
    assert endpoint.capture_bucket is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_percent": 0}, r"'sampling_percent' \(0\) must be from 1 to 100: pass no DataCapture"),
        ({"capture": ["header"]}, r"'capture' \(header\) must be 'input', 'output' or both"),
        ({"capture": []}, r"'capture' \(\) must be 'input', 'output' or both"),
    ],
)
def test_capture_that_cannot_be_is_refused(options: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataCapture(**options)


def test_the_new_role_has_the_path_and_the_boundary_that_a_company_asks_for(stack: Stack) -> None:
    boundary = iam.ManagedPolicy.from_managed_policy_name(stack, "Boundary", "developers")
    endpoint_in(stack, role_path="/speech/", permissions_boundary=boundary, verify=True)
    for name in ("BloomRole", "ExtendedDlcProverRole"):
        role = properties(stack, "AWS::IAM::Role", name)
        assert role["Path"] == "/speech/"
        assert role["PermissionsBoundary"] == stack.resolve(boundary.managed_policy_arn)


def test_path_and_boundary_belong_to_the_new_role_only(stack: Stack) -> None:
    role = iam.Role(stack, "Mine", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"))
    with pytest.raises(ValueError, match="'role_path' and 'permissions_boundary' are for a new role"):
        endpoint_in(stack, role=role, role_path="/speech/")


def test_tags_reach_everything_that_can_have_some(stack: Stack) -> None:
    endpoint = endpoint_in(
        stack, hosting=Async(error_topic="new", scaling=BacklogScaling(maximum=1)), data_capture=DataCapture()
    )
    Tags.of(endpoint).add("team", "speech")
    tagged = {
        each["Type"]
        for each in Template.from_stack(stack).to_json()["Resources"].values()
        if {"Key": "team", "Value": "speech"} in each.get("Properties", {}).get("Tags", [])
    }
    assert tagged == {
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::CloudWatch::Alarm",
        "AWS::IAM::Role",
        "AWS::S3::Bucket",
        "AWS::SNS::Topic",
        "AWS::SageMaker::Endpoint",
        "AWS::SageMaker::EndpointConfig",
        "AWS::SageMaker::Model",
    }
