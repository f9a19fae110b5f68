"""Watching, the switch and the proof, as the app's settings say them."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from stacks.endpoint_stack import EndpointStack
from tests.support.settings import SettingsError, read, read_settings

Json = dict[str, Any]
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
TOPIC = "arn:aws:sns:us-east-1:123456789012:ops"


def settings(endpoint: Json, **others: Any) -> Json:
    image = {"kind": "stock", "transformers": "4.51.3"}
    given = {"model": "bloom", **endpoint}
    return {"extended-dlc": {"region": "us-east-1", "image": image, "endpoints": {"bloom": given}, **others}}


def template(raw: Json) -> Template:
    stack = EndpointStack(cdk.App(), "Stack", read=read(raw), env=cdk.Environment(region="us-east-1"))
    return Template.from_stack(stack)


def test_an_endpoint_is_watched_as_the_settings_say() -> None:
    monitoring = {
        "alarms": {"model-latency": 5, "idle": None},
        "alarm_topic": TOPIC,
        "dashboard": False,
        "log_retention": "one-week",
        "log_key": KEY,
    }
    found = template(settings({"monitoring": monitoring}))
    found.has_resource_properties("AWS::Logs::LogGroup", {"RetentionInDays": 7, "KmsKeyId": KEY})
    alarms = {
        each["Properties"]["MetricName"]: each["Properties"]
        for each in found.find_resources("AWS::CloudWatch::Alarm").values()
    }
    assert alarms["ModelLatency"]["Threshold"] == 5_000_000
    assert "Invocations" not in alarms
    assert all(each["AlarmActions"] == [TOPIC] for each in alarms.values())
    found.resource_count_is("AWS::CloudWatch::Dashboard", 0)


def test_one_switch_turns_all_endpoints_by_the_parameter_endpoint_enabled() -> None:
    raw = settings({}, schedule={"start": "08:00", "end": "18:00", "timezone": "Europe/Berlin"})
    raw["extended-dlc"]["endpoints"]["other"] = {"model": "bloom"}
    found = template(raw)
    assert found.to_json()["Parameters"]["EndpointEnabled"]["Default"] == "true"
    assert len(found.to_json()["Conditions"]) == 1
    endpoints = found.find_resources("AWS::SageMaker::Endpoint").values()
    assert len({each["Condition"] for each in endpoints}) == 1
    assert len(endpoints) == 2
    schedules = found.find_resources("AWS::Scheduler::Schedule").values()
    changed = [json.loads(each["Properties"]["Target"]["Input"])["Parameters"] for each in schedules]
    values = [entry.get("ParameterValue") for entries in changed for entry in entries]
    assert sorted(filter(None, values)) == ["false", "true"]


def test_a_switch_by_hand_has_no_clock() -> None:
    found = template(settings({}, schedule={"kind": "by-hand"}))
    found.resource_count_is("AWS::Scheduler::Schedule", 0)
    assert "EndpointEnabled" in found.to_json()["Parameters"]


def test_a_deployment_is_proved_with_a_request_of_one_s_own() -> None:
    found = template(settings({"verify": {"request": {"inputs": "Bonjour"}, "expect": "jour", "timeout_minutes": 5}}))
    proof = {"Check": "endpoint", "Expect": "jour", "TimeoutMinutes": 5}
    found.has_resource_properties("Custom::ExtendedDlcProof", proof)


@pytest.mark.parametrize(
    ("verify", "asked", "checks"),
    [(None, True, 2), (True, False, 2), (False, False, 0), ({"request": {"inputs": "Hi"}}, True, 2)],
)
def test_the_app_asks_the_model_once_unless_the_settings_say_otherwise(verify: Any, asked: bool, checks: int) -> None:
    found = template(settings({} if verify is None else {"verify": verify}))
    proofs = [each["Properties"] for each in found.find_resources("Custom::ExtendedDlcProof").values()]
    assert len(proofs) == checks
    assert any("Body" in each for each in proofs) is asked


def test_a_model_of_which_no_request_is_known_is_not_asked_by_default_and_must_have_one_where_it_is_told_to() -> None:
    unknown = {"model": "org/unknown", "revision": "a" * 40}
    raw = settings({})
    raw["extended-dlc"]["endpoints"] = {"other": unknown}
    proofs = template(raw).find_resources("Custom::ExtendedDlcProof").values()
    assert len(proofs) == 2
    assert not [each for each in proofs if "Body" in each["Properties"]]


def test_an_expected_answer_is_read_and_checked_with_the_settings() -> None:
    expected = [{"label": "A", "score": 0.5}]
    found = template(settings({"verify": {"expected": expected, "tolerance": 0.1}}))
    found.has_resource_properties("Custom::ExtendedDlcProof", {"Expected": json.dumps(expected), "Tolerance": "0.1"})
    with pytest.raises(SettingsError) as failure:
        read_settings(settings({"verify": {"expected": 1, "tolerance": 2, "expcet": "a"}}))
    report = str(failure.value)
    assert "endpoints.bloom.verify.expcet: is not a setting; did you mean 'expect'?" in report
    with pytest.raises(SettingsError, match=r"endpoints.bloom.verify.tolerance \(2.0\): must be from 0 to 1"):
        read_settings(settings({"verify": {"expected": 1, "tolerance": 2.0}}))


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    found = template(settings({"verify": False}))
    for kind in ("AWS::CloudWatch::Alarm", "AWS::Logs::LogGroup", "Custom::ExtendedDlcProof"):
        found.resource_count_is(kind, 0)
    assert not found.to_json().get("Conditions")


def test_everything_that_is_wrong_is_in_one_report() -> None:
    raw = settings(
        {
            "monitoring": {"alarms": {"latency": 1}, "log_retention": "a-week", "alarm_topic": "ops"},
            "verify": {"timeout_minutes": 90},
        },
        schedule={"start": "8:00", "end": "18:00"},
    )
    raw["extended-dlc"]["endpoints"]["second"] = {"model": "bloom", "task": "mask-generation", "verify": {}}
    raw["extended-dlc"]["endpoints"]["third"] = {"model": "bloom", "monitoring": {"log_retention": "one-weak"}}
    with pytest.raises(SettingsError) as failure:
        read_settings(raw)
    report = str(failure.value)
    for problem in (
        "endpoints.bloom.monitoring.alarm_topic (ops): must be the ARN of a topic, or 'new'",
        "endpoints.bloom.verify.timeout_minutes (90): must be from 1 to 59",
        "schedule.start (8:00): must be a time of day such as 07:45",
        "endpoints.second.verify: needs a request, because no request is known for 'mask-generation'",
        "endpoints.third.monitoring.log_retention (one-weak): is not known to CloudWatch; did you mean 'one-week'?",
    ):
        assert problem in report


def test_a_setting_that_there_is_not_is_named_with_its_neighbour() -> None:
    with pytest.raises(SettingsError, match=r"schedule.stat: is not a setting; did you mean 'start'\?"):
        read_settings(settings({}, schedule={"stat": "08:00", "start": "08:00", "end": "18:00"}))
