"""Who may assume a role: its trust policy, as a service or a principal meets it."""

from __future__ import annotations

import json
from typing import Any

from moto.iam.models import Role, iam_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.policies import Document, Policies, Request, evaluate
from extended_dlc.rehearsal.embedded.shapes import Refusal

DOCUMENTED_SOURCES = {
    # SageMaker developer guide, "Cross-service confused deputy prevention", SageMaker AI Inference, Training Jobs
    "sagemaker.amazonaws.com": "sagemaker",
    # EventBridge Scheduler user guide, "Confused deputy prevention"
    "scheduler.amazonaws.com": "scheduler",
    # CodeBuild user guide, "Allow CodeBuild to interact with other AWS services"
    "codebuild.amazonaws.com": "codebuild",
    # Step Functions developer guide, "Cross-service confused deputy prevention"
    "states.amazonaws.com": "states",
    # SNS developer guide, "Example cases for Amazon SNS access control": CloudWatch alarms
    "cloudwatch.amazonaws.com": "cloudwatch",
}
"""The services whose documentation shows `aws:SourceAccount` and `aws:SourceArn` when they act for an account.

Lambda's documentation shows neither for a function's execution role, so a trust policy with such a condition would make
the role unusable.
"""


_RESOURCES = {"states.amazonaws.com": "stateMachine:embedded"}
"""The kind of resource that a service acts for, where trust policies name it (the CDK's of a state machine)."""


def find_role(account_id: str, region: str, arn: str) -> Role | None:
    """A role by its ARN, or None."""
    partition = arn.split(":")[1] if arn.startswith("arn:") else get_partition(region)
    roles = list(iam_backends[account_id][partition].roles.values())
    return next((each for each in roles if each.arn == arn), None)


def assumable(arn: str, service: str, *, account_id: str, region: str, source: str = "") -> Role:
    """The role that a service assumes. Raises `Refusal` where it does not exist or does not trust the service."""
    role = find_role(account_id, region, arn)
    if role is None or not trusts(role, service, account_id=account_id, region=region, source=source):
        raise Refusal(
            "ValidationException",
            f"Could not assume role {arn}. Please ensure that the role exists and allows principal '{service}' to "
            "assume the role.",
        )
    return role


def trusts(role: Role, service: str, *, account_id: str, region: str, source: str = "") -> bool:
    """Whether a role's trust policy lets a service assume it for this account.

    The service sends the account and the resource that it acts for (`source`) where its documentation shows them.
    """
    context: dict[str, Any] = {}
    if service in DOCUMENTED_SOURCES:
        part = f"arn:{get_partition(region)}:{DOCUMENTED_SOURCES[service]}:{region}:{account_id}:"
        resource = source or part + _RESOURCES.get(service, "embedded")
        context = {"aws:SourceAccount": account_id, "aws:SourceArn": resource}
    trust = document_of(role.assume_role_policy_document)
    request = Request(action="sts:AssumeRole", resource=role.arn, service=service, context=context)
    return evaluate(request, Policies(resource=trust)).allowed


def document_of(given: Any) -> Document:
    """A policy in one of moto's forms as a document."""
    content: Document = json.loads(given) if isinstance(given, (str, bytes)) else given
    return content
