"""Converts the settings of trainings into the input of their decision, and finds their problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from extended_dlc.app.arns import wrong_arns
from extended_dlc.app.asked import image_asked, is_built_in_cloud, model_asked, source_of
from extended_dlc.app.schema import HubChannel, HubWeights, LocalWeights
from extended_dlc.decisions.access import check_copy
from extended_dlc.decisions.asked import ImageAsked
from extended_dlc.decisions.decide import decide
from extended_dlc.decisions.found import Finder, Found
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.decisions.of_training import check_training_instance
from extended_dlc.decisions.training import TrainingAsked, decide_training
from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.models import dataset_key, is_gated
from extended_dlc.images.registry_login import bases_to_pull
from extended_dlc.options.training import TrainingInstances

if TYPE_CHECKING:
    from extended_dlc.app.settings import Read


@dataclass(frozen=True, kw_only=True)
class Around:
    """What the trainings depend on, of the rest of the settings and of its decision."""

    name: str
    region: str | None
    base_region: str | None
    endpoints: Mapping[str, Any]
    """The endpoints that are valid, by their ids."""

    image: ImageAsked
    """Of the endpoints."""

    in_cloud: bool = False
    """Whether CodeBuild builds the image."""

    serving: ImageDecision
    """What is decided on it."""

    looked_up: Mapping[str, Any]

    @staticmethod
    def of(read: Read) -> Around:
        """What settings that were read have around their trainings."""
        settings, decision = read.settings, read.decision
        assert settings is not None  # noqa: S101 - by the caller
        base_region = decision.image.base_region
        return Around(
            name=settings.name,
            region=settings.region,
            base_region=base_region,
            endpoints=settings.endpoints,
            image=image_asked(settings.image, base_region=base_region),
            in_cloud=is_built_in_cloud(settings.image),
            serving=decision.image,
            looked_up=read.looked_up,
        )


def training_bases(trainings: Mapping[str, Any], around: Around) -> Iterator[str]:
    """The base images of the trainings' extended images."""
    for section in trainings.values():
        if (section.image is None and around.in_cloud) or is_built_in_cloud(section.image):
            continue
        yield from bases_to_pull(decide(training_image(section, around), [], region=around.region))


def training_image(section: Any, around: Around) -> ImageAsked:
    """The image of a training: what it says, or the endpoints' release in a training image."""
    if section.image is None:
        transformers = around.image.transformers or around.serving.transformers
        return ImageAsked(kind="extended", family="training", transformers=transformers, base_region=around.base_region)
    asked = image_asked(section.image, base_region=around.base_region)
    return replace(asked, family="training") if asked.kind == "extended" else asked


def base_of(section: Any, endpoints: Mapping[str, Any]) -> Any:
    """The settings of the model that is trained: its own, or the endpoint's; None where neither says one."""
    return section.base_model or (endpoints.get(section.endpoint) if section.endpoint is not None else None)


def training_problems(trainings: Mapping[str, Any], around: Around) -> Iterator[str]:
    """The problems with the trainings, one line each."""
    for key, section in trainings.items():
        path = f"training.{key}"
        wrong = list(_of_endpoint(key, section, trainings, around.endpoints))
        yield from wrong
        if around.region is not None:
            yield from wrong_arns(section, path, around.region)
        image = training_image(section, around)
        if image.kind == "extended" and image.transformers is None:
            yield f'{path}.image: nothing says which release trains: give it, as {{"transformers": "5.24.0"}}'
            continue
        decision = decide(image, [], region=around.region)
        yield from (f"{path}.{refusal.line}" for refusal in decision.refusals)
        found = Found()
        _check_channels(section, around, found.at(path))
        asked = training_asked(key, section, around, decision.image)
        decide_training(asked, found)
        if image.kind == "extended" and not decision.refusals:
            for instance in asked.instances.found:
                check_training_instance(decision.image, instance, around.region, found.at(path))
        yield from (refusal.line for refusal in found.refusals)


def _check_channels(section: Any, around: Around, finder: Finder) -> None:
    """Refuse a data set whose copy the Hub would refuse."""
    for channel, each in section.channels.items():
        if isinstance(each, HubChannel):
            finder.check(
                "dataset",
                each.dataset,
                partial(
                    check_copy,
                    gated=is_gated(around.looked_up.get(dataset_key(each.dataset))),
                    token=each.token_secret is not None,
                    kept="S3Data",
                ),
                setting=f"channels.{channel}.dataset",
            )


def training_asked(key: str, section: Any, around: Around, image: ImageDecision) -> TrainingAsked:
    """A training of the settings."""
    base = base_of(section, around.endpoints)
    served = around.endpoints.get(section.endpoint) if section.endpoint is not None else None
    return TrainingAsked(
        section=f"training.{key}",
        name=f"{around.name}-{key}",
        code=section.code.into_option(),
        hyperparameters=section.hyperparameters or {},
        channels=tuple(section.channels),
        model=model_asked(base, around.looked_up) if base is not None else None,
        instances=section.instances.into_option() if section.instances is not None else TrainingInstances(),
        adapter=section.adapter,
        gate=section.gate.into_option() if section.gate is not None else None,
        registry=section.registry,
        environment=section.environment or {},
        metrics=section.metrics or {},
        transformers=image.transformers,
        serving=around.serving.transformers if served is not None else None,
        served_revision=served.revision if served is not None else None,
        served_base=served.model if served is not None and isinstance(served.weights, HubWeights) else None,
        serves=section.endpoint is not None,
        isolated=section.network_isolation,
        image_training=image.family == "training" if image.kind == "extended" else None,
    )


def _of_endpoint(key: str, section: Any, trainings: Mapping[str, Any], endpoints: Mapping[str, Any]) -> Iterator[str]:
    """The problems between a training and the endpoint that serves its result."""
    path = f"training.{key}"
    if section.endpoint is None:
        for option in ("gate", "registry"):
            if getattr(section, option) is not None:
                yield f"{path}.{option}: is for models that go on to an endpoint: name it as 'endpoint'"
        return
    if section.endpoint not in endpoints:
        known = f"; there are {', '.join(sorted(endpoints))}" if endpoints else ""
        yield (
            f"{path}.endpoint ({section.endpoint}): is not the id of an endpoint"
            f"{did_you_mean(section.endpoint, endpoints) or known}"
        )
        return
    served = endpoints[section.endpoint]
    others = [each for each, one in trainings.items() if one.endpoint == section.endpoint and each < key]
    if others:
        yield f"{path}.endpoint ({section.endpoint}): is trained by '{others[0]}' already: give it one training"
    if isinstance(served.weights, HubWeights) and served.weights.inference_code() is not None:
        yield (
            f"{path}.endpoint ({section.endpoint}): has code of its own, which trained weights would be without: "
            "serve it without code"
        )
    if isinstance(served.weights, LocalWeights) or source_of(served.weights) == "archive":
        yield (
            f"{path}.endpoint ({section.endpoint}): has its model in an archive, and trained models are files: serve "
            "it from the Hub, mirrored, or from a prefix in S3"
        )
    if getattr(served.hosting, "kind", "real-time") == "serverless":
        yield (
            f"{path}.endpoint ({section.endpoint}): is hosted as 'serverless', which takes one archive, and trained "
            "models are files: they are served by 'real-time', 'async' and 'components'"
        )
    if section.adapter == "beside" and not isinstance(served.weights, HubWeights):
        yield (
            f"{path}.adapter (beside): is loaded beside a model of the Hub, and the endpoint's is in S3: say 'merged'"
        )
