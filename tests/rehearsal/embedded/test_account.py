"""CloudFormation, list operations and logs, as `cdk deploy` and `aws logs tail` use them."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.embedded import Aws, deploy, events, settled, wait_for
from tests.support.endpoints import answer, endpoint

Json = dict[str, Any]

TEMPLATE: Json = {
    "Parameters": {
        "Name": {"Type": "String", "AllowedPattern": "[a-z]*", "MaxLength": 8},
        "Count": {"Type": "Number", "Default": 1, "MinValue": 1},
        "Size": {"Type": "String", "Default": "small", "AllowedValues": ["small", "large"]},
    },
    "Conditions": {"IsLarge": {"Fn::Equals": [{"Ref": "Size"}, "large"]}},
    "Resources": {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Ref": "Name"}}},
        "Second": {"Type": "AWS::SNS::Topic", "Condition": "IsLarge"},
    },
}
GIVEN = [{"ParameterKey": "Name", "ParameterValue": "n"}]


def body(**outputs: Any) -> str:
    return json.dumps({**TEMPLATE, **({"Outputs": outputs} if outputs else {})})


def test_an_update_of_tags_alone_is_one_and_the_same_tags_again_are_none(aws: Aws) -> None:
    client = aws.client("cloudformation")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    role = aws.create_role("tagging", "cloudformation.amazonaws.com", Everything=everything)
    made = {"StackName": "tagged", "TemplateBody": body(), "Parameters": GIVEN}
    client.create_stack(**made, Tags=[{"Key": "team", "Value": "a"}], TimeoutInMinutes=7, RoleARN=role)
    described = settled(aws, "tagged")
    assert (described["TimeoutInMinutes"], described["RoleARN"]) == (7, role)
    client.update_stack(**made, Tags=[{"Key": "team", "Value": "b"}])
    described = settled(aws, "tagged")
    assert (described["StackStatus"], described["Tags"]) == ("UPDATE_COMPLETE", [{"Key": "team", "Value": "b"}])
    with pytest.raises(ClientError, match="No updates are to be performed"):
        client.update_stack(**made, Tags=[{"Key": "team", "Value": "b"}])
    change = {**made, "ChangeSetName": "tags", "ChangeSetType": "UPDATE", "Tags": [{"Key": "team", "Value": "c"}]}
    client.create_change_set(**change)
    found = client.describe_change_set(StackName="tagged", ChangeSetName="tags")
    assert (found["Status"], found["ExecutionStatus"]) == ("CREATE_COMPLETE", "AVAILABLE")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([], r"Parameters: \[Name\] must have values"),
        ([*GIVEN, {"ParameterKey": "Nmae", "ParameterValue": "n"}], r"Parameters: \[Nmae\] do not exist"),
        ([*GIVEN, {"ParameterKey": "Size", "ParameterValue": "huge"}], "'Size' must be one of AllowedValues"),
        ([{"ParameterKey": "Name", "ParameterValue": "N"}], r"'Name' must match pattern \[a-z\]\*"),
        ([{"ParameterKey": "Name", "ParameterValue": "n" * 9}], "'Name' must contain at most 8 characters"),
        ([*GIVEN, {"ParameterKey": "Count", "ParameterValue": "0"}], "'Count' must be a number not less than 1"),
        ([*GIVEN, {"ParameterKey": "Count", "ParameterValue": "one"}], "'Count' must be a number"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_at_once(aws: Aws, parameters: Any, message: str) -> None:
    client = aws.client("cloudformation")
    with pytest.raises(ClientError, match=message):
        client.create_stack(StackName="unfit", TemplateBody=body(), Parameters=parameters)
    with pytest.raises(ClientError, match="does not exist"):
        client.describe_stacks(StackName="unfit")


def test_an_output_of_what_its_condition_leaves_out_is_refused_at_once(aws: Aws) -> None:
    client = aws.client("cloudformation")
    with pytest.raises(ClientError, match=r"Unresolved resource dependencies \[Second\] in the Outputs block"):
        client.create_stack(StackName="out", TemplateBody=body(It={"Value": {"Ref": "Second"}}), Parameters=GIVEN)
    conditional = body(It={"Value": {"Ref": "Second"}, "Condition": "IsLarge"})
    client.create_stack(StackName="out", TemplateBody=conditional, Parameters=GIVEN)
    assert settled(aws, "out")["StackStatus"] == "CREATE_COMPLETE"


def test_lists_filter_by_name_and_time(aws: Aws) -> None:
    endpoint(aws, "listed-here")
    sagemaker = aws.client("sagemaker")
    past, future = (datetime.now(timezone.utc) + timedelta(hours=each) for each in (-1, 1))
    named = {"NameContains": "listed-here"}
    for key in ("LastModifiedTime", "CreationTime"):
        assert len(sagemaker.list_endpoints(**named, **{f"{key}After": past, f"{key}Before": future})["Endpoints"]) == 1
        assert sagemaker.list_endpoints(**named, **{f"{key}After": future})["Endpoints"] == []
    assert [each["ModelName"] for each in sagemaker.list_models(**named)["Models"]] == ["listed-here"]


def test_the_containers_output_is_in_cloudwatch_logs_and_is_filtered_by_time_and_words(aws: Aws) -> None:
    before = int(time.time() * 1000) - 1000
    endpoint(aws, "tails", GREETING="good-morning")
    assert answer(aws, "tails").startswith("good-morning")
    group, logs = "/aws/sagemaker/Endpoints/tails", aws.client("logs")

    def found(**asked: Any) -> list[str]:
        return [each["message"] for each in logs.filter_log_events(logGroupName=group, **asked)["events"]]

    wait_for(lambda: bool(found(startTime=before)))
    assert found(startTime=before) == ["serving with ['serve'] as good-morning"]
    assert found(startTime=before, endTime=before + 1) == []
    assert found(filterPattern='"good-morning"')
    assert not found(filterPattern='"good-evening"')
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert stream["logStreamName"].startswith("AllTraffic/i-")
    assert found(logStreamNamePrefix="AllTraffic/") == found()


def test_a_container_that_dies_in_service_is_started_again(aws: Aws) -> None:
    endpoint(aws, "mortal", GREETING="again")
    done = aws.request("POST", "/_embedded/containers/mortal/death")
    assert (done.status, done.body) == (200, b"1\n")

    def answers() -> bool:
        try:
            return answer(aws, "mortal").startswith("again")
        except ClientError:
            return False

    wait_for(answers)
    assert aws.client("sagemaker").describe_endpoint(EndpointName="mortal")["EndpointStatus"] == "InService"
    assert aws.request("POST", "/_embedded/containers/nobody/death").body == b"0\n"
    # as a scenario: each container ends once, so many seconds after it came into service
    assert aws.request("POST", "/_embedded/scenarios", '{"container_seconds": 0.2}').status == 200
    try:
        endpoint(aws, "short-lived", GREETING="again")
    finally:
        aws.request("DELETE", "/_embedded/scenarios")
    logs = aws.client("logs")

    def starts() -> int:
        found = logs.filter_log_events(logGroupName="/aws/sagemaker/Endpoints/short-lived", filterPattern="serving")
        return len(found["events"])

    wait_for(lambda: starts() == 2)
    wait_for(lambda: answer(aws, "short-lived").startswith("again"))


def test_events_of_several_streams_are_in_the_order_of_their_times_and_found_by_a_prefix(aws: Aws) -> None:
    logs, group = aws.client("logs"), "/ordered"
    logs.create_log_group(logGroupName=group)
    now = int(time.time() * 1000)
    for stream, offset in {"a/1": 0, "a/2": 1, "b/1": 2}.items():
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        written = [{"timestamp": now + offset + 10 * number, "message": f"{stream} {number}"} for number in range(2)]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=written)

    def found(**asked: Any) -> list[str]:
        pages = logs.get_paginator("filter_log_events").paginate(**asked, PaginationConfig={"PageSize": 2})
        return [each["message"] for page in pages for each in page["events"]]

    everything = ["a/1 0", "a/2 0", "b/1 0", "a/1 1", "a/2 1", "b/1 1"]
    assert found(logGroupName=group) == everything
    assert found(logGroupName=group, logStreamNamePrefix="a/") == [each for each in everything if each[0] == "a"]
    assert found(logGroupName=group, logStreamNamePrefix="c/") == []
    arn = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["arn"].removesuffix(":*")
    assert found(logGroupIdentifier=arn, filterPattern="?b ?2") == [each for each in everything if each[:3] != "a/1"]


def test_events_and_resources_of_a_stack_come_in_pages_and_tell_of_each_resource_itself(aws: Aws) -> None:
    client = aws.client("cloudformation")
    group: Json = {"Type": "AWS::Logs::LogGroup", "DeletionPolicy": "Delete"}
    deploy(aws, "in-pages", {"Resources": {f"Group{number}": group for number in range(101)}})
    first = client.describe_stack_events(StackName="in-pages")
    assert len(first["StackEvents"]) == 100
    everything = [
        each
        for page in client.get_paginator("describe_stack_events").paginate(StackName="in-pages")
        for each in page["StackEvents"]
    ]
    assert len({each["EventId"] for each in everything}) == len(everything) == 2 * 102
    with pytest.raises(ClientError, match="The specified NextToken is invalid: none"):
        client.describe_stack_events(StackName="in-pages", NextToken="none")
    resources = client.get_paginator("list_stack_resources").paginate(StackName="in-pages")
    assert [len(page["StackResourceSummaries"]) for page in resources] == [100, 1]
    one = client.describe_stack_resource(StackName="in-pages", LogicalResourceId="Group7")["StackResourceDetail"]
    mine = [each for each in everything if each["LogicalResourceId"] == "Group7"]
    assert (one["ResourceStatus"], one["LastUpdatedTimestamp"]) == ("CREATE_COMPLETE", mine[0]["Timestamp"])
    assert one["DriftInformation"] == {"StackResourceDriftStatus": "NOT_CHECKED"}
    # an update that fails leaves the other resources as they were
    template = {"Resources": {"Group0": group, "Bad": {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": 901}}}}
    client.update_stack(StackName="in-pages", TemplateBody=json.dumps(template))
    assert settled(aws, "in-pages")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    (reason,) = [why for _, status, why in events(aws, "in-pages") if status == "CREATE_FAILED"]
    assert reason.endswith("[#/DelaySeconds: failed validation constraint for keyword [maximum]]")
    states = client.list_stack_resources(StackName="in-pages")["StackResourceSummaries"]
    assert {each["ResourceStatus"] for each in states} == {"CREATE_COMPLETE"}


def test_protection_is_switched_and_change_sets_are_listed_by_their_stack(aws: Aws) -> None:
    client = aws.client("cloudformation")
    template = {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}
    for name in ("protected-later", "neighbour"):
        deploy(aws, name, template)
    client.update_termination_protection(StackName="protected-later", EnableTerminationProtection=True)
    with pytest.raises(ClientError, match="cannot be deleted while TerminationProtection is enabled"):
        client.delete_stack(StackName="protected-later")
    client.update_termination_protection(StackName="protected-later", EnableTerminationProtection=False)
    changed = {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 7}}}}
    client.create_change_set(StackName="neighbour", ChangeSetName="mine", TemplateBody=json.dumps(changed))
    listed = {
        name: [each["ChangeSetName"] for each in client.list_change_sets(StackName=name)["Summaries"]]
        for name in ("protected-later", "neighbour")
    }
    assert listed == {"protected-later": [], "neighbour": ["mine"]}
    with pytest.raises(ClientError, match="does not exist"):
        client.list_change_sets(StackName="absent")
    client.delete_stack(StackName="protected-later")
    left_out: Json = {
        "Conditions": {"Never": {"Fn::Equals": ["a", "b"]}},
        "Resources": {
            "Gone": {"Type": "AWS::Logs::LogGroup", "Condition": "Never"},
            "Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": {"Fn::Sub": "${Gone}-x"}}},
        },
    }
    with pytest.raises(ClientError, match=r"Unresolved resource dependencies \[Gone\] in the Resources block"):
        deploy(aws, "left-out", left_out)
    properties = left_out["Resources"]["Group"]["Properties"]
    properties["LogGroupName"] = {"Fn::If": ["Never", {"Ref": "Gone"}, "taken"]}
    assert deploy(aws, "left-out", left_out)["StackStatus"] == "CREATE_COMPLETE"
