"""A template's properties against CloudFormation's own schema of their resource type, which cfn-lint has a copy of.

CloudFormation compares each resource with its schema before it calls a service: names and types of properties, what is
required, enumerations, patterns and bounds, at every depth. It takes numbers and booleans that are written as strings.
The messages are those of its JSON schema validator (everit-org/json-schema), as they stand in many public reports.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from extended_dlc.rehearsal.embedded.shapes import REMEMBERED, TemplateFault, compiled_pattern

Schema = Mapping[str, Any]

_REGION = "us-east-1"
"""The region whose schemas are read: it has all types, and no other has other properties of the same type."""


@functools.cache
def _folder() -> Path:
    """cfn-lint's schemas; the package itself is not imported, which takes long."""
    found = find_spec("cfnlint")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("cfn-lint is not installed: pip install 'extended-dlc[rehearse]'")
    return Path(found.origin).parent / "data" / "schemas"


@functools.cache
def _names() -> Mapping[str, str]:
    content: Mapping[str, str] = json.loads((_folder() / "providers" / f"{_REGION}.json").read_text())
    return content


@functools.cache
def _everywhere() -> frozenset[str]:
    """The types of all regions: a few are in others than `_REGION` alone."""
    files = [each for each in (_folder() / "providers").glob("*.json") if each.stem != "sam"]
    return frozenset(name for each in files for name in json.loads(each.read_text()))


def is_unknown(kind: str) -> bool:
    """Whether a type is in AWS's namespace, and CloudFormation has it in no region.

    Types of other publishers exist where an account activated them, which nothing here can know.
    """
    return kind.startswith("AWS::") and kind not in _names() and kind not in _everywhere()


@functools.cache
def schema_of(kind: str) -> Schema | None:
    """The schema of a resource type; None where cfn-lint has none."""
    if kind not in _names():
        return None
    content: Schema = json.loads((_folder() / "resources" / f"{_names()[kind]}.json").read_text())
    return content


def attributes_of(kind: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names that `Fn::GetAtt` takes of a type, with dots for what is inside, and those that identify it."""
    schema = schema_of(kind) or {}

    def names(key: str) -> Iterator[str]:
        for pointer in schema.get(key, ()):
            yield str(pointer).removeprefix("/properties/").replace("/", ".")

    return frozenset(names("readOnlyProperties")), tuple(names("primaryIdentifier"))


def check(logical_id: str, kind: str, properties: Mapping[str, Any]) -> None:
    """Raise `TemplateFault`, in CloudFormation's words for properties that violate the schema of their type."""
    schema = schema_of(kind)
    fault = next(faults(schema, schema, properties, "#"), None) if schema is not None else None
    if fault is not None:
        raise TemplateFault(f"Properties validation failed for resource {logical_id} with message: [{fault}]")


def faults(root: Schema, schema: Schema, value: Any, path: str) -> Iterator[str]:
    """The violations of a value and of everything inside it."""
    while "$ref" in schema:
        found: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[each](value) for each in kinds):
        yield f"{path}: expected type: {_NAMES[kinds[0]]}, found: {_found(value)}"
        return
    for find in (_inside_object, _inside_array):
        yield from find(root, schema, value, path)
    if not isinstance(value, (Mapping, list)):
        yield from _out_of_bounds(schema, value, path, is_number=bool(kinds) and set(kinds) <= {"integer", "number"})
    yield from _unmatched(root, schema, value, path)


def _inside_object(root: Schema, schema: Schema, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    given = {key: each for key, each in value.items() if each is not None}
    yield from (f"{path}: required key [{key}] not found" for key in schema.get("required", ()) if key not in given)
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, each in given.items():
        if key in known:
            yield from faults(root, known[key], each, f"{path}/{key}")
        elif fitting := [inner for pattern, inner in patterns.items() if _matches(pattern, key)]:
            yield from faults(root, fitting[0], each, f"{path}/{key}")
        elif schema.get("additionalProperties") is False:
            yield f"{path}: extraneous key [{key}] is not permitted"
    for name, holds in _PROPERTIES.items():
        if name in schema and not holds(len(given), schema[name]):
            yield _violated(path, name)


def _inside_array(root: Schema, schema: Schema, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        return
    for name, holds in _ITEMS.items():
        if name in schema and not holds(len(value), schema[name]):
            yield _violated(path, name)
    written = [json.dumps(each, sort_keys=True, default=str) for each in value]
    if schema.get("uniqueItems") and len(set(written)) < len(written):
        yield f"{path}: array items are not unique"
    for number, each in enumerate(value):
        yield from faults(root, schema.get("items", {}), each, f"{path}/{number}")


def _out_of_bounds(schema: Schema, value: Any, path: str, *, is_number: bool) -> Iterator[str]:
    text = _text(value)
    if REMEMBERED in text:
        return
    allowed = [_text(each) for each in schema.get("enum", ())]
    if allowed and text not in allowed:
        yield f"{path}: {text} is not a valid enum value"
    if "pattern" in schema and not _matches(schema["pattern"], text):
        yield _violated(path, "pattern")
    size: float = float(value) if is_number else len(text)
    for name, holds in (_NUMBERS if is_number else _TEXTS).items():
        if name in schema and not holds(size, schema[name]):
            yield _violated(path, name)


def _unmatched(root: Schema, schema: Schema, value: Any, path: str) -> Iterator[str]:
    """Violations of `anyOf` and `oneOf`."""
    for name in ("anyOf", "oneOf"):
        choices = schema.get(name, ())
        matching = [each for each in choices if next(faults(root, each, value, path), None) is None]
        if choices and not matching:
            yield f"{path}: #: no subschema matched out of the total {len(choices)} subschemas"
        elif name == "oneOf" and len(matching) > 1:
            yield f"{path}: #: {len(matching)} subschemas matched instead of one"


def _violated(path: str, keyword: str) -> str:
    return f"{path}: failed validation constraint for keyword [{keyword}]"


def _matches(pattern: str, text: str) -> bool:
    found = compiled_pattern(pattern)
    return found is None or found.search(text) is not None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool) or str(value).lower() in ("true", "false"),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "null": lambda value: value is None,
    "number": _is_number,
    "object": lambda value: isinstance(value, Mapping),
    "string": lambda value: not isinstance(value, (Mapping, list)),
}
"""Whether CloudFormation takes a value as one of the type."""

_NAMES = {
    "array": "JSONArray",
    "boolean": "Boolean",
    "integer": "Integer",
    "null": "null",
    "number": "Number",
    "object": "JSONObject",
    "string": "String",
}


def _found(value: Any) -> str:
    kinds = {bool: "Boolean", dict: "JSONObject", list: "JSONArray", int: "Integer", float: "BigDecimal"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "String")


def _at_least(size: float, bound: float) -> bool:
    return size >= bound


def _at_most(size: float, bound: float) -> bool:
    return size <= bound


_NUMBERS = {"minimum": _at_least, "maximum": _at_most}
_TEXTS = {"minLength": _at_least, "maxLength": _at_most}
_ITEMS = {"minItems": _at_least, "maxItems": _at_most}
_PROPERTIES = {"minProperties": _at_least, "maxProperties": _at_most}
