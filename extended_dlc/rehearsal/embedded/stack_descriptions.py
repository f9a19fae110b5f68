"""What CloudFormation says of stacks, their resources and templates, where moto 5.2.5 has constants or nothing.

`install` changes moto in this process:

- the status and the time of a resource are those of its last event; moto's are the stack's status and a day of 2010;
- events and lists of resources come in pages of 100, whose token says where the next begins; moto's are whole;
- ListChangeSets lists the change sets of its stack; moto's those of all stacks;
- UpdateTerminationProtection, which the CDK CLI calls for `termination_protection`, is not implemented in moto;
- ValidateTemplate returns the parameters and capabilities; moto runs a linter, which writes a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Stack
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult

from extended_dlc.rehearsal.embedded.rules.stacks import capabilities_of

PAGE = 100
"""How many events or resources a page has (CloudFormation API reference; AWS CLI reference, list-stack-resources)."""

NOT_DRIFTED = "NOT_CHECKED"
"""The drift of every stack and resource: drift is not detected here."""


def _resource(stack: Stack, resource: Any) -> dict[str, Any]:
    """A resource in the forms of the three operations, of which each takes its members."""
    name = resource.logical_resource_id
    last = next((each for each in reversed(stack.events) if each.logical_resource_id == name), None)
    when = last.timestamp if last else stack.creation_time
    return {
        "StackId": stack.stack_id,
        "StackName": stack.name,
        "LogicalResourceId": name,
        "PhysicalResourceId": resource.physical_resource_id,
        "ResourceType": resource.cf_resource_type,
        "ResourceStatus": last.resource_status if last else stack.status,
        "ResourceStatusReason": last.resource_status_reason if last else None,
        "Timestamp": when,
        "LastUpdatedTimestamp": when,
        "DriftInformation": {"StackResourceDriftStatus": NOT_DRIFTED},
    }


def _parameter(name: str, declared: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ParameterKey": name,
        "DefaultValue": None if "Default" not in declared else str(declared["Default"]),
        "NoEcho": str(declared.get("NoEcho", False)).lower() == "true",
        "Description": declared.get("Description"),
    }


def _describe_stack_resource(self: CloudFormationResponse) -> ActionResult:
    name = self._get_param("StackName"), self._get_param("LogicalResourceId")
    stack, resource = self.cloudformation_backend.describe_stack_resource(*name)
    return ActionResult({"StackResourceDetail": _resource(stack, resource)})


def _describe_stack_resources(self: CloudFormationResponse) -> ActionResult:
    name = self._get_param("StackName"), self._get_param("LogicalResourceId")
    stack, resources = self.cloudformation_backend.describe_stack_resources(*name)
    return ActionResult({"StackResources": [_resource(stack, each) for each in resources]})


def _list_stack_resources(self: CloudFormationResponse) -> ActionResult:
    stack, resources = self.cloudformation_backend.list_stack_resources(self._get_param("StackName"))
    return _page(self, "StackResourceSummaries", [_resource(stack, each) for each in resources])


def _describe_stack_events(self: CloudFormationResponse) -> ActionResult:
    events = self.cloudformation_backend.describe_stack_events(self._get_param("StackName"))
    return _page(self, "StackEvents", events[::-1])


def _page(self: CloudFormationResponse, member: str, found: Sequence[Any]) -> ActionResult:
    """One page of a list. Its token counts from the end, as new events come before the first."""
    token = self._get_param("NextToken")
    begin = 0 if token is None else len(found) - int(token)
    left = len(found) - begin - PAGE
    return ActionResult({member: found[begin : begin + PAGE], "NextToken": str(left) if left > 0 else None})


def _list_change_sets(self: CloudFormationResponse) -> ActionResult:
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    change_sets = self.cloudformation_backend.list_change_sets()
    return ActionResult({"Summaries": [each for each in change_sets if each.stack is stack]})


def _update_termination_protection(self: CloudFormationResponse) -> ActionResult:
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    stack.enable_termination_protection = bool(self._get_param("EnableTerminationProtection"))
    return ActionResult({"StackId": stack.stack_id})


def _validate_template(self: CloudFormationResponse) -> ActionResult:
    url = self._get_param("TemplateURL")
    text = self._get_stack_from_s3_url(url) if url else self._get_param("TemplateBody")
    try:
        template = Stack.parse_template(text or "")
    except Exception:  # moto raises those of two parsers
        template = None
    if not isinstance(template, Mapping):
        raise ValidationError(message="Template format error: unsupported structure.")
    capabilities = capabilities_of(template)
    reason = f"The following capabilities are needed: {capabilities}" if capabilities else None
    return ActionResult(
        {
            "Description": template.get("Description"),
            "Parameters": [_parameter(name, each) for name, each in (template.get("Parameters") or {}).items()],
            "Capabilities": capabilities,
            "CapabilitiesReason": reason,
        }
    )


def install() -> None:
    """Change moto's CloudFormation in this process."""
    for operation in (
        _describe_stack_events,
        _describe_stack_resource,
        _describe_stack_resources,
        _list_change_sets,
        _list_stack_resources,
        _update_termination_protection,
        _validate_template,
    ):
        setattr(CloudFormationResponse, operation.__name__.lstrip("_"), operation)
