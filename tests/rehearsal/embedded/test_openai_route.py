"""SageMaker's OpenAI-compatible route: paths, bearer tokens, permissions and responses."""

from __future__ import annotations

import base64
import http.client
import json
import time
from typing import Any

import pytest
from botocore.credentials import Credentials

from extended_dlc.endpoint.bearer import make_token
from tests.support.embedded import ACCOUNT, REGION, Answer, Aws
from tests.support.endpoints import component, endpoint, endpoint_of_components

# made by sagemaker.core.token_generator of sagemaker-core 2.27.0 with the key AKIDEXAMPLE and the secret of AWS's
# examples, for us-west-2 and 300 s, at 2026-05-20T12:00:00Z
REAL = (
    "sagemaker-api-key-"
    "c2FnZW1ha2VyLmFtYXpvbmF3cy5jb20vP0FjdGlvbj1DYWxsV2l0aEJlYXJlclRva2VuJlgtQW16LUFsZ29yaXRobT1BV1M0LUhNQUMtU"
    "0hBMjU2JlgtQW16LUNyZWRlbnRpYWw9QUtJREVYQU1QTEUlMkYyMDI2MDUyMCUyRnVzLXdlc3QtMiUyRnNhZ2VtYWtlciUyRmF3czRfcm"
    "VxdWVzdCZYLUFtei1EYXRlPTIwMjYwNTIwVDEyMDAwMFomWC1BbXotRXhwaXJlcz0zMDAmWC1BbXotU2lnbmVkSGVhZGVycz1ob3N0Jlg"
    "tQW16LVNpZ25hdHVyZT1lZDBkMWNkZjNmYmU1ZjhjZDA3ZjUxZmFkOTJmMWE2Mzc4N2VmNDhhYTJiMTExNDg2M2ZkODc1ODRlYTEyNGEy"
    "JlZlcnNpb249MQ=="
)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CHAT = "/endpoints/talking/openai/v1/chat/completions"
BODY = json.dumps({"model": "", "messages": [{"role": "user", "content": "Hello"}]}).encode()


@pytest.fixture(scope="module", autouse=True)
def talking(aws: Aws) -> None:
    endpoint(aws, "talking", GREETING="hi")


def token(key: str = "testing", secret: str = "testing", session: str | None = None, **options: Any) -> str:
    given = {"region": REGION, "seconds": 60, **options}
    return make_token(Credentials(key, secret, session), **given)


def post(aws: Aws, path: str, bearer: str | None, body: bytes = BODY, **headers: str) -> Answer:
    given = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return aws.request("POST", path, body, given | ({"Authorization": f"Bearer {bearer}"} if bearer else {}))


def error(answer: Answer) -> dict[str, str]:
    found: dict[str, str] = json.loads(answer.body)["error"]
    return found


# responses


def test_chat_completions_reach_the_container_at_its_own_path(aws: Aws) -> None:
    answer = post(aws, CHAT, token())
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
    assert answer.body.decode() == f"hi application/json {len(BODY)} at /v1/chat/completions"


def test_a_stream_comes_through_while_it_is_made(aws: Aws) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=30)
    connection.request("POST", CHAT, b"stream", {"Authorization": f"Bearer {token()}"})
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    pieces, started = [], time.monotonic()
    while piece := response.read1():
        pieces.append((piece, time.monotonic() - started))
    connection.close()
    assert b"".join(piece for piece, _ in pieces) == b"one two three"
    assert pieces[-1][1] - pieces[0][1] > 0.2


def test_the_containers_error_is_quoted_with_its_own_status(aws: Aws) -> None:
    for status, kind in ((400, "client"), (503, "server")):
        answer = post(aws, CHAT, token(), b"error %d" % status)
        assert answer.status == status
        found = error(answer)
        assert (found["type"], found["code"]) == ("server_error", "model_error")
        assert (
            f'Received {kind} error ({status}) from primary with message "{{"error": "on request"}}"'
            in found["message"]
        )


