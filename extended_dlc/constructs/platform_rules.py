"""The rules of `PlatformDefaults` that hold for a construct: its defaults, and what it may not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from constructs import Construct, IConstruct

from extended_dlc.constructs.platform_templates import (
    MODEL_VARIABLES,
    hub_names,
    refused,
    refused_price,
    refused_total,
    refused_type,
    refused_unknown,
)
from extended_dlc.decisions.asked import OF_HUB
from extended_dlc.decisions.environment import ADAPTERS
from extended_dlc.facts.models import context_key, know_model
from extended_dlc.options._values import OptionError, is_token
from extended_dlc.options.hosting import Components, Hosting, Instances, RealTime, Serverless, find_instances
from extended_dlc.options.proof import Proof

if TYPE_CHECKING:
    from collections.abc import Mapping

    from extended_dlc.constructs.platform_defaults import PlatformDefaults
    from extended_dlc.decisions.asked import ModelAsked
    from extended_dlc.decisions.of_endpoint import EndpointDecision
    from extended_dlc.endpoint.given import EndpointOptions
    from extended_dlc.facts.instances import Instance

_RULES = "_extended_dlc_platform_defaults"
_SETTLED = "_extended_dlc_settled"
_are_used = False
"""Whether rules were applied at all: without, no construct asks the CDK, which is another process, for its scopes."""


def add_rules(rules: PlatformDefaults, home: Construct) -> None:
    """Let the rules hold for the endpoints and trainings that are defined below a construct from now on."""
    global _are_used
    if settled := next((each for each in home.node.find_all() if is_settled(each)), None):
        raise OptionError(
            "scope",
            home.node.path or "the app",
            f"has {settled.node.path} already, which these rules were not asked about: apply them before",
        )
    setattr(home, _RULES, (rules, *getattr(home, _RULES, ())))
    _are_used = True


def rules_of(scope: IConstruct) -> tuple[PlatformDefaults, ...]:
    """The rules of all scopes of a construct that hold for it, the nearest scope's first."""
    if not _are_used:
        return ()
    found: list[PlatformDefaults] = []
    for each in reversed(scope.node.scopes):
        given: tuple[PlatformDefaults, ...] = getattr(each, _RULES, ())
        found += [rules for rules in given if not (found and rules.replaceable)]
    return tuple(found)


def is_settled(construct: object) -> bool:
    """Whether a construct is an endpoint or a training, whose options the rules were asked about."""
    return getattr(construct, _SETTLED, False)


def settle(scope: Construct, options: EndpointOptions) -> EndpointOptions:
    """An endpoint's options with the platform's defaults; ValueError for what the platform does not allow."""
    setattr(scope, _SETTLED, True)
    every = rules_of(scope)
    if not every:
        return options
    for rules in every:
        _check_options(rules, options)
    given: dict[str, Any] = {"network": options.network or first(every, "network")}
    if not isinstance(options.hosting, Serverless):
        given["encryption_key"] = options.encryption_key or first(every, "encryption_key")
    given["monitoring"] = options.monitoring or first(every, "monitoring")
    if options.verify is True:
        given["verify"] = first(every, "proof") or True
    return replace(options, **given)


def settle_training(
    scope: Construct,
    fleets: Iterable[tuple[Sequence[Instance], float]],
    model: ModelAsked | None,
    names: Mapping[str, str],
) -> tuple[PlatformDefaults, ...]:
    """The rules for a training; ValueError for what the platform does not allow.

    :param fleets: The instances of the training and of its gate, each with how many there are.
    :param names: The environment variables of the containers.
    """
    setattr(scope, _SETTLED, True)
    every, fleets = rules_of(scope), list(fleets)
    for rules in every:
        for instances, count in fleets:
            _check_types(rules, instances)
            _check_price(rules, [(count, instances)])
        if model is not None:
            _check_model(rules, scope, model)
        _check_variables(rules, scope, names, is_named=model is not None and model.source == "hub")
    return every


def first(every: Sequence[PlatformDefaults], default: str) -> Any:
    """A default of the nearest scope that has one; None without any."""
    return next((found for rules in every if (found := getattr(rules, default)) is not None), None)


def check_models(scope: Construct, decision: EndpointDecision) -> None:
    """Refuse models that the platform does not allow."""
    for rules in rules_of(scope):
        for part in decision.parts:
            _check_model(rules, scope, part.part.model)
            is_named = part.part.model.source == "hub"
            _check_variables(rules, scope, part.part.environment, is_named=is_named)


def check_own_image(scope: Construct) -> None:
    """Refuse an image that is built below rules that take published images alone."""
    for rules in rules_of(scope):
        if not rules.own_images:
            raise refused(
                rules, "image", "ExtendedDlc", "is built by yourself: take an image that the platform publishes"
            )


