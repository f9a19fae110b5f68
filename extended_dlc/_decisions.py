"""What the facts decide for an endpoint: what is refused or annotated, and what is chosen where nothing is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from aws_cdk import Annotations
from constructs import Construct

from extended_dlc._model_facts import model_facts
from extended_dlc._private import decide, is_token, place_of
from extended_dlc.facts.combinations import check_access, check_network, check_zero_instances
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.limits import most
from extended_dlc.facts.models import ModelFacts
from extended_dlc.facts.packages import check_packages
from extended_dlc.facts.sizing import Load, Spread, check_fit, choose_disk, choose_timeouts
from extended_dlc.hosting import (
    Async,
    Component,
    Components,
    Hosting,
    Instances,
    RealTime,
    Serverless,
    Variant,
    find_instances,
)
from extended_dlc.image import ExtendedDlc, ServingImage, StockDlc
from extended_dlc.model import HubModel, ServedModel
from extended_dlc.network import Network

Fleet = TypeVar("Fleet", bound=Instances)
Environment = Mapping[str, str] | None


def settle(
    scope: Construct,
    hosting: Hosting,
    *,
    model: ServedModel,
    image: ServingImage,
    environment: Environment,
    network: Network | None,
    network_isolation: bool,
) -> tuple[ServedModel, Hosting]:
    """The model and the hosting, with task, time-outs and volume where the user gave none; annotates `scope`."""
    model = _known(scope, model)
    _check_network(scope, model, network, network_isolation)
    if isinstance(hosting, Serverless):
        _check_serverless(scope, hosting, model, image, environment)
        return model, hosting
    if isinstance(hosting, Components):
        if hosting.minimum == 0:
            region = place_of(scope).region
            known = None if is_token(region) else region
            if note := decide("minimum", hosting.minimum, lambda: check_zero_instances(known)):
                _warn(scope, "zero-instances", note)
        settled = [
            _settle_component(scope, hosting, each, model, image, environment, network, network_isolation)
            for each in hosting.components
        ]
        volumes = [fleet.volume_gb or 0 for _, fleet in settled]
        # the models lie side by side on the one volume
        volume = min(sum(volumes), most("volume_gb")) if all(volumes) else None
        components = tuple(component for component, _ in settled)
        return model, replace(hosting, components=components, volume_gb=hosting.volume_gb or volume)
    hosting = _settle_fleet(scope, hosting, model, image, environment)
    if isinstance(hosting, RealTime):

        def settle_variant(variant: Variant) -> Variant:
            own = None if variant.model is None else _known(scope, variant.model)
            if own is not None:
                _check_network(scope, own, network, network_isolation)
            variables = environment if variant.environment is None else variant.environment
            fleet = _settle_fleet(scope, variant, own or model, variant.image or image, variables)
            return replace(fleet, model=own)

        variants = tuple(map(settle_variant, hosting.variants))
        shadow = settle_variant(hosting.shadow) if hosting.shadow else None
        hosting = replace(hosting, variants=variants, shadow=shadow)
    return model, hosting


def deadlines(hosting: Hosting | Instances) -> dict[str, str]:
    """The native server's variables for how long an inference may take; none where its own 60 s and 480 s are right."""
    if isinstance(hosting, Serverless):
        seconds = most("serverless.response_seconds")
    elif isinstance(hosting, Async):
        # a caller may ask for as long (InvocationTimeoutSeconds), and nobody reads a stream there as it comes
        seconds = most("async.invocation_seconds")
    else:
        return {}
    return dict.fromkeys(("EXTENDED_DLC_ANSWER_SECONDS", "EXTENDED_DLC_STREAM_SECONDS"), str(seconds))


def _check_way_to_the_hub(scope: Construct, model: ServedModel, environment: Environment) -> None:
    """Say that the Hub is out of reach in China, where nothing says which other one is meant."""
    region = place_of(scope).region
    if isinstance(model, HubModel) and region.startswith("cn-") and "HF_ENDPOINT" not in (environment or {}):
        _warn(
            scope,
            "hub-in-china",
            f"huggingface.co is out of reach in {region} as a rule, and a container fetches '{model.id}' from it: "
            "set HF_ENDPOINT in 'environment' to a mirror of the Hub that is in reach, or bring the weights by S3Model",
        )


def known_task(scope: Construct, model: ServedModel) -> str | None:
    """The task of the model's requests, where the user or the facts say."""
    return model_facts(scope, model).task


def _known(scope: Construct, model: ServedModel) -> ServedModel:
    """A Hub model with its type, licence and task where the facts have them, and with a token where it needs one."""
    if not isinstance(model, HubModel):
        return model
    facts = model_facts(scope, model)
    decide(
        "model",
        model.id,
        lambda: check_access(gated=facts.gated, token=model.token is not None, from_hub=True, licence=facts.licence),
    )
    # the container finds out the task by itself, but for AWS's server, which takes speech models for others
    task = model.task or (facts.task if facts.is_speech else None)
    return replace(model, model_type=facts.model_type, task=task, licence=model.licence or facts.licence)


