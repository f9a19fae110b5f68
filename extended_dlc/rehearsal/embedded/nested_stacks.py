"""`AWS::CloudFormation::Stack`: a nested stack is a stack of its own, made by the same operations as any other.

moto's nested stacks are made past every check, and an update deletes and makes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack, cloudformation_backends
from moto.cloudformation.utils import get_stack_from_s3_url
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.resources import NestedStackFailed, Properties, Wish
from extended_dlc.rehearsal.embedded.stacks import Operation
from extended_dlc.rehearsal.embedded.templates import stack_parameters

TYPE = "AWS::CloudFormation::Stack"

_STARTED = ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")


@dataclass
class _Nested:
    """A nested stack as a resource of its parent."""

    stack: Stack

    @property
    def physical_resource_id(self) -> str:
        return self.stack.stack_id

    def get_cfn_attribute(self, name: str) -> Any:
        """`Outputs.NAME`."""
        outputs = {f"Outputs.{each['OutputKey']}": each["OutputValue"] for each in self.stack.outputs or ()}
        if name not in outputs:
            raise ValidationError(message=f"Template error: resource {self.stack.name} has no attribute {name}")
        return outputs[name]


@dataclass(frozen=True)
class NestedStack:
    """The resource type."""

    load: Callable[[CloudFormationBackend, Mapping[str, Any], str], Stack]
    """Makes the stack of a request and a template, without any resource yet."""

    operate: Callable[[CloudFormationBackend, Stack, Stack], Operation]
    """An operation on the stack, as the principal of its parent."""

    def name_property(self) -> str | None:
        return None

    def replaces(self, changed: set[str]) -> bool:
        return False

    def create(self, wish: Wish) -> Any:
        """CreateStack; the parent waits for its end."""
        backend, given = cloudformation_backends[wish.account_id][wish.region], wish.properties
        request = {"StackName": wish.name, "Parameters": stack_parameters(given), "Tags": given.get("Tags", [])}
        stack = self.load(backend, request, _template(wish))
        backend.stacks[stack.stack_id] = stack
        self.operate(backend, stack, backend.stacks[wish.stack_id]).create(keep_failed=False)
        if stack.status != "CREATE_COMPLETE":
            raise NestedStackFailed(_failure(stack, "created"), _Nested(stack))
        return _Nested(stack)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """UpdateStack; the parent waits for its end."""
        backend, stack = cloudformation_backends[wish.account_id][wish.region], model.stack
        given = {each["ParameterKey"]: each["ParameterValue"] for each in stack_parameters(wish.properties)}
        tags = {each["Key"]: each["Value"] for each in wish.properties.get("Tags", ())}
        self.operate(backend, stack, backend.stacks[wish.stack_id]).update(_template(wish), given, tags)
        if stack.status != "UPDATE_COMPLETE":
            raise NestedStackFailed(_failure(stack, "updated"), model)
        return model

    def delete(self, wish: Wish, model: Any) -> None:
        """DeleteStack; the parent waits for its end."""
        backend, stack = cloudformation_backends[wish.account_id][wish.region], model.stack
        if stack.stack_id not in backend.stacks:
            return
        self.operate(backend, stack, backend.stacks[wish.stack_id]).delete()
        if stack.status == "DELETE_FAILED":
            raise NestedStackFailed(_failure(stack, "deleted"), model)


def _template(wish: Wish) -> str:
    url, partition = wish.properties["TemplateURL"], get_partition(wish.region)
    try:
        return get_stack_from_s3_url(url, account_id=wish.account_id, partition=partition)
    except Exception:  # of S3, in many forms
        message = f"TemplateURL must reference a valid S3 object to which you have access: {url}"
        raise ValidationError(message=message) from None


def _failure(stack: Stack, verb: str) -> str:
    """CloudFormation's words, with the reason of the nested stack itself."""
    of_stack = [each for each in stack.events if each.logical_resource_id == stack.name]
    why = [str(each.resource_status_reason or "") for each in of_stack if each.resource_status not in _STARTED]
    reason = next((each for each in why if each), "").removesuffix(" Rollback requested by user.")
    return f"Embedded stack {stack.stack_id} was not successfully {verb}: {reason}"