def check_name(
    rules: PlatformDefaults, scope: IConstruct, name: str, *, licences: Sequence[str | None] = (), knows: bool = True
) -> OptionError | None:
    """Why a model of the Hub is not allowed by its name; None where it is.

    :param licences: The licences that are said of it.
    :param knows: Whether a model of an unknown licence is refused.
    """
    organisation = name.partition("/")[0]
    if rules.organisations and organisation not in rules.organisations:
        allowed = ", ".join(rules.organisations)
        return refused(rules, "model", name, f"is of '{organisation}', and the platform takes models of {allowed}")
    if not rules.licences:
        return None
    noted = know_model(name, looked_up=scope.node.try_get_context(context_key(name))).licence
    under = [each for each in (noted, *licences) if each]
    refusable = next((each for each in under if each not in rules.licences), None)
    if refusable is None and (under or not knows):
        return None
    said = f"is under '{refusable}'" if under else "is under a licence that nobody knows here (say licence=)"
    return refused(rules, "model", name, f"{said}, and the platform takes {', '.join(rules.licences)}")


def _check_options(rules: PlatformDefaults, options: EndpointOptions) -> None:
    if rules.network is not None and options.network is None and isinstance(options.hosting, Serverless):
        raise refused(rules, "hosting", "Serverless", "can be in no VPC, and the platform wants endpoints in its own")
    if rules.proof is not None and options.verify is False:
        raise refused(rules, "verify", "False", "leaves the endpoint unproved, and the platform wants a proof")
    is_optional = isinstance(options.verify, Proof) and options.verify.optional
    if rules.proof is not None and is_optional and not rules.proof.optional:
        raise refused(rules, "verify", "optional", "may ask nothing, and the platform wants an answer")
    fleets = list(_fleets(options.hosting))
    for fleet in fleets:
        _check_types(rules, find_instances(fleet))
    _check_price(rules, [(_most(fleet), find_instances(fleet)) for fleet in fleets])


def _check_model(rules: PlatformDefaults, scope: Construct, model: ModelAsked) -> None:
    if model.source not in OF_HUB:
        if not rules.own_models:
            raise refused(rules, "model", model.source, "is no model of the Hub, which the platform wants")
        return
    name = model.facts.model_id
    if not (rules.organisations or rules.licences):
        return
    if name is None or is_token(name):
        raise refused_unknown(rules, "model", rules.organisations or rules.licences)
    error = check_name(rules, scope, name, licences=(model.licence, model.facts.licence))
    if error is not None:
        raise error


def _check_variables(
    rules: PlatformDefaults, scope: Construct, environment: Mapping[str, str], *, is_named: bool
) -> None:
    """Refuse models of the Hub that variables name.

    :param is_named: Whether the model's own variables were checked with the model.
    """
    for variable in (*(() if is_named else MODEL_VARIABLES), ADAPTERS):
        value = environment.get(variable)
        if value is None or not (rules.organisations or rules.licences):
            continue
        if is_token(value):
            raise refused_unknown(rules, variable, ())
        for name in hub_names(value, variable == ADAPTERS):
            if error := check_name(rules, scope, name):
                raise error


def _check_types(rules: PlatformDefaults, instances: Iterable[Instance]) -> None:
    for instance in instances if rules.instance_types else ():
        # A token's values are in the finished template, which is checked at synth.
        is_said = instance.name != "serverless" and not is_token(instance.name)
        if is_said and (error := refused_type(rules, instance.name)):
            raise error


def _fleets(hosting: Hosting) -> Iterator[Instances | Serverless]:
    yield hosting
    if isinstance(hosting, RealTime):
        yield from hosting.variants
        if hosting.shadow is not None:
            yield hosting.shadow


def _check_price(rules: PlatformDefaults, fleets: Iterable[tuple[float, Sequence[Instance]]]) -> None:
    if rules.greatest_hourly_price is None:
        return
    price = 0.0
    for count, instances in fleets:
        known = [each for each in instances if not is_token(each.name) and each.name != "serverless"]
        if unpriced := next((each for each in known if each.name not in rules.prices), None):
            raise refused_price(rules, unpriced.name)
        price += count * max((rules.prices[each.name] for each in known), default=0)
    if error := refused_total(rules, price):
        raise error


def _most(fleet: Instances | Serverless) -> float:
    """The largest number of instances."""
    if isinstance(fleet, Serverless):
        return 0
    if isinstance(fleet, Components):
        counts = [fleet.maximum]
    else:
        scaling = getattr(fleet, "scaling", None)
        scheduled = [each.maximum for each in getattr(scaling, "schedules", ()) if each.maximum is not None]
        counts = [fleet.instances, getattr(scaling, "maximum", 0), *scheduled]
    # A token's values are in the finished template, which is checked at synth.
    return max((each for each in counts if not is_token(each)), default=0)
