"""The role and the log of the function that copies images into their repositories."""

from __future__ import annotations

from typing import cast

from aws_cdk import CfnResource, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct, IConstruct

from extended_dlc.constructs.functions import settle_function

_FUNCTION = "Custom::CDKECRDeployment"
"""Start of the id of `cdk-ecr-deployment`'s function in the stack."""

LOG = "ImageCopyLog"
"""Id in the stack of the log group of the copying functions."""


def copy_role(scope: Construct) -> iam.Role:
    """The role of `cdk-ecr-deployment`'s function in the stack of `scope`: one per stack, as there is one function.

    It may write its own log and nothing else; each image grants it its source and its destination.
    """
    stack = Stack.of(scope)
    existing = stack.node.try_find_child("ImageCopyRole")
    if isinstance(existing, iam.Role):
        return existing
    role = iam.Role(
        stack,
        "ImageCopyRole",
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        description="Copies extended images from the asset repository into their own",
    )
    log = CfnResource(stack, LOG, type="AWS::Logs::LogGroup", properties={"RetentionInDays": 30})
    log.apply_removal_policy(RemovalPolicy.DESTROY)
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[log.get_att("Arn").to_string()]
        )
    )
    return role


def log_copies(scope: Construct) -> None:
    """Let the function log to the stack's log group: the name of Lambda's default group is CloudFormation's choice.

    The CDK makes a resource of that default group where `@aws-cdk/aws-lambda:useCdkManagedLogGroup` is set. It would be
    empty, and left behind by each deletion of the stack.
    """
    stack = Stack.of(scope)
    log = cast(CfnResource, stack.node.find_child(LOG))
    function = copy_function(stack)
    _copier(stack).node.try_remove_child("LogGroup")
    function.add_property_override("LoggingConfig", {"LogGroup": log.ref})
    settle_function(function, copy_role(scope))


def copy_function(stack: Stack) -> CfnResource:
    """The copying function of a stack that has at least one copy."""
    return cast(CfnResource, _copier(stack).node.default_child)


def _copier(stack: Stack) -> IConstruct:
    return next(each for each in stack.node.children if each.node.id.startswith(_FUNCTION))