def test_a_component_answers_at_its_own_address_and_by_no_header(aws: Aws) -> None:
    endpoint_of_components(aws, "talking-shared")
    component(aws, "talker", on="talking-shared", model="talking")
    template = "/endpoints/{}/inference-components/{}/openai/v1/chat/completions"
    answer = post(aws, template.format("talking-shared", "talker"), token())
    assert (answer.status, answer.body[:2]) == (200, b"hi")
    for path in (template.format("talking-shared", "other"), template.format("talking", "talker")):
        answer = post(aws, path, token())
        assert answer.status == 400
        assert "not found for endpoint" in error(answer)["message"]
    answer = post(aws, CHAT, token(), X_Amzn_SageMaker_Inference_Component="talker")
    assert answer.status == 400
    assert "name the component in the path" in error(answer)["message"]
    aws.client("sagemaker").update_inference_component_runtime_config(
        InferenceComponentName="talker", DesiredRuntimeConfig={"CopyCount": 0}
    )
    answer = post(aws, template.format("talking-shared", "talker"), token())
    assert (answer.status, error(answer)["code"]) == (400, "validation_error")
    assert error(answer)["message"].startswith("Inference Component has no capacity to process this request.")
    aws.client("sagemaker").delete_inference_component(InferenceComponentName="talker")


def test_an_endpoint_that_does_not_serve_is_not_found(aws: Aws) -> None:
    endpoint(aws, "mute", BEHAVIOUR="crash")
    for name in ("mute", "absent"):
        answer = post(aws, f"/endpoints/{name}/openai/v1/chat/completions", token())
        assert answer.status == 400
        assert error(answer) == {
            "message": f"Endpoint {name} of account {ACCOUNT} not found.",
            "type": "invalid_request_error",
            "code": "validation_error",
        }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/audio/transcriptions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/chat/completions/../embeddings"),
        ("POST", "/v1//chat/completions"),
        ("POST", "/invocations"),
        ("POST", ""),
    ],
)
def test_every_other_path_below_openai_is_refused(aws: Aws, method: str, path: str) -> None:
    for prefix in ("/endpoints/talking", "/endpoints/talking/inference-components/talker"):
        answer = aws.request(method, f"{prefix}/openai{path}", BODY, {"Authorization": f"Bearer {token()}"})
        assert answer.status == 404
        assert error(answer)["code"] == "unknown_operation_exception"


# tokens


def test_a_token_is_that_of_the_sagemaker_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime

    import botocore.auth

    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime(2026, 5, 20, 12))
    assert make_token(Credentials("AKIDEXAMPLE", SECRET), region="us-west-2", seconds=300) == REAL


def changed(bearer: str, old: str, new: str) -> str:
    """A token with its URL changed."""
    head, _, tail = bearer.rpartition("-")
    url = base64.b64decode(tail).decode()
    assert old in url
    return f"{head}-{base64.b64encode(url.replace(old, new).encode()).decode()}"


