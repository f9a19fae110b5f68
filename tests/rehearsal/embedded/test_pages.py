"""Pages of lists: their tokens lead to the next page, and no other token does."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.embedded import Aws

SCALED = {"ServiceNamespace": "sagemaker"}


@pytest.mark.parametrize(
    ("service", "operation", "given", "token", "code"),
    [
        ("application-autoscaling", "describe_scalable_targets", SCALED, "NextToken", "InvalidNextTokenException"),
        ("cloudformation", "describe_stacks", {}, "NextToken", "ValidationError"),
        ("cloudformation", "list_stacks", {}, "NextToken", "ValidationError"),
        ("cloudformation", "list_exports", {}, "NextToken", "ValidationError"),
        ("cloudwatch", "describe_alarms", {}, "NextToken", "InvalidNextToken"),
        ("codebuild", "list_projects", {}, "nextToken", "InvalidInputException"),
        ("ecr", "describe_repositories", {}, "nextToken", "InvalidParameterException"),
        ("events", "list_rules", {}, "NextToken", "ValidationException"),
        ("iam", "list_roles", {}, "Marker", "ValidationError"),
        ("kms", "list_aliases", {}, "Marker", "InvalidMarkerException"),
        ("lambda", "list_functions", {}, "Marker", "InvalidParameterValueException"),
        ("logs", "describe_log_groups", {}, "nextToken", "InvalidParameterException"),
        ("s3", "list_objects_v2", {"Bucket": "pages"}, "ContinuationToken", "InvalidArgument"),
        ("sagemaker", "list_endpoints", {}, "NextToken", "ValidationException"),
        ("sagemaker", "list_inference_components", {}, "NextToken", "ValidationException"),
        ("scheduler", "list_schedules", {}, "NextToken", "ValidationException"),
        ("secretsmanager", "list_secrets", {}, "NextToken", "InvalidNextTokenException"),
        ("sns", "list_topics", {}, "NextToken", "InvalidParameter"),
        ("ssm", "describe_parameters", {}, "NextToken", "InvalidNextToken"),
        ("stepfunctions", "list_state_machines", {}, "nextToken", "InvalidToken"),
    ],
)
def test_a_token_that_no_page_gave_is_refused(
    aws: Aws, service: str, operation: str, given: dict[str, Any], token: str, code: str
) -> None:
    aws.client("s3").create_bucket(Bucket="pages")
    ask = getattr(aws.client(service), operation)
    ask(**given)
    for wrong in ("1", "bm8="):
        with pytest.raises(ClientError, match=f"The specified {token} is invalid: {wrong}") as refused:
            ask(**given, **{token: wrong})
        assert refused.value.response["Error"]["Code"] == code


def test_the_tokens_of_pages_lead_through_the_list_and_through_no_other(aws: Aws) -> None:
    s3, ssm = aws.client("s3"), aws.client("ssm")
    s3.create_bucket(Bucket="paged")
    keys = [f"a&b/{number}" for number in range(5)]
    for key in keys:
        s3.put_object(Bucket="paged", Key=key, Body=b"")
        ssm.put_parameter(Name=f"/paged/{key[-1]}", Value="x", Type="String")
    in_twos = {"PaginationConfig": {"PageSize": 2}}
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="paged", Prefix="a&b/", **in_twos))
    assert [each["Key"] for page in pages for each in page["Contents"]] == keys
    assert len(pages) == 3
    found = list(ssm.get_paginator("get_parameters_by_path").paginate(Path="/paged", **in_twos))
    assert len([each for page in found for each in page["Parameters"]]) == 5
    assert len(found) == 3
    with pytest.raises(ClientError, match="InvalidNextToken"):
        ssm.describe_parameters(NextToken=found[0]["NextToken"])


def test_a_log_is_read_on_with_the_tokens_of_either_direction(aws: Aws) -> None:
    logs, named = aws.client("logs"), {"logGroupName": "paged", "logStreamName": "stream"}
    logs.create_log_group(logGroupName="paged")
    logs.create_log_stream(**named)
    now = int(time.time() * 1000)
    lines = [{"timestamp": now + number, "message": str(number)} for number in range(4)]
    logs.put_log_events(**named, logEvents=lines)
    first = logs.get_log_events(**named, limit=2, startFromHead=True)
    second = logs.get_log_events(**named, limit=2, startFromHead=True, nextToken=first["nextForwardToken"])
    assert [each["message"] for each in (*first["events"], *second["events"])] == ["0", "1", "2", "3"]
    back = logs.get_log_events(**named, limit=2, nextToken=second["nextBackwardToken"])
    assert [each["message"] for each in back["events"]] == ["0", "1"]
