"""Applies `PlatformDefaults`: defaults of endpoints and trainings, refusals, and the properties of roles."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import jsii
from aws_cdk import Aspects, Aws, CfnResource, IAspect, Names, Stack, Tags
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct

from extended_dlc.constructs.platform_defaults import PlatformDefaults
from extended_dlc.options._values import OptionError, is_token
from extended_dlc.options.hosting import Components, Hosting, Instances, RealTime, Serverless, find_instances

if TYPE_CHECKING:
    from extended_dlc.decisions.of_endpoint import EndpointDecision
    from extended_dlc.endpoint.given import EndpointOptions
    from extended_dlc.facts.instances import Instance

_ATTRIBUTE = "_extended_dlc_platform_defaults"
ROLE_NAME = 64
"""The longest name of a role (IAM user guide, "IAM and AWS STS quotas")."""


def apply(rules: PlatformDefaults, scope: object) -> None:
    """Apply the rules to everything below a construct."""
    home = cast(Construct, scope)
    setattr(home, _ATTRIBUTE, rules)
    for key, value in rules.tags.items():
        Tags.of(home).add(key, value)
    if rules.permissions_boundary is not None:
        iam.PermissionsBoundary.of(home).apply(rules.permissions_boundary)
    if rules.role_path or rules.role_name_prefix or rules.log_retention_days:
        Aspects.of(home).add(cast(IAspect, _Resources(rules)))


def rules_of(scope: Construct) -> PlatformDefaults | None:
    """The rules of the nearest scope of a construct; None without any."""
    for each in reversed(scope.node.scopes):
        found = getattr(each, _ATTRIBUTE, None)
        if isinstance(found, PlatformDefaults):
            return found
    return None


def settle(scope: Construct, options: EndpointOptions) -> EndpointOptions:
    """An endpoint's options with the platform's defaults; ValueError for what the platform does not allow."""
    rules = rules_of(scope)
    if rules is None:
        return options
    given: dict[str, Any] = {}
    serverless = isinstance(options.hosting, Serverless)
    if rules.network is not None and options.network is None:
        if serverless:
            _refuse(rules, "hosting", "Serverless", "can be in no VPC, and the platform wants endpoints in its own")
        given["network"] = rules.network
    if rules.encryption_key is not None and options.encryption_key is None and not serverless:
        given["encryption_key"] = rules.encryption_key
    if rules.monitoring is not None and options.monitoring is None:
        given["monitoring"] = rules.monitoring
    if rules.proof is not None:
        if options.verify is False:
            _refuse(rules, "verify", "False", "leaves the endpoint unproved, and the platform wants a proof")
        if options.verify is True:
            given["verify"] = rules.proof
    if not rules.own_images and getattr(getattr(options.image, "asked", None), "kind", "") == "extended":
        _refuse(rules, "image", "ExtendedDlc", "is built by yourself: take an image that the platform publishes")
    _check_types(rules, (each for fleet in _fleets(options.hosting) for each in find_instances(fleet)))
    _check_price(rules, options.hosting)
    return replace(options, **given)


def check_models(scope: Construct, decision: EndpointDecision) -> None:
    """Refuse models that the platform does not allow."""
    rules = rules_of(scope)
    if rules is None:
        return
    for part in decision.parts:
        model = part.part.model
        name = model.facts.model_id
        if name is None or is_token(name) or model.source not in ("hub", "mirrored"):
            continue
        organisation = name.partition("/")[0]
        if rules.organisations and organisation not in rules.organisations:
            allowed = ", ".join(rules.organisations)
            _refuse(rules, "model", name, f"is of '{organisation}', and the platform takes models of {allowed}")
        licence = model.licence or model.facts.licence
        if rules.licences and licence not in rules.licences:
            said = f"is under '{licence}'" if licence else "is under a licence that nobody knows here (say licence=)"
            _refuse(rules, "model", name, f"{said}, and the platform takes {', '.join(rules.licences)}")


def check_types(scope: Construct, instances: Iterable[Instance]) -> None:
    """Refuse instance types that the platform does not allow."""
    if (rules := rules_of(scope)) is not None:
        _check_types(rules, instances)


def _check_types(rules: PlatformDefaults, instances: Iterable[Instance]) -> None:
    for instance in instances if rules.instance_types else ():
        is_allowed = any(fnmatch.fnmatchcase(instance.name, each) for each in rules.instance_types)
        if instance.name != "serverless" and not is_allowed:
            allowed = ", ".join(rules.instance_types)
            _refuse(rules, "instance_type", instance.name, f"is none of the platform's: {allowed}")


def _fleets(hosting: Hosting) -> Iterator[Instances | Serverless]:
    yield hosting
    if isinstance(hosting, RealTime):
        yield from hosting.variants
        if hosting.shadow is not None:
            yield hosting.shadow


def _check_price(rules: PlatformDefaults, hosting: Hosting) -> None:
    limit = rules.greatest_hourly_price
    if limit is None:
        return
    price = sum(_most(fleet) * _dearest(rules, fleet) for fleet in _fleets(hosting))
    if price > limit:
        _refuse(rules, "hosting", f"{price:g} an hour", f"costs more than {limit:g} an hour with all its instances")


def _most(fleet: Instances | Serverless) -> int:
    """The largest number of instances."""
    if isinstance(fleet, Serverless):
        return 0
    if isinstance(fleet, Components):
        return fleet.maximum
    counts = [fleet.instances, getattr(getattr(fleet, "scaling", None), "maximum", 0)]
    return max((each for each in counts if not is_token(each)), default=0)


def _dearest(rules: PlatformDefaults, fleet: Instances | Serverless) -> float:
    return max((rules.prices.get(each.name, 0) for each in find_instances(fleet)), default=0)


def _refuse(rules: PlatformDefaults, option: str, value: str, rule: str) -> None:
    raise OptionError(option, value, f"{rule}: {rules.message}")


@jsii.implements(IAspect)
class _Resources:
    """Sets the properties of roles and log groups that have none of their own."""

    def __init__(self, rules: PlatformDefaults) -> None:
        self._rules = rules

    def visit(self, node: IConstruct) -> None:
        """Set the properties of one construct."""
        if not isinstance(node, CfnResource):
            return
        rules, kind = self._rules, node.cfn_resource_type
        if kind == "AWS::IAM::Role":
            if rules.role_path is not None and getattr(node, "path", None) is None:
                node.add_property_override("Path", rules.role_path)
            # For a role without a name it is a token that resolves to None.
            named = Stack.of(node).resolve(getattr(node, "role_name", None))
            if rules.role_name_prefix is not None and named is None:
                node.add_property_override("RoleName", _role_name(node, rules.role_name_prefix))
        if isinstance(node, logs.CfnLogGroup) and rules.log_retention_days and node.retention_in_days is None:
            node.retention_in_days = rules.log_retention_days


def _role_name(node: CfnResource, prefix: str) -> str:
    """A name that is the same at each synth and contains the region, because IAM's names are global."""
    room = ROLE_NAME - len(prefix) - len("-ap-southeast-1") - 1
    unique = Names.unique_resource_name(node, max_length=room, separator="-")
    return f"{prefix}{unique}-{Aws.REGION}"
