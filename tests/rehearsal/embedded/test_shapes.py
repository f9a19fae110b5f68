"""Requests and templates against botocore's shapes: requests that no SDK would send are refused."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from moto.core.utils import get_service_model
from werkzeug.test import create_environ

from extended_dlc.rehearsal.embedded import templates
from extended_dlc.rehearsal.embedded.calls import Call, read_call
from extended_dlc.rehearsal.embedded.shapes import (
    CHECKED,
    Refusal,
    TemplateFault,
    check,
    parameters_of,
    unreadable_patterns,
)
from tests.support.embedded import ACCOUNT, REGION, Answer, Aws, deploy, events

Json = dict[str, Any]

VARIANT = {"VariantName": "A", "ModelName": "m", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
ONE = "1 validation error detected: "


def call(aws: Aws, service: str, target: str, body: Json | bytes) -> Answer:
    """A hand-made JSON request, as no SDK would send it."""
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential=testing/20260101/{REGION}/{service}/aws4_request, "
        "SignedHeaders=host, Signature=0",
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": target,
    }
    return aws.request("POST", "/", body if isinstance(body, bytes) else json.dumps(body), headers)


def configured(**changed: Any) -> Json:
    return {"EndpointConfigName": "c", "ProductionVariants": [{**VARIANT, **changed}]}


@pytest.mark.parametrize(
    ("target", "body", "code", "message"),
    [
        (
            "SageMaker.CreateModel",
            {},
            "ValidationException",
            ONE + "Value null at 'modelName' failed to satisfy constraint: Member must not be null",
        ),
        (
            "SageMaker.CreateModel",
            {"ModelName": "a_b"},
            "ValidationException",
            ONE + "Value 'a_b' at 'modelName' failed to satisfy constraint: Member must satisfy regular expression "
            "pattern: [a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?",
        ),
        (
            "SageMaker.CreateEndpointConfig",
            configured(ContainerStartupHealthCheckTimeoutInSeconds=3601),
            "ValidationException",
            ONE + "Value '3601' at 'productionVariants.1.member.containerStartupHealthCheckTimeoutInSeconds' failed to "
            "satisfy constraint: Member must have value less than or equal to 3600",
        ),
        (
            "SageMaker.CreateEndpointConfig",
            configured(VolumeSizeInGB=0),
            "ValidationException",
            ONE + "Value '0' at 'productionVariants.1.member.volumeSizeInGB' failed to satisfy constraint: Member must "
            "have value greater than or equal to 1",
        ),
        (
            "SageMaker.CreateEndpointConfig",
            configured(InferenceAmiVersion="al2-ami-sagemaker-inference-gpu-9"),
            "ValidationException",
            "Member must satisfy enum value set: [al2-ami-sagemaker-inference-gpu-2, ",
        ),
        (
            "SageMaker.CreateEndpointConfig",
            {"EndpointConfigName": "c", "ProductionVariants": []},
            "ValidationException",
            ONE + "Value '[]' at 'productionVariants' failed to satisfy constraint: Member must have length greater "
            "than or equal to 1",
        ),
        (
            "SageMaker.CreateEndpointConfig",
            {"EndpointConfigName": "x" * 64, "ProductionVariants": [{**VARIANT, "InstanceType": "ml.none"}]},
            "ValidationException",
            "3 validation errors detected: Value '",  # the name violates its length and its pattern
        ),
        (
            "SageMaker.CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Image": "x", "Environment": {"1st": "x"}}},
            "ValidationException",
            "Map keys must satisfy constraint: [Member must satisfy regular expression pattern: ",
        ),
        (
            "SageMaker.CreateModel",
            {"ModelName": "m", "VpcConfig": {"SecurityGroupIds": ["sg 1"], "Subnets": ["s"]}},
            "ValidationException",
            "Value '['sg 1']' at 'vpcConfig.securityGroupIds' failed to satisfy constraint: Member must satisfy "
            "constraint: [Member must satisfy regular expression pattern: ",
        ),
        (
            "SageMaker.CreateEndpointConfig",
            configured(InitialInstanceCount="1"),
            "SerializationException",
            "STRING_VALUE can not be converted to an Integer",
        ),
        (
            "SageMaker.CreateModel",
            {"ModelName": 7},
            "SerializationException",
            "NUMBER_VALUE can not be converted to a String",
        ),
        (
            "SageMaker.CreateModel",
            {"ModelName": "m", "PrimaryContainer": []},
            "SerializationException",
            "START_ARRAY can not be converted to a structure",
        ),
    ],
)
def test_a_request_that_is_not_of_its_shape_is_refused_in_sagemakers_words(
    aws: Aws, target: str, body: Json, code: str, message: str
) -> None:
    answer = call(aws, "sagemaker", target, body)
    refusal = json.loads(answer.body)
    assert (answer.status, refusal["__type"]) == (400, code)
    assert message in refusal["message"]


@pytest.mark.parametrize(
    ("service", "target", "body", "code", "message"),
    [
        (
            "ecr",
            "AmazonEC2ContainerRegistry_V20150921.CreateRepository",
            {"repositoryName": "UPPER"},
            "InvalidParameterException",
            "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'Member must satisfy regular",
        ),
        (
            "application-autoscaling",
            "AnyScaleFrontendService.RegisterScalableTarget",
            {"ServiceNamespace": "sage", "ResourceId": "x", "ScalableDimension": "y"},
            "ValidationException",
            "2 validation errors detected: Value 'sage' at 'serviceNamespace' failed",
        ),
        (
            "logs",
            "Logs_20140328.CreateLogGroup",
            {"logGroupName": "a b"},
            "InvalidParameterException",
            "Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression",
        ),
    ],
)
def test_other_services_have_their_own_codes(
    aws: Aws, service: str, target: str, body: Json, code: str, message: str
) -> None:
    refusal = json.loads(call(aws, service, target, body).body)
    assert refusal["__type"] == code
    assert message in refusal["message"]


def refusal(service: str, operation: str, parameters: Json) -> str:
    """The refusal of a call by its shape; empty where it is taken."""
    made = Call(service=service, operation=operation, parameters=parameters, account_id=ACCOUNT, region=REGION)
    try:
        check(made)
    except Refusal as refused:
        return f"{refused.code}: {refused.message}"
    return ""


COMPONENT = {"TrialComponentName": "a"}
ALIAS = {"FunctionName": "f", "Name": "n", "FunctionVersion": "1"}
KEY = {"KeyId": "k"}
BLOB = {**KEY, "Plaintext": base64.b64encode(bytes(4_096)).decode()}
METRIC = {"MetricName": "m", "StartTime": 0, "EndTime": 1, "Period": 60}
LEAST, MOST = "Member must have value greater than or equal to ", "Member must have value less than or equal to "


@pytest.mark.parametrize(
    ("service", "operation", "taken", "changed", "message"),
    [
        # each kind of bound, at the bound and just beyond it
        (
            "sagemaker",
            "CreateEndpointConfig",
            configured(InitialVariantWeight=0),
            configured(InitialVariantWeight=-0.1),
            LEAST,
        ),
        (
            "lambda",
            "CreateAlias",
            {**ALIAS, "RoutingConfig": {"AdditionalVersionWeights": {"2": 1.0}}},
            {"RoutingConfig": {"AdditionalVersionWeights": {"2": 1.1}}},
            "Map value must satisfy constraint: [Member must have value less",
        ),
        ("cloudformation", "ActivateType", {"MajorVersion": 100_000}, {"MajorVersion": 100_001}, MOST + "100000"),
        ("cloudformation", "ActivateType", {"MajorVersion": 1}, {"MajorVersion": 0}, LEAST + "1"),
        (
            "cloudformation",
            "DeleteStack",
            {"StackName": "s", "RoleARN": "x" * 20},
            {"RoleARN": "x" * 19},
            "at 'roleARN'",
        ),
        (
            "kms",
            "Encrypt",
            BLOB,
            {"Plaintext": base64.b64encode(bytes(4_097)).decode()},
            "length less than or equal to 4096",
        ),
        (
            "kms",
            "Encrypt",
            {**KEY, "Plaintext": bytes(4_096)},
            {"Plaintext": bytes(4_097)},
            "less than or equal to 4096",
        ),
        (
            "kms",
            "Encrypt",
            BLOB,
            {"Plaintext": "no base64"},
            "SerializationException: STRING_VALUE can not be converted to a Blob",
        ),
        (
            "sagemaker",
            "CreateModel",
            {"ModelName": "m", "Tags": [{"Key": "k", "Value": ""}] * 50},
            {"Tags": [{"Key": "k", "Value": ""}] * 51},
            "at 'tags' failed to satisfy constraint: Member must have length less",
        ),
        (
            "sagemaker",
            "CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {f"k{n}": "" for n in range(100)}}},
            {"PrimaryContainer": {"Environment": {f"k{n}": "" for n in range(101)}}},
            "at 'primaryContainer.environment' failed",
        ),
        # what is inside of lists and maps
        (
            "sagemaker",
            "CreateModel",
            {"ModelName": "m", "Tags": []},
            {"Tags": [{"Key": "k", "Value": "v"}, None]},
            "Value null at 'tags.2.member' failed to satisfy constraint: Member must not be null",
        ),
        (
            "sagemaker",
            "CreateModel",
            {"ModelName": "m", "Tags": []},
            {"Tags": [{"Value": "v"}]},
            "null at 'tags.1.member.key'",
        ),
        (
            "sagemaker",
            "CreateTrialComponent",
            {**COMPONENT, "InputArtifacts": {"a": {"Value": "v"}}},
            {"InputArtifacts": {"a": {}}},
            "Value null at 'inputArtifacts.a.member.value'",
        ),
        (
            "sagemaker",
            "CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {"k": "v" * 1_024}}},
            {"PrimaryContainer": {"Environment": {"k": "v" * 1_025}}},
            "Map value must satisfy constraint: [Member must have length",
        ),
        # patterns: the whole value, and line breaks where the pattern has a dot
        ("sagemaker", "CreateModel", {"ModelName": "a-1"}, {"ModelName": "a-1_"}, "regular expression pattern"),
        ("cloudwatch", "GetMetricStatistics", {**METRIC, "Namespace": "a\nb"}, {"Namespace": ":a"}, "pattern: [^:].*"),
        # types
        (
            "sagemaker",
            "CreateEndpointConfig",
            configured(InitialVariantWeight=1),
            configured(InitialVariantWeight=True),
            "SerializationException: TRUE_VALUE can not be converted to a Float",
        ),
        (
            "sagemaker",
            "CreateEndpointConfig",
            configured(EnableSSMAccess=True),
            configured(EnableSSMAccess="true"),
            "STRING_VALUE can not be converted to a Boolean",
        ),
        (
            "ecr",
            "CreateRepository",
            {"repositoryName": "rr"},
            {"repositoryName": {}},
            "START_OBJECT can not be converted to a String",
        ),
        ("sagemaker", "CreateModel", {"ModelName": "m"}, {"Tags": {}}, "START_OBJECT can not be converted to a List"),
        (
            "sagemaker",
            "CreateModel",
            {"ModelName": "m"},
            {"PrimaryContainer": {"Environment": []}},
            "converted to a Map",
        ),
        # a long value is not repeated as a whole
        (
            "sagemaker",
            "CreateModel",
            {"ModelName": "m"},
            {"ModelName": "_" * 999},
            f"Value '{'_' * 256}' at 'modelName'",
        ),
    ],
)
def test_each_bound_and_type_is_checked_at_every_depth(
    service: str, operation: str, taken: Json, changed: Json, message: str
) -> None:
    assert refusal(service, operation, taken) == ""
    assert message in refusal(service, operation, {**taken, **changed})


def test_a_service_that_is_not_checked_and_a_request_that_cannot_be_read() -> None:
    assert refusal("sqs", "CreateQueue", {}) == ""
    made = Call(
        service="sagemaker", operation="ListModels", parameters={}, account_id=ACCOUNT, region=REGION, problem="no JSON"
    )
    with pytest.raises(Refusal, match="no JSON"):
        check(made)


def test_all_faults_are_said_at_once() -> None:
    found = refusal("sagemaker", "CreateEndpoint", {"Tags": [{"Key": "k"}]})
    assert "3 validation errors detected: Value null at 'endpointName' failed" in found
    assert "; Value null at 'endpointConfigName' failed" in found
    assert "; Value null at 'tags.1.member.value' failed" in found


@pytest.mark.parametrize(
    ("operation", "given", "read"),
    [
        (
            "sagemaker:CreateEndpointConfig",
            {"EndpointConfigName": 7, "Tags": None},
            {"EndpointConfigName": "7", "Tags": None},
        ),
        ("sagemaker:CreateModel", {"EnableNetworkIsolation": "True"}, {"EnableNetworkIsolation": True}),
        ("sagemaker:CreateModel", {"EnableNetworkIsolation": "false"}, {"EnableNetworkIsolation": False}),
        (
            "sagemaker:CreateModel",
            {"EnableNetworkIsolation": "yes"},
            "#/EnableNetworkIsolation: expected type: Boolean, found: String",
        ),
        (
            "sagemaker:CreateModel",
            {"EnableNetworkIsolation": 1},
            "#/EnableNetworkIsolation: expected type: Boolean, found: Integer",
        ),
        ("sagemaker:CreateModel", {"ModelName": True}, {"ModelName": "true"}),
        ("sagemaker:CreateModel", {"ModelName": ["m"]}, "#/ModelName: expected type: String, found: JSONArray"),
        ("sagemaker:CreateModel", {"Containers": {}}, "#/Containers: expected type: JSONArray, found: JSONObject"),
        (
            "sagemaker:CreateModel",
            {"PrimaryContainer": "x"},
            "#/PrimaryContainer: expected type: JSONObject, found: String",
        ),
        (
            "sagemaker:CreateModel",
            {"PrimaryContainer": {"Environment": [1]}},
            "#/PrimaryContainer/Environment: expected type: JSONObject, found: JSONArray",
        ),
        (
            "sagemaker:CreateModel",
            {"PrimaryContainer": {"Environment": {"a": 1}}},
            {"PrimaryContainer": {"Environment": {"a": "1"}}},
        ),
        (
            "sagemaker:CreateModel",
            {"Containers": [{"Images": "x"}]},
            "#/Containers/0: extraneous key [Images] is not permitted",
        ),
        ("lambda:CreateFunction", {"MemorySize": "128"}, {"MemorySize": 128}),
        ("lambda:CreateFunction", {"MemorySize": 128.0}, {"MemorySize": 128}),
        ("lambda:CreateFunction", {"MemorySize": 128.5}, "#/MemorySize: expected type: Integer, found: Number"),
        ("lambda:CreateFunction", {"MemorySize": True}, "#/MemorySize: expected type: Integer, found: Boolean"),
        ("cloudwatch:PutMetricAlarm", {"Threshold": "0.5"}, {"Threshold": 0.5}),
        ("cloudwatch:PutMetricAlarm", {"Threshold": True}, "#/Threshold: expected type: Number, found: Boolean"),
        ("cloudwatch:PutMetricAlarm", {"Threshold": "x"}, "#/Threshold: expected type: Number, found: String"),
        ("cloudformation:ActivateType", {"MajorVersion": "2"}, {"MajorVersion": 2}),
        (
            "sagemaker:CreateInferenceComponent",
            {"Specification": {"ComputeResourceRequirements": {"NumberOfCpuCoresRequired": "0.5"}}},
            {"Specification": {"ComputeResourceRequirements": {"NumberOfCpuCoresRequired": 0.5}}},
        ),
    ],
)
def test_a_templates_values_are_read_as_the_apis_types(operation: str, given: Json, read: Json | str) -> None:
    service, name = operation.split(":")
    if isinstance(read, str):
        with pytest.raises(TemplateFault) as refused:
            parameters_of(service, name, given)
        assert refused.value.message == read
    else:
        found = parameters_of(service, name, given)
        assert found == read
        assert {key: type(each) for key, each in found.items()} == {key: type(each) for key, each in read.items()}


def test_a_query_service_is_checked_too(aws: Aws) -> None:
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential=testing/20260101/{REGION}/cloudformation/aws4_request, "
        "SignedHeaders=host, Signature=0",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    answer = aws.request(
        "POST", "/", "Action=CreateChangeSet&Version=2010-05-15&StackName=s&ChangeSetName=1st", headers
    )
    assert answer.status == 400
    assert b"<Code>ValidationError</Code>" in answer.body
    assert b"Value '1st' at 'changeSetName' failed to satisfy constraint" in answer.body


def test_the_runtime_is_checked_too(aws: Aws) -> None:
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential=testing/20260101/{REGION}/sagemaker/aws4_request, "
        "SignedHeaders=host, Signature=0",
        "X-Amzn-SageMaker-Custom-Attributes": "x" * 1025,
    }
    answer = aws.request("POST", "/endpoints/e/invocations", b"{}", headers)
    assert answer.status == 400
    assert "Member must have length less than or equal to 1024" in json.loads(answer.body)["message"]


def failed(aws: Aws, name: str, properties: Json) -> str:
    template = {"Resources": {"It": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": properties}}}
    assert deploy(aws, name, template)["StackStatus"] == "ROLLBACK_COMPLETE"
    (reason,) = [why for _, status, why in events(aws, name) if status == "CREATE_FAILED"]
    return reason


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (
            "no-such-property",
            {"InstanceTyp": "ml.m5.xlarge"},
            "Properties validation failed for resource It with message: [#/ProductionVariants/0: extraneous key "
            "[InstanceTyp] is not permitted]",
        ),
        (
            "no-number",
            {"InitialInstanceCount": "one"},
            "Properties validation failed for resource It with message: [#/ProductionVariants/0/InitialInstanceCount: "
            "expected type: Integer, found: String]",
        ),
        (
            "out-of-bounds",
            {"ModelDataDownloadTimeoutInSeconds": "59"},
            "Value '59' at 'productionVariants.1.member.modelDataDownloadTimeoutInSeconds' failed to satisfy "
            "constraint: Member must have value greater than or equal to 60",
        ),
    ],
)
def test_a_template_meets_the_same_shapes(aws: Aws, name: str, changed: Json, message: str) -> None:
    assert message in failed(aws, name, {"ProductionVariants": [{**VARIANT, **changed}]})


def test_every_checked_service_is_known_by_the_name_that_signs_its_requests() -> None:
    missed = []
    for service in CHECKED:
        model = get_service_model(service)
        signed = model.signing_name
        name = next(iter(model.operation_names))
        environ = {
            **create_environ(),
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/endpoints/e/invocations" if service == "sagemaker-runtime" else "/",
            "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential=testing/20260101/{REGION}/{signed}/aws4_request, x",
            "HTTP_X_AMZ_TARGET": f"{model.metadata.get('targetPrefix', '')}.{name}",
        }
        call = read_call(environ)
        if call is None or call.service != service:
            missed.append(service)
    assert missed == []


def test_every_pattern_of_the_checked_services_can_be_read() -> None:
    assert {service: unreadable_patterns(service) for service in CHECKED if unreadable_patterns(service)} == {}


def test_each_type_of_a_template_is_deleted_by_a_call_that_the_service_has() -> None:
    names = ("ServiceNamespace", "ResourceId", "ScalableDimension", "AliasName", "Bucket", "FunctionName")
    target = dict.fromkeys((*names, "ModelPackageGroupName"), "x")
    for kind in templates.CHECKED:
        properties = {**target, "LogGroupName": "group"}
        wish: Any = SimpleNamespace(
            type=kind, logical_id="It", name="it", properties=properties, account_id=ACCOUNT, region=REGION
        )
        for call in templates.calls_to_delete(wish):
            assert call.operation.startswith(("Delete", "Deregister", "Remove")), kind