REFUSED = {
    "none": (lambda: None, "Missing Authentication Token"),
    "the SDK's own, months later": (lambda: REAL, "Bearer Token has expired"),
    "any key": (lambda: "sk-proj-1234", "Please make sure your API Key is valid"),
    "not base64": (lambda: "sagemaker-api-key-%%%", "Please make sure your API Key is valid"),
    "no prefix": (lambda: token().removeprefix("sagemaker-api-key-"), "Please make sure your API Key is valid"),
    "Bedrock's": (lambda: token().replace("sagemaker-api", "bedrock-api"), "Please make sure your API Key is valid"),
    "another action": (lambda: changed(token(), "CallWithBearerToken", "DescribeEndpoint"), "API Key is valid"),
    "another service": (lambda: changed(token(), "%2Fsagemaker%2F", "%2Fbedrock%2F"), "API Key is valid"),
    "another host": (lambda: changed(token(), "sagemaker.amazonaws.com/", "example.org/"), "API Key is valid"),
    "no region": (lambda: token(region="us-east-99"), "API Key is valid"),
    "too long": (lambda: token(seconds=43_201), "API Key is valid"),
    "two actions": (lambda: changed(token(), "&Version=1", "&Version=1&Action=Other"), "API Key is valid"),
    "another region": (lambda: token(region="eu-west-1"), "Credential should be scoped to a valid region"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_token_that_does_not_count_is_refused(aws: Aws, case: str) -> None:
    make, words = REFUSED[case]
    answer = post(aws, CHAT, make())
    assert answer.status == 403
    assert words in error(answer)["message"]


def test_a_token_expires(aws: Aws) -> None:
    short = token(seconds=1)
    time.sleep(1.1)
    answer = post(aws, CHAT, short)
    assert (answer.status, error(answer)["message"]) == (403, "Bearer Token has expired")


def test_a_signed_request_needs_a_token_all_the_same(aws: Aws) -> None:
    signed = f"AWS4-HMAC-SHA256 Credential=testing/20260520/{REGION}/sagemaker/aws4_request, SignedHeaders=host"
    answer = aws.request("POST", CHAT, BODY, {"Authorization": signed})
    assert (answer.status, error(answer)["message"]) == (403, "Missing Authentication Token")


@pytest.mark.parametrize("operation", ["invocations", "invocations-response-stream", "async-invocations"])
def test_the_other_operations_take_no_token(aws: Aws, operation: str) -> None:
    for bearer in (token(), None):
        answer = post(aws, f"/endpoints/talking/{operation}", bearer)
        assert (answer.status, json.loads(answer.body)["message"]) == (403, "Missing Authentication Token")


# permissions


def allow(*statements: tuple[str, str]) -> str:
    given = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": given})


ENDPOINT = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/talking"
BEARER = ("sagemaker:CallWithBearerToken", "*")
RIGHTS = {
    "neither": ([("sagemaker:DescribeEndpoint", "*")], "sagemaker:CallWithBearerToken on resource: *"),
    "no token": ([("sagemaker:InvokeEndpoint", ENDPOINT)], "sagemaker:CallWithBearerToken on resource: *"),
    "no invoke": ([BEARER], f"sagemaker:InvokeEndpoint on resource: {ENDPOINT}"),
    "another endpoint": (
        [BEARER, ("sagemaker:InvokeEndpoint", f"{ENDPOINT}-too")],
        f"sagemaker:InvokeEndpoint on resource: {ENDPOINT}",
    ),
    "both": ([BEARER, ("sagemaker:InvokeEndpoint", ENDPOINT)], None),
}


@pytest.mark.parametrize("case", RIGHTS)
def test_a_users_token_is_worth_what_its_policies_allow(aws: Aws, case: str) -> None:
    statements, refused = RIGHTS[case]
    iam, user = aws.client("iam"), f"user-{case.replace(' ', '-')}"
    iam.create_user(UserName=user)
    iam.put_user_policy(UserName=user, PolicyName="own", PolicyDocument=allow(*statements))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    valid = token(key["AccessKeyId"], key["SecretAccessKey"])
    answer = post(aws, CHAT, valid)
    if refused is None:
        assert answer.status == 200
    else:
        assert answer.status == 403
        arn = f"arn:aws:iam::{ACCOUNT}:user/{user}"
        assert error(answer)["message"].startswith(f"User: {arn} is not authorized to perform: {refused} because")
    forged = token(key["AccessKeyId"], "another secret")
    assert "signature we calculated does not match" in error(post(aws, CHAT, forged))["message"]
    longer = changed(valid, "X-Amz-Expires=60", "X-Amz-Expires=600")
    assert "signature we calculated does not match" in error(post(aws, CHAT, longer))["message"]


def test_a_roles_session_is_told_by_its_session_token(aws: Aws) -> None:
    iam = aws.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName="caller", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(
        RoleName="caller", PolicyName="own", PolicyDocument=allow(BEARER, ("sagemaker:Invoke*", ENDPOINT))
    )
    given = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="one")["Credentials"]
    key, secret = given["AccessKeyId"], given["SecretAccessKey"]
    assert post(aws, CHAT, token(key, secret, given["SessionToken"])).status == 200
    for session in (None, "another"):
        answer = post(aws, CHAT, token(key, secret, session))
        assert (answer.status, error(answer)["code"]) == (403, "unrecognized_client")
    iam.delete_role_policy(RoleName="caller", PolicyName="own")
    answer = post(aws, CHAT, token(key, secret, given["SessionToken"]))
    assert "assumed-role/caller/one is not authorized" in error(answer)["message"]


def test_no_token_is_written_down(aws: Aws) -> None:
    post(aws, CHAT, token())
    logged = b"".join(each.read_bytes() for each in (aws.state / "logs").iterdir())
    assert b"openai/v1/chat/completions" in logged
    assert b"api-key" not in logged
    assert b"X-Amz-Signature" not in logged
