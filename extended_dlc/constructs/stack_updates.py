"""What an update of a stack by a schedule or a state machine has to say of its parameters, and may read of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import jsii
from aws_cdk import CfnParameter, DefaultStackSynthesizer, IAnyProducer, IResolvable, IResolveContext, Lazy, Stack
from aws_cdk import aws_iam as iam

from extended_dlc.constructs.helpers import synthesizer_of, target_of
from extended_dlc.options._values import is_token


@jsii.implements(IAnyProducer)
class StackParameters:
    """The parameters of an update that changes one of them: all that the stack has at the end of the synth.

    They are resolved late, because the CDK adds BootstrapVersion only after it has resolved the template once.
    """

    def __init__(self, changed: CfnParameter, value: Mapping[str, str]) -> None:
        """Take the parameter that changes.

        :param value: The members beside its key: `ParameterValue`, or a path to it in a state machine.
        """
        self._changed, self._value = changed, dict(value)

    @property
    def lazy(self) -> IResolvable:
        """The token that the synth resolves to the parameters."""
        return Lazy.uncached_any(cast(IAnyProducer, self))

    def produce(self, context: IResolveContext) -> list[dict[str, Any]]:
        """One entry for each parameter; an omitted one would go back to its default."""
        return [
            {"ParameterKey": each.logical_id, **self._value}
            if each is self._changed
            else {"ParameterKey": each.logical_id, "UsePreviousValue": True}
            for each in _parameters_of(Stack.of(self._changed))
        ]


class MayReadParameters(iam.PolicyStatement):
    """The right to read the parameters of Systems Manager that a stack's template names.

    CloudFormation reads them with the permissions of who updates the stack, not with those of the stack's own role.
    """

    def __init__(self, stack: Stack) -> None:
        """Take the stack; the right to read the CDK's BootstrapVersion, which each template has, is there at once."""
        qualifier = synthesizer_of(stack).bootstrap_qualifier or DefaultStackSynthesizer.DEFAULT_QUALIFIER
        version = target_of(stack).arn("ssm", f"parameter/cdk-bootstrap/{qualifier}/version")
        super().__init__(actions=["ssm:GetParameters"], resources=[version])
        self._stack = stack

    def freeze(self) -> iam.PolicyStatement:
        """Add what the template has at the end of the synth."""
        if not self.frozen:
            self.add_resources(*sorted(set(_named_in_systems_manager(self._stack))))
        return super().freeze()


def _parameters_of(stack: Stack) -> list[CfnParameter]:
    """The parameters of its template; CloudFormation refuses those of stacks below it, as of nested ones."""
    found = (each for each in stack.node.find_all() if isinstance(each, CfnParameter))
    return [each for each in found if Stack.of(each) is stack]


def _named_in_systems_manager(stack: Stack) -> Iterator[str]:
    """The ARNs of the parameters that those of the template stand for, as far as their names are known at synth."""
    target = target_of(stack)
    for each in _parameters_of(stack):
        name = each.default
        if not each.type.startswith("AWS::SSM::Parameter::") or not isinstance(name, str) or is_token(name):
            continue
        if name.startswith("arn:"):
            yield name
        elif name.startswith("/aws/"):  # AWS's own, of no account
            yield f"arn:{target.partition}:ssm:{target.region}::parameter{name}"
        else:
            yield target.arn("ssm", f"parameter/{name.removeprefix('/')}")
