"""What CloudFormation refuses in a template before it makes anything: its sections, functions and references.

Functions and references of a template with a transform are not looked at, because its macros write another one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from extended_dlc.rehearsal.embedded import resource_schemas
from extended_dlc.rehearsal.embedded.stack_outputs import NAME as GET_STACK_OUTPUT

Template = Mapping[str, Any]

_SECTIONS = frozenset(
    {
        *("AWSTemplateFormatVersion", "Conditions", "Description", "Hooks", "Mappings", "Metadata", "Outputs"),
        *("Parameters", "Resources", "Rules", "Transform"),
    }
)
_OF_RESOURCE = frozenset(
    {
        *("Condition", "CreationPolicy", "DeletionPolicy", "DependsOn", "Metadata", "Properties", "Type"),
        *("UpdatePolicy", "UpdateReplacePolicy"),
    }
)
_KEPT = ("Delete", "Retain", "RetainExceptOnCreate", "Snapshot")
_OF_PARAMETER = frozenset(
    {
        *("AllowedPattern", "AllowedValues", "ConstraintDescription", "Default", "Description", "MaxLength"),
        *("MaxValue", "MinLength", "MinValue", "NoEcho", "Type"),
    }
)
_PARAMETER_TYPE = re.compile(
    r"String|Number|CommaDelimitedList|List<(String|Number|AWS::[\w:]+)>|AWS::[\w:]+(<[\w:]+(<[\w:]+>)?>)?"
)
_EXPORT = re.compile(r"[A-Za-z0-9:-]+")
_LONGEST_DESCRIPTION = 1024
_TYPE = re.compile(r"Custom::[\w@-]{1,52}|\w+::\w+::\w+(::MODULE)?")

_FUNCTIONS = (
    *("Fn::And", "Fn::Base64", "Fn::Cidr", "Fn::Equals", "Fn::FindInMap", "Fn::GetAtt", "Fn::GetAZs"),
    *(GET_STACK_OUTPUT, "Fn::If", "Fn::ImportValue", "Fn::Join", "Fn::Not", "Fn::Or", "Fn::Select", "Fn::Split"),
    "Fn::Sub",
)
"""The intrinsic functions of templates without a transform (CloudFormation template reference)."""

_OF_RULES = (
    *("Fn::Contains", "Fn::EachMemberEquals", "Fn::EachMemberIn", "Fn::RefAll", "Fn::ValueOf", "Fn::ValueOfAll"),
)
"""The functions of the section Rules, which are supported everywhere as far as the error message says."""

_PSEUDO = frozenset(
    f"AWS::{each}"
    for each in (
        *("AccountId", "NoValue", "NotificationARNs", "Partition", "Region", "StackId", "StackName", "URLSuffix"),
    )
)


def fault_of_sections(template: Template) -> str | None:
    """What is wrong with the sections, and with the parts of each resource and output."""
    if strange := sorted(set(template) - _SECTIONS):
        return f"Invalid template property or properties [{', '.join(strange)}]"
    resources = template.get("Resources")
    if not isinstance(resources, Mapping) or not resources:
        return "Template format error: At least one Resources member must be defined."
    for name, each in resources.items():
        if fault := _fault_of_resource(str(name), each, resources):
            return fault
    types, transformed = {str(each["Type"]) for each in resources.values()}, _is_transformed(template)
    if strange := sorted(each for each in types if not _is_type(each, transformed=transformed)):
        return f"Template format error: Unrecognized resource types: [{', '.join(strange)}]"
    return None


def fault_of_form(template: Template) -> str | None:
    """What is wrong with the version, the description, the parameters, and with null as a value."""
    if str(template.get("AWSTemplateFormatVersion", "2010-09-09")) != "2010-09-09":
        return "Template format error: unsupported value for AWSTemplateFormatVersion."
    description = template.get("Description", "")
    if not isinstance(description, str) or len(description) > _LONGEST_DESCRIPTION:
        return f"Template format error: 'Description' length is greater than {_LONGEST_DESCRIPTION}."
    for name, each in (template.get("Parameters") or {}).items():
        if fault := _fault_of_parameter(str(name), each):
            return fault
    for section in ("Resources", "Outputs") if not _is_transformed(template) else ():
        if (place := _null_in(template.get(section) or {}, f"/{section}")) is not None:
            return f"Template format error: [{place}] 'null' values are not allowed in templates"
    return None


def _fault_of_parameter(name: str, declared: Any) -> str | None:
    if not re.fullmatch(r"[A-Za-z0-9]+", name):
        return f"Template format error: Parameter name {name} is non alphanumeric."
    if not isinstance(declared, Mapping) or "Type" not in declared:
        return "Template format error: Every Parameters object must contain a Type member."
    if strange := sorted(set(declared) - _OF_PARAMETER):
        return f"Invalid template parameter property '{strange[0]}'"
    if not _PARAMETER_TYPE.fullmatch(str(declared["Type"])):
        return f"Template format error: Unrecognized parameter type: {declared['Type']}"
    if isinstance(declared.get("Default", ""), (Mapping, list)) or declared.get("Default", "") is None:
        return "Template format error: Every Default member must be a string."
    return None


def _null_in(value: Any, place: str) -> str | None:
    """The place of a null; None without any."""
    if value is None:
        return place
    inside: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    found = (_null_in(each, f"{place}/{key}") for key, each in inside)
    return next((each for each in found if each is not None), None)


def fault_of_outputs(template: Template) -> str | None:
    """What is wrong with the outputs, and with the names of their exports."""
    if _is_transformed(template):
        return None
    names: list[str] = []
    for key, output in (template.get("Outputs") or {}).items():
        if not re.fullmatch(r"[A-Za-z0-9]+", str(key)):
            return f"Template format error: Outputs name '{key}' is non alphanumeric."
        if not isinstance(output, Mapping) or "Value" not in output:
            return "Template format error: Every Outputs member must contain a Value object"
        if isinstance(output["Value"], list):
            return "Template format error: The Value field of every Outputs member must evaluate to a String."
        if "Export" not in output:
            continue
        name = (output["Export"] or {}).get("Name") if isinstance(output["Export"], Mapping) else None
        malformed = f"Template format error: Output {key} is malformed. The Name field of "
        resources = template.get("Resources") or {}
        if any(each in resources for each, _ in references_of(name)) or any(
            function in ("Fn::ImportValue", "Fn::GetAZs") for function, _ in _members(name)
        ):
            return f"{malformed}Export must not depend on any resources, imported values, or Fn::GetAZs."
        if not name or (isinstance(name, str) and not _EXPORT.fullmatch(name)):
            return (
                f"{malformed}every Export member must be specified and consist only of alphanumeric characters, "
                "colons, or hyphens."
            )
        names += [name] if isinstance(name, str) else []
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return (
            f"Template format error: The Outputs section contains duplicate Export names: [{', '.join(twice)}]. "
            "Specify a unique name for each export."
        )
    return None


def _is_type(name: str, *, transformed: bool) -> bool:
    """Whether a type has the form of one and is none of AWS's that CloudFormation lacks; a macro may have its own."""
    if not _TYPE.fullmatch(name):
        return False
    return transformed or name.endswith("::MODULE") or not resource_schemas.is_unknown(name)


