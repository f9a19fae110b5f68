"""Each request is checked against botocore's shapes: required members, types, enumerations, patterns and bounds.

AWS's services validate requests with the model that botocore has a copy of. botocore itself checks only required
members, types and minimum values, and only for its own callers. Here each request is checked, whether it comes from
boto3, the AWS CLI, a hand-made HTTP request or a template, with the services' error codes and messages. A property of a
template with an unknown name or a wrong type is refused as CloudFormation refuses it, everything else as the service
does.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape
from moto.core.utils import get_service_model

from extended_dlc.rehearsal.embedded.calls import Call, Parameters

REMEMBERED = "remembered-only-"
"""Begins the names of resources that are only recorded. What AWS would call them is not known, so a value with such a
name is not compared with patterns and bounds."""


class Refusal(Exception):
    """A refused API call, with AWS's error code and message."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class TemplateFault(Refusal):
    """CloudFormation refuses the property without a call: the resource type lacks it, or it has another type."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationError", message)


CHECKED: Mapping[str, str] = {
    "application-autoscaling": "ValidationException",
    "cloudformation": "ValidationError",
    "cloudwatch": "ValidationError",
    "codebuild": "InvalidInputException",
    "ecr": "InvalidParameterException",
    "events": "ValidationException",
    "iam": "ValidationError",
    "kms": "ValidationException",
    "lambda": "ValidationException",
    "logs": "InvalidParameterException",
    "sagemaker": "ValidationException",
    "sagemaker-runtime": "ValidationError",
    "scheduler": "ValidationException",
    "secretsmanager": "ValidationException",
    "ssm": "ValidationException",
    "stepfunctions": "ValidationException",
    "sts": "ValidationError",
}
"""The checked services, and the error code of an invalid request (each API reference, "Common Errors")."""

_SHOWN = 256
"""How many characters of a value an error message repeats."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One member that violates its shape."""

    value: str
    """As in error messages: `null`, or the value in quotes."""

    path: str
    rule: str

    def __str__(self) -> str:
        return f"Value {self.value} at '{self.path}' failed to satisfy constraint: {self.rule}"


class WrongType(Exception):
    """A member's value has a type that the protocol cannot parse."""

    def __init__(self, path: str, wanted: str, got: str) -> None:
        super().__init__(f"{path}: {got} for {wanted}")
        self.path, self.wanted, self.got = path, wanted, got


def check(call: Call) -> None:
    """Raise `Refusal` for parameters that violate the service's model."""
    if call.service not in CHECKED:
        return
    if call.problem is not None:
        raise Refusal("SerializationException", call.problem)
    shape = call.model.input_shape
    if shape is None:
        return
    try:
        faults = list(_faults(shape, call.parameters, ""))
    except WrongType as wrong:
        raise Refusal("SerializationException", f"{wrong.got} can not be converted to {wrong.wanted}") from None
    if faults:
        raise Refusal(CHECKED[call.service], _words(call.service, faults))


def _words(service: str, faults: list[Fault]) -> str:
    if service == "ecr":  # ECR has its own form of the message
        first = faults[0]
        return f"Invalid parameter at '{first.path}' failed to satisfy constraint: '{first.rule}'"
    number = f"{len(faults)} validation error{'s' if len(faults) > 1 else ''} detected"
    return f"{number}: {'; '.join(map(str, faults))}"


def _faults(shape: Shape, value: Any, path: str) -> Iterator[Fault]:
    """The violations of a value and of everything inside it."""
    _check_type(shape, value, path)
    if isinstance(shape, StructureShape):
        for name in shape.required_members:
            if value.get(name) is None:
                yield Fault(value="null", path=_join(path, name), rule="Member must not be null")
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _faults(member, value[name], _join(path, name))
        return
    yield from _out_of_bounds(shape, value, path)
    if isinstance(shape, ListShape):
        for number, each in enumerate(value, 1):
            if each is None:
                yield Fault(value="null", path=f"{path}.{number}.member", rule="Member must not be null")
            elif isinstance(shape.member, (StructureShape, ListShape, MapShape)):
                yield from _faults(shape.member, each, f"{path}.{number}.member")
            else:
                yield from _inside(shape.member, each, path, value, "Member must satisfy constraint")
    elif isinstance(shape, MapShape):
        for key, each in value.items():
            yield from _inside(shape.key, key, path, value, "Map keys must satisfy constraint")
            if isinstance(shape.value, (StructureShape, ListShape, MapShape)):
                yield from _faults(shape.value, each, f"{path}.{key}.member")
            else:
                yield from _inside(shape.value, each, path, value, "Map value must satisfy constraint")
    elif isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        rule = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        yield Fault(value=_quoted(value), path=path, rule=rule)


