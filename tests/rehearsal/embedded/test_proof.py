"""The proof's handlers against SageMaker, ECR, S3 and logs of the embedded AWS, with failures."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ecr as ecr
from aws_cdk.assertions import Template

from extended_dlc import EcrImage, HubModel, HuggingFaceEndpoint
from extended_dlc.options.proof import Proof
from extended_dlc.programs.functions import proof
from tests.support.embedded import ACCOUNT, OCI, REGION, Aws, Image, deploy, events, uri
from tests.support.endpoints import component, configuration, endpoint, endpoint_of_components, image
from tests.support.registry import repository

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def function_environment(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Lambda function's environment: region and credentials, and the embedded AWS's address."""
    for name, value in {
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def stack(aws: Aws) -> str:
    """The ID of a stack for the proofs' events."""
    found = deploy(aws, "proved", {"Resources": {"Nothing": {"Type": "AWS::CDK::Metadata"}}})
    return str(found["StackId"])


class Context:
    """Lambda's context object."""

    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:proof"

    def __init__(self, seconds: int = 900) -> None:
        self.get_remaining_time_in_millis = lambda: 1000 * seconds


class Listener:
    """An HTTP server that records its requests and responds with a status, as CloudFormation's S3 or a service."""

    def __init__(self, status: int = 200, body: bytes = b"{}") -> None:
        self.sent: list[tuple[str, Any]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                listener.sent.append((self.path, json.loads(content)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_POST = answer

            def log_message(self, format: str, *arguments: Any) -> None:
                """Suppress http.server's lines on stderr."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """Creates listeners and closes them at the test's end."""
    made: list[Listener] = []

    def begin(*arguments: Any) -> Listener:
        made.append(Listener(*arguments))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def asked(stack: str, properties: Json, request: str = "Create", **more: Any) -> Json:
    """An event as CloudFormation sends it."""
    return {
        "RequestType": request,
        "StackId": stack,
        "RequestId": "1",
        "LogicalResourceId": "Check",
        "ResourceProperties": properties,
        **more,
    }


def prove(stack: str, properties: Json, request: str = "Create", began: float | None = None) -> Json:
    """Poll until it is proved; returns the event with its findings."""
    event = asked(stack, properties, request, Began=began or time.time())
    deadline = time.monotonic() + 20
    while not proof.is_proved(event):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return event


def image_proof(image: str, architecture: str = "amd64") -> Json:
    return {"Check": "image", "Image": image, "Architecture": architecture}


def endpoint_proof(name: str, config: str | None = None, **options: Any) -> Json:
    """The properties as CloudFormation passes them: all values are strings."""
    variants = options.pop("variants", ["AllTraffic"])
    return {
        "Check": "endpoint",
        "EndpointName": name,
        "ConfigName": config or name,
        "Variants": variants,
        "TimeoutMinutes": "1",
        **Proof(**options).properties_for("text-generation"),
    }


def logged(aws: Aws, name: str, *lines: str, under: str = "/aws/sagemaker/Endpoints") -> None:
    """Add lines to the container's log group, in a stream that is newer than the real container's."""
    group = {"logGroupName": f"{under}/{name}"}
    stream = {"logStreamName": "AllTraffic/i-1"}
    logs = aws.client("logs")
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(**group)
    logs.create_log_stream(**group, **stream)
    now = int((time.time() + 60) * 1000)
    logs.put_log_events(**group, **stream, logEvents=[{"timestamp": now, "message": line} for line in lines])


# image proofs


def test_an_image_that_sagemaker_runs_is_proved(aws: Aws, stack: str) -> None:
    Image("proved").push(aws, repository(aws, "proved"), "v1")
    assert prove(stack, image_proof(uri("proved", "v1")))


def test_an_image_is_proved_by_its_digest(aws: Aws, stack: str) -> None:
    image = Image("by digest")
    image.push(aws, repository(aws, "proved"), "v2")
    (found,) = aws.client("ecr").batch_get_image(repositoryName="proved", imageIds=[{"imageTag": "v2"}])["images"]
    assert prove(stack, image_proof(f"{uri('proved', 'v2')}@{found['imageId']['imageDigest']}"))


def test_an_image_that_is_not_there_fails(aws: Aws, stack: str) -> None:
    repository(aws, "empty")
    with pytest.raises(proof.NotProven, match="empty:v9 is not in its repository: publish the image first"):
        prove(stack, image_proof(uri("empty", "v9")))


def test_a_repository_that_is_not_there_fails(aws: Aws, stack: str) -> None:
    with pytest.raises(proof.NotProven, match=f"has no repository in {REGION} of account {ACCOUNT}: publish the image"):
        prove(stack, image_proof(uri("nowhere", "v1")))


def test_an_oci_manifest_fails_with_the_two_ways_out(aws: Aws, stack: str) -> None:
    Image("oci", OCI).push(aws, repository(aws, "proved"), "oci")
    with pytest.raises(proof.NotProven, match=r"application/vnd.oci.image.manifest.v1\+json, .*provenance=false.*v2s2"):
        prove(stack, image_proof(uri("proved", "oci")))


def test_an_image_for_another_architecture_fails(aws: Aws, stack: str) -> None:
    Image("proved").push(aws, repository(aws, "proved"), "v1")
    with pytest.raises(proof.NotProven, match="is built for amd64, and the instances compute with arm64: build it"):
        prove(stack, image_proof(uri("proved", "v1"), "arm64"))


# endpoint proofs


def test_an_endpoint_that_answers_is_proved(aws: Aws, stack: str) -> None:
    endpoint(aws, "proves", GREETING="hi")
    assert prove(stack, endpoint_proof("proves", expect="hi application/json"))


def test_an_answer_without_what_is_expected_fails_and_is_quoted(aws: Aws, stack: str) -> None:
    endpoint(aws, "elsewise", GREETING="hi")
    with pytest.raises(proof.NotProven, match="elsewise answers without 'welcome': hi application/json"):
        prove(stack, endpoint_proof("elsewise", expect="welcome"))


def test_a_container_that_answers_500_fails_with_its_words_and_its_last_lines(aws: Aws, stack: str) -> None:
    endpoint(aws, "refuses")
    logged(aws, "refuses", "loading", "out of luck")
    with pytest.raises(proof.NotProven) as failure:
        prove(stack, endpoint_proof("refuses", request=b"error 500", content_type="text/plain"))
    assert str(failure.value) == (
        'refuses is in service and cannot answer (500): {"error": "on request"}\n'
        "The container's last lines, of /aws/sagemaker/Endpoints/refuses:\nloading\nout of luck"
    )


@pytest.mark.parametrize(
    ("name", "character"), [("plain", "x"), ("quotes", '"'), ("colours", "\x1b"), ("pictures", "\N{ROCKET}")]
)
def test_a_failure_fits_into_what_cloudformation_takes(aws: Aws, stack: str, name: str, character: str) -> None:
    endpoint(aws, f"talks-{name}")
    logged(aws, f"talks-{name}", *(f"{number} " + character * 900 for number in range(14)), "the last line")
    with pytest.raises(proof.NotProven) as failure:
        prove(stack, endpoint_proof(f"talks-{name}", request=b"error 500", content_type="text/plain"))
    reason = str(failure.value)
    assert len(json.dumps(reason, ensure_ascii=False).encode()) < 3072
    assert reason.startswith(f"talks-{name} is in service and cannot answer (500)")
    assert reason.endswith("the last line")


def test_a_configuration_that_was_rolled_back_fails(aws: Aws, stack: str) -> None:
    endpoint(aws, "returned")
    wanted = configuration(aws, "returned-next", BEHAVIOUR="crash")
    aws.client("sagemaker").update_endpoint(EndpointName="returned", EndpointConfigName=wanted)
    with pytest.raises(proof.NotProven) as failure:
        prove(stack, endpoint_proof("returned", wanted))
    assert "returned serves returned and not returned-next: SageMaker has rolled the update back" in str(failure.value)
    assert "cannot load the model: out of luck" in str(failure.value)


def test_an_endpoint_that_failed_says_sagemakers_reason(aws: Aws, stack: str) -> None:
    endpoint(aws, "broken", BEHAVIOUR="crash")
    with pytest.raises(proof.NotProven, match=r"broken is Failed: The primary container .*did not pass the ping"):
        prove(stack, endpoint_proof("broken"))


def test_an_endpoint_that_is_never_in_service_fails_in_the_proof_s_own_time(aws: Aws, stack: str) -> None:
    config = configuration(aws, "waits", LOADING="8")
    aws.client("sagemaker").create_endpoint(EndpointName="waits", EndpointConfigName=config)
    with pytest.raises(
        proof.NotProven,
        match=r"waits has not answered within 1 min \(timeout_minutes\)\n.* of /aws/sagemaker/Endpoints/waits",
    ):
        prove(stack, endpoint_proof("waits"), began=time.time() - 61)


def test_an_endpoint_that_is_asked_nothing_is_proved_by_the_configuration_that_it_serves(aws: Aws, stack: str) -> None:
    endpoint(aws, "quiet", BEHAVIOUR="serve")
    properties = {"Check": "endpoint", "EndpointName": "quiet", "ConfigName": "quiet"}
    assert prove(stack, properties)
    with pytest.raises(
        proof.NotProven, match="quiet serves quiet and not wanted: SageMaker has rolled the update back"
    ):
        prove(stack, {**properties, "ConfigName": "wanted"})
    with pytest.raises(proof.NotProven, match="nobody is not there: something has deleted it behind its stack's back"):
        prove(stack, {**properties, "EndpointName": "nobody"})


# expected responses


@pytest.mark.parametrize(
    ("expected", "said", "why"),
    [
        ([{"label": "A", "score": 0.75}], '[{"label": "A", "score": 0.7549, "more": 1}]', None),
        (
            [{"label": "A", "score": 0.75}],
            '[{"label": "A", "score": 0.77}]',
            r"answer\[0\].score is 0.77 instead of 0.75",
        ),
        ([{"label": "A"}], '[{"label": "B"}]', r'the answer\[0\].label is "B" instead of "A"'),
        ([{"label": "A"}], '[{"score": 1}]', r"the answer\[0\] has no 'label'"),
        ([1, 2], "[1, 2, 3]", "the answer has 3 elements instead of 2"),
        (250.0, "252", None),
        (250.0, "253", "the answer is 253 instead of 250.0, and may differ by 0.01"),
        (1, "true", "the answer is true instead of 1"),
        (0, "false", "the answer is false instead of 0"),
        ({"a": {}}, '{"a": []}', r"the answer.a is \[\] instead of \{\}"),
        (0.5, "NaN", "the answer is nan instead of 0.5"),
        ("hello", "hello\n", None),
        ("hello", '"hello"', None),
        ("hello", "hallo", 'the answer is "hallo" instead of "hello"'),
        ({"text": None}, '{"text": ""}', 'the answer.text is "" instead of null'),
    ],
)
def test_an_answer_is_compared_with_the_expected_one(expected: Any, said: str, why: str | None) -> None:
    properties = endpoint_proof("compared", expected=expected)
    if why is None:
        proof.expect(properties, said.encode())
    else:
        with pytest.raises(proof.NotProven, match=f"compared does not answer as expected: .*{why}"):
            proof.expect(properties, said.encode())


# responses to CloudFormation


def test_cloudformation_is_told_of_a_proof_and_of_a_failure(
    aws: Aws, stack: str, listen: Callable[..., Listener], capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint(aws, "told", GREETING="hi")
    responses = listen()
    for config in ("told", "other"):
        properties = {"Check": "endpoint", "EndpointName": "told", "ConfigName": config}
        proof.handle(asked(stack, properties, ResponseURL=f"{responses.url}/signed"), Context())
    (good, bad) = [answer for _, answer in responses.sent]
    assert (good["Status"], good["PhysicalResourceId"], good["StackId"]) == ("SUCCESS", "proof-of-the-endpoint", stack)
    assert (bad["Status"], bad["LogicalResourceId"]) == ("FAILED", "Check")
    assert bad["Reason"].startswith("told serves told and not other: SageMaker has rolled the update back")
    seconds = good["Data"]["SecondsToInService"]
    assert 0 <= int(seconds) < 60
    assert f"told was in service {seconds} s after it was created" in capsys.readouterr().out
    assert "Data" not in bad


def test_an_update_is_not_measured(aws: Aws, stack: str, listen: Callable[..., Listener]) -> None:
    """SageMaker does not return when an update began."""
    endpoint(aws, "updated")
    responses = listen()
    properties = {"Check": "endpoint", "EndpointName": "updated", "ConfigName": "updated"}
    proof.handle(asked(stack, properties, "Update", ResponseURL=responses.url), Context())
    ((_, answer),) = responses.sent
    assert (answer["Status"], "Data" in answer) == ("SUCCESS", False)


def test_whatever_goes_wrong_cloudformation_is_told(aws: Aws, stack: str, listen: Callable[..., Listener]) -> None:
    responses = listen()
    proof.handle(asked(stack, {"Check": "image", "Image": uri("x", "v1")}, ResponseURL=responses.url), Context())
    ((_, answer),) = responses.sent
    assert (answer["Status"], answer["Reason"]) == ("FAILED", "The proof could not be made: 'Architecture'")


def test_what_takes_longer_than_a_call_goes_on_in_the_next(
    aws: Aws, stack: str, listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(aws, "longer-than-a-call", LOADING="3")
    aws.client("sagemaker").create_endpoint(EndpointName="longer-than-a-call", EndpointConfigName=config)
    functions, responses = listen(202, b""), listen()
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", functions.url)
    proof.handle(asked(stack, endpoint_proof("longer-than-a-call"), ResponseURL=responses.url), Context(seconds=60))
    ((path, event),) = functions.sent
    assert path.endswith("function%3Aproof/invocations")
    assert responses.sent == []
    monkeypatch.setattr(proof, "WAIT_SECONDS", 0.1)
    proof.handle(event, Context())
    assert [answer["Status"] for _, answer in responses.sent] == ["SUCCESS"]
    assert len(functions.sent) == 1


def test_an_image_that_nobody_but_sagemaker_may_look_at_is_passed_over_once_rights_have_had_their_time(
    aws: Aws, stack: str, listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing, responses = listen(400, b'{"__type": "AccessDeniedException", "message": "no"}'), listen()
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", refusing.url)
    monkeypatch.setattr(proof, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(proof, "RIGHTS_SECONDS", 0.3)
    proof.handle(asked(stack, image_proof(uri("theirs", "v1")), ResponseURL=responses.url), Context())
    assert [answer["Status"] for _, answer in responses.sent] == ["SUCCESS"]
    assert len(refusing.sent) > 1


# an update that SageMaker rolls back without a reason


def silent_template(behaviour: str, *, checked: bool) -> Json:
    """The library's endpoint with an existing image, whose container serves or crashes."""
    app = cdk.App()
    home = cdk.Stack(app, "Silent", env=cdk.Environment(account=ACCOUNT, region=REGION))
    HuggingFaceEndpoint(
        home,
        "Bloom",
        endpoint_name="bloom",
        model=HubModel("bigscience/bloom-560m", revision="a" * 40),
        image=EcrImage(ecr.Repository.from_repository_name(home, "Served", "served"), "v1"),
        environment={"BEHAVIOUR": behaviour},
        verify=checked,
    )
    template: Json = Template.from_stack(home).to_json()
    template["Parameters"].pop("BootstrapVersion")
    template.pop("Rules")
    for each in template["Resources"].values():
        if each["Type"] == "AWS::Lambda::Function":
            each["Properties"]["Code"] = {"ZipFile": "pass"}
    return template


def test_an_update_that_sagemaker_takes_back_without_a_word_fails_its_stack_and_keeps_what_is_in_use(
    start_aws: Callable[..., Aws],
) -> None:
    fresh = start_aws("--engine", '--scenarios={"silent_rollbacks": true}')
    image(fresh, "served")
    assert deploy(fresh, "Silent", silent_template("serve", checked=True))["StackStatus"] == "CREATE_COMPLETE"
    served = fresh.client("sagemaker").describe_endpoint(EndpointName="bloom")["EndpointConfigName"]

    end = deploy(fresh, "Silent", silent_template("crash", checked=True), update=True)

    assert end["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    ((failed, why),) = [(each, why) for each, status, why in events(fresh, "Silent") if status == "UPDATE_FAILED"]
    assert failed.startswith("BloomCheck")
    assert f"bloom serves {served} and not Silent-BloomConfig" in why
    assert "SageMaker has rolled the update back" in why
    described = fresh.client("sagemaker").describe_endpoint(EndpointName="bloom")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", served)
    assert "FailureReason" not in described
    assert fresh.left()["endpoint-configs"] == [served]


def test_without_the_check_the_same_update_succeeds_and_deletes_the_configuration_in_use(
    start_aws: Callable[..., Aws],
) -> None:
    fresh = start_aws("--engine", '--scenarios={"silent_rollbacks": true}')
    image(fresh, "served")
    deploy(fresh, "Silent", silent_template("serve", checked=False))
    served = fresh.client("sagemaker").describe_endpoint(EndpointName="bloom")["EndpointConfigName"]
    assert (
        deploy(fresh, "Silent", silent_template("crash", checked=False), update=True)["StackStatus"]
        == "UPDATE_COMPLETE"
    )
    assert fresh.client("sagemaker").describe_endpoint(EndpointName="bloom")["EndpointConfigName"] == served
    assert served not in fresh.left()["endpoint-configs"]


# inference components of an endpoint


def component_to_prove(aws: Aws, name: str, **environment: str) -> Json:
    """A component, in service or failed, on an endpoint without a model; returns the properties of its proof."""
    config = configuration(aws, name, **environment)
    endpoint_of_components(aws, f"{name}-shared")
    component(aws, name, on=f"{name}-shared", model=config)
    return {**endpoint_proof(f"{name}-shared", expect="hi application/json"), "Component": name, "Model": config}


def test_a_component_that_answers_is_proved_and_a_request_finds_it_by_its_name(aws: Aws, stack: str) -> None:
    assert prove(stack, component_to_prove(aws, "spoken", GREETING="hi"))


def test_a_component_that_answers_500_fails_with_its_words_and_its_own_last_lines(aws: Aws, stack: str) -> None:
    properties = component_to_prove(aws, "speechless") | endpoint_proof(
        "speechless-shared", request=b"error 500", content_type="text/plain"
    )
    logged(aws, "speechless", "out of luck", under="/aws/sagemaker/InferenceComponents")
    with pytest.raises(proof.NotProven) as failure:
        prove(stack, properties)
    assert str(failure.value) == (
        'speechless of speechless-shared is in service and cannot answer (500): {"error": "on request"}\n'
        "The container's last lines, of /aws/sagemaker/InferenceComponents/speechless:\nout of luck"
    )


def test_a_component_at_zero_is_asked_until_the_request_has_woken_a_copy(aws: Aws, stack: str) -> None:
    properties = component_to_prove(aws, "asleep", GREETING="hi")
    sagemaker = aws.client("sagemaker")
    sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="asleep", DesiredRuntimeConfig={"CopyCount": 0}
    )
    event = asked(stack, properties, Began=time.time())
    assert not proof.is_proved(event)
    with pytest.raises(proof.NotProven, match=r"asleep of asleep-shared has not answered within 1 min"):
        proof.is_proved({**event, "Began": time.time() - 61})
    sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="asleep", DesiredRuntimeConfig={"CopyCount": 1}
    )
    assert proof.is_proved(event)


def test_a_component_that_serves_another_model_or_none_fails(aws: Aws, stack: str) -> None:
    properties = component_to_prove(aws, "dumb", BEHAVIOUR="crash")
    with pytest.raises(proof.NotProven, match=r"dumb of dumb-shared is Failed: .*did not pass the ping"):
        prove(stack, properties)
    other = component_to_prove(aws, "elder", GREETING="hi")
    with pytest.raises(proof.NotProven, match="elder of elder-shared serves elder and not younger: SageMaker has roll"):
        prove(stack, {**other, "Model": "younger"})
    with pytest.raises(proof.NotProven, match="serves NumberOfCpuCoresRequired None and not 2"):
        prove(stack, {**other, "Requirements": {"NumberOfCpuCoresRequired": "2"}})


# requests of an asynchronous endpoint, whose response is a file


def queued(aws: Aws, name: str, answer: str, content: bytes) -> Json:
    """The event's data after the response or the failure has been written."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key=answer, Body=content)
    return {"OutputLocation": f"s3://{name}/answer", "FailureLocation": f"s3://{name}/failure"}


def test_an_asynchronous_request_is_queued_where_the_endpoint_looks_and_its_answer_is_awaited(
    aws: Aws, stack: str
) -> None:
    aws.client("s3").create_bucket(Bucket="queue")
    places = {"S3OutputPath": "s3://queue/queued/output", "S3FailurePath": "s3://queue/queued/failure"}
    endpoint(aws, "queued", GREETING="hi", AsyncInferenceConfig={"OutputConfig": places})
    prove(stack, {**endpoint_proof("queued", expect="hi application/json"), "Input": "s3://queue/queued/input/proof"})
    sent = aws.client("s3").get_object(Bucket="queue", Key="queued/input/proof")["Body"].read()
    assert json.loads(sent)["inputs"] == "Hello"
    failing = endpoint_proof("queued", request=b"error 500", content_type="text/plain")
    with pytest.raises(proof.NotProven, match=r'queued is in service and cannot answer: .* "{"error": "on request"}"'):
        prove(stack, {**failing, "Input": "s3://queue/queued/input/proof"})


def test_an_asynchronous_failure_fails_with_its_words(aws: Aws) -> None:
    places = queued(aws, "failed", "failure", b"no memory")
    with pytest.raises(proof.NotProven, match="failed is in service and cannot answer: no memory"):
        proof.has_answered(endpoint_proof("failed"), places)


def test_an_asynchronous_answer_is_compared_with_what_is_expected(aws: Aws) -> None:
    places = queued(aws, "answered", "answer", b"hello")
    assert proof.has_answered(endpoint_proof("answered", expect="ell"), places)
    with pytest.raises(proof.NotProven, match="answers without 'welcome': hello"):
        proof.has_answered(endpoint_proof("answered", expect="welcome"), places)


# deletion and rollback


def test_nothing_is_proved_on_deletion_or_while_the_stack_rolls_back(aws: Aws, stack: str) -> None:
    absent = image_proof(uri("nowhere", "v1"))
    assert prove(stack, absent, "Delete")
    failed = {
        "Model": {"Type": "AWS::SageMaker::Model", "Properties": {"PrimaryContainer": {"Image": absent["Image"]}}}
    }
    back = deploy(aws, "goes-back", {"Resources": failed})
    assert "ROLLBACK" in back["StackStatus"]
    assert prove(back["StackId"], absent)


@pytest.mark.parametrize(("sample", "start"), [("audio", b"RIFF"), ("image", b"\x89PNG")])
def test_a_sample_is_what_it_says_it_is(sample: str, start: bytes) -> None:
    assert proof.request_body({"Sample": sample}).startswith(start)


def test_a_given_request_is_sent_as_it_is() -> None:
    assert proof.request_body({"Body": base64.b64encode(b"\0\1").decode()}) == b"\0\1"
