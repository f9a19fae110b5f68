"""The failures that `extended-dlc rehearse` can be asked for, as they reach the embedded AWS."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from extended_dlc.cli import main
from extended_dlc.cli.rehearse import scenarios_of
from extended_dlc.rehearsal.embedded.scenarios import Scenarios

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
    assert set(asked) == set(vars(Scenarios())) - {"_lock"}, "each scenario is an option"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--shortage", "ml.g5.xlarg"), "'--shortage' (ml.g5.xlarg) is not an instance type"),
        (("--quota", "ml.g5.xlarge"), "'--quota' (ml.g5.xlarge) must be TYPE=COUNT"),
        (("--quota", "g5=1"), "'--quota' (g5) is not an instance type"),
        (("--throttle", "DescribeEndpoint=1"), "'--throttle' (DescribeEndpoint=1) must be OPERATION=COUNT"),
        (("--role-seconds", "-1"), "-1"),
    ],
)
def test_a_failure_that_cannot_be_is_refused_by_its_option(given: tuple[str, str], words: str) -> None:
    result = CliRunner().invoke(main, ["rehearse", *given])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
