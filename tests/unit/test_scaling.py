"""Scaling in a template, beside the names that AWS documents (SageMaker developer guide, automatic scaling)."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from aws_cdk import Stack
from aws_cdk.assertions import Template

from extended_dlc import (
    Async,
    BacklogScaling,
    ConcurrencyScaling,
    InvocationScaling,
    ProvisionedScaling,
    RealTime,
    ScheduledCapacity,
    Serverless,
)
from tests.support.hosting import endpoint_in, properties

Json = dict[str, Any]

BY_LOAD = InvocationScaling(maximum=4, requests_per_second=3)


def tracking(stack: Stack) -> Json:
    found = Template.from_stack(stack).find_resources(
        "AWS::ApplicationAutoScaling::ScalingPolicy", {"Properties": {"PolicyType": "TargetTrackingScaling"}}
    )
    (only,) = found.values()
    return dict(only["Properties"]["TargetTrackingScalingPolicyConfiguration"])


def target(stack: Stack) -> Json:
    return properties(stack, "AWS::ApplicationAutoScaling::ScalableTarget")


def test_real_time_instances_follow_the_requests_a_minute_that_each_gets(stack: Stack) -> None:
    endpoint_in(stack, hosting=RealTime(scaling=BY_LOAD))
    assert target(stack) == {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/bloom/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "MinCapacity": 1,
        "MaxCapacity": 4,
    }
    assert tracking(stack) == {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        "TargetValue": 3 * 0.5 * 60,
        "ScaleInCooldown": 300,
        "ScaleOutCooldown": 300,
    }


def test_real_time_instances_follow_the_requests_that_each_works_on_at_high_resolution(stack: Stack) -> None:
    scaling = ConcurrencyScaling(maximum=4, concurrent_requests=8, scale_in_seconds=600, scale_out_seconds=60)
    endpoint_in(stack, hosting=RealTime(scaling=scaling))
    assert tracking(stack) == {
        "PredefinedMetricSpecification": {
            "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        },
        "TargetValue": 8,
        "ScaleInCooldown": 600,
        "ScaleOutCooldown": 60,
    }


def test_provisioned_concurrency_follows_its_use(stack: Stack) -> None:
    endpoint_in(stack, hosting=Serverless(provisioned_concurrency=2, scaling=ProvisionedScaling(maximum=5)))
    assert target(stack)["ScalableDimension"] == "sagemaker:variant:DesiredProvisionedConcurrency"
    found = tracking(stack)
    assert found["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerVariantProvisionedConcurrencyUtilization"
    }
    assert found["TargetValue"] == 0.7


def test_asynchronous_instances_follow_the_backlog_of_the_endpoint_not_of_its_variant(stack: Stack) -> None:
    endpoint_in(stack, hosting=Async(scaling=BacklogScaling(maximum=3, backlog_per_instance=2)))
    assert target(stack)["MinCapacity"] == 0
    assert tracking(stack) == {
        "CustomizedMetricSpecification": {
            "Namespace": "AWS/SageMaker",
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Dimensions": [{"Name": "EndpointName", "Value": "bloom"}],
            "Statistic": "Average",
        },
        "TargetValue": 2,
        "ScaleInCooldown": 300,
        "ScaleOutCooldown": 300,
    }


def test_a_request_wakes_an_asynchronous_endpoint_that_has_no_instance(stack: Stack) -> None:
    endpoint_in(stack, hosting=Async(scaling=BacklogScaling(maximum=3)))
    policies = Template.from_stack(stack).find_resources(
        "AWS::ApplicationAutoScaling::ScalingPolicy", {"Properties": {"PolicyType": "StepScaling"}}
    )
    ((name, policy),) = policies.items()
    assert policy["Properties"]["StepScalingPolicyConfiguration"] == {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": 300,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
    }
    alarm = properties(stack, "AWS::CloudWatch::Alarm")
    assert {key: value for key, value in alarm.items() if key != "AlarmDescription"} == {
        "Namespace": "AWS/SageMaker",
        "MetricName": "HasBacklogWithoutCapacity",
        "Dimensions": [{"Name": "EndpointName", "Value": "bloom"}],
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": [{"Ref": name}],
    }


def test_an_asynchronous_endpoint_that_keeps_an_instance_needs_no_waking(stack: Stack) -> None:
    endpoint_in(stack, hosting=Async(scaling=BacklogScaling(minimum=1, maximum=3)))
    Template.from_stack(stack).resource_count_is("AWS::CloudWatch::Alarm", 0)


def test_an_asynchronous_endpoint_that_sleeps_by_the_clock_is_woken_too(stack: Stack) -> None:
    night = ScheduledCapacity(schedule="cron(0 20 * * ? *)", minimum=0)
    endpoint_in(stack, hosting=Async(scaling=BacklogScaling(minimum=1, maximum=3, schedules=[night])))
    Template.from_stack(stack).resource_count_is("AWS::CloudWatch::Alarm", 1)


def test_limits_change_by_the_clock(stack: Stack) -> None:
    morning = ScheduledCapacity(schedule="cron(0 8 ? * MON-FRI *)", minimum=2, maximum=8, timezone="Europe/Berlin")
    evening = ScheduledCapacity(schedule="cron(0 18 ? * MON-FRI *)", minimum=1)
    scaling = InvocationScaling(maximum=4, requests_per_second=3, schedules=[morning, evening])
    endpoint_in(stack, hosting=RealTime(scaling=scaling))
    assert target(stack)["ScheduledActions"] == [
        {
            "ScheduledActionName": "Schedule1",
            "Schedule": "cron(0 8 ? * MON-FRI *)",
            "Timezone": "Europe/Berlin",
            "ScalableTargetAction": {"MinCapacity": 2, "MaxCapacity": 8},
        },
        {
            "ScheduledActionName": "Schedule2",
            "Schedule": "cron(0 18 ? * MON-FRI *)",
            "Timezone": "UTC",
            "ScalableTargetAction": {"MinCapacity": 1},
        },
    ]


def test_the_target_waits_for_the_endpoint_that_it_names(stack: Stack) -> None:
    endpoint_in(stack, hosting=RealTime(scaling=BY_LOAD))
    template = Template.from_stack(stack)
    (endpoint_id,) = template.find_resources("AWS::SageMaker::Endpoint")
    (found,) = template.find_resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
    assert found["DependsOn"] == [endpoint_id]


def test_an_update_keeps_the_scaled_count_lets_weights_change_and_asks_for_nothing_unsupported(stack: Stack) -> None:
    endpoint_in(stack, hosting=RealTime(scaling=BY_LOAD))
    found = properties(stack, "AWS::SageMaker::Endpoint")
    assert found["RetainAllVariantProperties"] is True
    assert found["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DesiredWeight"}]


@pytest.mark.parametrize(
    "hosting",
    [RealTime(), Async(), Serverless(provisioned_concurrency=1, scaling=ProvisionedScaling(maximum=2))],
    ids=["real-time", "async", "serverless"],
)
def test_an_endpoint_whose_instances_do_not_scale_takes_its_count_from_the_config(stack: Stack, hosting: Any) -> None:
    endpoint_in(stack, hosting=hosting)
    found = properties(stack, "AWS::SageMaker::Endpoint")
    assert "RetainAllVariantProperties" not in found
    assert "ExcludeRetainedVariantProperties" not in found


@pytest.mark.parametrize(
    "hosting",
    [
        RealTime(scaling=BY_LOAD),
        RealTime(scaling=ConcurrencyScaling(maximum=2, concurrent_requests=1)),
        Serverless(provisioned_concurrency=1, scaling=ProvisionedScaling(maximum=2)),
    ],
)
def test_application_auto_scaling_knows_each_predefined_metric_and_dimension(stack: Stack, hosting: Any) -> None:
    endpoint_in(stack, hosting=hosting)
    service = botocore.session.get_session().get_service_model("application-autoscaling")
    metric = tracking(stack)["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert metric in service.shape_for("MetricType").enum
    assert target(stack)["ScalableDimension"] in service.shape_for("ScalableDimension").enum


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InvocationScaling(maximum=1, minimum=2, requests_per_second=1), r"'minimum' \(2\) must not exceed"),
        (lambda: InvocationScaling(maximum=1, minimum=0, requests_per_second=1), "InvocationScaling keeps 1 or more"),
        (lambda: BacklogScaling(maximum=0), r"'minimum' \(0\) must not exceed 'maximum' \(0\), and that not be 0"),
        (lambda: BacklogScaling(maximum=1, backlog_per_instance=0), r"'backlog_per_instance' \(0\) must be above 0"),
        (lambda: InvocationScaling(maximum=1, requests_per_second=0), r"'requests_per_second' \(0\) must be above 0"),
        (
            lambda: InvocationScaling(maximum=1, requests_per_second=1, safety_factor=1.1),
            r"'safety_factor' \(1.1\) must be above 0 and at most 1: give a part of the measured load",
        ),
        (lambda: ConcurrencyScaling(maximum=1, concurrent_requests=0), r"'concurrent_requests' \(0\) must be above 0"),
        (lambda: ProvisionedScaling(maximum=1, utilization=70), r"'utilization' \(70\) must be above 0 and at most 1"),
        (lambda: BacklogScaling(maximum=1, scale_in_seconds=-1), r"'scale_in_seconds' \(-1\) must be 0 or more"),
        (lambda: BacklogScaling(maximum=1, scale_out_seconds=-1), r"'scale_out_seconds' \(-1\) must be 0 or more"),
        (lambda: ScheduledCapacity(schedule="8:00", minimum=1), r"'schedule' \(8:00\) is not a schedule: write it"),
        (lambda: ScheduledCapacity(schedule="cron(0 8 * * 1)", minimum=1), "has 5 fields, and a schedule has 6"),
        (lambda: ScheduledCapacity(schedule="at(tomorrow)", minimum=1), r"or for one time as 'at\(2027-01-01T"),
        (
            lambda: ScheduledCapacity(schedule="rate(1 day)", minimum=1, timezone="CET+1"),
            r"'timezone' \(CET\+1\) is not in the time zone database",
        ),
        (lambda: ScheduledCapacity(schedule="rate(1 day)"), "changes nothing: set minimum, maximum or both"),
        (
            lambda: InvocationScaling(
                maximum=1,
                requests_per_second=1,
                schedules=[ScheduledCapacity(schedule="rate(1 day)", minimum=0)],
            ),
            r"'schedules.minimum' \(0\) must be 1 or more",
        ),
    ],
)
def test_scaling_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
