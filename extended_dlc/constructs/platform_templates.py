"""Checks finished templates against the rules of a platform: what tokens, escape hatches and other constructs make."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extended_dlc.constructs.expressions import UNKNOWN, Template, referred, resources, text_of, values_of
from extended_dlc.decisions.environment import ADAPTERS, adapters_named
from extended_dlc.options._values import OptionError

if TYPE_CHECKING:
    from extended_dlc.constructs.platform_defaults import PlatformDefaults

ENDPOINT, CONFIG, MODEL = (f"AWS::SageMaker::{each}" for each in ("Endpoint", "EndpointConfig", "Model"))
COMPONENT = "AWS::SageMaker::InferenceComponent"
PROOF = "Custom::ExtendedDlcProof"

MODEL_VARIABLES = ("HF_MODEL_ID", "SM_HF_MODEL_ID", "SM_VLLM_MODEL")
"""Variables that make a container load a model of the Hub."""


_IN_TEXT = re.compile(r'InstanceType(\.\$)?\\*"\s*:\s*\\*"([^"\\]*)')
"""An instance type in a request that is a text, as in a state machine or a custom resource."""


_TRAINING_IMAGE = re.compile(r'TrainingImage\\*"\s*:\s*\\*"([^"\\]*)')

NOT_LOOKED_UP = "000000000000.dkr.ecr.unknown."
"""The beginning of the image that stands for one until the CDK CLI has looked it up."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A stack's template, as it is deployed, and what of it this library's constructs made."""

    template: Template
    ours: frozenset[str]
    """Logical IDs of the Models, configurations, endpoints and components that this library made."""

    below: frozenset[str] | None = None
    """Logical IDs of the resources that the rules are for; None for all."""

    boundary: Any = None
    """The ARN of the platform's permissions boundary, as this template writes it; None without one."""

    def of(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The resources of a type that the rules are for, as logical ID and properties."""
        return (each for each in resources(self.template, kind) if self.is_ruled(each[0]))

    def is_ruled(self, name: str) -> bool:
        """Whether the rules are for a resource."""
        return self.below is None or name in self.below


Refusal = tuple[str, OptionError]
"""The logical ID of a resource, and what is wrong with it."""


def broken_rules(
    rules: PlatformDefaults, finished: Finished, *, check_name: Callable[[str, bool], OptionError | None]
) -> Iterator[Refusal]:
    """What in a finished template the rules do not allow.

    :param check_name: Checks the name of a model on the Hub, with whether it is an adapter.
    """
    if rules.instance_types:
        yield from _types(rules, finished)
    if rules.greatest_hourly_price is not None:
        yield from _prices(rules, finished)
    if rules.checks_constructs and not rules.other_endpoints:
        yield from _made_elsewhere(rules, finished)
    if rules.organisations or rules.licences:
        yield from _names(rules, finished, check_name)
    if rules.images:
        yield from _images(rules, finished)
    if rules.proof is not None:
        yield from _unproved(rules, finished)
    if finished.boundary is not None:
        yield from _unbound(rules, finished)


def refused(rules: PlatformDefaults, option: str, value: str, rule: str) -> OptionError:
    """A refusal in the platform's words."""
    return OptionError(option, value[:80], f"{rule}: {rules.message}")


def refused_type(rules: PlatformDefaults, name: str) -> OptionError | None:
    """Why an instance type is not allowed; None where it is."""
    if any(fnmatch.fnmatchcase(name, each) for each in rules.instance_types):
        return None
    return refused(rules, "instance_type", name, f"is none of the platform's: {', '.join(rules.instance_types)}")


def refused_unknown(rules: PlatformDefaults, option: str, allowed: Sequence[str]) -> OptionError:
    """Why a value that only the deployment knows is not allowed."""
    rule = "is known only when it is deployed, and has to be said at synth, or be a CfnParameter with allowed values"
    return refused(rules, option, "a token", f"{rule}, of {', '.join(allowed)}" if allowed else rule)


# Instance types.


def _types(rules: PlatformDefaults, finished: Finished) -> Iterator[Refusal]:
    for name, resource in finished.template.get("Resources", {}).items():
        kind = str(resource.get("Type"))
        if kind.startswith("AWS::IAM::") or not finished.is_ruled(name):
            continue
        is_sagemaker = kind.startswith("AWS::SageMaker::")
        for found in _types_in(resource.get("Properties"), finished.template, is_sagemaker):
            if found is None:
                yield name, refused_unknown(rules, "instance_type", rules.instance_types)
            elif error := refused_type(rules, found):
                yield name, error


def _types_in(value: Any, template: Template, is_sagemaker: bool) -> Iterator[str | None]:
    """SageMaker's instance types below a property; None for each that the template does not say."""
    if isinstance(value, str) or (isinstance(value, Mapping) and value.keys() & {"Fn::Join", "Fn::Sub"}):
        yield from _types_in_text(text_of(value, template))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            found = values_of(each, template) if key == "InstanceType" else set()
            if found is None and is_sagemaker:
                yield None
            yield from (one for one in found or () if one.startswith("ml."))
            yield from _types_in(each, template, is_sagemaker)
    elif isinstance(value, list):
        for each in value:
            yield from _types_in(each, template, is_sagemaker)


def _types_in_text(text: str) -> Iterator[str | None]:
    for is_path, value in _IN_TEXT.findall(text):
        if is_path or UNKNOWN in value or value.startswith("{%"):
            if "sagemaker" in text.lower():
                yield None
        elif value.startswith("ml."):
            yield value


# Prices.


def _prices(rules: PlatformDefaults, finished: Finished) -> Iterator[Refusal]:
    scaled = _scaled(finished.template)
    for name, properties in finished.of(CONFIG):
        price = 0.0
        for variant in _variants(properties):
            types, count = _types_of(variant, finished.template), _most(variant, finished.template)
            most = scaled.get((name, text_of(variant.get("VariantName"), finished.template)), 0)
            if "ServerlessConfig" in variant:
                continue
            if types is None or count is None or most is None:
                yield name, refused_unknown(rules, "hosting", ())
                continue
            if unpriced := sorted(types - rules.prices.keys()):
                yield name, refused_price(rules, unpriced[0])
            price += max(count, most) * max((rules.prices.get(each, 0) for each in types), default=0)
        if error := refused_total(rules, price):
            yield name, error


def refused_price(rules: PlatformDefaults, name: str) -> OptionError:
    """Why an instance type without a price is not allowed."""
    return refused(rules, "instance_type", name, "has no price in the platform's prices, which limit what may be spent")


def refused_total(rules: PlatformDefaults, price: float) -> OptionError | None:
    """Why a price is not allowed; None where it is."""
    limit = rules.greatest_hourly_price
    if limit is None or price <= limit:
        return None
    return refused(rules, "hosting", f"{price:g} an hour", f"costs more than {limit:g} an hour with all its instances")


def _variants(properties: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = [properties.get("ProductionVariants"), properties.get("ShadowProductionVariants")]
    return [each for one in listed if isinstance(one, list) for each in one if isinstance(each, Mapping)]


def _types_of(variant: Mapping[str, Any], template: Template) -> set[str] | None:
    pools = variant.get("InstancePools") or []
    given = [variant.get("InstanceType"), *(pool.get("InstanceType") for pool in pools if isinstance(pool, Mapping))]
    found = [values_of(each, template) for each in given if each is not None]
    return None if any(each is None for each in found) else set().union(*(each or () for each in found))


def _most(variant: Mapping[str, Any], template: Template) -> float | None:
    """The largest number of instances that the configuration itself allows; None where the template does not say."""
    managed = variant.get("ManagedInstanceScaling") or {}
    return _greatest([variant.get("InitialInstanceCount"), managed.get("MaxInstanceCount")], template)


def _greatest(numbers: Sequence[Any], template: Template) -> float | None:
    """The greatest of some numbers; None where the template does not say one of them."""
    found = [values_of(each, template) for each in numbers if each is not None]
    if any(each is None for each in found):
        return None
    return max((float(one) for each in found for one in each or ()), default=0)


def _scaled(template: Template) -> Mapping[tuple[str, str], float | None]:
    """The configuration and the variant -> the largest number that its scaling allows."""
    configs = {
        text_of(each.get("EndpointName"), template): referred(each.get("EndpointConfigName"))
        for _, each in resources(template, ENDPOINT)
    }
    found: dict[tuple[str, str], float | None] = {}
    for _, target in resources(template, "AWS::ApplicationAutoScaling::ScalableTarget"):
        scaled = re.fullmatch(r"endpoint/(.+)/variant/(.+)", text_of(target.get("ResourceId"), template))
        config = configs.get(scaled[1]) if scaled else None
        if scaled and config:
            actions = [each.get("ScalableTargetAction") or {} for each in target.get("ScheduledActions") or []]
            numbers = [target.get("MaxCapacity"), *(each.get("MaxCapacity") for each in actions)]
            found[config, scaled[2]] = _greatest(numbers, template)
    return found


# Models and proofs.


def _made_elsewhere(rules: PlatformDefaults, finished: Finished) -> Iterator[Refusal]:
    """Models and endpoints whose models, images and proofs nobody checked."""
    for kind in (ENDPOINT, CONFIG, MODEL, COMPONENT):
        for name, _ in finished.of(kind):
            if name not in finished.ours:
                yield (
                    name,
                    refused(
                        rules,
                        kind,
                        name,
                        "is made without HuggingFaceEndpoint, so that the platform's rules about models, images and "
                        "proofs cannot be kept: define the endpoint with it",
                    ),
                )
    for name, properties in finished.of(CONFIG):
        for model in (each.get("ModelName") for each in _variants(properties)):
            if model is not None and referred(model) not in finished.ours:
                value = text_of(model, finished.template).replace(UNKNOWN, "a token")
                yield name, refused(rules, "model", value, "is a Model that this endpoint's construct did not make")


def _names(
    rules: PlatformDefaults, finished: Finished, check_name: Callable[[str, bool], OptionError | None]
) -> Iterator[Refusal]:
    """Models of the Hub that the variables of containers name."""
    for name, environment in _environments(finished):
        if not isinstance(environment, Mapping) or any(each.startswith("Fn::") for each in environment):
            yield name, refused_unknown(rules, "environment", ())
            continue
        for variable in environment.keys() & {*MODEL_VARIABLES, ADAPTERS}:
            found = values_of(environment[variable], finished.template)
            if found is None:
                yield name, refused_unknown(rules, variable, ())
            is_adapter = variable == ADAPTERS
            checked = (check_name(each, is_adapter) for one in found or () for each in hub_names(one, is_adapter))
            yield from ((name, error) for error in checked if error is not None)


def _environments(finished: Finished) -> Iterator[tuple[str, Any]]:
    """The variables of each container, with the resource's logical ID."""
    return ((name, each["Environment"]) for name, each in _containers(finished) if "Environment" in each)


def _containers(finished: Finished) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The containers of Models and components, each with its resource's logical ID."""
    found = [
        (name, [each.get("PrimaryContainer"), *(each.get("Containers") or [])]) for name, each in finished.of(MODEL)
    ]
    for name, component in finished.of(COMPONENT):
        found.append((name, [(component.get("Specification") or {}).get("Container")]))
    return ((name, each) for name, containers in found for each in containers if isinstance(each, Mapping))


def _images(rules: PlatformDefaults, finished: Finished) -> Iterator[Refusal]:
    """Images that are none of the platform's."""
    images = [
        (name, text_of(each["Image"], finished.template, names=True))
        for name, each in _containers(finished)
        if "Image" in each
    ]
    for name, machine in finished.of("AWS::StepFunctions::StateMachine"):
        definition = text_of(machine.get("DefinitionString"), finished.template, names=True)
        images += [(name, each) for each in _TRAINING_IMAGE.findall(definition)]
    for name, image in images:
        is_allowed = any(fnmatch.fnmatchcase(image, each) for each in rules.images)
        if not is_allowed and not image.startswith(NOT_LOOKED_UP):
            rule = f"is none of the platform's: {', '.join(rules.images)}"
            yield name, refused(rules, "image", image.replace(UNKNOWN, "(token)"), rule)


def hub_names(value: str, is_adapter: bool) -> Iterator[str]:
    """The names of models on the Hub in a variable's value; a path is none."""
    alone = value.rpartition("=")[2].partition("@")[0].strip()
    named = [model_id for _, model_id, _ in adapters_named(value)] if is_adapter else [alone]
    yield from (name for name in named if name and not name.startswith(("/", ".")))


def _unproved(rules: PlatformDefaults, finished: Finished) -> Iterator[Refusal]:
    """Endpoints of this library that the template holds no proof of."""
    assert rules.proof is not None  # noqa: S101 - the caller has looked
    proofs = [
        each
        for _, each in resources(finished.template, PROOF)
        if each.get("Check") == "endpoint" and (rules.proof.optional or {"Body", "Sample"} & each.keys())
    ]
    names = {text_of(each.get("EndpointName"), finished.template) for each in proofs}
    for name, properties in finished.of(ENDPOINT):
        endpoint = text_of(properties.get("EndpointName"), finished.template)
        if name in finished.ours and endpoint not in names:
            yield name, refused(rules, "verify", "none in the template", "leaves the endpoint unproved")


def _unbound(rules: PlatformDefaults, finished: Finished) -> Iterator[Refusal]:
    """Roles and users without the platform's permissions boundary."""
    for kind in ("AWS::IAM::Role", "AWS::IAM::User"):
        for name, properties in finished.of(kind):
            if properties.get("PermissionsBoundary") != finished.boundary:
                yield name, refused(rules, "permissions_boundary", name, "has not the platform's permissions boundary")
