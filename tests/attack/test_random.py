"""Random requests, with parameters inside and outside the table, and random inputs: each gets a proper response."""

from __future__ import annotations

import random
import re
import time

import pytest

pytest.importorskip("hypothesis", reason="pip install hypothesis")

from extended_dlc_server.reading.parameter_table import REFUSED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attack.targets import places
from tests.attack.test_requests import GROUPS, WRONG, edges, table_of
from tests.runtime.conftest import IMAGE

SECONDS = 30
OWN_CODES = {
    word.encode()
    for file in IMAGE.glob("extended_dlc_server/**/*.py")
    for word in re.findall(r'"([a-z][a-z_-]+)"', file.read_text())
}
"""The codes of the server's errors, and other words of its source."""

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.sampled_from(WRONG),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def requests_of(attacked) -> st.SearchStrategy:
    """Mostly valid requests: one that is refused at once tests nothing behind the first check."""
    control = attacked.target.control
    table = table_of(attacked.kind)
    right = [(name, value) for name, rule in table.items() for value in edges(rule)]
    pairs = st.one_of(
        *([st.sampled_from(right)] * 3 if right else ()),
        st.tuples(st.sampled_from([*table, *REFUSED, *GROUPS]), ANY_JSON),
        st.tuples(st.sampled_from(GROUPS), st.sampled_from(right or [("a", 1)]).map(lambda pair: dict([pair]))),
    )
    parameters = st.lists(pairs, max_size=4).map(dict)
    inputs = st.one_of(
        *([st.just(control["inputs"])] * 3),
        ANY_JSON,
        st.text(max_size=200),
        ANY_JSON.flatmap(lambda put: st.sampled_from(list(places(control["inputs"], put)))),
    )
    return st.builds(
        lambda given, more: {"inputs": given, "parameters": {**control.get("parameters", {}), **more}},
        inputs,
        parameters,
    )


def test_random_requests_are_answered_and_change_nothing(attacked, seconds_left):
    seconds = seconds_left(SECONDS)
    end = time.monotonic() + seconds
    before, asked = attacked.resident, 0

    @settings(max_examples=int(40 * seconds), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=requests_of(attacked))
    def ask(body):
        nonlocal asked
        if time.monotonic() > end:
            return
        attacked.expect_honesty(body)
        asked += 1
        if random.random() < 0.2:
            attacked.check(body)

    ask()
    attacked.check()
    assert asked > 5
    assert attacked.server.ping() == 200
    assert attacked.resident < before + 300
    assert "Traceback" not in attacked.server.log
    # no request has added a label: codes and statuses are the server's alone
    metrics = attacked.server.request("GET", "/metrics")
    assert metrics.status == 200
    codes = set(re.findall(rb'^extended_dlc_errors_total\{code="(.*)"\}', metrics.body, re.MULTILINE))
    assert codes <= OWN_CODES
    assert metrics.body.count(b"\n") < 500
