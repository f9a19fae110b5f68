"""Applies `PlatformDefaults` to a scope: tags, functions, roles, log groups, and the check of finished templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import jsii
from aws_cdk import Aspects, Aws, CfnResource, IAspect, Names, Stack, Tags
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct, IValidation

from extended_dlc.constructs.functions import let_functions
from extended_dlc.constructs.platform_finished import Finishes
from extended_dlc.constructs.platform_rules import add_rules

if TYPE_CHECKING:
    from extended_dlc.constructs.platform_defaults import PlatformDefaults

ROLE_NAME = 64
"""The longest name of a role (IAM user guide, "IAM and AWS STS quotas")."""


def apply(rules: PlatformDefaults, home: Construct) -> None:
    """Apply the rules to everything below a construct."""
    add_rules(rules, home)
    for key, value in rules.tags.items():
        Tags.of(home).add(key, value)
    if rules.functions is not None:
        let_functions(home, rules.functions)
    if rules.permissions_boundary is not None:
        iam.PermissionsBoundary.of(home).apply(rules.permissions_boundary)
    if rules.role_path or rules.role_name_prefix or rules.log_retention_days:
        Aspects.of(home).add(cast(IAspect, _Resources(rules)))
    if rules.checks_templates:
        home.node.add_validation(cast(IValidation, Finishes(rules, home)))


@jsii.implements(IAspect)
class _Resources:
    """Sets the properties of roles and log groups that have none of their own."""

    def __init__(self, rules: PlatformDefaults) -> None:
        self._rules = rules

    def visit(self, node: IConstruct) -> None:
        """Set the properties of one construct."""
        if not isinstance(node, CfnResource):
            return
        rules, kind = self._rules, node.cfn_resource_type
        if kind == "AWS::IAM::Role":
            if rules.role_path is not None and getattr(node, "path", None) is None:
                node.add_property_override("Path", rules.role_path)
            # For a role without a name it is a token that resolves to None.
            named = Stack.of(node).resolve(getattr(node, "role_name", None))
            if rules.role_name_prefix is not None and named is None:
                node.add_property_override("RoleName", _role_name(node, rules.role_name_prefix))
        if isinstance(node, logs.CfnLogGroup) and rules.log_retention_days and node.retention_in_days is None:
            node.retention_in_days = rules.log_retention_days


def _role_name(node: CfnResource, prefix: str) -> str:
    """A name that is the same at each synth and contains the region, because IAM's names are global."""
    room = ROLE_NAME - len(prefix) - len("-ap-southeast-1") - 1
    unique = Names.unique_resource_name(node, max_length=room, separator="-")
    return f"{prefix}{unique}-{Aws.REGION}"
