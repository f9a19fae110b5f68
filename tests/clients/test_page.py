"""docs/clients.md, as a run of the clients has written it (`make clients ARGS=--write`)."""

from __future__ import annotations

import json

import pytest

from tests.clients import table
from tests.runtime.conftest import NEWEST

REQUIRED = ("openai", "litellm", "langchain-aws", "langchain-openai", "llama-index", "strands-agents")
BY_DESIGN = ("AWS documents chat completions alone on this path", "a container keeps nothing for the next request")


def test_the_page_is_what_the_data_say() -> None:
    assert table.PAGE.read_text() == table.page(table.read()), "run 'make docs'"


def test_the_data_are_of_the_newest_and_of_the_oldest_release() -> None:
    assert list(table.read()) == [NEWEST, "4.46.3"], "run 'make clients ARGS=--write'"


@pytest.mark.parametrize("client", REQUIRED)
def test_every_call_of_these_clients_is_right_or_refused_on_purpose(client: str) -> None:
    for release, rows in table.read().items():
        of_client = [row for row in rows if row["client"] == client]
        assert any(row["outcome"] == "right" for row in of_client), release
        for row in of_client:
            assert row["outcome"] in ("right", "none") or row["reason"].startswith(BY_DESIGN), row


def test_every_client_of_the_page_is_in_the_data() -> None:
    for release, rows in table.read().items():
        assert {row["client"] for row in rows} == {*table.PACKAGES, "AWS CLI 2"}, release


def test_calls_of_one_method_with_one_outcome_are_one_row() -> None:
    row = {"client": "huggingface_hub", "way": "port", "outcome": "right", "reason": ""}
    calls = ["`f()`", "`f(a=1)`", "`f(b=2)`", "`g(a=1)`"]
    rows = [{**row, "call": call} for call in calls] + [
        {**row, "call": "`f(c=3)`", "outcome": "refused", "reason": "no"}
    ]
    lines = [
        line.split(" | ")[1:]
        for line in table.page({"5.0.0": rows}).splitlines()
        if line.startswith("| huggingface-hub")
    ]
    assert lines == [
        ["`f`: plain, `a`, `b`", "right", "–", "–", "–", " |"],
        ["`f(c=3)`", "refused", "–", "–", "–", "no |"],
        ["`g(a=1)`", "right", "–", "–", "–", " |"],
    ]


def test_a_run_that_finds_otherwise_is_told() -> None:
    ((release, rows), *_) = table.read().items()
    changed = {**rows[0], "outcome": "refused", "reason": "no more"}
    assert list(table.differing(release, rows)) == []
    (line,) = table.differing(release, [*rows[1:], changed])
    assert "no more" in line
    assert json.loads(table.DATA.read_text())[release] == rows
