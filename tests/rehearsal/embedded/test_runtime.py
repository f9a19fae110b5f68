"""The runtime through an unmodified boto3 client."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest
from botocore.exceptions import ClientError

from tests.support.embedded import ACCOUNT, REGION, Aws, wait_for
from tests.support.endpoints import endpoint


@pytest.fixture(scope="module")
def served(aws: Aws) -> str:
    endpoint(aws, "runtime", GREETING="hi")
    return "runtime"


def test_an_answer_brings_its_type_attributes_and_variant_and_no_other_header(aws: Aws, served: str) -> None:
    got = aws.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=served, Body=b"12345", ContentType="audio/wav", CustomAttributes="a=1"
    )
    assert got["Body"].read() == b"hi audio/wav 5"
    assert got["ContentType"] == "text/plain"
    assert got["CustomAttributes"] == "seen"
    assert got["InvokedProductionVariant"] == "AllTraffic"
    assert "x-private" not in got["ResponseMetadata"]["HTTPHeaders"]


@pytest.mark.parametrize(("status", "kind"), [(400, "client"), (429, "client"), (500, "server"), (507, "server")])
def test_a_containers_error_is_a_model_error(aws: Aws, served: str, status: int, kind: str) -> None:
    client = aws.client("sagemaker-runtime")
    with pytest.raises(client.exceptions.ModelError) as caught:
        client.invoke_endpoint(EndpointName=served, Body=f"error {status}".encode())
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == status
    assert response["OriginalMessage"] == '{"error": "on request"}'
    assert response["LogStreamArn"] == f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/runtime"
    assert f"Received {kind} error ({status}) from primary" in str(caught.value)
    assert str(aws.state / "logs") in str(caught.value)


def test_an_unknown_endpoint_or_variant_is_a_validation_error(aws: Aws, served: str) -> None:
    client = aws.client("sagemaker-runtime")
    with pytest.raises(client.exceptions.ValidationError, match=r"Endpoint nobody of account 123456789012 not found."):
        client.invoke_endpoint(EndpointName="nobody", Body=b"")
    with pytest.raises(client.exceptions.ValidationError, match="Variant other not found"):
        client.invoke_endpoint(EndpointName=served, Body=b"", TargetVariant="other")


def test_a_body_of_25_mb_is_taken_and_one_byte_more_is_refused(aws: Aws, served: str) -> None:
    client, limit = aws.client("sagemaker-runtime"), 25 * 1024 * 1024
    got = client.invoke_endpoint(EndpointName=served, Body=b"x" * limit)
    assert got["Body"].read().endswith(str(limit).encode())
    with pytest.raises(ClientError, match=f"HTTP content length exceeded {limit} bytes") as caught:
        client.invoke_endpoint(EndpointName=served, Body=b"x" * (limit + 1))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_a_slow_answer_times_out_as_a_model_error(aws: Aws, served: str) -> None:
    client, started = aws.client("sagemaker-runtime"), time.monotonic()
    with pytest.raises(client.exceptions.ModelError, match="Your invocation timed out") as caught:
        client.invoke_endpoint(EndpointName=served, Body=b"sleep")
    assert time.monotonic() - started < 10
    assert caught.value.response["OriginalStatusCode"] == 0


def test_a_stream_arrives_in_its_parts_as_they_come(aws: Aws, served: str) -> None:
    started = time.monotonic()
    got = aws.client("sagemaker-runtime").invoke_endpoint_with_response_stream(EndpointName=served, Body=b"stream")
    assert got["ContentType"] == "text/event-stream"
    parts, times = [], []
    for event in got["Body"]:
        parts.append(event["PayloadPart"]["Bytes"])
        times.append(time.monotonic() - started)
    assert parts == [b"one ", b"two ", b"three"]
    assert times[-1] - times[0] > 0.2


def test_an_error_before_a_stream_is_a_model_error(aws: Aws, served: str) -> None:
    client = aws.client("sagemaker-runtime")
    with pytest.raises(client.exceptions.ModelError) as caught:
        client.invoke_endpoint_with_response_stream(EndpointName=served, Body=b"error 503")
    assert caught.value.response["OriginalStatusCode"] == 503


def containers_of(aws: Aws, endpoint: str) -> list[str]:
    """The names of an endpoint's containers, oldest first; the endpoint's greeting is its name."""
    calls = [call for call in aws.engine_calls("run") if f"--env=GREETING={endpoint}" in call]
    return [each.removeprefix("--name=") for call in calls for each in call if each.startswith("--name=")]


def test_a_container_that_is_killed_is_started_again_and_the_endpoint_stays_in_service(aws: Aws) -> None:
    endpoint(aws, "revived", GREETING="revived")
    sagemaker, client = aws.client("sagemaker"), aws.client("sagemaker-runtime")

    def is_answered() -> bool:
        assert sagemaker.describe_endpoint(EndpointName="revived")["EndpointStatus"] == "InService"
        with suppress(client.exceptions.ModelError):
            body = client.invoke_endpoint(EndpointName="revived", Body=b"{}")["Body"].read()
            return bool(body.startswith(b"revived "))
        return False

    for number in (1, 2):
        (*_, newest) = names = containers_of(aws, "revived")
        assert len(names) == number
        os.kill(int((aws.stub / newest).read_text()), signal.SIGKILL)
        wait_for(lambda number=number: len(containers_of(aws, "revived")) > number and is_answered())
        assert ["--force", newest] in aws.engine_calls("rm")
    sagemaker.delete_endpoint(EndpointName="revived")
    wait_for(lambda: not [log for log in aws.left()["containers"] if "/revived." in log])


def test_an_endpoint_that_is_deleted_while_its_container_is_dead_gets_no_other(aws: Aws) -> None:
    endpoint(aws, "buried", GREETING="buried")
    client = aws.client("sagemaker-runtime")
    with pytest.raises(client.exceptions.ModelError):
        client.invoke_endpoint(EndpointName="buried", Body=b"exit")
    aws.client("sagemaker").delete_endpoint(EndpointName="buried")
    time.sleep(2)
    assert len(containers_of(aws, "buried")) == 1
    assert not [log for log in aws.left()["containers"] if "/buried." in log]


def test_a_container_that_dies_is_a_model_error_with_its_code(aws: Aws) -> None:
    endpoint(aws, "dying")
    client = aws.client("sagemaker-runtime")
    for body in (b"exit", b"{}"):
        with pytest.raises(client.exceptions.ModelError, match="exited with code 7"):
            client.invoke_endpoint(EndpointName="dying", Body=body)
