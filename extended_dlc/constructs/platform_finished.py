"""Renders the finished templates below a scope, and reports what in them a platform's rules do not allow."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jsii
from aws_cdk import CfnResource, ISynthesisSession, LegacyStackSynthesizer, Stack, Stage
from aws_cdk.cx_api import CloudAssemblyBuilder
from constructs import Construct, IConstruct, IValidation

from extended_dlc.constructs.platform_rules import check_name, is_settled, rules_of
from extended_dlc.constructs.platform_templates import Finished, broken_rules
from extended_dlc.options._values import OptionError

if TYPE_CHECKING:
    from extended_dlc.constructs.platform_defaults import PlatformDefaults

_PARTS = ("Model", "Component")


@jsii.implements(IValidation)
class Finishes:
    """Checks the templates of all stacks below a scope at the CDK's validation, which runs after aspects."""

    def __init__(self, rules: PlatformDefaults, home: Construct) -> None:
        self._rules, self._home = rules, home

    def validate(self) -> list[str]:
        """What the rules do not allow, as the errors of the synth."""
        found = self._home.node.find_all()
        stacks = [each for each in found if isinstance(each, Stack)]
        below = None
        if not isinstance(self._home, (Stack, Stage)):
            stack = Stack.of(self._home)
            stacks, below = [stack], frozenset(_names(stack, found))
        ours = [each for each in found if is_settled(each)]
        errors = []
        for stack in (each for each in stacks if self._rules in rules_of(each) or below is not None):
            finished = Finished(
                template=_rendered(stack),
                ours=frozenset(name for each in ours if Stack.of(each) is stack for name in _made_by(each, stack)),
                below=below,
                boundary=self._boundary(stack),
            )
            errors += [f"{stack.node.path}/{name}: {error}" for name, error in self._broken(stack, finished)]
        return list(dict.fromkeys(errors))

    def _broken(self, stack: Stack, finished: Finished) -> Iterator[tuple[str, OptionError]]:
        def check(name: str, is_adapter: bool) -> OptionError | None:
            # The licence of a model may be an option of its construct, which the endpoint has checked.
            return check_name(self._rules, stack, name, knows=is_adapter)

        return broken_rules(self._rules, finished, check_name=check)

    def _boundary(self, stack: Stack) -> Any:
        boundary = self._rules.permissions_boundary
        return None if boundary is None else stack.resolve(boundary.managed_policy_arn)


def _names(stack: Stack, found: list[IConstruct]) -> Iterator[str]:
    return (str(stack.resolve(each.logical_id)) for each in found if isinstance(each, CfnResource))


def _made_by(endpoint: IConstruct, stack: Stack) -> Iterator[str]:
    """The logical IDs of what an endpoint's construct itself made."""
    homes = [endpoint]
    for each in ("Variants", "Components"):
        several = endpoint.node.try_find_child(each)
        homes += several.node.children if several is not None else []
    made = [endpoint.node.try_find_child(each) for each in ("Endpoint", "Config")]
    made += [home.node.try_find_child(each) for home in homes for each in _PARTS]
    return _names(stack, [each for each in made if each is not None])


@jsii.implements(ISynthesisSession)
class _Session:
    """A synthesis into a folder that is deleted."""

    def __init__(self, folder: str) -> None:
        self._assembly = CloudAssemblyBuilder(folder)

    @property
    def assembly(self) -> CloudAssemblyBuilder:
        """Where the files go."""
        return self._assembly

    @property
    def outdir(self) -> str:
        """The folder."""
        return self._assembly.outdir

    @property
    def validate_on_synth(self) -> bool:
        """Whether errors in annotations end the synthesis: the real one ends by them."""
        return False


def _rendered(stack: Stack) -> dict[str, Any]:
    """The stack's template as the synth will write it, escape hatches included.

    No public method of the CDK returns it, so that a synthesizer of ours writes it into a folder; the stack's own one
    would note the file as an asset.
    """
    with tempfile.TemporaryDirectory(prefix="extended-dlc-template-") as folder:
        synthesizer = LegacyStackSynthesizer()
        synthesizer.bind(stack)
        synthesizer._synthesize_template(cast(ISynthesisSession, _Session(folder)))
        template: dict[str, Any] = json.loads((Path(folder) / stack.template_file).read_text("utf-8"))
    return template