def _fault_of_resource(name: str, resource: Any, resources: Mapping[str, Any]) -> str | None:
    if not re.fullmatch(r"[A-Za-z0-9]+", name):
        return f"Template format error: Resource name {name} is non alphanumeric."
    if not isinstance(resource, Mapping) or not resource.get("Type"):
        return f"Template format error: [/Resources/{name}] Every Resources object must contain a Type member."
    if strange := sorted(set(resource) - _OF_RESOURCE):
        return f"Invalid template resource property '{strange[0]}'"
    if not isinstance(resource.get("Properties", {}), Mapping):
        return f"Template format error: [/Resources/{name}/Properties] must be an object."
    depends = resource.get("DependsOn") or []
    if absent := sorted({*([depends] if isinstance(depends, str) else depends)} - set(resources)):
        return _unresolved(absent, "Resources")
    for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
        if isinstance(value := resource.get(policy, "Delete"), str) and value not in _KEPT:
            return f"Template format error: Unrecognized {policy} {value} for resource {name}"
    return None


def _unresolved(names: Collection[str], section: str) -> str:
    return (
        f"Template format error: Unresolved resource dependencies [{', '.join(sorted(names))}] in the {section} block "
        "of the template"
    )


def _is_transformed(template: Template) -> bool:
    return "Transform" in template or any(key == "Fn::Transform" for key, _ in _members(template))


def fault_of_functions(template: Template) -> str | None:
    """What is wrong with the intrinsic functions: names, numbers of arguments, and mappings that there are not."""
    if _is_transformed(template):
        return None
    for name, given in _functions(template):
        if name not in _FUNCTIONS and name not in _OF_RULES:
            supported = ", ".join((*_FUNCTIONS, *_OF_RULES, "Ref", "Condition"))
            return f"Template error: Encountered unsupported function: {name} Supported functions are: [{supported}]"
        if name == "Fn::If" and (not isinstance(given, list) or len(given) != 3):
            return "Template error: Fn::If requires a list argument with three elements"
        if fault := _fault_of_arguments(name, given):
            return fault
        if name == "Fn::FindInMap" and (fault := _fault_of_mapping(template.get("Mappings") or {}, given)):
            return fault
    return None


