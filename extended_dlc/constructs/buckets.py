"""Private buckets, and the permissions for their objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aws_cdk import aws_iam as iam
from constructs import Construct

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3


def private_bucket(
    scope: Construct, construct_id: str, *, key: kms.IKey | None, rules: Sequence[s3.LifecycleRule]
) -> s3.Bucket:
    """A private, encrypted bucket for TLS only; it is retained without the stack, as it holds user data."""
    from aws_cdk import aws_s3 as s3

    return s3.Bucket(
        scope,
        construct_id,
        encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
        encryption_key=key,
        bucket_key_enabled=True if key else None,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        enforce_ssl=True,
        lifecycle_rules=list(rules),
    )


def grant_objects(bucket: s3.IBucket, grantee: iam.IGrantable, pattern: str, *, write: bool) -> None:
    """Let `grantee` read or write these objects and use the bucket's key for them; `grant_read` would allow more."""
    iam.Grant.add_to_principal_or_resource(
        grantee=grantee,
        actions=["s3:AbortMultipartUpload", "s3:PutObject"] if write else ["s3:GetObject"],
        resource_arns=[bucket.arn_for_objects(pattern)],
        resource=bucket,
    )
    if bucket.encryption_key is not None:
        grant_key(bucket.encryption_key, grantee)


def grant_key(key: kms.IKey, grantee: iam.IGrantable) -> None:
    """Let `grantee` encrypt and decrypt data with the key."""
    key.grant(grantee, "kms:Decrypt", "kms:GenerateDataKey")
