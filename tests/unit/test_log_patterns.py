"""Filter patterns of CloudWatch Logs: what they match, and which are refused."""

from __future__ import annotations

import json

import pytest

from extended_dlc.rehearsal.embedded.log_patterns import InvalidPattern, read

ACCESS = '127.0.0.1 - bob [10/Oct/2025:13:25:15 -0700] "GET /ping HTTP/1.1" 500 1534'


@pytest.mark.parametrize(
    ("pattern", "matched", "unmatched"),
    [
        ("", ["", "anything"], []),
        ("ERROR", ["an ERROR"], ["an error"]),
        ("ERROR model", ["model: ERROR"], ["ERROR", "model"]),
        ("?ERROR ?WARN", ["ERROR", "WARN"], ["INFO"]),
        ("model -slow", ["model"], ["model is slow", "slow"]),
        ("-slow -old", ["model"], ["slow", "old"]),
        ("model ?slow", ["model is slow"], ["model", "slow"]),  # beside other terms a question mark is ignored
        ('"the model" -"is slow"', ["the model"], ["model the", "the model is slow"]),
        (r'"say \"yes\""', ['say "yes"'], ["say yes"]),
        ("%[45]\\d\\d%", ["code 404"], ["code 200"]),
        ("-%^GET%", ["POST"], ["GET /"]),
    ],
)
def test_terms_are_all_wanted_some_wanted_or_unwanted(pattern: str, matched: list[str], unmatched: list[str]) -> None:
    matches = read(pattern)
    assert [each for each in matched if not matches(each)] == []
    assert [each for each in unmatched if matches(each)] == []


DOCUMENT = {"level": "ERROR", "ms": 120, "on": True, "none": None, "a": {"b": [{"c": "x"}, {"c": "y"}], "d-e": "1"}}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.level = "ERROR" }', True),
        ("{ $.level = ERROR }", True),
        ('{ $.level = "E*R" }', True),
        ('{ $.level = "E*S" }', False),
        ('{ $.level != "ERROR" }', False),
        ('{ $.gone != "ERROR" }', False),
        ("{ $.level = %^ERR% }", True),
        ("{ $.level != %^ERR% }", False),
        ("{ $.ms = 120 }", True),
        ("{ $.ms != 120.0 }", False),
        ("{ $.ms > 120 }", False),
        ("{ $.ms >= 1.2e2 }", True),
        ("{ $.ms < 121 && $.ms <= 120 }", True),
        ('{ $.ms = "120" }', False),
        ("{ $.level > 1 }", False),
        ("{ $.on IS TRUE }", True),
        ("{ $.on IS FALSE }", False),
        ("{ $.on = 1 }", False),
        ("{ $.none IS NULL }", True),
        ("{ $.gone IS NULL }", False),
        ("{ $.gone NOT EXISTS }", True),
        ("{ $.none EXISTS }", True),
        ('{ $.a.b[1].c = "y" }', True),
        ('{ $.a.b[2].c = "y" }', False),
        ('{ $.a.b[*].c = "y" }', True),
        ('{ $.a.* = "1" }', True),
        ("{ $.a['d-e'] = \"1\" }", True),
        ("{ $.a.d-e = 1 }", True),
        ('{ $.ms = 1 || $.level = "ERROR" && $.ms = 120 }', True),
        ('{ ($.ms = 120 || $.level = "ERROR") && $.ms = 1 }', False),
    ],
)
def test_json_is_compared_by_its_members(pattern: str, expected: bool) -> None:
    assert read(pattern)(json.dumps(DOCUMENT)) is expected
    assert not read(pattern)("no JSON")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[ip, id, user, timestamp, request, status, size]", True),
        ("[ip, id, user, timestamp, request, status]", False),
        ("[ip, id, user, timestamp, request, status = 5*, size > 1000]", True),
        ("[ip, id, user, timestamp, request, status = 4*, size]", False),
        ("[ip, ..., status = 500 || status = 502, size]", True),
        ("[..., size < 1000]", False),
        ("[ip = 127.0.0.1, ...]", True),
        ('[ip, id, user, timestamp, request = "*HTTP/1.1" && request != "POST*", ...]', True),
        ("[a, b, c, d, e, f, g, h, ...]", False),
    ],
)
def test_columns_are_compared_by_their_place(pattern: str, expected: bool) -> None:
    assert read(pattern)(ACCESS) is expected


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{ $.a = 1", "starts with '{' it must end with '}'"),
        ("[a, b", "starts with '[' it must end with ']'"),
        ('"open', "Invalid filter pattern"),
        ("me@example.com", "Invalid filter pattern"),
        ("%[%", "Invalid filter pattern"),
        ("{ }", "Invalid filter pattern"),
        ("{ $.a }", "Invalid filter pattern"),
        ("{ $.a = }", "Invalid filter pattern"),
        ("{ $.a = 1 $.b = 2 }", "Invalid filter pattern"),
        ("{ ($.a = 1 }", "Invalid filter pattern"),
        ("{ $.a & 1 }", "Invalid filter pattern"),
        ("{ $.a = && }", "Invalid filter pattern"),
        ("[a = 4* && b > 1 c]", "Invalid filter pattern"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(InvalidPattern) as refused:
        read(pattern)
    assert words in str(refused.value)
