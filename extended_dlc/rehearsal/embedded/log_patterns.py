"""CloudWatch Logs' filter patterns (CloudWatch Logs user guide, "Filter pattern syntax").

A pattern is a list of terms, an expression about JSON in braces, or one about columns in brackets. moto 5.2.5 knows
terms alone, and takes every other pattern for one that matches all messages; `install` changes that in this process. It
also sorts the events of several streams by their times, and takes a prefix of their names and a group's ARN (CloudWatch
Logs API reference, FilterLogEvents).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moto.logs import models
from moto.logs.responses import LogsResponse

Matcher = Callable[[str], bool]


class InvalidPattern(ValueError):
    """A pattern that CloudWatch Logs refuses."""


def read(pattern: str) -> Matcher:
    """Whether a message matches the pattern. Raises `InvalidPattern`."""
    text = pattern.strip()
    for begin, end, make in (("{", "}", _of_json), ("[", "]", _of_columns)):
        if text.startswith(begin):
            if not text.endswith(end):
                raise InvalidPattern(f"If a filter pattern starts with '{begin}' it must end with '{end}'")
            return make(text[1:-1])
    return _of_terms(text)


# terms

_TERM = re.compile(r'(?P<mark>[?-]?)(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|%(?P<regex>[^%]+)%|(?P<word>\w+))(?:\s+|$)')


def _of_terms(text: str) -> Matcher:
    marked: dict[str, list[Matcher]] = {"": [], "?": [], "-": []}
    position = 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None:
            raise InvalidPattern("Invalid filter pattern")
        marked[found["mark"]].append(_term(found))
        position = found.end()
    required, optional, excluded = marked[""], marked["?"], marked["-"]
    if required or excluded:  # beside other terms the question mark is ignored
        required, optional = [*required, *optional], []

    def matches(message: str) -> bool:
        return (
            all(term(message) for term in required)
            and not any(term(message) for term in excluded)
            and (not optional or any(term(message) for term in optional))
        )

    return matches


def _term(found: re.Match[str]) -> Matcher:
    if found["regex"] is not None:
        regex = _regex(found["regex"])
        return lambda message: regex.search(message) is not None
    word = found["word"] or _unquoted(found["quoted"])
    return lambda message: word in message


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error:
        raise InvalidPattern("Invalid filter pattern") from None


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


# expressions

_SELECTOR = r"\$(?:\.[\w-]+|\.\*|\[(?:\d+|\*|\"[^\"]*\"|'[^']*')\])+"
_TOKEN = re.compile(
    rf"\s*(?:(?P<selector>{_SELECTOR})|(?P<sign>&&|\|\||!=|>=|<=|[=<>()])"
    r'|"(?P<quoted>(?:[^"\\]|\\.)*)"|%(?P<regex>[^%]+)%|(?P<word>[^\s()&|=<>!"%]+))'
)
_STEP = re.compile(
    r"\.(?P<name>[\w-]+)|\[\"(?P<quoted>[^\"]*)\"\]|\['(?P<single>[^']*)'\]|\[(?P<index>\d+)\]|(?:\.|\[)\*\]?"
)

Values = Callable[[str], list[Any]]
"""The values of a selector in a message: of JSON several where it has a wildcard, and none where nothing is there."""

Test = Callable[[Values], bool]


@dataclass
class _Parser:
    """An expression of comparisons that are joined by && and ||, which binds less."""

    tokens: Sequence[re.Match[str]]
    position: int = 0

    @classmethod
    def parse(cls, text: str) -> Test:
        parser = cls(list(_tokens(text)))
        test = parser.either()
        if parser.position < len(parser.tokens):
            raise InvalidPattern("Invalid filter pattern")
        return test

    def either(self) -> Test:
        tests = [self.both()]
        while self.take("||"):
            tests.append(self.both())
        return lambda values: any(test(values) for test in tests)

    def both(self) -> Test:
        tests = [self.single()]
        while self.take("&&"):
            tests.append(self.single())
        return lambda values: all(test(values) for test in tests)

    def single(self) -> Test:
        if self.take("("):
            test = self.either()
            if not self.take(")"):
                raise InvalidPattern("Invalid filter pattern")
            return test
        first = self.next()
        name = first["selector"] or first["word"]
        if name is None:
            raise InvalidPattern("Invalid filter pattern")
        for words, holds in _WORDS.items():
            if self.take(*words):
                return functools.partial(_of_values, holds, name)
        sign = self.next()["sign"]
        if sign not in _SIGNS:
            raise InvalidPattern("Invalid filter pattern")
        compare = _comparison(sign, self.next())
        return lambda values: any(compare(value) for value in values(name))

    def next(self) -> re.Match[str]:
        if self.position >= len(self.tokens):
            raise InvalidPattern("Invalid filter pattern")
        self.position += 1
        return self.tokens[self.position - 1]

    def take(self, *texts: str) -> bool:
        """Whether these tokens come next, which are then passed."""
        found = [each[0].strip() for each in self.tokens[self.position : self.position + len(texts)]]
        if found != list(texts):
            return False
        self.position += len(texts)
        return True


def _of_values(holds: Callable[[list[Any]], bool], name: str, values: Values) -> bool:
    return holds(values(name))


def _tokens(text: str) -> Iterator[re.Match[str]]:
    position, end = 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            raise InvalidPattern("Invalid filter pattern")
        yield found
        position = found.end()


_WORDS: dict[tuple[str, ...], Callable[[list[Any]], bool]] = {
    ("EXISTS",): bool,
    ("NOT", "EXISTS"): lambda values: not values,
    ("IS", "NULL"): lambda values: any(value is None for value in values),
    ("IS", "TRUE"): lambda values: any(value is True for value in values),
    ("IS", "FALSE"): lambda values: any(value is False for value in values),
}

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda got, wanted: got == wanted,
    "!=": lambda got, wanted: got != wanted,
    "<": lambda got, wanted: got < wanted,
    "<=": lambda got, wanted: got <= wanted,
    ">": lambda got, wanted: got > wanted,
    ">=": lambda got, wanted: got >= wanted,
}


def _comparison(sign: str, wanted: re.Match[str]) -> Callable[[Any], bool]:
    if wanted["regex"] is not None:
        regex = _regex(wanted["regex"])
        return lambda got: isinstance(got, str) and (regex.search(got) is not None) == (sign == "=")
    text = wanted["word"] if wanted["quoted"] is None else _unquoted(wanted["quoted"])
    if text is None:
        raise InvalidPattern("Invalid filter pattern")
    number = _number(text) if wanted["word"] else None
    like = re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)

    def compare(got: Any) -> bool:
        if number is not None and (found := _number(got)) is not None:
            return _SIGNS[sign](found, number)
        if sign not in ("=", "!=") or not isinstance(got, str):
            return False
        return (like.fullmatch(got) is not None) == (sign == "=")

    return compare


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _of_json(text: str) -> Matcher:
    test = _Parser.parse(text)

    def matches(message: str) -> bool:
        try:
            content = json.loads(message)
        except ValueError:
            return False
        return isinstance(content, (dict, list)) and test(lambda selector: _selected(content, selector))

    return matches


def _selected(content: Any, selector: str) -> list[Any]:
    values = [content]
    for step in _STEP.finditer(selector, 1):
        name = next((step[each] for each in ("name", "quoted", "single") if step[each] is not None), None)
        if name is not None:
            values = [each[name] for each in values if isinstance(each, dict) and name in each]
        elif step["index"] is not None:
            index = int(step["index"])
            values = [each[index] for each in values if isinstance(each, list) and index < len(each)]
        else:
            values = [one for each in values for one in _inside(each)]
    return values


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


# columns

_FIELD = re.compile(r'"[^"]*"|\[[^\]]*\]|\S+')
_REST = "..."


def _of_columns(text: str) -> Matcher:
    columns = [each.strip() for each in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', text)]
    tests = [None if re.fullmatch(r"[\w-]*|\.\.\.", each) else _Parser.parse(each) for each in columns]
    rest = columns.index(_REST) if _REST in columns else None

    def matches(message: str) -> bool:
        fields = [each.strip('"') if each.startswith('"') else each for each in _FIELD.findall(message)]
        if rest is not None and len(fields) >= len(columns) - 1:
            after = len(columns) - rest - 1
            fields = [*fields[:rest], "", *(fields[-after:] if after else [])]
        return len(fields) == len(columns) and all(
            test is None or test(functools.partial(_field, field)) for test, field in zip(tests, fields, strict=True)
        )

    return matches


def _field(field: str, selector: str) -> list[Any]:
    """The values of a column's selector, which is the column's name: its field."""
    return [field]


class _EventMessageFilter:
    """The interface of moto's class of this name."""

    def __init__(self, pattern: str) -> None:
        self.matches = read(pattern or "")


def _filter_log_events(self: LogsResponse) -> str:
    group: str = self._get_param("logGroupName") or self._get_param("logGroupIdentifier")
    group = group.rpartition(":log-group:")[2].removesuffix(":*")
    streams = self._get_param("logStreamNames") or []
    prefix = self._get_param("logStreamNamePrefix")
    if prefix and group in self.logs_backend.groups:
        streams = [each for each in self.logs_backend.groups[group].streams if each.startswith(prefix)]
        if not streams:
            return json.dumps({"events": [], "searchedLogStreams": []})
    events, token, searched = self.logs_backend.filter_log_events(
        group,
        streams,
        start_time=self._get_param("startTime"),
        end_time=self._get_param("endTime"),
        limit=self._get_param("limit"),
        next_token=self._get_param("nextToken"),
        filter_pattern=self._get_param("filterPattern"),
        interleaved=True,
    )
    return json.dumps({"events": events, "nextToken": token, "searchedLogStreams": searched})


def install() -> None:
    """Change moto's CloudWatch Logs in this process."""
    setattr(models, "EventMessageFilter", _EventMessageFilter)  # noqa: B010 - mypy refuses the plain assignment
    LogsResponse.filter_log_events = _filter_log_events  # type: ignore[method-assign]
