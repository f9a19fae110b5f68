"""The figures that SageMaker keeps to, and both sides of each end."""

from __future__ import annotations

import json

import pytest

from extended_dlc.facts._tables import DATA
from extended_dlc.facts.checks import check_environment
from extended_dlc.facts.limits import check_limit, limit, limits, most


def test_each_figure_has_an_end_a_unit_a_source_and_a_date() -> None:
    for found in limits().values():
        assert found.min is not None or found.max is not None, found.limit
        assert found.unit, found.limit
        assert len(found.source) > 10, found.limit
        assert found.checked >= "2026-11", found.limit


def test_the_file_is_sorted_one_figure_a_line() -> None:
    text = (DATA / "limits.json").read_text()
    names = [row["limit"] for row in json.loads(text)["limits"]]
    assert names == sorted(names)
    assert sum(line.startswith('    {"limit": ') for line in text.splitlines()) == len(names)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("startup_timeout_seconds", 60, 3600), ("volume_gb", 1, 512), ("serverless.memory_mb", 1024, 6144)],
)
def test_both_ends_belong_to_a_limit_and_what_is_outside_does_not(name: str, low: int, high: int) -> None:
    check_limit(name, low)
    check_limit(name, high)
    for outside in (low - 1, high + 1):
        with pytest.raises(ValueError, match=rf"must be from {low} to {high} .*SageMaker API reference"):
            check_limit(name, outside)


def test_a_limit_with_one_end_says_that_end() -> None:
    check_limit("async.body_bytes", 128_000)
    with pytest.raises(ValueError, match=r"must be at most 128000 B .*InvokeEndpointAsync"):
        check_limit("async.body_bytes", 128_001)


def test_an_unknown_name_is_our_own_mistake_and_says_the_near_one() -> None:
    with pytest.raises(KeyError, match="did you mean 'volume_gb'"):
        limit("volume_gib")


def test_the_environment_is_held_to_the_table() -> None:
    entries = {f"KEY_{number}": "x" for number in range(most("environment.entries"))}
    check_environment(entries, reserved={})
    with pytest.raises(ValueError, match="SageMaker takes 100"):
        check_environment({**entries, "ONE_MORE": "x"}, reserved={})
    check_environment({"KEY": "x" * 1024}, reserved={})
    with pytest.raises(ValueError, match="over SageMaker's 1024 bytes"):
        check_environment({"KEY": "x" * 1025}, reserved={})
    full = {f"KEY_{number:02}": "x" * 1018 for number in range(32)}  # 1024 bytes each with its name
    check_environment(full, reserved={})
    with pytest.raises(ValueError, match="over SageMaker's 32 KB"):
        check_environment({**full, "K": "x"}, reserved={})


@pytest.mark.parametrize(
    "value", ["hf_abcdefghijklmnopqrstuvwx", "Bearer hf_abcdefghijklmnopqrstuvwx", "a=hf_" + "b" * 34]
)
def test_a_literal_token_is_refused_wherever_it_stands(value: str) -> None:
    with pytest.raises(ValueError, match="'SOME_SETTING' holds a literal Hub token"):
        check_environment({"SOME_SETTING": value}, reserved={})


@pytest.mark.parametrize("value", ["hf_cache", "/opt/hf_home", "shelf_of_many_long_words_here"])
def test_what_only_looks_a_little_like_a_token_passes(value: str) -> None:
    check_environment({"SOME_SETTING": value}, reserved={})
