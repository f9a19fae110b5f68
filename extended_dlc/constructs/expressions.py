"""What a template says about the values of its expressions before it is deployed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

UNKNOWN = "\0"
"""Stands in a text for what only a deployment knows."""

Template = Mapping[str, Any]


def values_of(expression: Any, template: Template) -> set[str] | None:
    """All values that an expression can have when the template is deployed; None where the template does not say."""
    if isinstance(expression, (int, float)):
        return {f"{expression:g}"}
    if isinstance(expression, str):
        return None if "{{resolve:" in expression else {expression}
    match expression:
        case {"Ref": "AWS::NoValue"}:
            return set()
        case {"Ref": str(name)}:
            return _of_parameter(template.get("Parameters", {}).get(name))
        case {"Fn::If": [_, *branches]}:
            return _together(values_of(each, template) for each in branches)
        case {"Fn::FindInMap": [str(name), *_]} if name in template.get("Mappings", {}):
            leaves = (value for row in template["Mappings"][name].values() for value in row.values())
            return _together(values_of(each, template) for each in leaves)
        case {"Fn::Join": _} | {"Fn::Sub": _}:
            text = text_of(expression, template)
            return None if UNKNOWN in text else {text}
    return None


def text_of(expression: Any, template: Template, *, names: bool = False) -> str:
    """An expression as a text, with `UNKNOWN` in place of what the template does not say.

    :param names: Whether the name of a parameter of Systems Manager takes the place of its value.
    """
    if isinstance(expression, str):
        return expression
    match expression:
        case {"Fn::Join": [str(between), list(parts)]}:
            return between.join(text_of(each, template, names=names) for each in parts)
        case {"Ref": str(name)} if names and is_read(template.get("Parameters", {}).get(name)):
            return str(template["Parameters"][name].get("Default", UNKNOWN))
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{[^}]*\}", UNKNOWN, text)
        case {"Fn::Join": _} | {"Fn::Sub": _}:
            return UNKNOWN
    found = values_of(expression, template)
    return next(iter(found)) if found is not None and len(found) == 1 else UNKNOWN


def referred(expression: Any) -> str | None:
    """The logical ID of the resource that an expression is an attribute of; None for any other expression."""
    match expression:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
            return name
    return None


def resources(template: Template, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The resources of a type, as logical ID and properties."""
    for name, resource in template.get("Resources", {}).items():
        if resource.get("Type") == kind:
            yield name, resource.get("Properties") or {}


def is_read(parameter: Mapping[str, Any] | None) -> bool:
    """Whether a parameter's value is the name of one of Systems Manager, which the deployment reads."""
    return parameter is not None and str(parameter.get("Type", "")).startswith("AWS::SSM::")


def _of_parameter(parameter: Mapping[str, Any] | None) -> set[str] | None:
    """The allowed values of a parameter; those of a parameter of Systems Manager are names, not values."""
    if parameter is None or is_read(parameter):
        return None
    allowed = parameter.get("AllowedValues")
    return set(map(str, allowed)) if allowed else None


def _together(found: Iterable[set[str] | None]) -> set[str] | None:
    all_of_them: set[str] = set()
    for each in found:
        if each is None:
            return None
        all_of_them |= each
    return all_of_them
