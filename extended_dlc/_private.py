"""Helpers of the constructs; not part of the public interface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import jsii
from aws_cdk import Aws, Stack
from constructs import Construct


def docker_folder(family: str) -> Path:
    """The build context of an image family: `docker/<family>` beside the package in a checkout, inside in a wheel."""
    package = Path(__file__).parent
    inside = package / "docker" / family
    return inside if inside.is_dir() else package.parent / "docker" / family


@dataclass(frozen=True)
class Place:
    """The stack that a construct is in, and where that is deployed: texts, or tokens where it may be anywhere."""

    stack: Stack
    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        """The ARN of something there, as `Stack.format_arn` makes it."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def component_arns(self, name: str) -> list[str]:
        """Of an inference component: policies are compared with the name as it was given, or in small letters."""
        return [self.arn("sagemaker", f"inference-component/{each}") for each in sorted({name, name.lower()})]


# kept, because each question to the CDK is a call to another process: those of one endpoint, and of few stacks
_stack_of = lru_cache(maxsize=1)(Stack.of)


@lru_cache(maxsize=8)
def _place_of(stack: Stack) -> Place:
    return Place(stack, stack.partition, stack.region, stack.account)


def place_of(scope: Construct) -> Place:
    """Where a construct is deployed."""
    return _place_of(_stack_of(scope))


@cache
def any_partition() -> str:
    """The token for AWS's partition, the same in all stacks."""
    return Aws.PARTITION


class Connectable:
    """`aws_ec2.IConnectable` as the CDK's process reads it, without the 0.1 s that loading `aws_ec2` takes."""

    __jsii_type__ = "aws-cdk-lib.aws_ec2.IConnectable"

    @property
    @jsii.member(jsii_name="connections")
    def connections(self) -> object:
        """The security groups of whatever implements it."""
        raise NotImplementedError
