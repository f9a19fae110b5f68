"""`acknowledge_nag`: acknowledges cdk-nag's findings in constructs of this library, with reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import aws_cdk as cdk
import jsii
from aws_cdk import aws_iam as iam
from constructs import IConstruct, IValidation

from extended_dlc.facts.nag import Finding, findings
from extended_dlc.options._kinds import check_types


@check_types
def acknowledge_nag(scope: IConstruct) -> None:
    """Acknowledge the findings of cdk-nag's packs in this library's constructs below `scope`, each with its reason.

    Call it when all stacks are defined, before the synth. Findings in other constructs stay; the list of the
    acknowledged findings, by path and rule, is in docs/nag.md.
    """
    if hasattr(cdk, "Validations"):
        # Only after references between stacks are resolved, because a finding's id contains them.
        scope.node.add_validation(cast(IValidation, _Acknowledges(scope)))
        return
    for resource, finding in _found(scope):
        _note_in_metadata(resource, finding)


@jsii.implements(IValidation)
class _Acknowledges:
    """Acknowledges findings at the CDK's validation, after references are resolved and before the packs run."""

    def __init__(self, scope: IConstruct) -> None:
        self._scope = scope

    def validate(self) -> list[str]:
        """Acknowledge the findings; returns no errors."""
        for resource, finding in _found(self._scope):
            known = [cdk.Acknowledgment(id=each, reason=finding.reason) for each in finding.ids(_several(resource))]
            if known:
                cdk.Validations.of(resource).acknowledge(*known)
        return []


def _found(scope: IConstruct) -> Iterator[tuple[cdk.CfnResource, Finding]]:
    """The resources of the library's constructs, each with a finding."""
    kinds = {each.of for each in findings()}
    stacks: dict[str, cdk.Stack] = {}
    for construct in scope.node.find_all():
        kind = type(construct)
        if not kind.__module__.startswith("extended_dlc."):
            continue
        if not isinstance(construct, cdk.Stack):
            stack = cdk.Stack.of(construct)
            stacks[stack.node.path] = stack
        if kind.__name__ in kinds:
            yield from _below(construct, kind.__name__)
    # Resources that several constructs share are direct children of the stack.
    names = tuple(each.path.partition("/")[0].rstrip("*") for each in findings() if each.of == "Stack")
    for stack in stacks.values():
        for child in stack.node.children:
            if child.node.id.startswith(names):
                yield from _below(child, "Stack", prefix=child.node.id)


def _below(construct: IConstruct, kind: str, *, prefix: str = "") -> Iterator[tuple[cdk.CfnResource, Finding]]:
    start = len(construct.node.path) + 1
    for each in construct.node.find_all():
        if not cdk.CfnResource.is_cfn_resource(each):
            continue
        path = "/".join(filter(None, (prefix, each.node.path[start:])))
        for finding in findings():
            if finding.fits(kind, path):
                yield cast(cdk.CfnResource, each), finding


def _several(resource: cdk.CfnResource) -> list[str]:
    """The parts of a role or a policy that a rule reports one by one, in cdk-nag's notation."""
    stack = cdk.Stack.of(resource)
    found: list[str] = []
    if isinstance(resource, iam.CfnPolicy):
        for statement in stack.resolve(resource.policy_document)["Statement"]:
            for part in ("Action", "Resource"):
                given = statement.get(part, [])
                texts = map(_flat, given if isinstance(given, list) else [given])
                found += [f"{part}::{text}" for text in texts if "*" in text]
    if isinstance(resource, iam.CfnRole):
        found += [f"Policy::{_flat(each)}" for each in stack.resolve(resource.managed_policy_arns) or ()]
    return list(dict.fromkeys(found))


def _flat(value: Any) -> str:
    """A value of a template in cdk-nag's notation."""
    if isinstance(value, str):
        return value.replace("${", "<").replace("}", ">")
    match value:
        case {"Fn::Join": [delimiter, items]}:
            return str(delimiter).join(map(_flat, items))
        case {"Fn::Sub": text}:
            return _flat(text)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{_flat(resource)}.{_flat(attribute)}>"
        case {"Fn::ImportValue": name}:
            return _flat(name)
        case {"Ref": name}:
            return f"<{_flat(name)}>"
    return json.dumps(value, separators=(",", ":"))


def _note_in_metadata(resource: cdk.CfnResource, finding: Finding) -> None:
    """For an aws-cdk-lib without acknowledgments: cdk-nag 2 reads them from the resource's metadata."""
    options = resource.cfn_options
    metadata: dict[str, Any] = dict(options.metadata or {})
    nag = dict(metadata.get("cdk_nag") or {})
    ids = dict.fromkeys([*finding.ids(()), *(rule.partition("[")[0] for rule in finding.rules if "[" in rule)])
    rules = [*nag.get("rules_to_suppress", []), *({"id": each, "reason": finding.reason} for each in ids)]
    options.metadata = {**metadata, "cdk_nag": {**nag, "rules_to_suppress": rules}}
