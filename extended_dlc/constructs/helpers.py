"""Helpers of the constructs; not part of the public interface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal
from weakref import WeakKeyDictionary

import jsii
from aws_cdk import Aws, IStackSynthesizer, NestedStack, Stack
from constructs import Construct

from extended_dlc.facts.checks import rule_of_case
from extended_dlc.options._values import OptionError, is_token


@dataclass(frozen=True)
class DeploymentTarget:
    """The stack of a construct, with its partition, region and account: tokens if it is environment-agnostic."""

    stack: Stack
    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        """The ARN of a resource there, as `Stack.format_arn` makes it."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def sagemaker_arns(self, kind: str, name: str, rest: str = "") -> list[str]:
        """The ARNs of a SageMaker resource: IAM compares policies with the name as given, or in lower case.

        :param kind: As `inference-component`.
        :param rest: What follows the name in the ARN, as `-*`.
        """
        names = {name} if is_token(name) else {name, name.lower()}
        return [self.arn("sagemaker", f"{kind}/{each}{rest}") for each in sorted(names)]


# Cached, because each call to the CDK goes to another process: for the last constructs, and for a few stacks.
stack_of = lru_cache(maxsize=8)(Stack.of)


@lru_cache(maxsize=8)
def _target_of(stack: Stack) -> DeploymentTarget:
    return DeploymentTarget(stack, stack.partition, stack.region, stack.account)


def target_of(scope: Construct) -> DeploymentTarget:
    """The stack, region and account that a construct is deployed to."""
    return _target_of(stack_of(scope))


def require_same(part: Literal["account", "region"], option: str, given: object, scope: Construct, rule: str) -> None:
    """Refuse a resource that is known to be in another account or region than a construct; the rule has the way out."""
    its = getattr(getattr(given, "env", None), part, None)
    here = target_of(scope).account if part == "account" else target_of(scope).region
    if its is None or is_token(its) or is_token(here) or its == here:
        return
    raise OptionError(option, f"in {its}", f"is in another {part} than its user, {here}: {rule}")


_endpoint_names: WeakKeyDictionary[Stack, dict[str, tuple[str, str]]] = WeakKeyDictionary()


def require_other_name(scope: Construct, name: str | None) -> None:
    """Refuse the name of another endpoint of the stack."""
    if name is None or is_token(name):
        return
    taken = _endpoint_names.setdefault(stack_of(scope), {})
    owner, other = taken.setdefault(name.lower(), (scope.node.path, name))
    if owner == scope.node.path:
        return
    if other != name:
        raise OptionError("endpoint_name", name, rule_of_case(name, other))
    raise OptionError(
        "endpoint_name",
        name,
        f"is the name of {owner} too, and a name is unique in account and region: take another, or none",
    )


def refuse_nested(option: str, scope: Construct) -> None:
    """Refuse a nested stack for a parameter that other updates set: each update of the parent would set it back."""
    if stack_of(scope).nested_stack_parent is not None:
        raise OptionError(
            option,
            f"in the nested stack {stack_of(scope).node.path}",
            "is a parameter of its stack, and each deployment of the parent sets those of a nested stack back to their "
            "defaults: define the endpoint in a stack of its own",
        )


_synthesizers: WeakKeyDictionary[Stack, IStackSynthesizer] = WeakKeyDictionary()


def synthesizer_of(stack: Stack) -> IStackSynthesizer:
    """The synthesizer of a stack, which decides on the location of the stack's files.

    The CDK binds a copy of the synthesizer that a user passes, to a stack or to the app, and jsii returns the original,
    which is bound to no stack. Binding that one would refuse it for the next stack. The synthesizer of a nested stack
    asks the bound copy, so one is made for this and removed again.
    """
    if stack not in _synthesizers:
        probe = NestedStack(stack, _PROBE)
        _synthesizers[stack] = probe.synthesizer
        for child in (_PROBE, f"{_PROBE}.NestedStack"):
            stack.node.try_remove_child(child)
    return _synthesizers[stack]


_PROBE = "ExtendedDlcSynthesizer"


@cache
def any_partition() -> str:
    """The token for AWS's partition, the same in all stacks."""
    return Aws.PARTITION


class Connectable:
    """`aws_ec2.IConnectable` for jsii, without the 0.1 s that importing `aws_ec2` takes."""

    __jsii_type__ = "aws-cdk-lib.aws_ec2.IConnectable"

    @property
    @jsii.member(jsii_name="connections")
    def connections(self) -> object:
        """The security groups of the construct."""
        raise NotImplementedError
