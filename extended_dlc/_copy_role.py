"""The role of the function that copies images into their repositories."""

from __future__ import annotations

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct


def copy_role(scope: Construct) -> iam.Role:
    """The role of `cdk-ecr-deployment`'s function in the stack of `scope`: one a stack, because the function is one.

    It may write its own logs and nothing else; each image grants it its source and its destination.
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
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            resources=[
                stack.format_arn(
                    service="logs",
                    resource="log-group",
                    # CloudFormation names the function after the stack and its logical id
                    resource_name="/aws/lambda/*CustomCDKECRDeployment*",
                    arn_format=ArnFormat.COLON_RESOURCE_NAME,
                )
            ],
        )
    )
    return role
