"""Updates in a template, and what SageMaker's deployment guardrails refuse."""

from __future__ import annotations

from typing import Any

import pytest
from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    AllAtOnce,
    Async,
    Canary,
    Component,
    Components,
    Linear,
    RealTime,
    Rolling,
    Serverless,
    Variant,
)
from tests.support.hosting import endpoint_in, properties

Json = dict[str, Any]


def deployment(stack: Stack) -> Json:
    return dict(properties(stack, "AWS::SageMaker::Endpoint")["DeploymentConfig"])


def test_without_a_rollout_sagemaker_decides(stack: Stack) -> None:
    endpoint_in(stack)
    assert "DeploymentConfig" not in properties(stack, "AWS::SageMaker::Endpoint")


@pytest.mark.parametrize(
    ("rollout", "routing"),
    [
        (AllAtOnce(), {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300}),
        (
            Canary(percent=5, bake_seconds=60),
            {
                "Type": "CANARY",
                "WaitIntervalInSeconds": 60,
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 5},
            },
        ),
        (
            Linear(percent=50),
            {
                "Type": "LINEAR",
                "WaitIntervalInSeconds": 300,
                "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
            },
        ),
    ],
    ids=["all at once", "canary", "linear"],
)
def test_blue_green_updates_move_the_requests_and_keep_the_old_fleet_as_told(
    stack: Stack, rollout: Any, routing: Json
) -> None:
    endpoint_in(stack, rollout=rollout)
    assert deployment(stack) == {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 0}
    }


def test_waits_and_the_time_for_all_of_it_are_options(stack: Stack) -> None:
    endpoint_in(stack, rollout=Canary(keep_old_seconds=600, timeout_seconds=3600))
    policy = deployment(stack)["BlueGreenUpdatePolicy"]
    assert policy["TerminationWaitInSeconds"] == 600
    assert policy["MaximumExecutionTimeoutInSeconds"] == 3600


def test_a_rolling_update_replaces_a_batch_at_a_time(stack: Stack) -> None:
    endpoint_in(stack, rollout=Rolling(percent=20, rollback_percent=100, bake_seconds=120, timeout_seconds=7200))
    assert deployment(stack) == {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 20},
            "RollbackMaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 100},
            "WaitIntervalInSeconds": 120,
            "MaximumExecutionTimeoutInSeconds": 7200,
        }
    }


@pytest.mark.parametrize("rollout", [Canary(), Linear(), Rolling()], ids=["canary", "linear", "rolling"])
def test_a_part_of_a_single_instance_is_annotated(stack: Stack, rollout: Any) -> None:
    endpoint_in(stack, "One", rollout=rollout, endpoint_name="one")
    endpoint_in(stack, "Two", rollout=rollout, hosting=RealTime(instances=2), endpoint_name="two")
    endpoint_in(stack, "All", rollout=AllAtOnce(), endpoint_name="all")
    said = Match.string_like_regexp(r"of AllTraffic with one of its 'instances': any part of one is all of it")
    assert [each.id for each in Annotations.from_stack(stack).find_warning("*", said)] == ["/Test/One"]


def test_a_batch_of_a_single_copy_is_annotated(stack: Stack) -> None:
    parts = [Component(name="one", memory_mb=512), Component(name="two", memory_mb=512, copies=2)]
    endpoint_in(stack, rollout=Rolling(), hosting=Components(components=parts, maximum=1))
    said = Match.string_like_regexp("of one with one of its 'copies'")
    Annotations.from_stack(stack).has_warning("/Test/Bloom", said)


@pytest.mark.parametrize("rollout", [Canary, Rolling])
def test_alarms_roll_an_update_back_and_are_there_before_it(stack: Stack, rollout: Any) -> None:
    metric = cloudwatch.Metric(namespace="AWS/SageMaker", metric_name="Invocation5XXErrors")
    alarm = cloudwatch.Alarm(stack, "Errors", metric=metric, evaluation_periods=1, threshold=1)
    endpoint_in(stack, rollout=rollout(alarms=[alarm, "by-name"]))
    (alarm_id,) = Template.from_stack(stack).find_resources("AWS::CloudWatch::Alarm")
    assert deployment(stack)["AutoRollbackConfiguration"] == {
        "Alarms": [{"AlarmName": {"Ref": alarm_id}}, {"AlarmName": "by-name"}]
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AllAtOnce(alarms=["a"] * 11), r"'alarms' \(11\) must be from 1 to 10: combine some"),
        (lambda: AllAtOnce(bake_seconds=3601), r"'bake_seconds' \(3601\) must be from 0 to 3600"),
        (lambda: AllAtOnce(keep_old_seconds=3601), r"'keep_old_seconds' \(3601\) must be from 0 to 3600"),
        (lambda: AllAtOnce(timeout_seconds=599), r"'timeout_seconds' \(599\) must be from 600 to 28800"),
        (
            lambda: Canary(bake_seconds=900, keep_old_seconds=900, timeout_seconds=1800),
            r"'timeout_seconds' \(1800\) must be 1801 or more: the waits alone take longer",
        ),
        (lambda: Canary(percent=51), r"'percent' \(51\) must be from 1 to 50: a canary is the smaller part"),
        (lambda: Linear(percent=9), r"'percent' \(9\) must be from 10 to 50: a smaller first step is a Canary"),
        (lambda: Rolling(percent=4), r"'percent' \(4\) must be from 5 to 50"),
        (lambda: Rolling(rollback_percent=101), r"'rollback_percent' \(101\) must be from 5 to 100"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_guardrails_are_for_instances_and_rolling_for_one_variant(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'rollout' \(Canary\) is for instances, and Serverless has none"):
        endpoint_in(stack, "A", hosting=Serverless(), rollout=Canary())
    for construct_id, hosting in (
        ("B", RealTime(variants=[Variant(name="Other")])),
        ("C", RealTime(shadow=Variant(name="Other"))),
    ):
        with pytest.raises(ValueError, match=r"'rollout' \(Rolling\) is for one variant: take AllAtOnce, Canary or"):
            endpoint_in(stack, construct_id, hosting=hosting, rollout=Rolling())
    endpoint_in(stack, "D", hosting=Async(), rollout=Rolling())