def _check_network(scope: Construct, model: ServedModel, network: Network | None, isolated: bool) -> None:
    try:
        notes = check_network(
            isolated=isolated,
            from_hub=isinstance(model, HubModel),
            token=model.token is not None,
            requirements=model.code is not None and "code/requirements.txt" in model.code.files(),
            way_out=None if network is None else _way_out(network),
        )
    except ValueError as error:
        raise ValueError(f"'network_isolation' {error}") from None
    for note in notes:
        _warn(scope, "no-way-out", note)


def _way_out(network: Network) -> bool | None:
    """Whether the subnets lead to the internet: False where each is known to be isolated."""
    isolated = {subnet.node.path for subnet in network.vpc.isolated_subnets}
    subnets = network.subnets or network.vpc.private_subnets or network.vpc.isolated_subnets
    return False if subnets and all(subnet.node.path in isolated for subnet in subnets) else None


def _check_serverless(
    scope: Construct, hosting: Serverless, model: ServedModel, image: ServingImage, environment: Environment
) -> None:
    _check_way_to_the_hub(scope, model, environment)
    facts = model_facts(scope, model)
    (instance,) = find_instances(hosting)
    _check_memory(scope, "memory_mb", facts, instance, _spread(model, image), environment)
    _warn(
        scope,
        "serverless-image",
        f"Serverless takes images of {most('serverless.image_gb')} GB at most, and nothing is known of this one's "
        "size, which AWS does not publish. Once it is in ECR, aws ecr describe-images says imageSizeInBytes, packed; "
        "if SageMaker refuses it, take RealTime or Async",
    )
    disk = most("serverless.disk_gb")
    if facts.size is not None and facts.size > disk * 1e9:
        raise ValueError(
            f"'hosting' (Serverless) has {disk} GB of disk, and the model's files are {facts.size / 1e9:,.1f} GB: take "
            "RealTime or Async"
        )


def _settle_fleet(
    scope: Construct, fleet: Fleet, model: ServedModel, image: ServingImage, environment: Environment
) -> Fleet:
    _check_way_to_the_hub(scope, model, environment)
    facts = model_facts(scope, model)
    _check_requirements(scope, model, image)
    instances = find_instances(fleet)
    for instance in instances:
        _check_memory(scope, "instance_type", facts, instance, _spread(model, image), environment)
    timeouts = choose_timeouts(facts.size, from_s3=not isinstance(model, HubModel))
    disks = [choose_disk(facts.size, instance) for instance in instances]
    for note in (*timeouts.notes, *(note for disk in disks for note in disk.notes)):
        _warn(scope, "size", note)
    volumes = [disk.volume_gb for disk in disks]
    return replace(
        fleet,
        startup_timeout_seconds=fleet.startup_timeout_seconds or timeouts.startup,
        download_timeout_seconds=fleet.download_timeout_seconds or timeouts.download,
        # one size for all types: none where one of them has storage of its own
        volume_gb=fleet.volume_gb or (volumes[0] if None not in volumes else None),
    )


def _settle_component(
    scope: Construct,
    hosting: Components,
    component: Component,
    model: ServedModel,
    image: ServingImage,
    environment: Environment,
    network: Network | None,
    network_isolation: bool,
) -> tuple[Component, Instances]:
    """A component with its time-outs, and the instances that its model alone would need."""
    own = None if component.model is None else _known(scope, component.model)
    if own is not None:
        _check_network(scope, own, network, network_isolation)
    variables = environment if component.environment is None else component.environment
    alone = Instances(
        instance_type=hosting.instance_type,
        startup_timeout_seconds=component.startup_timeout_seconds or hosting.startup_timeout_seconds,
        download_timeout_seconds=component.download_timeout_seconds or hosting.download_timeout_seconds,
    )
    alone = _settle_fleet(scope, alone, own or model, component.image or image, variables)
    settled = replace(
        component,
        model=own,
        startup_timeout_seconds=alone.startup_timeout_seconds,
        download_timeout_seconds=alone.download_timeout_seconds,
    )
    return settled, alone


def _check_requirements(scope: Construct, model: ServedModel, image: ServingImage) -> None:
    """What code of the user's own installs beside the transformers of an extended image."""
    if model.code is None or not isinstance(image, ExtendedDlc):
        return
    for requirement in model.code._read_requirements():
        text = requirement.text
        notes = decide("requirements", text, partial(check_packages, [text], image.transformers, image._server))
        for note in notes:
            _warn(scope, "requirements", note)


def _check_memory(
    scope: Construct, option: str, facts: ModelFacts, instance: Instance, spread: Spread, environment: Environment
) -> None:
    region = place_of(scope).region
    known = None if is_token(region) else region
    load = Load(dtype=(environment or {}).get("EXTENDED_DLC_DTYPE"))
    value = instance.name if option == "instance_type" else instance.memory_mib
    note = decide(option, value, lambda: check_fit(facts, instance, spread=spread, load=load, region=known))
    if note is not None:
        _warn(scope, "memory", note)


def _spread(model: ServedModel, image: ServingImage) -> Spread:
    """AWS's server puts a model on one GPU; this project's spreads a larger one, and code or an image of yours may."""
    stock = isinstance(image, StockDlc) or (isinstance(image, ExtendedDlc) and image._server == "stock")
    return "one" if stock and model.code is None else "all"


def _warn(scope: Construct, kind: str, text: str) -> None:
    Annotations.of(scope).add_warning_v2(f"extended-dlc:{kind}", text)
