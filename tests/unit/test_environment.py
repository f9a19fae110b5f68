"""The table of the server's variables says what the server says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.decisions.environment import _broken, server_variables

SERVER = Path(__file__).parents[2] / "docker" / "inference"


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """The module in which the server reads its environment."""
    sys.path.insert(0, str(SERVER))
    from extended_dlc_server import settings

    yield settings
    sys.path.remove(str(SERVER))


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, **given: str) -> None:
        super().__init__(HF_MODEL_ID="someone/model", **given)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def test_the_table_has_each_variable_of_the_server_and_no_other(server: Any) -> None:
    environment = Asked()
    server.read_settings(environment)
    theirs = {name for name in environment.names if name.startswith("EXTENDED_DLC_")}
    assert theirs == {name for name in server_variables() if name.startswith("EXTENDED_DLC_")}
    assert environment.names >= set(server_variables())


VALUES = (
    *("0", "1", "2", "16", "60", "1024", "1025", "3600", "3601", "10000", "10001", "65535", "65536", "86400", "86401"),
    *("10000000", "10000001", "1e3", "-1", "many", "true", "False", "yes", "maybe", "auto", "bfloat16", "int8"),
    *("Mine/Metrics", "AWS/Mine", "a b"),
    *(
        "sql=someone/sql",
        "sql=gpt2@v1.0, a-b.c=some.one/x",
        "sql=a/b,sql=c/d",
        "sql=a/b,",
        "sql=a/b/c",
        "=a/b",
        "sql=a@",
    ),
    *(",".join(f"a{number}=a/b" for number in range(count)) for count in (32, 33)),
)


@pytest.mark.parametrize("name", sorted(server_variables()))
def test_a_value_is_refused_at_synth_where_the_server_would_end_for_it(server: Any, name: str) -> None:
    seen = set()
    for value in VALUES:
        try:
            server.read_settings(Asked(**{name: value}))
            starts = True
        except server.StartError:
            starts = False
        assert (_broken(server_variables()[name], value) is None) == starts, value
        seen.add(starts)
    assert seen == {True, False}, "values that tell nothing"
