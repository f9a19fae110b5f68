"""The owner of an access key and what its policies allow, as far as the embedded IAM knows.

Keys that `CreateAccessKey` and `AssumeRole` returned here are known, with their secrets and policies. moto's evaluation
of identity-based policies decides, which refuses where a statement has a condition. Every other key, such as the
rehearsal's own, belongs to the account's administrator: its secret is unknown, and it may do everything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from botocore.credentials import Credentials
from moto.iam.access_control import (
    AssumedRoleAccessKey,
    CreateAccessKeyFailure,
    IAMPolicy,
    IAMUserAccessKey,
    PermissionResult,
    create_access_key,
)
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends
from moto.utilities.utils import get_partition


class InvalidSessionToken(ValueError):
    """A key of this IAM was used without its session token, or with another one."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The user, or the role's session, that owns a key."""

    key: IAMUserAccessKey | AssumedRoleAccessKey

    @property
    def arn(self) -> str:
        """Its ARN in error messages."""
        return self.key.arn

    @property
    def credentials(self) -> Credentials:
        """The credentials that sign its requests."""
        return self.key.create_credentials()

    def is_allowed(self, action: str, resource: str) -> bool:
        """Whether its policies allow the action on the resource, without a deny."""
        results = [_policy(each).is_action_permitted(action, resource) for each in self.key.collect_policies()]
        return PermissionResult.DENIED not in results and PermissionResult.PERMITTED in results


def find_identity(account_id: str, region: str, access_key: str, session_token: str | None) -> Identity | None:
    """The owner of a key; None for a key that this IAM did not create. Raises `InvalidSessionToken`."""
    partition = get_partition(region)
    users = iam_backends[account_id][partition].access_keys
    sessions = [each.access_key_id for each in sts_backends[account_id][partition].assumed_roles]
    if access_key not in users and access_key not in sessions:
        return None
    headers = {"X-Amz-Security-Token": session_token} if session_token is not None else {}
    try:
        return Identity(
            key=create_access_key(account_id=account_id, partition=partition, access_key_id=access_key, headers=headers)
        )
    except CreateAccessKeyFailure:
        raise InvalidSessionToken(access_key) from None


def _policy(policy: Any) -> IAMPolicy:
    """A policy in one of moto's forms: an attached policy, a document, or a record with a document."""
    if isinstance(policy, dict) and "Statement" in policy:
        return IAMPolicy(json.dumps(policy))
    return IAMPolicy(policy)
