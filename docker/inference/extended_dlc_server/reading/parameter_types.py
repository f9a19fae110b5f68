"""Types of request parameters, with bounds, at every depth.

`check` converts a JSON value to the pipeline's argument, or raises `ValueError` with the rule. `schema` returns the
same rule as a JSON Schema (draft 2020-12), for `GET /openapi.json`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import RequestError, shown


class Type(Protocol):
    """A rule for a value."""

    def check(self, value: Any) -> Any:
        """Convert a value for the pipeline; `ValueError` says what it must be."""

    def schema(self) -> dict[str, Any]:
        """Return the rule as a JSON Schema."""


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Whole:
    """A whole number within bounds, both included."""

    least: int
    most: int

    def check(self, value: Any) -> int:
        """Return an `int`; a number such as 3.0 is accepted."""
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not self.least <= value <= self.most:
            raise ValueError(f"must be a whole number from {self.least} to {self.most}")
        return int(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Number:
    """A finite number within bounds: both included unless `above` or `below` says otherwise."""

    least: float
    most: float
    above: bool = False
    """Whether it must be larger than `least`."""

    below: bool = False
    """Whether it must be smaller than `most`."""

    def check(self, value: Any) -> float:
        """Return a `float`, because transformers rejects an `int` such as the temperature 1."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # not float(value): an int may be too large for a float
        if not number or (isinstance(value, float) and not math.isfinite(value)) or not self._within(value):
            low = "above" if self.above else "from"
            high = "below" if self.below else "to"
            raise ValueError(f"must be a number {low} {self.least:g} {high} {self.most:g}")
        return float(value)

    def schema(self) -> dict[str, Any]:
        low = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "number", low: self.least, "exclusiveMaximum" if self.below else "maximum": self.most}

    def _within(self, value: float) -> bool:
        low = value > self.least if self.above else value >= self.least
        return low and (value < self.most if self.below else value <= self.most)


@dataclass(frozen=True)
class Text:
    """A text of bounded length, optionally of a given form."""

    most: int
    least: int = 0
    form: str | None = None
    """A regular expression that the whole text must match. Default: any text."""

    described: str = ""
    """Description of the form, for messages."""

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not self.least <= len(value) <= self.most:
            raise ValueError(f"must be a text of {self.least} to {self.most} characters")
        if self.form and not re.fullmatch(self.form, value, re.ASCII):
            raise ValueError(f"must be {self.described}")
        return value

    def schema(self) -> dict[str, Any]:
        form = {"pattern": f"^(?:{self.form})$", "description": self.described} if self.form else {}
        return {"type": "string", "minLength": self.least, "maxLength": self.most, **form}


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def check(self, value: Any) -> Any:
        # True == 1 in Python
        if not any(value == one and type(value) is type(one) for one in self.values):
            raise ValueError(f"must be one of: {', '.join(map(shown, self.values))}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


@dataclass(frozen=True)
class List:
    """Several values of one type."""

    of: Type
    most: int
    least: int = 1

    def check(self, value: Any) -> list[Any]:
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            raise ValueError(f"must be a list of {self.least} to {self.most} values")
        return [self._one(index, item) for index, item in enumerate(value)]

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.of.schema(), "minItems": self.least, "maxItems": self.most}

    def _one(self, index: int, item: Any) -> Any:
        try:
            return self.of.check(item)
        except ValueError as error:
            raise ValueError(f"has a value {index} that {error}") from None


@dataclass(frozen=True)
class Tuple:
    """A list with a type for each position, such as a pair."""

    of: tuple[Type, ...]

    def check(self, value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) != len(self.of):
            raise ValueError(f"must be a list of {len(self.of)} values")
        return [one.check(item) for one, item in zip(self.of, value, strict=True)]

    def schema(self) -> dict[str, Any]:
        schemas = [one.schema() for one in self.of]
        return {"type": "array", "prefixItems": schemas, "minItems": len(schemas), "maxItems": len(schemas)}