def _inside(shape: Shape, value: Any, path: str, whole: Any, words: str) -> Iterator[Fault]:
    """The violation of one item of a list or map, which error messages report for the list or map as a whole."""
    rules = [fault.rule for fault in _faults(shape, value, path)]
    if rules:
        yield Fault(value=_quoted(whole), path=path, rule=f"{words}: [{', '.join(rules)}]")


def _out_of_bounds(shape: Shape, value: Any, path: str) -> Iterator[Fault]:
    """The violations of minimum, maximum and pattern."""
    if isinstance(value, str) and REMEMBERED in value:
        return
    bounds = shape.metadata
    number = shape.type_name in ("integer", "long", "float", "double")
    if number:
        size, what = value, "value"
    elif shape.type_name == "blob" and isinstance(value, str):
        size, what = _bytes_of(value, path), "length"
    elif shape.type_name in ("string", "list", "map", "blob"):
        size, what = len(value), "length"
    else:
        return
    if "min" in bounds and size < bounds["min"]:
        rule = f"Member must have {what} greater than or equal to {bounds['min']}"
        yield Fault(value=_quoted(value), path=path, rule=rule)
    if "max" in bounds and size > bounds["max"]:
        rule = f"Member must have {what} less than or equal to {bounds['max']}"
        yield Fault(value=_quoted(value), path=path, rule=rule)
    pattern = bounds.get("pattern")
    if pattern and isinstance(value, str) and (compiled := compiled_pattern(pattern)) and not compiled.fullmatch(value):
        rule = f"Member must satisfy regular expression pattern: {pattern}"
        yield Fault(value=_quoted(value), path=path, rule=rule)


def _bytes_of(text: str, path: str) -> int:
    """The length of a blob, which JSON has as base64."""
    try:
        return len(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise WrongType(path, "a Blob", "STRING_VALUE") from None


_CLASSES = {
    r"\p{ASCII}": r"\x00-\x7f",
    r"\p{Print}": r"\x20-\x7e",
    r"\p{Alnum}": r"A-Za-z0-9",
    r"\p{Z}": r"\s",
    r"\p{N}": r"\d",
    r"\p{M}": r"\u0300-\u036f",
    r"\p{S}": r"$+<=>^`|~",
    r"\p{P}": r"!-#%-*,-/:;?@\[-\]_{}",
}
"""Java's character classes as Python writes them inside brackets."""


_SPELLINGS = {
    # the nearest to the class of all letters inside another class: it adds the digits and the underscore
    r"\p{L}": r"\w",
    r"\uD800\uDC00-\uDBFF\uDFFF": r"\U00010000-\U0010ffff",
    r"\w-": r"\w\-",
    r"\p{Zs}": r"\s",
    r"\z": r"\Z",
}
"""Spellings of the service models that Python's `re` writes differently."""


@functools.cache
def compiled_pattern(pattern: str) -> re.Pattern[str] | None:
    """A service model's pattern in Python's syntax; None where Python cannot express it."""
    written = pattern
    for model, python in _SPELLINGS.items():
        written = written.replace(model, python)
    written = re.sub(r"\$\{\d+,\d+\}", "", written)  # tags' patterns mean a length, which has its own bounds
    for java, python in _CLASSES.items():
        written = re.sub(rf"(?<!\[){re.escape(java)}(?![^\[]*\])", functools.partial(_in_brackets, python), written)
        written = written.replace(java, python)
    try:
        return re.compile(written, re.DOTALL)
    except re.error:
        return None


def _in_brackets(inner: str, found: re.Match[str]) -> str:
    return f"[{inner}]"


def unreadable_patterns(service: str) -> set[str]:
    """The patterns of a service's model that Python cannot express."""
    model = get_service_model(service)
    patterns = {model.shape_for(name).metadata.get("pattern") for name in model.shape_names}
    return {each for each in patterns if each and compiled_pattern(each) is None}


def _check_type(shape: Shape, value: Any, path: str) -> None:
    """Raise `WrongType` for a value that the protocol cannot parse as the member's type."""
    allowed, wanted = _TYPES.get(shape.type_name, ((object,), ""))
    if isinstance(value, bool) and bool not in allowed and object not in allowed:
        raise WrongType(path, wanted, "TRUE_VALUE" if value else "FALSE_VALUE")
    if not isinstance(value, allowed):
        raise WrongType(path, wanted, _kind(value))


_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "structure": ((Mapping,), "a structure"),
    "map": ((Mapping,), "a Map"),
    "list": ((list, tuple), "a List"),
    "string": ((str,), "a String"),
    "integer": ((int,), "an Integer"),
    "long": ((int,), "a Long"),
    "float": ((int, float), "a Float"),
    "double": ((int, float), "a Double"),
    "boolean": ((bool,), "a Boolean"),
    "blob": ((str, bytes, bytearray), "a Blob"),
    "timestamp": ((int, float, str, datetime), "a Timestamp"),
}


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "STRING_VALUE"
    if isinstance(value, (int, float)):
        return "NUMBER_VALUE"
    return "START_ARRAY" if isinstance(value, list) else "START_OBJECT"