def _fault_of_arguments(name: str, given: Any) -> str | None:
    """What is wrong with the arguments of a function, as far as the template alone says it."""
    is_pair = isinstance(given, list) and len(given) == 2
    if name == "Fn::GetAtt" and isinstance(given, list) and not (is_pair and all(given)):
        return (
            "Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name and the "
            "resource attribute"
        )
    if name == "Fn::Join" and not (is_pair and isinstance(given[0], str) and isinstance(given[1], (list, Mapping))):
        return (
            "Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of "
            "strings to be joined or a function that returns a list of strings (such as Fn::GetAZs) to be joined."
        )
    selects = name == "Fn::Select" and is_pair and isinstance(given[1], list) and re.fullmatch(r"-?\d+", str(given[0]))
    if selects and not 0 <= int(given[0]) < len(given[1]):
        return f"Template error: Fn::Select cannot select nonexistent value at index {given[0]}"
    return None


def _functions(template: Template) -> Iterator[tuple[str, Any]]:
    for section in ("Conditions", "Resources", "Outputs"):
        for key, value in _members(template.get(section)):
            if key.startswith("Fn::"):
                yield key, value


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at every depth."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key), each
            yield from _members(each)
    elif isinstance(value, list):
        for each in value:
            yield from _members(each)


def _fault_of_mapping(mappings: Mapping[str, Any], given: Any) -> str | None:
    if not isinstance(given, list) or len(given) not in (3, 4):
        return (
            "Template error: every Fn::FindInMap object requires three parameters, the map name, map key and the "
            "attribute for return value"
        )
    if isinstance(given[0], str) and given[0] not in mappings:
        return f"Template error: Mapping named '{given[0]}' is not present in the 'Mappings' section of template."
    if len(given) == 3 and all(isinstance(each, str) for each in given):
        name, key, attribute = given
        if attribute not in mappings[name].get(key, {}):
            return f"Template error: Unable to get mapping for {name}::{key}::{attribute}"
    return None


def fault_of_references(template: Template) -> str | None:
    """A parameter, resource or condition that a part of the template refers to, and that there is not."""
    if _is_transformed(template):
        return None
    resources, conditions = template.get("Resources") or {}, template.get("Conditions") or {}
    values = {*(template.get("Parameters") or {}), *_PSEUDO}
    if absent := {name for name, _ in references_of(conditions)} - values:
        return (
            f"Template format error: Unresolved dependencies [{', '.join(sorted(absent))}]. Cannot reference resources "
            "in the Conditions block of the template"
        )
    for section in ("Resources", "Outputs"):
        found = list(references_of(template.get(section)))
        absent = {name for name, attribute in found if name not in (resources if attribute else {*values, *resources})}
        if absent:
            return _unresolved(absent, section)
    for section in ("Conditions", "Resources", "Outputs"):
        if fault := _fault_of_conditions(template.get(section) or {}, conditions, section):
            return fault
    return None


def _fault_of_conditions(part: Mapping[str, Any], conditions: Collection[str], section: str) -> str | None:
    for key, given in _members(part):
        if key == "Fn::If" and str(given[0]) not in conditions:
            return f"Template error: unresolved condition dependency {given[0]} in Fn::If"
    named = [given for key, given in _members(part) if key == "Condition"] if section == "Conditions" else []
    named += [each.get("Condition") for each in part.values()] if section != "Conditions" else []
    if absent := [each for each in named if isinstance(each, str) and each not in conditions]:
        return (
            f"Template format error: Unresolved condition dependency {absent[0]} in the {section} block of the template"
        )
    return None


def references_of(value: Any) -> Iterator[tuple[str, bool]]:
    """The names to which a part of a template refers, and whether the reference is to an attribute."""
    if isinstance(value, list):
        for each in value:
            yield from references_of(each)
    if not isinstance(value, Mapping):
        return
    for key, each in value.items():
        if key == "Ref" and isinstance(each, str):
            yield each, False
        elif key == "Fn::GetAtt":
            yield (str(each[0]) if isinstance(each, list) else str(each).split(".")[0]), True
        elif key == "Fn::Sub":
            text, given = each if isinstance(each, list) else (each, {})
            for name in re.findall(r"\$\{([^!}]+)\}", str(text)):
                if name.strip() not in given:
                    first, _, attribute = name.strip().partition(".")
                    yield first, bool(attribute)
            yield from references_of(given)
        else:
            yield from references_of(each)
