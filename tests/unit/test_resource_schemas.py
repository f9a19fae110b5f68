"""A template's properties against CloudFormation's schemas, with the words of its validator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from extended_dlc.rehearsal.embedded import templates
from extended_dlc.rehearsal.embedded.resource_schemas import check, faults, schema_of
from extended_dlc.rehearsal.embedded.shapes import TemplateFault, compiled_pattern

Json = dict[str, Any]

ROLE = "arn:aws:iam::123456789012:role/mine"
FUNCTION: Json = {"Code": {"ZipFile": "x"}, "Role": ROLE, "Runtime": "python3.12", "Handler": "a.b"}
PROJECT: Json = {
    "Artifacts": {"Type": "NO_ARTIFACTS"},
    "Environment": {"ComputeType": "BUILD_GENERAL1_SMALL", "Image": "x", "Type": "LINUX_CONTAINER"},
    "ServiceRole": ROLE,
    "Source": {"Type": "NO_SOURCE"},
}


def encryption(algorithm: str) -> Json:
    rule = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}}
    return {"BucketEncryption": {"ServerSideEncryptionConfiguration": [rule]}}


def lifecycle(**more: Any) -> Json:
    return {"LifecycleConfiguration": {"Rules": [{"Status": "Enabled", **more}]}}


def website(condition: Json) -> Json:
    rule = {"RedirectRule": {"HostName": "x"}, "RoutingRuleCondition": condition}
    return {"WebsiteConfiguration": {"IndexDocument": "i", "RoutingRules": [rule]}}


def log_keys(form: Json) -> Json:
    return {"LoggingConfiguration": {"TargetObjectKeyFormat": form}}


CASES: list[tuple[str, Json, Json, str]] = [
    # enumerations, also inside of lists and structures
    (
        "S3::Bucket",
        encryption("aws:kms"),
        encryption("aes"),
        "ServerSideEncryptionByDefault/SSEAlgorithm: aes is not a valid",
    ),
    (
        "S3::Bucket",
        {"VersioningConfiguration": {"Status": "Enabled"}},
        {"VersioningConfiguration": {"Status": "On"}},
        "/Status: On is not a valid enum value",
    ),
    (
        "S3::Bucket",
        {"AccessControl": "Private"},
        {"AccessControl": "Secret"},
        "#/AccessControl: Secret is not a valid enum value",
    ),
    (
        "S3::Bucket",
        lifecycle(ExpirationInDays="7"),
        lifecycle(ExpirationInDays="seven"),
        "/Rules/0/ExpirationInDays: expected type: Integer, found: String",
    ),
    (
        "Lambda::Function",
        {**FUNCTION, "Architectures": ["arm64"]},
        {**FUNCTION, "Architectures": ["arm"]},
        "#/Architectures/0: arm is not",
    ),
    (
        "Lambda::Function",
        {**FUNCTION, "TracingConfig": {"Mode": "Active"}},
        {**FUNCTION, "TracingConfig": {"Mode": "On"}},
        "#/TracingConfig/Mode: On is",
    ),
    ("KMS::Key", {"KeySpec": "SYMMETRIC_DEFAULT"}, {"KeySpec": "AES"}, "#/KeySpec: AES is not a valid enum value"),
    ("Events::Rule", {"State": "ENABLED"}, {"State": "ON"}, "#/State: ON is not a valid enum value"),
    (
        "StepFunctions::StateMachine",
        {"RoleArn": ROLE, "StateMachineType": "EXPRESS"},
        {"RoleArn": ROLE, "StateMachineType": "FAST"},
        "FAST is not",
    ),
    (
        "Logs::LogGroup",
        {"RetentionInDays": "7"},
        {"RetentionInDays": 8},
        "#/RetentionInDays: 8 is not a valid enum value",
    ),
    # what is required, and what there is not
    (
        "CodeBuild::Project",
        PROJECT,
        {**PROJECT, "Environment": {"Type": "LINUX_CONTAINER", "Image": "x"}},
        "#/Environment: required key [ComputeType] not found",
    ),
    ("Lambda::Function", FUNCTION, {**FUNCTION, "Role": None}, "#: required key [Role] not found"),
    ("SNS::Topic", {"DisplayName": "x"}, {"DisplayNam": "x"}, "#: extraneous key [DisplayNam] is not permitted"),
    (
        "S3::Bucket",
        lifecycle(Prefix="a"),
        lifecycle(Prefixes="a"),
        "/Rules/0: extraneous key [Prefixes] is not permitted",
    ),
    # bounds and patterns
    (
        "SQS::Queue",
        {"VisibilityTimeout": 43_200},
        {"VisibilityTimeout": 43_201},
        "#/VisibilityTimeout: failed validation constraint for keyword [maximum]",
    ),
    (
        "SQS::Queue",
        {"ReceiveMessageWaitTimeSeconds": "0"},
        {"ReceiveMessageWaitTimeSeconds": "-1"},
        "keyword [minimum]",
    ),
    (
        "ECR::Repository",
        {"RepositoryName": "ab"},
        {"RepositoryName": "a"},
        "#/RepositoryName: failed validation constraint",
    ),
    (
        "ECR::Repository",
        {"RepositoryName": "ab"},
        {"RepositoryName": "Ab"},
        "#/RepositoryName: failed validation constraint for keyword [pattern]",
    ),
    (
        "Lambda::Function",
        {**FUNCTION, "Description": "x" * 256},
        {**FUNCTION, "Description": "x" * 257},
        "#/Description: failed validation constraint for keyword [maxLength]",
    ),
    (
        "Lambda::Function",
        {**FUNCTION, "Layers": []},
        {**FUNCTION, "FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "b"}] * 2},
        "#/FileSystemConfigs",
    ),
    # types, which may be written as texts
    (
        "Lambda::Function",
        {**FUNCTION, "Timeout": "3"},
        {**FUNCTION, "Timeout": "3.5"},
        "#/Timeout: expected type: Integer, found: String",
    ),
    (
        "Lambda::Function",
        {**FUNCTION, "Timeout": 3.0},
        {**FUNCTION, "Timeout": True},
        "#/Timeout: expected type: Integer, found: Boolean",
    ),
    ("SQS::Queue", {"FifoQueue": "true"}, {"FifoQueue": "yes"}, "#/FifoQueue: expected type: Boolean, found: String"),
    (
        "SNS::Topic",
        {"DisplayName": 7},
        {"DisplayName": ["x"]},
        "#/DisplayName: expected type: String, found: JSONArray",
    ),
    (
        "SNS::Topic",
        {"Tags": []},
        {"Tags": {"Key": "a", "Value": "b"}},
        "#/Tags: expected type: JSONArray, found: JSONObject",
    ),
    (
        "S3::Bucket",
        {"VersioningConfiguration": None},
        {"VersioningConfiguration": "Enabled"},
        "expected type: JSONObject, found: String",
    ),
    # lists, maps and choices
    (
        "Lambda::Function",
        {**FUNCTION, "ImageConfig": {"Command": ["a", "b"]}},
        {**FUNCTION, "ImageConfig": {"Command": ["a", "a"]}},
        "#/ImageConfig/Command: array items are not unique",
    ),
    (
        "ECR::Repository",
        {},
        {"ImageTagMutabilityExclusionFilters": []},
        "ExclusionFilters: failed validation constraint for keyword [minItems]",
    ),
    (
        "Lambda::Function",
        {**FUNCTION, "Environment": {"Variables": {"AB": "b"}}},
        {**FUNCTION, "Environment": {"Variables": {"1": "b"}}},
        "Variables: extraneous key [1] is not permitted",
    ),
    (
        "S3::Bucket",
        website({"KeyPrefixEquals": "a"}),
        website({}),
        "RoutingRuleCondition: #: no subschema matched out of the total 2 subschemas",
    ),
    (
        "S3::Bucket",
        log_keys({"SimplePrefix": {}}),
        log_keys({"SimplePrefix": {}, "PartitionedPrefix": {}}),
        "TargetObjectKeyFormat: #: ",
    ),
    (
        "SSM::Parameter",
        {"Type": "String", "Value": "x"},
        {"Type": "Text", "Value": "x"},
        "#/Type: Text is not a valid enum value",
    ),
    ("Custom::Anything", {"Any": "thing"}, {}, ""),
]


@pytest.mark.parametrize(
    ("kind", "taken", "refused", "words"), CASES, ids=[f"{each[0]}: {each[3][:50]}" for each in CASES]
)
def test_properties_are_compared_at_every_depth(kind: str, taken: Json, refused: Json, words: str) -> None:
    name = kind if kind.startswith("Custom") else f"AWS::{kind}"
    check("It", name, taken)
    if not words:  # a type without a schema
        check("It", name, refused)
        return
    with pytest.raises(TemplateFault) as fault:
        check("It", name, refused)
    assert fault.value.code == "ValidationError"
    assert fault.value.message.startswith("Properties validation failed for resource It with message: [#")
    assert words in fault.value.message


@pytest.mark.parametrize(
    ("schema", "taken", "refused", "words"),
    [
        ({"maxItems": 1}, [1], [1, 2], "keyword [maxItems]"),
        ({"minProperties": 1}, {"a": 1}, {}, "keyword [minProperties]"),
        ({"maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}, "keyword [maxProperties]"),
        ({"minLength": 1}, "a", "", "keyword [minLength]"),
        (
            {"patternProperties": {"^a": {"type": "integer"}}},
            {"a": 1, "b": "x"},
            {"a": "x"},
            "#/a: expected type: Integer",
        ),
        (
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": 1},
            {"a": 1, "b": 2},
            "2 subschemas matched instead of one",
        ),
        ({"type": ["array", "string"]}, "x", {}, "#: expected type: JSONArray, found: JSONObject"),
    ],
)
def test_each_keyword_is_looked_at(schema: Json, taken: Any, refused: Any, words: str) -> None:
    assert list(faults(schema, schema, taken, "#")) == []
    (fault,) = faults(schema, schema, refused, "#")
    assert words in fault


def patterns(part: Any) -> Iterator[str]:
    """Every pattern of a schema."""
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        if isinstance(part.get("patternProperties"), dict):
            yield from part["patternProperties"]
        part = list(part.values())
    for each in part if isinstance(part, list) else ():
        yield from patterns(each)


def test_every_pattern_of_the_types_whose_calls_are_checked_can_be_read() -> None:
    found = {kind: [*patterns(schema_of(kind))] for kind in templates.CHECKED}
    assert sum(map(len, found.values())) > 100
    assert {kind: each for kind, several in found.items() for each in several if compiled_pattern(each) is None} == {}
