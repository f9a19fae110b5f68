"""Asynchronous hosting: the bucket, the topics, the rights, and the deadlines of the server."""

from __future__ import annotations

from typing import Literal

import pytest
from aws_cdk import Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    Async,
    BacklogScaling,
    EcrImage,
    ExtendedDlc,
    RealTime,
    Serverless,
)
from tests.support.hosting import CPU, Json, allowed, config, endpoint_in, properties, statements

ARN = {"Fn::GetAtt": Match.any_value()}


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
    noted = endpoint_in(stack, "Told", image=image, hosting=Async(), endpoint_name="told")
    endpoint_in(
        *(stack, "Asked"), image=image, hosting=Async(), environment={DEADLINES[0]: "3600"}, endpoint_name="asked"
    )
    endpoint_in(stack, "Quick", image=image, hosting=RealTime(), endpoint_name="quick")
    annotations = Annotations.from_stack(stack).find_info("*", Match.string_like_regexp("EXTENDED_DLC_ANSWER_SECONDS"))
    assert [each.id for each in annotations] == [f"/{noted.node.path}"]


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