@dataclass(frozen=True)
class AnyOf:
    """A value of one of several types; the first that accepts it is used."""

    types: tuple[Type, ...]

    def check(self, value: Any) -> Any:
        rules: list[str] = []
        for one in self.types:
            try:
                return one.check(value)
            except ValueError as error:
                rules.append(str(error))
        raise ValueError(", or ".join(rules))

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [one.schema() for one in self.types]}


@dataclass(frozen=True)
class Null:
    """Null, if it differs in meaning from a missing parameter."""

    def check(self, value: Any) -> None:
        if value is not None:
            raise ValueError("must be null")

    def schema(self) -> dict[str, Any]:
        return {"type": "null"}


@dataclass(frozen=True)
class Json:
    """Any JSON, for use in a chat template, bounded in depth and in the number of values."""

    depth: int = 16
    most: int = 10_000

    def check(self, value: Any) -> Any:
        if _count(value, self.depth) > self.most:
            raise ValueError(f"must have at most {self.most} values")
        return value

    def schema(self) -> dict[str, Any]:
        """Return a schema for anything: JSON Schema cannot limit the depth."""
        return {"description": f"Any JSON of at most {self.most:,} values, nested at most {self.depth} deep."}


@dataclass(frozen=True)
class JsonObject(Json):
    """The same for a JSON object, such as a schema."""

    def check(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("must be an object")
        return super().check(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "object", **super().schema()}


def _count(value: Any, depth: int) -> int:
    if not isinstance(value, (list, dict)):
        return 1
    if depth == 0:
        raise ValueError("must be nested less deeply")
    return 1 + sum(_count(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value))


@dataclass(frozen=True)
class Group:
    """An object with a table of names."""

    table: Mapping[str, Type]
    refused: Mapping[str, str] = field(default_factory=dict)
    """Name -> why it is rejected, or what to send instead."""

    def check(self, value: Any) -> dict[str, Any]:
        """Validate each value; names whose value is null are dropped unless their type accepts null."""
        if not isinstance(value, dict):
            raise ValueError("must be an object")
        return check_all(value, self.table, self.refused)

    def schema(self) -> dict[str, Any]:
        return object_schema(self.table)


def object_schema(table: Mapping[str, Type], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an object schema for a table, and `more` schemas by name. Null is allowed and means missing."""
    properties = {**(more or {}), **{name: or_null(rule.schema()) for name, rule in sorted(table.items())}}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Extend a schema to allow null."""
    if "enum" in schema:
        return {**schema, "enum": list(dict.fromkeys([*schema["enum"], None]))}
    if "anyOf" in schema:
        also = [] if {"type": "null"} in schema["anyOf"] else [{"type": "null"}]
        return {**schema, "anyOf": [*schema["anyOf"], *also]}
    kind = schema.get("type")
    return {**schema, "type": [kind, "null"]} if kind not in (None, "null") else dict(schema)


def check_all(values: Mapping[str, Any], table: Mapping[str, Type], refused: Mapping[str, str]) -> dict[str, Any]:
    """Validate each value by its type; 400 names the first parameter that is unknown or invalid."""
    checked: dict[str, Any] = {}
    for name, value in values.items():
        rule = table.get(name)
        if rule is None:
            raise unknown(name, table.keys(), refused)
        try:
            checked[name] = rule.check(value)
        except ValueError as error:
            if value is not None:  # null counts as missing, unless the type accepts it
                raise RequestError(400, "bad-parameters", f"parameter '{name}' ({shown(value)}) {error}") from None
    return checked


def unknown(name: str, legal: Collection[str], refused: Mapping[str, str]) -> RequestError:
    """Make the error for a rejected name: with the reason, what to send instead, or a similar name."""
    if name in refused:
        return RequestError(400, "unknown-parameter", f"parameter '{name}' is not taken: {refused[name]}")
    near = difflib.get_close_matches(name[:100], sorted(legal), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"it takes: {', '.join(sorted(legal)) or 'none'}"
    return RequestError(400, "unknown-parameter", f"parameter {shown(name)} is not known to this model; {hint}")
