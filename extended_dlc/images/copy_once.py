"""The function that skips a copy whose image exists already: repositories with immutable tags need it."""

from __future__ import annotations

from typing import cast

from aws_cdk import CfnResource, Duration, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from extended_dlc.constructs.functions import new_function
from extended_dlc.images.copy_role import LOG, copy_function


def copy_once(copy: Construct, *, role: iam.Role, repository: ecr.IRepository) -> None:
    """Let a `cdk-ecr-deployment` copy call the stack's copy-once function, which has the copying function's role."""
    stack = Stack.of(copy)
    found = stack.node.try_find_child("ImageCopyOnce")
    function = found if isinstance(found, lambda_.Function) else _new_function(stack, role)
    iam.Grant.add_to_principal(
        grantee=role,
        actions=["ecr:BatchGetImage", "ecr:DescribeRepositories"],
        resource_arns=[repository.repository_arn],
    )
    resource = cast(CfnResource, copy.node.find_child("CustomResource").node.default_child)
    resource.add_property_override("ServiceToken", function.function_arn)
    # The permission to invoke the copying function is in a separate policy: the functions depend on the default one.
    resource.node.add_dependency(stack.node.find_child("ImageCopyOn"))


def _new_function(stack: Stack, role: iam.Role) -> lambda_.Function:
    copier = copy_function(stack).get_att("Arn").to_string()
    function = new_function(
        stack,
        "ImageCopyOnce",
        description="Leaves out copies of images that are there already",
        handler="copy_once.handle",
        role=role,
        timeout=Duration.minutes(1),
        environment={"COPIER": copier},
    )
    function.node.try_remove_child("LogGroup")  # of the CDK's, under a flag: empty, as that of the copying function
    log = cast(CfnResource, stack.node.find_child(LOG))
    cast(CfnResource, function.node.default_child).add_property_override("LoggingConfig", {"LogGroup": log.ref})
    policy = iam.Policy(stack, "ImageCopyOn", roles=[role])
    policy.add_statements(iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[copier]))
    return function
