"""Checks of names of stacks, regions and resources, by AWS's rules."""

from __future__ import annotations

import re

_ARN = re.compile(r"arn:(?P<partition>[a-z0-9-]+):(?P<service>[a-z0-9-]+):(?P<region>[a-z0-9-]*):(?P<account>\d*):(.+)")


def check_stack_name(name: str) -> None:
    """CloudFormation's pattern."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,127}", name):
        raise ValueError("cannot be the name of a stack: use letters, digits and hyphens, a letter first")


def output_name(text: str) -> str:
    """The name of a stack's output that reads well on the command line: `modelInvoke`, without the hash of its path."""
    return "".join(filter(str.isalnum, text))


def check_region(region: str) -> None:
    """Refuse a name that cannot be a region's."""
    if not region:
        raise ValueError("is not named, and the CDK CLI has none: write it as 'us-east-1', or set AWS_REGION")
    if not re.fullmatch(r"[a-z]{2,4}(-[a-z]+)+-\d+", region):
        raise ValueError("is not an AWS region: write it as 'us-east-1'")


def check_bucket(name: str) -> None:
    """Refuse a text with characters that no bucket's name has (`Bucket.from_bucket_name` raises for them)."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ValueError("is not the name of a bucket: write the name alone, without 's3://', 'arn:…' and a folder")


def partition_of(region: str) -> str:
    """The partition of a region."""
    for start, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("us-iso-", "aws-iso")):
        if region.startswith(start):
            return partition
    return "aws"


def check_arn(text: str, *, service: str, region: str) -> None:
    """An ARN of a service where the endpoint is: of its partition, and of its region where the service has regions."""
    if "${" in text:
        raise ValueError("has a placeholder, which nothing fills in here: write the ARN with the account's number")
    found = _ARN.fullmatch(text)
    if found is None:
        raise ValueError(f"is not an ARN: write it as 'arn:{partition_of(region)}:{service}:…'")
    if found["service"] != service:
        raise ValueError(f"is an ARN of {found['service']}, and it has to be one of {service}: take that")
    if found["partition"] != partition_of(region):
        raise ValueError(
            f"is of the partition {found['partition']}, and {region} is of {partition_of(region)}: take one of there"
        )
    if found["region"] and found["region"] != region:
        raise ValueError(f"is in {found['region']}, and the endpoint in {region}: take one of there")
