"""AWS services as principals that may act for this account alone, where their documentation describes it.

A condition on a key that a service does not send makes a role useless, so a condition is set only where the service's
documentation shows it for that use. Lambda's documentation shows none for the role of a function.
"""

from __future__ import annotations

from aws_cdk import CfnResource
from aws_cdk import aws_iam as iam
from constructs import Construct, IConstruct

from extended_dlc.constructs.helpers import require_same, target_of

CONTEXT = "extended-dlc:source-conditions"
"""CDK context key: the value `false` leaves out all of these conditions."""


def are_wanted(scope: Construct) -> bool:
    """Whether the conditions are set."""
    return str(scope.node.try_get_context(CONTEXT)).lower() != "false"


def sagemaker(scope: Construct) -> iam.ServicePrincipal:
    """SageMaker, for a role that it assumes for endpoints or training jobs.

    SageMaker developer guide, "Cross-service confused deputy prevention", SageMaker AI Inference and Training Jobs: the
    ARN covers all resources of the account, never one endpoint; it contains the account, so `aws:SourceAccount` is not
    needed.
    """
    conditions = {"ArnLike": {"aws:SourceArn": target_of(scope).arn("sagemaker", "*")}} if are_wanted(scope) else None
    return iam.ServicePrincipal("sagemaker.amazonaws.com", conditions=conditions)


def container_role(
    scope: Construct, given: iam.IRole | None, name: str, *, path: str | None, boundary: iam.IManagedPolicy | None
) -> iam.IRole:
    """The role of the containers of an endpoint or of a training's jobs: the given one, or a new one, `Role`.

    A role of another account is refused: SageMaker takes none ("Cross-account pass role is not allowed").
    """
    rule = "SageMaker takes none from there, so make a role beside it, and let that one assume the other"
    require_same("account", "role", given, scope, rule)
    return given or iam.Role(
        scope,
        "Role",
        assumed_by=sagemaker(scope),
        description=f"What the containers of {name} may do",
        path=path,
        permissions_boundary=boundary,
    )


def cloudwatch(scope: Construct) -> iam.ServicePrincipal:
    """CloudWatch, for a topic that its alarms publish to.

    SNS developer guide, "Example cases for Amazon SNS access control", CloudWatch alarms.
    """
    target = target_of(scope)
    conditions = {
        "StringEquals": {"aws:SourceAccount": target.account},
        "ArnLike": {"aws:SourceArn": target.arn("cloudwatch", "alarm:*")},
    }
    return iam.ServicePrincipal("cloudwatch.amazonaws.com", conditions=conditions if are_wanted(scope) else None)


def trust_builds_of_account(scope: Construct, role: IConstruct | None) -> None:
    """Make the role of a CodeBuild project trust only builds of this account.

    CodeBuild user guide, "Allow CodeBuild to interact with other AWS services". The guide also shows the project's ARN,
    which is not known before the role exists.
    """
    resource = role.node.default_child if role is not None else None
    if isinstance(resource, CfnResource) and are_wanted(scope):
        condition = {"StringEquals": {"aws:SourceAccount": target_of(scope).account}}
        resource.add_property_override("AssumeRolePolicyDocument.Statement.0.Condition", condition)
