"""What CloudFormation reads in the Parameter Store: SSM-typed parameters, and `{{resolve:ssm:…}}` in properties.

An SSM-typed parameter is read again for each change set and update, and a new value alone is a change. A dynamic
reference is read when its resource is created or updated, and a new value alone is none
(aws-cloudformation/cloudformation-coverage-roadmap#844: "No updates are to be performed").

A parameter of another account is named by its ARN, in an SSM-typed parameter alone (aws/aws-cdk#30646: "Dynamic
Reference is NOT supported"), and has to be shared with the stack's account (`sharing.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Stack
from moto.ssm.exceptions import ParameterVersionNotFound
from moto.ssm.models import ssm_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded import sharing

TYPED = "AWS::SSM::Parameter::Value<"
"""The beginning of an SSM-typed parameter's type."""

_REFERENCE = re.compile(r"\{\{resolve:ssm:([a-zA-Z0-9_.\-/]+(?::\d+)?)\}\}")


def arn_of(name: str, *, account_id: str, region: str) -> str:
    """The ARN of a parameter that a template of this account names by its name or its ARN."""
    if name.startswith("arn:"):
        return name
    return f"arn:{get_partition(region)}:ssm:{region}:{account_id}:parameter/{name.lstrip('/')}"


def read(name: str, *, account_id: str, region: str) -> str:
    """The value of a parameter, or of one version of it (`name:version`); of another account by its ARN."""
    owner, local = account_id, name
    if name.startswith("arn:"):
        owner, local = name.split(":", 5)[4], name.partition(":parameter")[2]
    try:
        may_read = owner == account_id or sharing.is_shared(name, with_account=account_id, region=region)
        found = ssm_backends[owner][region].get_parameter(local) if may_read else None
    except ParameterVersionNotFound:
        found = None
    if found is None:
        raise ValidationError(message=f"Unable to fetch parameters [{name}] from parameter store for this account.")
    return str(found.value)


def with_references_read(value: Any, *, account_id: str, region: str) -> Any:
    """A resource's properties with each dynamic reference replaced by the parameter's value."""
    if isinstance(value, Mapping):
        return {key: with_references_read(each, account_id=account_id, region=region) for key, each in value.items()}
    if isinstance(value, list):
        return [with_references_read(each, account_id=account_id, region=region) for each in value]
    if not isinstance(value, str) or "{{resolve:ssm:" not in value:
        return value
    return _REFERENCE.sub(lambda found: read(found[1], account_id=account_id, region=region), value)


def names_in(template: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    """The names of the parameters that a template reads; `given` has the values of the template's own parameters."""
    for key, each in template.get("Parameters", {}).items():
        if str(each.get("Type", "")).startswith(TYPED) and (name := given.get(key, each.get("Default"))):
            yield str(name)
    yield from _referred(template.get("Resources", {}))


def _referred(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (name.partition(":")[0] for name in _REFERENCE.findall(value))
    elif isinstance(value, (Mapping, list)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _referred(each)


def install() -> None:
    """Describe a stack's parameters with their names, and with what an SSM-typed one resolved to."""

    def parameter_list(self: Stack) -> list[dict[str, Any]]:
        return list(_described(self))

    Stack.parameter_list = property(parameter_list)  # type: ignore[assignment,method-assign]


def _described(stack: Stack) -> Iterator[dict[str, Any]]:
    resources = stack.resource_map
    for key, declared in stack.template_dict.get("Parameters", {}).items():
        resolved = resources.resolved_parameters.get(key)
        if declared.get("NoEcho"):
            yield {"ParameterKey": key, "ParameterValue": "****"}
        elif str(declared.get("Type", "")).startswith(TYPED):
            name = stack.parameters.get(key, declared.get("Default"))
            value = ",".join(resolved) if isinstance(resolved, list) else resolved
            yield {"ParameterKey": key, "ParameterValue": name, "ResolvedValue": value}
        else:
            value = stack.parameters.get(key, declared.get("Default"))
            yield {"ParameterKey": key, "ParameterValue": str(value)}
