"""The KMS keys of an endpoint's logs and topics, with the permissions of AWS's services to use them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aws_cdk import Annotations, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from extended_dlc.constructs.helpers import target_of

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms


def is_owned(key: kms.IKey) -> bool:
    """Whether the app creates the key, and so its key policy."""
    from aws_cdk import aws_kms as kms

    return isinstance(key, kms.Key)


def log_key(
    scope: Construct, asked: kms.IKey | None, general: kms.IKey | None, groups: Sequence[str]
) -> kms.IKey | None:
    """The key of log groups: `asked`, or the endpoint's key if the app makes its policy.

    CloudWatch Logs user guide, "Encrypt log data in CloudWatch Logs using AWS Key Management Service".
    """
    target = target_of(scope)
    statement = iam.PolicyStatement(
        principals=[iam.ServicePrincipal(f"logs.{target.region}.{target.stack.url_suffix}")],
        actions=["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
        resources=["*"],
        conditions={
            "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": [target.arn("logs", f"log-group:{name}") for name in groups]
            }
        },
    )
    return _allowed(scope, "log_key", asked, general, statement)


def topic_key(scope: Construct, asked: kms.IKey | None, general: kms.IKey | None) -> kms.IKey | None:
    """The key of a topic for alarms, chosen like that of log groups.

    SNS developer guide, "Enable compatibility between event sources from AWS services and encrypted topics".
    """
    statement = iam.PolicyStatement(
        principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
        actions=["kms:Decrypt", "kms:GenerateDataKey*"],
        resources=["*"],
        conditions={"StringEquals": {"aws:SourceAccount": target_of(scope).account}},
    )
    return _allowed(scope, "topic_key", asked, general, statement)


def _allowed(
    scope: Construct,
    option: str,
    asked: kms.IKey | None,
    general: kms.IKey | None,
    statement: iam.PolicyStatement,
) -> kms.IKey | None:
    if asked is None and (general is None or not is_owned(general)):
        return None
    key = asked or general
    assert key is not None  # noqa: S101 - one of the two
    if is_owned(key):
        key.add_to_resource_policy(statement)
        return key
    shown = json.dumps(Stack.of(scope).resolve(statement.to_statement_json()))
    Annotations.of(scope).add_info_v2(
        f"extended-dlc:{option.replace('_', '-')}",
        f"'{option}' is a key of which the app does not make the policy: it needs the statement {shown}",
    )
    return key
