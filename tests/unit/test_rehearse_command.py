"""The failures that `extended-dlc rehearse` can be asked for, as they reach the embedded AWS."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.wrappers import Request

from extended_dlc.cli import main
from extended_dlc.cli.rehearse import scenarios_of
from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.failures import came_up

NONE: dict[str, Any] = {
    "silent_rollbacks": False,
    "shortages": (),
    "quotas": (),
    "throttled": (),
    "role_seconds": None,
    "container_seconds": None,
}


def test_what_was_asked_for_is_what_the_embedded_aws_takes() -> None:
    assert scenarios_of(**NONE) == {}
    asked: dict[str, Any] = {
        "silent_rollbacks": True,
        "shortages": ("ml.g5.xlarge", "ml.g6.xlarge"),
        "quotas": ("ml.g5.xlarge=0",),
        "throttled": ("sagemaker:DescribeEndpoint=3",),
        "role_seconds": 2.5,
        "container_seconds": 20.0,
    }
    taken = Scenarios.of(scenarios_of(**asked))
    assert (taken.silent_rollbacks, taken.shortages) == (True, ["ml.g5.xlarge", "ml.g6.xlarge"])
    assert (taken.quotas, taken.throttled) == ({"ml.g5.xlarge": 0}, {"sagemaker:DescribeEndpoint": 3})
    assert (taken.role_seconds, taken.container_seconds) == (2.5, 20.0)
    assert set(asked) == {each.name for each in fields(Scenarios)}, "each scenario is an option"


def test_what_came_up_is_told_by_its_option_and_what_did_not_with_the_reason() -> None:
    asked = scenarios_of(
        silent_rollbacks=True,
        shortages=("ml.g5.xlarge", "ml.g6.xlarge"),
        quotas=("ml.g5.xlarge=0",),
        throttled=("sagemaker:DescribeEndpoint=3",),
        role_seconds=2.5,
        container_seconds=20.0,
    )
    scenarios = Scenarios.of(asked)
    assert len(list(came_up(asked, {}))) == 7
    assert all(" did not come up: " in line for line in came_up(asked, {}))
    for _ in range(4):
        scenarios.take_throttle("sagemaker:DescribeEndpoint")
    assert not scenarios.is_short_of("ml.m5.xlarge")
    assert scenarios.is_short_of("ml.g6.xlarge")
    scenarios.meet("role_seconds")
    answer = scenarios.respond(Request({"REQUEST_METHOD": "GET"}))
    assert list(came_up(asked, json.loads(answer.get_data())["met"])) == [
        "--silent-rollbacks did not come up: no update failed",
        "--shortage ml.g5.xlarge did not come up: nothing asked for the type",
        "--shortage ml.g6.xlarge came up once: take another instance type, or try again later",
        "--quota ml.g5.xlarge=0 did not come up: the endpoints stayed within it",
        "--throttle sagemaker:DescribeEndpoint=3 came up 3 times: callers repeat what is throttled",
        "--role-seconds 2.5 came up once: CloudFormation waits for its roles",
        "--container-seconds 20 did not come up: no container was in service for so long",
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--shortage", "ml.g5.xlarg"), "'--shortage' (ml.g5.xlarg) is not an instance type"),
        (("--quota", "ml.g5.xlarge"), "'--quota' (ml.g5.xlarge) must be TYPE=COUNT"),
        (("--quota", "g5=1"), "'--quota' (g5) is not an instance type"),
        (("--throttle", "DescribeEndpoint=1"), "'--throttle' (DescribeEndpoint=1) must be OPERATION=COUNT"),
        (("--throttle", "sagemaker:DescribeEndpont=1"), "did you mean sagemaker:DescribeEndpoint?"),
        (("--throttle", "sagemakr:DescribeEndpoint=1"), "is no service that botocore knows: did you mean sagemaker?"),
        (("--role-seconds", "-1"), "-1"),
    ],
)
def test_a_failure_that_cannot_be_is_refused_by_its_option(given: tuple[str, str], words: str) -> None:
    result = CliRunner().invoke(main, ["rehearse", *given])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
