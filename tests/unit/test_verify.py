"""The proof in a template: what it asks, what waits for it, and what its functions may do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from aws_cdk import App, BootstraplessSynthesizer, Stack
from aws_cdk import aws_iam as iam
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    Async,
    BacklogScaling,
    Canary,
    Component,
    Components,
    DataCapture,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    InferenceCode,
    InvocationScaling,
    Monitoring,
    OfficeHours,
    Proof,
    RealTime,
    StockDlc,
    Variant,
)

CPU = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlc:2.6.0-transformers4.51.3-cpu-py312-ubuntu22.04-v2.0"

Json = dict[str, Any]


def proved(stack: Stack, proof: Proof | None = None, *, task: str | None = "text-generation", **options: Any) -> None:
    model = HubModel("bigscience/bloom-560m", revision="a" * 40, task=task)
    shipped = {"endpoint_name": "bloom", "image": StockDlc(base=CPU), "verify": proof or Proof(), "model": model}
    HuggingFaceEndpoint(stack, "Bloom", **{**shipped, **options})


def proofs(stack: Stack) -> dict[str, tuple[str, Json]]:
    """The proofs of a template by what they check, with their logical ids."""
    found = Template.from_stack(stack).find_resources("Custom::ExtendedDlcProof")
    return {each["Properties"]["Check"]: (name, each) for name, each in found.items()}


def only(stack: Stack, kind: str) -> tuple[str, Json]:
    (found,) = Template.from_stack(stack).find_resources(kind).items()
    return found


def granted(stack: Stack) -> dict[str, str]:
    """What the function may do, and to what."""
    allowed: dict[str, str] = {}
    for name, policy in Template.from_stack(stack).find_resources("AWS::IAM::Policy").items():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"] if name.startswith("ExtendedDlc") else ():
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                allowed[action] = json.dumps(statement["Resource"])
    return allowed


def sent(stack: Stack) -> Any:
    return json.loads(base64.b64decode(proofs(stack)["endpoint"][1]["Properties"]["Body"]))


def test_the_model_waits_for_the_image_s_proof_and_the_endpoint_is_proved_after_it_and_its_scaling(
    stack: Stack,
) -> None:
    proved(stack, hosting=RealTime(scaling=InvocationScaling(maximum=2, requests_per_second=1)))
    image, endpoint = proofs(stack)["image"], proofs(stack)["endpoint"]
    assert image[0] in only(stack, "AWS::SageMaker::Model")[1]["DependsOn"]
    assert only(stack, "AWS::SageMaker::Endpoint")[0] in endpoint[1]["DependsOn"]
    assert only(stack, "AWS::ApplicationAutoScaling::ScalableTarget")[0] in endpoint[1]["DependsOn"]


def test_the_image_is_proved_for_the_architecture_that_computes(stack: Stack) -> None:
    proved(stack)
    properties = proofs(stack)["image"][1]["Properties"]
    assert (properties["Image"], properties["Architecture"]) == (CPU, "amd64")


def test_another_configuration_is_proved_again(stack: Stack) -> None:
    proved(stack)
    properties = proofs(stack)["endpoint"][1]["Properties"]
    config = only(stack, "AWS::SageMaker::EndpointConfig")[0]
    assert properties["ConfigName"] == {"Fn::GetAtt": [config, "EndpointConfigName"]}
    assert (properties["EndpointName"], properties["Variants"]) == ("bloom", ["AllTraffic"])
    assert properties["TimeoutMinutes"] == 30


@pytest.mark.parametrize(
    ("task", "sample", "content_type"),
    [
        ("automatic-speech-recognition", "audio", "audio/wav"),
        ("image-classification", "image", "image/png"),
    ],
)
def test_speech_gets_a_sound_and_vision_a_picture_that_the_function_makes(
    stack: Stack, task: str, sample: str, content_type: str
) -> None:
    proved(stack, task=task)
    properties = proofs(stack)["endpoint"][1]["Properties"]
    assert (properties["Sample"], properties["ContentType"]) == (sample, content_type)
    assert "Body" not in properties


def test_text_gets_the_smallest_prompt(stack: Stack) -> None:
    proved(stack)
    assert sent(stack) == {"inputs": "Hello", "parameters": {"max_new_tokens": 8}}
    assert proofs(stack)["endpoint"][1]["Properties"]["ContentType"] == "application/json"


def test_the_task_of_a_model_that_is_known_by_name_need_not_be_said(stack: Stack) -> None:
    proved(stack, task=None)
    assert sent(stack)["inputs"] == "Hello"


def test_a_given_request_needs_no_task(stack: Stack) -> None:
    proved(stack, Proof(request={"inputs": "Bonjour"}, expect="jour", timeout_minutes=5), task=None)
    assert sent(stack) == {"inputs": "Bonjour"}
    properties = proofs(stack)["endpoint"][1]["Properties"]
    assert (properties["Expect"], properties["TimeoutMinutes"]) == ("jour", 5)


def test_bytes_are_sent_as_they_are(stack: Stack) -> None:
    proved(stack, Proof(request=b"\0\1", content_type="audio/wav"), task=None)
    properties = proofs(stack)["endpoint"][1]["Properties"]
    assert (base64.b64decode(properties["Body"]), properties["ContentType"]) == (b"\0\1", "audio/wav")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (None, r"'verify' needs a request, because the model's task is not known at synth: say the task, or"),
        ("text-to-3d", r"'verify' needs a request, because no request is known for 'text-to-3d'"),
    ],
)
def test_a_task_that_nobody_knows_a_request_for_is_refused(task: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Proof().properties_for(task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_minutes": 60}, r"'timeout_minutes' \(60\) must be from 1 to 59: CloudFormation waits an hour"),
        ({"request": b"RIFF"}, r"'content_type' \(not given\) must say what the bytes of 'request' are"),
        ({"expected": {1, 2}}, r"'expected' \(\{1, 2\}\) must be JSON, as the answer is: use texts, finite numbers"),
        ({"expected": float("nan")}, r"'expected' \(nan\) must be JSON"),
        ({"request": {"inputs": object}}, r"'request' \(\{'inputs': <class 'object'>\}\) must be JSON, or bytes"),
        ({"request": {"inputs": float("inf")}}, r"'request' \(\{'inputs': inf\}\) must be JSON, or bytes"),
        (
            {"request": bytes(90_000), "content_type": "audio/wav"},
            r"'request' \(90004 bytes with 'expected'\) travels to the function in one event",
        ),
        ({"request": {"inputs": "x" * 50_000}, "expected": "y" * 50_000}, r"has room for 87381 bytes: take a shorter"),
        ({"expected": 1, "tolerance": -0.1}, r"'tolerance' \(-0.1\) must be from 0 to 1: it is the part of a number"),
        ({"expected": 1, "optional": True}, r"'optional' \(True\) does not go with 'expect' and 'expected', because"),
    ],
)
def test_what_cannot_be_sent_is_refused(options: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Proof(**options)


def test_a_queue_is_asked_through_its_bucket_which_wakes_an_endpoint_at_zero(stack: Stack) -> None:
    proved(stack, hosting=Async(scaling=BacklogScaling(maximum=1)))
    bucket = only(stack, "AWS::S3::Bucket")[0]
    location = proofs(stack)["endpoint"][1]["Properties"]["Input"]
    assert location == {"Fn::Join": ["", ["s3://", {"Ref": bucket}, "/bloom/input/proof"]]}


def test_each_variant_is_asked_but_the_shadow_whose_answers_nobody_sees(stack: Stack) -> None:
    proved(stack, hosting=RealTime(variants=[Variant(name="Next")]))
    assert proofs(stack)["endpoint"][1]["Properties"]["Variants"] == ["AllTraffic", "Next"]
    other = Stack()
    proved(other, hosting=RealTime(shadow=Variant(name="Shadow")))
    asked = Template.from_stack(other).find_resources("Custom::ExtendedDlcProof", {"Properties": {"Check": "endpoint"}})
    assert [each["Properties"]["Variants"] for each in asked.values()] == [["AllTraffic"]]


def test_the_functions_may_ask_this_endpoint_and_read_its_log_and_its_image_and_no_more(stack: Stack) -> None:
    proved(stack)
    allowed = granted(stack)
    assert allowed.keys() == {
        "cloudformation:DescribeStacks",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "logs:CreateLogStream",
        "logs:DescribeLogStreams",
        "logs:GetLogEvents",
        "logs:PutLogEvents",
        "lambda:InvokeFunction",
        "sagemaker:DescribeEndpoint",
        "sagemaker:InvokeEndpoint",
        "sagemaker:InvokeEndpointAsync",
        "sagemaker:InvokeEndpointWithResponseStream",
    }
    assert "endpoint/bloom" in allowed["sagemaker:DescribeEndpoint"]
    assert "/aws/sagemaker/Endpoints/bloom" in allowed["logs:GetLogEvents"]
    assert [action for action, resource in allowed.items() if resource == '"*"'] == ["ecr:GetAuthorizationToken"]


def test_a_name_with_capitals_is_granted_in_both_spellings_for_every_action(stack: Stack) -> None:
    proved(stack, endpoint_name="Bloom-Prod")
    statements = [
        statement
        for policy in Template.from_stack(stack).find_resources("AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "sagemaker:" in json.dumps(statement["Action"])
    ]
    assert {"sagemaker:DescribeEndpoint"} <= {json.dumps(each["Action"]).strip('"') for each in statements}
    for statement in statements:
        assert {"endpoint/Bloom-Prod", "endpoint/bloom-prod"} <= {
            each["Fn::Join"][1][-1].partition(":")[2].rpartition(":")[2] for each in statement["Resource"]
        }


@pytest.mark.parametrize("options", [{}, {"verify": Proof()}])
def test_the_proofs_of_a_stack_share_one_function_and_one_role_and_no_state_machine(
    stack: Stack, options: Json
) -> None:
    image = StockDlc(base=CPU)
    for name in ("One", "Two"):
        model = HubModel("bloom", revision="a" * 40, task="text-generation")
        HuggingFaceEndpoint(stack, name, model=model, image=image, **options)
    template = Template.from_stack(stack)
    template.resource_count_is("Custom::ExtendedDlcProof", 4)
    template.resource_count_is("AWS::Lambda::Function", 1)
    template.resource_count_is("AWS::IAM::Role", 3)  # the other two are the endpoints' own
    template.resource_count_is("AWS::StepFunctions::StateMachine", 0)


def test_by_default_image_and_configuration_are_checked_and_nothing_is_asked(stack: Stack) -> None:
    model = HubModel("bloom", revision="a" * 40)
    HuggingFaceEndpoint(stack, "Bloom", model=model, image=StockDlc(base=CPU), endpoint_name="bloom")
    config = only(stack, "AWS::SageMaker::EndpointConfig")[0]
    image, endpoint = proofs(stack)["image"], proofs(stack)["endpoint"]
    del endpoint[1]["Properties"]["ServiceToken"]
    assert image[0] in only(stack, "AWS::SageMaker::Model")[1]["DependsOn"]
    assert only(stack, "AWS::SageMaker::Endpoint")[0] in endpoint[1]["DependsOn"]
    assert endpoint[1]["Properties"] == {
        "Check": "endpoint",
        "EndpointName": "bloom",
        "ConfigName": {"Fn::GetAtt": [config, "EndpointConfigName"]},
    }
    assert "sagemaker:InvokeEndpoint" not in granted(stack)


def test_a_component_is_checked_by_its_model_and_what_it_reserves(stack: Stack) -> None:
    text = Component(name="Text", memory_mb=4096, cpu_cores=2)
    proved(
        stack, verify=True, hosting=Components(instance_type="ml.m5.xlarge", components=[text], minimum=1, maximum=1)
    )
    properties = proofs(stack)["endpoint"][1]["Properties"]
    assert properties["Requirements"] == {"MinMemoryRequiredInMb": 4096, "NumberOfCpuCoresRequired": 2}
    assert properties["Model"] == {"Fn::GetAtt": [only(stack, "AWS::SageMaker::Model")[0], "ModelName"]}
    assert "sagemaker:InvokeEndpoint" not in granted(stack)


def test_a_stack_that_takes_no_assets_has_the_function_s_code_in_its_template() -> None:
    stack = Stack(App(), "Test", synthesizer=BootstraplessSynthesizer())
    proved(stack, verify=True)
    function = only(stack, "AWS::Lambda::Function")[1]["Properties"]
    assert "def handle(" in function["Code"]["ZipFile"]
    assert function["Handler"] == "index.handle"


def test_the_boundary_of_the_endpoint_s_role_bounds_the_function_s_too(stack: Stack) -> None:
    boundary = "arn:aws:iam::123456789012:policy/boundary"
    proved(stack, verify=True, permissions_boundary=iam.ManagedPolicy.from_managed_policy_arn(stack, "B", boundary))
    roles = Template.from_stack(stack).find_resources("AWS::IAM::Role").values()
    assert [each["Properties"].get("PermissionsBoundary") for each in roles] == [boundary, boundary]


def test_an_endpoint_that_is_not_verified_has_no_function(stack: Stack) -> None:
    proved(stack, verify=False)
    for kind in ("AWS::Lambda::Function", "Custom::ExtendedDlcProof", "AWS::Logs::LogGroup"):
        Template.from_stack(stack).resource_count_is(kind, 0)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"task": "text-generation"}, True),
        ({"task": "mask-generation"}, False),
        ({"model": HubModel("org/unknown", revision="a" * 40)}, False),
        ({"model": HubModel("bloom", "a" * 40, code=InferenceCode(requirements=["einops==0.8.1"]))}, False),
    ],
)
def test_an_optional_proof_asks_where_a_request_is_known_and_is_told_of_elsewhere(
    stack: Stack, options: Json, asked: bool
) -> None:
    proved(stack, Proof(optional=True), **options)
    assert ("Body" in proofs(stack)["endpoint"][1]["Properties"]) is asked
    notes = Annotations.from_stack(stack).find_info("*", Match.string_like_regexp("is not proved by a request"))
    assert len(notes) == (0 if asked else 1)


def test_an_expected_answer_reaches_the_function_as_it_was_written(stack: Stack) -> None:
    proved(stack, Proof(expected=[{"label": "A", "score": 0.75}], tolerance=0.05))
    properties = proofs(stack)["endpoint"][1]["Properties"]
    assert (json.loads(properties["Expected"]), properties["Tolerance"]) == ([{"label": "A", "score": 0.75}], "0.05")


def test_with_every_option_on_nothing_waits_for_itself(stack: Stack) -> None:
    proved(
        stack,
        image=ExtendedDlc(stack, "Image", transformers="5.23.0"),
        hosting=RealTime(instances=2, scaling=InvocationScaling(maximum=4, requests_per_second=1)),
        rollout=Canary(),
        data_capture=DataCapture(),
        monitoring=Monitoring(alarm_topic="new"),
        schedule=OfficeHours(start="08:00", end="18:00"),
    )
    # Template.from_stack refuses a cycle
    Template.from_stack(stack).has_resource(
        "AWS::SageMaker::Endpoint", {"Condition": Match.any_value(), "DependsOn": Match.any_value()}
    )
