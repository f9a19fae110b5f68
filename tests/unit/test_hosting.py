"""The kinds of hosting in a template, and what each refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from aws_cdk import App, CfnParameter, Environment, Stack, Tags
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    Async,
    BacklogScaling,
    Canary,
    ConcurrencyScaling,
    DataCapture,
    EcrImage,
    ExtendedDlc,
    HubModel,
    InferenceCode,
    InvocationScaling,
    MirroredModel,
    Network,
    PrivateAccess,
    ProvisionedScaling,
    RealTime,
    S3Model,
    Serverless,
    StockDlc,
    Variant,
)
from extended_dlc.options._values import is_token
from tests.support.hosting import CPU, GPU, Json, allowed, config, endpoint_in, properties, statements, variant

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


# asynchronous


def test_an_asynchronous_endpoint_has_a_bucket_that_expires_and_refuses_plain_http(stack: Stack) -> None:
    endpoint = endpoint_in(stack, hosting=Async(concurrency=4))
    found = config(stack)["AsyncInferenceConfig"]
    assert found["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 4}
    assert found["OutputConfig"]["S3OutputPath"]["Fn::Join"][1][-1] == "/bloom/output"
    assert found["OutputConfig"]["S3FailurePath"]["Fn::Join"][1][-1] == "/bloom/failure"
    assert "NotificationConfig" not in found["OutputConfig"]
    template = Template.from_stack(stack)
    template.has_resource(
        "AWS::S3::Bucket",
        {
            "DeletionPolicy": "Retain",
            "Properties": {
                "BucketEncryption": Match.any_value(),
                "LifecycleConfiguration": {"Rules": [Match.object_like({"ExpirationInDays": 30, "Status": "Enabled"})]},
                "PublicAccessBlockConfiguration": Match.object_like({"BlockPublicPolicy": True}),
            },
        },
    )
    policy = properties(stack, "AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"]
    assert policy[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert endpoint.bucket is not None


def test_an_asynchronous_endpoint_reads_requests_and_writes_answers_and_nothing_else(stack: Stack) -> None:
    endpoint_in(stack, hosting=Async())
    assert allowed(stack, "s3:GetObject")["Fn::Join"][1][-1] == "/bloom/input/*"
    written = [each["Resource"] for each in statements(stack) if "s3:PutObject" in each["Action"]]
    assert [each["Fn::Join"][1][-1] for each in written] == ["/bloom/output/*", "/bloom/failure/*"]


def test_whoever_may_invoke_an_asynchronous_endpoint_may_bring_requests_and_fetch_answers(stack: Stack) -> None:
    caller = iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    endpoint_in(stack, hosting=Async()).grant_invoke(caller)
    assert allowed(stack, "s3:PutObject", "Caller")["Fn::Join"][1][-1] == "/bloom/input/*"
    read = [each["Resource"] for each in statements(stack, "Caller") if each["Action"] == "s3:GetObject"]
    assert [each["Fn::Join"][1][-1] for each in read] == ["/bloom/output/*", "/bloom/failure/*"]
    allowed(stack, "sagemaker:InvokeEndpointAsync", "Caller")


def test_topics_are_the_given_ones_or_new_ones_and_may_be_published_to(stack: Stack) -> None:
    given = sns.Topic.from_topic_arn(stack, "Given", "arn:aws:sns:us-east-1:123456789012:answers")
    endpoint = endpoint_in(stack, hosting=Async(success_topic=given, error_topic="new"))
    topics = config(stack)["AsyncInferenceConfig"]["OutputConfig"]["NotificationConfig"]
    assert topics["SuccessTopic"] == given.topic_arn
    assert topics["ErrorTopic"] == {"Ref": Match.any_value()} or "BloomErrorTopic" in topics["ErrorTopic"]["Ref"]
    Template.from_stack(stack).resource_count_is("AWS::SNS::Topic", 1)
    published = [each["Resource"] for each in statements(stack) if each["Action"] == "sns:Publish"]
    assert published == [given.topic_arn, topics["ErrorTopic"]]
    assert endpoint.success_topic is given


def test_a_bucket_that_is_passed_is_used_and_no_other_made(stack: Stack) -> None:
    bucket = s3.Bucket.from_bucket_name(stack, "Given", "speech")
    endpoint_in(stack, hosting=Async(bucket=bucket))
    Template.from_stack(stack).resource_count_is("AWS::S3::Bucket", 0)
    assert config(stack)["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"] == "s3://speech/bloom/output"


def variables(stack: Stack) -> Json:
    return dict(properties(stack, "AWS::SageMaker::Model")["PrimaryContainer"]["Environment"])


DEADLINES = ("EXTENDED_DLC_ANSWER_SECONDS", "EXTENDED_DLC_STREAM_SECONDS")


@pytest.mark.parametrize(
    ("hosting", "server", "seconds"),
    [
        (Async(), "native", "3600"),
        (Serverless(), "native", "60"),
        (RealTime(), "native", None),
        (Async(), "stock", None),
    ],
    ids=["asynchronous", "serverless", "real-time", "another-server"],
)
def test_the_native_server_ends_an_answer_when_its_hosting_does(
    stack: Stack, hosting: Async | Serverless | RealTime, server: Literal["native", "stock"], seconds: str | None
) -> None:
    image = ExtendedDlc(stack, "Image", transformers="4.51.3", base=CPU, server=server)
    endpoint_in(stack, image=image, hosting=hosting)
    given = variables(stack)
    assert [given.get(name) for name in DEADLINES] == [seconds, seconds]
    assert "EXTENDED_DLC_REQUEST_SECONDS" not in given, "the server makes it from the other two"


def test_deadlines_of_the_user_win(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="4.51.3", base=CPU)
    endpoint_in(stack, image=image, hosting=Async(), environment={"EXTENDED_DLC_ANSWER_SECONDS": "900"})
    assert [variables(stack)[name] for name in DEADLINES] == ["900", "3600"]


def test_an_image_whose_server_is_not_known_is_told_of_the_deadline_once_it_matters(stack: Stack) -> None:
    image = EcrImage(ecr.Repository.from_repository_name(stack, "Ours", "ours"), "1")
    told = endpoint_in(stack, "Told", image=image, hosting=Async(), endpoint_name="told")
    endpoint_in(
        *(stack, "Asked"), image=image, hosting=Async(), environment={DEADLINES[0]: "3600"}, endpoint_name="asked"
    )
    endpoint_in(stack, "Quick", image=image, hosting=RealTime(), endpoint_name="quick")
    annotations = Annotations.from_stack(stack).find_info("*", Match.string_like_regexp("EXTENDED_DLC_ANSWER_SECONDS"))
    assert [each.id for each in annotations] == [f"/{told.node.path}"]


def test_asynchronous_hosting_that_cannot_be_is_refused(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'concurrency' \(1001\) must be from 1 to 1000"):
        Async(concurrency=1001)
    with pytest.raises(ValueError, match=r"'expire_days' \(0\) must be from 1"):
        Async(expire_days=0)
    with pytest.raises(ValueError, match=r"'expire_days' \(7\) is for a new bucket"):
        Async(expire_days=7, bucket=s3.Bucket.from_bucket_name(stack, "Given", "speech"))
    with pytest.raises(ValueError, match=r"'error_topic' \(mine\) must be a topic, or 'new'"):
        Async(error_topic="mine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'instances' \(3\) must be between what 'scaling' may choose \(1 to 2\)"):
        Async(scaling=BacklogScaling(maximum=2), instances=3)


# serverless


def test_a_serverless_endpoint_has_memory_and_concurrency_and_no_instances(stack: Stack) -> None:
    endpoint_in(stack, hosting=Serverless(memory_mb=4096, max_concurrency=10, provisioned_concurrency=2))
    assert variant(stack) == {
        "VariantName": "AllTraffic",
        "ModelName": {"Fn::GetAtt": ["BloomModelFD5979C8", "ModelName"]},
        "InitialVariantWeight": 1,
        "ServerlessConfig": {"MemorySizeInMB": 4096, "MaxConcurrency": 10, "ProvisionedConcurrency": 2},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_mb": 8192}, r"'memory_mb' \(8192\) must be from 1024 to 6144: a model that needs more runs on inst"),
        ({"memory_mb": 3000}, r"'memory_mb' \(3000\) must be a multiple of 1024"),
        ({"max_concurrency": 201}, r"'max_concurrency' \(201\) must be from 1 to 200"),
        ({"max_concurrency": 2, "provisioned_concurrency": 3}, r"'provisioned_concurrency' \(3\) must be from 1 to 2"),
        ({"scaling": ProvisionedScaling(maximum=2)}, "there is none: set provisioned_concurrency"),
        (
            {"provisioned_concurrency": 1, "scaling": ProvisionedScaling(maximum=9)},
            r"'scaling.maximum' \(9\) must be from 1 to 5: raise max_concurrency",
        ),
    ],
)
def test_serverless_hosting_that_cannot_be_is_refused(options: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Serverless(**options)


def test_what_serverless_endpoints_do_not_have_is_refused_with_the_way_out(stack: Stack) -> None:
    vpc = ec2.Vpc(stack, "Vpc")
    weights = S3Model(s3.Bucket.from_bucket_name(stack, "Weights", "weights"), "bloom/")
    for construct_id, option, given, what in (
        ("A", "network", {"network": Network(vpc=vpc)}, "a VPC"),
        ("B", "network_isolation", {"network_isolation": True}, "network isolation"),
        ("C", "data_capture", {"data_capture": DataCapture()}, "data capture"),
    ):
        with pytest.raises(
            ValueError, match=f"'{option}' does not go with Serverless, which has not {what}: take Real"
        ):
            endpoint_in(stack, construct_id, hosting=Serverless(), **given)
    with pytest.raises(ValueError, match=r"'model' \(files in S3 as they are\) .*into a \.tar\.gz.*HubModel"):
        endpoint_in(stack, "D", hosting=Serverless(), model=weights)
    with pytest.raises(ValueError, match=r"\(serverless\) computes with cpu and the image is built for gpu"):
        endpoint_in(stack, "E", hosting=Serverless(), base=GPU)


def archives(stack: Stack, folder: Path) -> dict[str, Any]:
    """Models that bring an archive, each in the way of its own."""
    (folder / "config.json").write_text("{}")
    bucket = s3.Bucket.from_bucket_name(stack, "Archives", "archives")
    return {
        "in-s3": S3Model(bucket, "bert/model.tar.gz"),
        "a-local-folder": S3Model.from_local(str(folder)),
        "code-beside-the-hub": HubModel("bloom", "a" * 40, code=InferenceCode(requirements=["pydub"])),
    }


@pytest.mark.parametrize("kind", ["in-s3", "a-local-folder", "code-beside-the-hub"])
def test_a_serverless_endpoint_gets_an_archive_by_its_address(stack: Stack, tmp_path: Path, kind: str) -> None:
    endpoint_in(stack, hosting=Serverless(), model=archives(stack, tmp_path)[kind])
    container = properties(stack, "AWS::SageMaker::Model")["PrimaryContainer"]
    assert "ModelDataSource" not in container
    url = container["ModelDataUrl"]
    assert (url if isinstance(url, str) else url["Fn::Join"][1][-1]).endswith(".tar.gz")
    assert "s3:GetObject" in json.dumps(statements(stack))


def test_instances_get_an_archive_as_before(stack: Stack, tmp_path: Path) -> None:
    endpoint_in(stack, hosting=RealTime(), model=archives(stack, tmp_path)["in-s3"])
    container = properties(stack, "AWS::SageMaker::Model")["PrimaryContainer"]
    assert container["ModelDataSource"]["S3DataSource"]["S3Uri"] == "s3://archives/bert/model.tar.gz"
    assert "ModelDataUrl" not in container


def test_a_mirrored_model_is_refused_as_what_it_is_and_not_for_its_isolation(stack: Stack) -> None:
    mirrored = MirroredModel(stack, "Weights", model="bloom", revision="a" * 40)
    with pytest.raises(ValueError, match=r"'model' \(files in S3 as they are\) does not go with Serverless"):
        endpoint_in(stack, hosting=Serverless(), model=mirrored)


def test_that_nothing_is_known_of_a_serverless_images_size_is_said(stack: Stack) -> None:
    endpoint_in(stack, hosting=Serverless())
    said = Match.string_like_regexp("images of 10 GB at most, and nothing is known of this one's size")
    Annotations.from_stack(stack).has_warning("/Test/Bloom", said)


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
    endpoint_in(stack, role_path="/speech/", permissions_boundary=boundary)
    role = properties(stack, "AWS::IAM::Role", "BloomRole")
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
    (own,) = [name for name, each in found.items() if each["Type"] == "AWS::SageMaker::Endpoint"]
    behind = {found[name]["Type"] for name in found if own in all_that(name) - {name}}
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