def _join(path: str, name: str) -> str:
    """A member's path as in error messages: `productionVariants.1.member.instanceType`."""
    member = name[0].lower() + name[1:]
    return f"{path}.{member}" if path else member


def _quoted(value: Any) -> str:
    return f"'{str(value)[:_SHOWN]}'"


# templates


def typed(shape: Shape, value: Any, path: str = "#") -> Any:
    """A template's value with the API's type: CloudFormation accepts numbers and booleans written as strings.

    Raises `TemplateFault`, with CloudFormation's message, for an unknown property or one of another type.
    """
    if value is None:
        return None
    if isinstance(shape, StructureShape):
        if not isinstance(value, Mapping):
            raise _expected(path, "JSONObject", value)
        if unknown := sorted(set(value) - set(shape.members)):
            raise TemplateFault(f"{path}: extraneous key [{unknown[0]}] is not permitted")
        return {key: typed(shape.members[key], each, f"{path}/{key}") for key, each in value.items()}
    if isinstance(shape, ListShape):
        if not isinstance(value, (list, tuple)):
            raise _expected(path, "JSONArray", value)
        return [typed(shape.member, each, f"{path}/{number}") for number, each in enumerate(value)]
    if isinstance(shape, MapShape):
        if not isinstance(value, Mapping):
            raise _expected(path, "JSONObject", value)
        return {key: typed(shape.value, each, f"{path}/{key}") for key, each in value.items()}
    convert, wanted = _CONVERT.get(shape.type_name, (lambda given: given, ""))
    try:
        return convert(value)
    except (ValueError, TypeError):
        raise _expected(path, wanted, value) from None


def _to_integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _to_number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("true", "false"):
        raise ValueError(value)
    return str(value).lower() == "true"


def _to_text(value: Any) -> str:
    if isinstance(value, (Mapping, list)):
        raise TypeError(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


_CONVERT: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "integer": (_to_integer, "Integer"),
    "long": (_to_integer, "Integer"),
    "float": (_to_number, "Number"),
    "double": (_to_number, "Number"),
    "boolean": (_to_boolean, "Boolean"),
    "string": (_to_text, "String"),
}


def _expected(path: str, wanted: str, value: Any) -> TemplateFault:
    kinds = {dict: "JSONObject", list: "JSONArray", bool: "Boolean", int: "Integer", float: "Number"}
    got = next((name for kind, name in kinds.items() if isinstance(value, kind)), "String")
    return TemplateFault(f"{path}: expected type: {wanted}, found: {got}")


def parameters_of(service: str, operation: str, properties: Parameters) -> Parameters:
    """A template's properties as the parameters of an operation whose members have the same names."""
    return dict(typed(get_service_model(service).operation_model(operation).input_shape, properties))
