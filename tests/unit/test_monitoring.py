"""Log group, alarms and dashboard in a template: metrics, dimensions and units as AWS documents them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Stack
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk.assertions import Match, Template

from extended_dlc import (
    Async,
    BacklogScaling,
    Canary,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    Monitoring,
    RealTime,
    Serverless,
    StockDlc,
    Variant,
)
from extended_dlc.options.monitoring import ALARMS

IMAGE = "registry.example.com/huggingface-pytorch-inference:2.6.0-transformers4.51.3-{}-py312-{}ubuntu22.04-v2.0"
GPU = IMAGE.format("gpu", "cu124-")
CPU = IMAGE.format("cpu", "")
FOUR_GPUS = "ml.g5.12xlarge"

Json = dict[str, Any]


def watched(
    stack: Stack, *, base: str = CPU, monitoring: Monitoring | None = None, **options: Any
) -> HuggingFaceEndpoint:
    """A watched endpoint on an image that is not built."""
    return HuggingFaceEndpoint(
        stack,
        "Bloom",
        endpoint_name="bloom",
        model=HubModel("bigscience/bloom-560m", revision="a" * 40),
        **{"image": StockDlc(base=base), "monitoring": monitoring or Monitoring(), **options},
    )


def alarms(stack: Stack) -> dict[str, Json]:
    """The alarms of a template by their metrics."""
    found = Template.from_stack(stack).find_resources("AWS::CloudWatch::Alarm").values()
    return {each["Properties"]["MetricName"]: each["Properties"] for each in found}


def dimensions(alarm: Mapping[str, Any]) -> Json:
    return {each["Name"]: each["Value"] for each in alarm.get("Dimensions", ())}


def statistic(alarm: Mapping[str, Any]) -> str:
    return str(alarm.get("Statistic") or alarm["ExtendedStatistic"])


VARIANT = {"EndpointName": "bloom", "VariantName": "AllTraffic"}


# SageMaker developer guide, "Amazon SageMaker AI metrics in Amazon CloudWatch": latencies in microseconds, errors 0 or
# 1 a request, GPU percentages added up over the GPUs
@pytest.mark.parametrize(
    ("metric", "namespace", "statistic_", "threshold"),
    [
        ("Invocation4XXErrors", "AWS/SageMaker", "Average", 0.25),
        ("Invocation5XXErrors", "AWS/SageMaker", "Average", 0.01),
        ("ModelLatency", "AWS/SageMaker", "p99", 30_000_000),
        ("OverheadLatency", "AWS/SageMaker", "p99", 5_000_000),
        ("MemoryUtilization", "/aws/sagemaker/Endpoints", "Maximum", 90),
        ("GPUUtilization", "/aws/sagemaker/Endpoints", "Average", 4 * 95),
        ("GPUMemoryUtilization", "/aws/sagemaker/Endpoints", "Maximum", 4 * 95),
        ("DiskUtilization", "/aws/sagemaker/Endpoints", "Maximum", 85),
    ],
)
def test_a_real_time_endpoint_is_watched_by_what_sagemaker_publishes_of_a_variant(
    stack: Stack, metric: str, namespace: str, statistic_: str, threshold: float
) -> None:
    watched(stack, base=GPU, hosting=RealTime(instance_type=FOUR_GPUS))
    alarm = alarms(stack)[metric]
    assert alarm["Namespace"] == namespace
    assert statistic(alarm) == statistic_
    assert dimensions(alarm) == VARIANT
    assert alarm["Threshold"] == pytest.approx(threshold)
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
    assert alarm["TreatMissingData"] == "notBreaching"
    assert alarm["AlarmDescription"].startswith("bloom: ")


def test_an_endpoint_that_nobody_calls_for_a_day_is_an_alarm_because_no_request_is_no_data(stack: Stack) -> None:
    watched(stack)
    idle = alarms(stack)["Invocations"]
    assert (idle["ComparisonOperator"], idle["Threshold"], statistic(idle)) == ("LessThanThreshold", 1, "Sum")
    assert (idle["Period"], idle["EvaluationPeriods"], idle["TreatMissingData"]) == (3600, 24, "breaching")


def test_without_a_gpu_there_are_no_alarms_for_gpus(stack: Stack) -> None:
    watched(stack)
    assert not {"GPUUtilization", "GPUMemoryUtilization"} & alarms(stack).keys()
    assert "MemoryUtilization" in alarms(stack)


def test_a_queue_is_watched_by_the_age_of_its_oldest_request_and_by_nothing_that_it_does_not_publish(
    stack: Stack,
) -> None:
    watched(stack, hosting=Async())
    found = alarms(stack)
    age = found["ApproximateAgeOfOldestRequest"]
    assert dimensions(age) == {"EndpointName": "bloom"}  # of the endpoint, not of a variant
    assert (statistic(age), age["Threshold"]) == ("Maximum", 900)
    # "Alarms and logs for tracking metrics from asynchronous endpoints": these are not published
    assert not {"Invocations", "InvocationsPerInstance", "OverheadLatency"} & found.keys()
    idle = found["TotalProcessingTime"]
    assert (statistic(idle), idle["TreatMissingData"]) == ("SampleCount", "breaching")


def test_an_endpoint_that_goes_down_to_no_instance_costs_nothing_while_idle(stack: Stack) -> None:
    watched(stack, hosting=Async(scaling=BacklogScaling(maximum=2)))
    assert "TotalProcessingTime" not in alarms(stack)
    assert "ApproximateAgeOfOldestRequest" in alarms(stack)


def test_serverless_is_watched_by_what_it_publishes(stack: Stack) -> None:
    watched(stack, hosting=Serverless())
    assert alarms(stack).keys() == {
        "Invocation4XXErrors",
        "Invocation5XXErrors",
        "ModelLatency",
        "MemoryUtilization",
    }


def test_each_variant_has_its_alarms(stack: Stack) -> None:
    endpoint = watched(stack, hosting=RealTime(variants=[Variant(name="Next", weight=0.1)]))
    assert {"server-errors", "Next/server-errors"} <= endpoint.watch.alarms.keys()  # type: ignore[union-attr]
    Template.from_stack(stack).has_resource_properties(
        "AWS::CloudWatch::Alarm",
        {
            "MetricName": "Invocation5XXErrors",
            "Dimensions": [
                {"Name": "EndpointName", "Value": "bloom"},
                {"Name": "VariantName", "Value": "Next"},
            ],
        },
    )


def test_an_alarm_has_another_threshold_or_is_left_out_on_request(stack: Stack) -> None:
    watched(stack, monitoring=Monitoring(alarms={"model-latency": 2.5, "idle": 3, "disk": None}))
    found = alarms(stack)
    assert found["ModelLatency"]["Threshold"] == 2_500_000
    assert found["Invocations"]["EvaluationPeriods"] == 3
    assert "DiskUtilization" not in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alarms": {"latency": 1}}, r"'alarms' \(latency\) is no alarm; did you mean 'model-latency'\?"),
        ({"alarms": {"xyz": 1}}, r"'alarms' \(xyz\) is no alarm: there are client-errors, server-errors"),
        ({"alarms": {"idle": 200}}, r"'alarms.idle' \(200\) must be from 1 to 168: CloudWatch looks back a week"),
        ({"alarms": {"disk": -1}}, r"'alarms.disk' \(-1\) must be 0 or more: None for no such alarm"),
        ({"alarm_topic": "ops"}, r"'alarm_topic' \(ops\) must be a topic, or 'new'"),
    ],
)
def test_what_is_no_alarm_is_refused(options: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Monitoring(**options)


def test_a_new_topic_is_told_when_an_alarm_goes_off_and_when_it_is_over(stack: Stack) -> None:
    watched(stack, monitoring=Monitoring(alarm_topic="new"))
    template = Template.from_stack(stack)
    (topic,) = template.find_resources("AWS::SNS::Topic")
    for alarm in alarms(stack).values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic}]
    template.has_resource_properties(
        "AWS::SNS::TopicPolicy",
        {
            "PolicyDocument": {
                "Statement": Match.array_with(
                    [Match.object_like({"Principal": {"Service": "cloudwatch.amazonaws.com"}, "Action": "sns:Publish"})]
                )
            }
        },
    )


def test_a_given_topic_is_told(stack: Stack) -> None:
    topic = sns.Topic.from_topic_arn(stack, "Ops", "arn:aws:sns:us-east-1:123456789012:ops")
    watched(stack, monitoring=Monitoring(alarm_topic=topic))
    assert alarms(stack)["Invocations"]["AlarmActions"] == ["arn:aws:sns:us-east-1:123456789012:ops"]
    Template.from_stack(stack).resource_count_is("AWS::SNS::Topic", 0)


def test_the_log_group_is_there_before_sagemaker_would_make_it(stack: Stack) -> None:
    watched(stack, monitoring=Monitoring(log_retention=logs.RetentionDays.ONE_WEEK))
    template = Template.from_stack(stack)
    (group,) = template.find_resources(
        "AWS::Logs::LogGroup",
        {"Properties": {"LogGroupName": "/aws/sagemaker/Endpoints/bloom", "RetentionInDays": 7}},
    )
    (endpoint,) = template.find_resources("AWS::SageMaker::Endpoint").values()
    assert group in endpoint["DependsOn"]


def test_our_server_s_log_is_counted_and_watched(stack: Stack) -> None:
    watched(stack, image=ExtendedDlc(stack, "Image", transformers="5.23.0"))
    Template.from_stack(stack).has_resource_properties(
        "AWS::Logs::MetricFilter",
        {
            "FilterPattern": '{ $.code = "out-of-memory" }',
            "MetricTransformations": [
                {
                    "MetricNamespace": "ExtendedDlc/bloom",
                    "MetricName": "OutOfMemory",
                    "MetricValue": "1",
                    "DefaultValue": 0,
                }
            ],
        },
    )
    alarm = alarms(stack)["OutOfMemory"]
    assert (alarm["Namespace"], statistic(alarm), alarm["Threshold"]) == ("ExtendedDlc/bloom", "Sum", 0)
    assert dimensions(alarm) == {}


def test_the_stock_server_s_log_has_nothing_to_count(stack: Stack) -> None:
    watched(stack)
    Template.from_stack(stack).resource_count_is("AWS::Logs::MetricFilter", 0)
    assert not {"OutOfMemory", "QueueFull"} & alarms(stack).keys()


def test_the_endpoint_s_own_alarms_roll_an_update_back_unless_the_rollout_names_others(stack: Stack) -> None:
    watched(stack, rollout=Canary())
    template = Template.from_stack(stack)
    (endpoint,) = template.find_resources("AWS::SageMaker::Endpoint").values()
    rollback = endpoint["Properties"]["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    named = {template.to_json()["Resources"][each["AlarmName"]["Ref"]]["Properties"]["MetricName"] for each in rollback}
    assert named == {"Invocation5XXErrors", "ModelLatency"}


def test_a_rollout_s_alarms_come_before_the_endpoint_s_own(stack: Stack) -> None:
    watched(stack, rollout=Canary(alarms=["theirs"]))
    (endpoint,) = Template.from_stack(stack).find_resources("AWS::SageMaker::Endpoint").values()
    rollback = endpoint["Properties"]["DeploymentConfig"]["AutoRollbackConfiguration"]
    assert rollback == {"Alarms": [{"AlarmName": "theirs"}]}


def test_the_dashboard_shows_requests_latency_and_instances(stack: Stack) -> None:
    watched(stack, base=GPU, hosting=RealTime(instance_type=FOUR_GPUS))
    (dashboard,) = Template.from_stack(stack).find_resources("AWS::CloudWatch::Dashboard").values()
    text = json.dumps(dashboard)
    for metric in ("Invocations", "ModelLatency", "GPUUtilization", "DiskUtilization"):
        assert metric in text


def test_there_is_no_dashboard_on_request(stack: Stack) -> None:
    watched(stack, monitoring=Monitoring(dashboard=False))
    Template.from_stack(stack).resource_count_is("AWS::CloudWatch::Dashboard", 0)


def test_an_endpoint_that_nobody_asked_to_watch_has_nothing_of_it(stack: Stack) -> None:
    model = HubModel("bloom", revision="a" * 40)
    HuggingFaceEndpoint(stack, "Bloom", model=model, image=StockDlc(base=CPU), verify=False)
    template = Template.from_stack(stack)
    for kind in ("AWS::Logs::LogGroup", "AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard"):
        template.resource_count_is(kind, 0)


def test_metrics_for_alarms_of_one_s_own_know_the_endpoint_by_its_name(stack: Stack) -> None:
    endpoint = HuggingFaceEndpoint.from_endpoint_name(stack, "Theirs", "speech")
    metric = endpoint.metric_model_latency(variant="Next")
    assert (metric.namespace, metric.metric_name, metric.statistic) == ("AWS/SageMaker", "ModelLatency", "p99")
    assert metric.dimensions == {"EndpointName": "speech", "VariantName": "Next"}
    assert endpoint.metric_invocations().statistic == "Sum"
    assert endpoint.metric_client_errors().metric_name == "Invocation4XXErrors"
    assert endpoint.metric_server_errors().metric_name == "Invocation5XXErrors"
    assert endpoint.metric_overhead_latency(statistic="p50").statistic == "p50"


def test_the_guide_has_each_alarm_with_its_own_threshold_and_metric() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*)$", guide, re.MULTILINE))
    assert rows.keys() == ALARMS.keys()
    for name, kind in ALARMS.items():
        assert f"`{kind.metric}`" in rows[name]
        assert name == "out-of-memory" or f" {kind.threshold:g} " in rows[name]
