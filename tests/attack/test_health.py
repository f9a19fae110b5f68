"""A model whose answers change is soon unhealthy; bad requests alone do not make it unhealthy."""

from __future__ import annotations

import time

import pytest

GOOD = {"inputs": "hello", "parameters": {"max_new_tokens": 3, "do_sample": False}}
BREAKS = {**GOOD, "inputs": "7" * 33}
FAILS = {**GOOD, "inputs": "7" * 34}


@pytest.fixture
def breaking(start_server, made):
    return start_server(made("breaking"), HF_TRUST_REMOTE_CODE="true").wait_until_ready()


def test_a_model_that_was_broken_ends_the_process_after_failures_in_a_row(breaking):
    assert breaking.ask(GOOD).status == 200
    assert breaking.ask(BREAKS).status == 200  # nothing fails, so that the change is not noticed yet
    for _ in range(3):
        assert breaking.ask(FAILS).status == 400
    assert breaking.wait_for_status(500, seconds=5) == 500
    assert "differently" in breaking.log
    assert breaking.process.wait(15) == 1


def test_failures_alone_ask_the_model_again_but_once_in_ten_seconds(breaking):
    started = time.monotonic()
    asked = 0
    while time.monotonic() - started < 12:
        assert breaking.ask(FAILS).status == 400
        asked += 1
    assert asked > 100
    assert breaking.log.count("answers its first one as ever") == 2
    assert breaking.ping() == 200
    assert breaking.ask(GOOD).status == 200
