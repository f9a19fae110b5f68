"""Asynchronous requests through an unmodified boto3 client: the queue, the files, the topics and the refusals."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from extended_dlc.endpoint.bearer import make_token
from extended_dlc.rehearsal.embedded import asynchronous
from tests.support.embedded import ACCOUNT, REGION, Aws, wait_for
from tests.support.endpoints import answer, endpoint, settled

BUCKET = "async-requests"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def topic(name: str) -> str:
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"


@pytest.fixture(scope="module", autouse=True)
def waiting(aws: Aws) -> None:
    """An asynchronous endpoint with two concurrent requests, and queues that are subscribed to its topics."""
    aws.client("s3").create_bucket(Bucket=BUCKET)
    for name in ("answers", "failures"):
        aws.client("sns").create_topic(Name=name)
        url = aws.client("sqs").create_queue(QueueName=name)["QueueUrl"]
        arn = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        aws.client("sns").subscribe(TopicArn=topic(name), Protocol="sqs", Endpoint=arn)
    output = {
        "S3OutputPath": f"s3://{BUCKET}/out",
        "S3FailurePath": f"s3://{BUCKET}/failed/",
        "NotificationConfig": {"SuccessTopic": topic("answers"), "ErrorTopic": topic("failures")},
    }
    config = {"OutputConfig": output, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2}}
    endpoint(aws, "waiting", GREETING="hi", AsyncInferenceConfig=config)


def invoke(aws: Aws, body: bytes | None = None, *, at: str = "waiting", **options: Any) -> dict[str, Any]:
    """Queue a request with this body, or with an `InputLocation`."""
    given = options if body is None else {"Body": body, **options}
    queued: dict[str, Any] = aws.client("sagemaker-runtime", parameter_validation=False).invoke_endpoint_async(
        EndpointName=at, **given
    )
    return queued


def read(aws: Aws, location: str) -> Any:
    """The object at an S3 URL, after it has appeared."""
    key = location.removeprefix(f"s3://{BUCKET}/")
    s3 = aws.client("s3")
    wait_for(lambda: any(each["Key"] == key for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])))
    return s3.get_object(Bucket=BUCKET, Key=key)


def notification(aws: Aws, name: str, inference_id: str) -> dict[str, Any]:
    """The message of a topic about a request."""
    sqs, found = aws.client("sqs"), []

    def is_told() -> bool:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        for each in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            message = json.loads(json.loads(each["Body"])["Message"])
            if message["inferenceId"] == inference_id:
                found.append(message)
        return bool(found)

    wait_for(is_told)
    return found[0]


def test_the_containers_answer_is_put_where_the_call_has_said(aws: Aws) -> None:
    aws.client("s3").put_object(Bucket=BUCKET, Key="in/one", Body=b"12345")
    location = f"s3://{BUCKET}/in/one"
    queued = invoke(aws, InputLocation=location, ContentType="audio/wav", InferenceId="mine")
    assert queued["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert queued["InferenceId"] == "mine"
    assert re.fullmatch(rf"s3://{BUCKET}/out/{UUID}\.out", queued["OutputLocation"])
    assert re.fullmatch(rf"s3://{BUCKET}/failed/{UUID}-error\.out", queued["FailureLocation"])
    written = read(aws, queued["OutputLocation"])
    assert (written["ContentType"], written["Body"].read()) == ("text/plain", b"hi audio/wav 5")
    message = notification(aws, "answers", "mine")
    assert message.pop("eventTime") >= message.pop("receivedTime")
    assert message == {
        "awsRegion": REGION,
        "invocationStatus": "Completed",
        "requestParameters": {"endpointName": "waiting", "inputLocation": location, "contentType": "audio/wav"},
        "responseParameters": {"contentType": "text/plain", "outputLocation": queued["OutputLocation"]},
        "inferenceId": "mine",
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }


def test_a_request_in_the_call_itself_is_answered_under_a_name_of_the_callers(aws: Aws) -> None:
    queued = invoke(aws, b"123", ContentType="text/csv", S3OutputPathExtension="today", Filename="three.csv")
    assert queued["OutputLocation"] == f"s3://{BUCKET}/out/today/three.csv"
    assert re.fullmatch(UUID, queued["InferenceId"])
    assert read(aws, queued["OutputLocation"])["Body"].read() == b"hi text/csv 3"


@pytest.mark.parametrize(
    ("request_of", "reason"),
    [
        (
            {"Body": b"error 500"},
            r'ModelError: Received server error \(500\) from primary with message "{"error": "on ',
        ),
        ({"InputLocation": f"s3://{BUCKET}/in/absent"}, "Failed to download input from s3://async-requests/in/absent"),
        ({"Body": b"pause 5", "InvocationTimeoutSeconds": 1}, "Your invocation timed out while waiting"),
        ({"Body": b"stream"}, "did not specify the required Content-Length header"),
    ],
)
def test_a_failure_is_a_file_with_its_reason_and_no_answer(aws: Aws, request_of: dict[str, Any], reason: str) -> None:
    queued = invoke(aws, **{"body" if key == "Body" else key: value for key, value in request_of.items()})
    said = read(aws, queued["FailureLocation"])["Body"].read().decode()
    assert re.search(reason, said)
    message = notification(aws, "failures", queued["InferenceId"])
    assert (message["invocationStatus"], message["failureReason"]) == ("Failed", said)
    assert message["failureLocation"] == queued["FailureLocation"]
    keys = [each["Key"] for each in aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert queued["OutputLocation"].removeprefix(f"s3://{BUCKET}/") not in keys


def test_the_container_gets_no_more_at_a_time_than_the_configuration_says(aws: Aws) -> None:
    began = time.monotonic()
    queued = [invoke(aws, b"pause 0.5") for _ in range(4)]
    assert time.monotonic() - began < 1  # no call waits for a response
    times = [read(aws, each["OutputLocation"])["Body"].read().split() for each in queued]
    changes = sorted([(float(start), 1) for start, _ in times] + [(float(end), -1) for _, end in times])
    running, most = 0, 0
    for _, change in changes:
        running += change
        most = max(most, running)
    assert most == 2


def test_a_request_that_has_waited_too_long_is_not_sent() -> None:
    job = asynchronous.Job(
        account_id=ACCOUNT,
        region=REGION,
        endpoint="waiting",
        inference_id="late",
        input_location=None,
        body=b"{}",
        headers={},
        output=None,
        failure=None,
        topics={},
        ttl_seconds=60,
        timeout_seconds=900,
        received=datetime.now(timezone.utc) - timedelta(seconds=61),
    )
    with pytest.raises(asynchronous.Failed, match="expired after 60 s in the queue"):
        asynchronous.answer(job, cast(Any, None))  # before any use of the role


def test_a_synchronous_request_to_it_is_refused_and_an_asynchronous_one_to_another(aws: Aws) -> None:
    runtime = aws.client("sagemaker-runtime")
    for call in (runtime.invoke_endpoint, runtime.invoke_endpoint_with_response_stream):
        with pytest.raises(ClientError, match=r"waiting .* is an asynchronous .* InvokeEndpointAsync") as caught:
            call(EndpointName="waiting", Body=b"{}")
        assert caught.value.response["Error"]["Code"] == "ValidationError"
    endpoint(aws, "at-once", GREETING="hi")
    with pytest.raises(ClientError, match=r"at-once .* is a synchronous endpoint: use InvokeEndpoint\."):
        invoke(aws, b"{}", at="at-once")
    with pytest.raises(ClientError, match=f"Endpoint absent of account {ACCOUNT} not found"):
        invoke(aws, b"{}", at="absent")


def test_its_openai_route_is_refused_too(aws: Aws) -> None:
    bearer = make_token(Credentials("testing", "testing"), region=REGION, seconds=60)
    path = "/endpoints/waiting/openai/v1/chat/completions"
    answered = aws.request("POST", path, b"{}", {"Authorization": f"Bearer {bearer}"})
    assert answered.status == 400
    assert "use InvokeEndpointAsync" in json.loads(answered.body)["error"]["message"]


def test_an_update_makes_it_answer_at_once(aws: Aws) -> None:
    endpoint(
        aws, "turned", AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/out"}}, GREETING="hi"
    )
    assert "FailureLocation" not in invoke(aws, b"{}", at="turned")
    variant = {"VariantName": "All", "ModelName": "turned", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    sagemaker = aws.client("sagemaker")
    sagemaker.create_endpoint_config(EndpointConfigName="turned-2", ProductionVariants=[variant])
    sagemaker.update_endpoint(EndpointName="turned", EndpointConfigName="turned-2")
    settled(aws, "turned")
    assert answer(aws, "turned").startswith("hi")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "exactly one of Body and InputLocation"),
        ({"Body": b"x", "InputLocation": f"s3://{BUCKET}/in/one"}, "exactly one of Body and InputLocation"),
        ({"Body": b"x" * 128_001}, "can be up to 128000 bytes"),
        ({"Body": b"x", "RequestTTLSeconds": 59}, "'requestTTLSeconds' failed .* greater than or equal to 60"),
        ({"Body": b"x", "InvocationTimeoutSeconds": 3601}, "'invocationTimeoutSeconds' .* less than or equal to 3600"),
        ({"Body": b"x", "InferenceId": "x" * 65}, "'inferenceId' failed .* length less than or equal to 64"),
        ({"InputLocation": "in/one"}, "'inputLocation' failed .* regular expression pattern"),
        ({"Body": b"x", "Filename": "../escape"}, "'filename' failed .* regular expression pattern"),
    ],
)
def test_a_call_out_of_bounds_is_refused_by_its_parameter(aws: Aws, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words):
        invoke(aws, **{"body" if key == "Body" else key: value for key, value in given.items()})
