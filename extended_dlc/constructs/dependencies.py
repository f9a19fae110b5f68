"""Leaves the role out of a resource's dependencies where a property names it: cfn-lint calls it obsolete (W3005).

A resource needs the policies of its role, which no property names. The CDK has only a dependency on the role with all
below it, some of which may be defined later; so the role itself is taken out at the end, when all is defined.
"""

from __future__ import annotations

from typing import Any, cast

import jsii
from aws_cdk import CfnResource, Stack
from aws_cdk import aws_iam as iam
from constructs import IConstruct, IValidation

from extended_dlc.constructs.helpers import stack_of

_ATTRIBUTE = "_extended_dlc_roles_named"


def depend_on_policies_alone(*resources: IConstruct | None) -> None:
    """Let resources depend on no role, only on its policies; a property of each resource has to name its roles."""
    for each in resources:
        resource = each if each is None or isinstance(each, CfnResource) else each.node.default_child
        if isinstance(resource, CfnResource):
            _hook_of(stack_of(resource)).resources.append(resource)


@jsii.implements(IValidation)
class _RolesNamed:
    """Takes the roles out at the CDK's validation, which follows when the dependencies of constructs are resolved."""

    def __init__(self) -> None:
        self.resources: list[CfnResource] = []

    def validate(self) -> list[str]:
        """Take them out; returns no errors."""
        for resource in self.resources:
            for each in resource.obtain_dependencies():
                if isinstance(each, iam.CfnRole):
                    _remove(resource, each)
        return []


def _hook_of(stack: Stack) -> _RolesNamed:
    """The hook of a stack, which is made at the first call."""
    found = getattr(stack, _ATTRIBUTE, None)
    if isinstance(found, _RolesNamed):
        return found
    hook = _RolesNamed()
    stack.node.add_validation(cast(IValidation, hook))
    setattr(stack, _ATTRIBUTE, hook)
    return hook


def _remove(resource: CfnResource, target: CfnResource) -> None:
    # The method's name since the CDK deprecated `remove_dependency`.
    remove: Any = getattr(resource, "remove_resource_dependency", None) or resource.remove_dependency
    remove(target)
