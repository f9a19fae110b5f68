"""The named differences from moto, without moto's tests: those run by `make moto-tests`."""

from __future__ import annotations

from maintain.moto_tests import Group, faults, groups

NAMED = [Group(reason="AWS refuses it", words="Could not assume role", tests=["a", "b"])]


def test_each_group_has_its_reason_and_words_and_no_test_is_in_two() -> None:
    named = groups()
    assert all(each.reason and each.words and each.tests for each in named)
    tests = [test for each in named for test in each.tests]
    assert len(set(tests)) == len(tests)


def test_only_the_named_failures_with_their_words_are_taken() -> None:
    asked: dict[str, str | None] = {"a": "ClientError: Could not assume role x", "b": "Could not assume role y"}
    assert list(faults({**asked, "c": None}, NAMED, all_ran=True)) == []
    differences = [
        list(faults(outcomes, NAMED, all_ran=True))
        for outcomes in (
            {**asked, "c": "KeyError"},
            {**asked, "b": "KeyError"},
            {**asked, "b": None},
            {"a": asked["a"]},
        )
    ]
    assert [each[0].split(",")[0] for each in differences] == [
        "c fails",
        "b fails otherwise than named ('Could not assume role'): KeyError",
        "b passes",
        "b is named a difference",
    ]
    assert all(len(each) == 1 for each in differences)
