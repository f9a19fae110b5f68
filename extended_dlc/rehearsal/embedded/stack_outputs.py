"""`Fn::GetStackOutput`, which moto 5.2.5 lacks: an output of another stack, read while a stack is created or updated.

The CDK writes it for references between stacks where an app's feature flag `@aws-cdk/core:defaultCrossStackReferences`
is `weak`, as in new apps (CloudFormation template reference, "Fn::GetStackOutput"). The right to describe the other
stack, which CloudFormation wants of the stack's role, is not evaluated here.
"""

from __future__ import annotations

from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import cloudformation_backends
from moto.cloudformation.parsing import ResourceMap

NAME = "Fn::GetStackOutput"

_clean_json = parsing.clean_json


def clean_json(resource_json: Any, resources_map: ResourceMap) -> Any:
    """A part of a template with all intrinsic functions resolved."""
    if isinstance(resource_json, dict) and NAME in resource_json:
        return _read(_clean_json(resource_json[NAME], resources_map), resources_map)
    return _clean_json(resource_json, resources_map)


def _read(asked: dict[str, str], resources: ResourceMap) -> str:
    role = asked.get("RoleArn")
    account = role.split(":")[4] if role else resources._account_id
    region, name, output = asked.get("Region", resources._region_name), asked["StackName"], asked["OutputName"]
    stack = cloudformation_backends[account][region].get_stack(name)
    found = [str(each["OutputValue"]) for each in stack.outputs or () if each["OutputKey"] == output]
    if not found:
        raise ValidationError(message=f"Template error: stack {name} in {region} has no output {output} ({NAME})")
    return found[0]


def install() -> None:
    """Let moto resolve it wherever it resolves functions; it calls itself by this name."""
    parsing.clean_json = clean_json
