"""Converts the settings into the input of `decide`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from extended_dlc.app.schema import HubWeights, LocalWeights, MirroredWeights, ModelSection, S3Weights
from extended_dlc.app.section import Section
from extended_dlc.decisions.asked import OF_HUB, VARIABLES, EndpointAsked, ImageAsked, ModelAsked, PartAsked, Source
from extended_dlc.facts.checks import check_endpoint_name
from extended_dlc.facts.models import ModelFacts, context_key, know_model
from extended_dlc.facts.named_models import known_model_type
from extended_dlc.options.sharing import IMAGE_FACTS, facts_of_parameter
from extended_dlc.options.weights import model_type_of


def image_asked(image: Any, *, base_region: str | None) -> ImageAsked:
    """The image of the settings.

    :param base_region: Region of the registry that AWS's image is pulled from, where the settings do not say.
    """
    names = ("transformers", "base", "accelerator", "cuda", "family")
    options: dict[str, Any] = {name: getattr(image, name, None) for name in names}
    if (parameter := getattr(image, "parameter", None)) is not None:
        options |= facts_of_parameter(parameter, {name: options[name] for name in IMAGE_FACTS})
    return ImageAsked(
        kind=image.kind,
        base_region=getattr(image, "base_region", None) or base_region,
        server=getattr(image, "server", "native"),
        model_types=tuple(sorted(getattr(image, "model_types", ()))),
        rebuild=getattr(image, "rebuild", None),
        **options,
    )


def is_built_in_cloud(image: Any) -> bool:
    """Whether CodeBuild builds the image of these settings, instead of this machine."""
    return getattr(getattr(image, "build", None), "kind", "local") == "cloud"


def wrong_names(name: str, endpoints: Mapping[str, Any]) -> Mapping[str, list[str]]:
    """The problems with the full names of components, by the ids of their endpoints."""
    found: dict[str, list[str]] = {}
    for key, endpoint in endpoints.items():
        for part in getattr(endpoint.hosting, "components", None) or ():
            full = f"{name}-{key}-{part}"
            try:
                check_endpoint_name(full)
            except ValueError as error:
                line = f"endpoints.{key}.hosting.components.{part}: it would be called '{full}', which {error}"
                found.setdefault(key, []).append(line)
    return found


def unserved_models(endpoints: Mapping[str, Any]) -> Iterator[str]:
    """The endpoints whose own model is served by none of their components."""
    for key, endpoint in endpoints.items():
        parts = getattr(endpoint.hosting, "components", None)
        if parts and all(part.model is not None for part in parts.values()):
            yield f"endpoints.{key}.model ({endpoint.model}): no component serves it: leave 'model' out of one"


def endpoints_asked(
    name: str, endpoints: Mapping[str, Any], image: ImageAsked, looked_up: Mapping[str, Any]
) -> Sequence[EndpointAsked]:
    """The endpoints of the settings by their ids, sorted by id."""
    return [
        _endpoint(f"{name}-{key}", f"endpoints.{key}", endpoints[key], image, looked_up) for key in sorted(endpoints)
    ]


def _endpoint(name: str, path: str, settings: Any, image: ImageAsked, looked_up: Mapping[str, Any]) -> EndpointAsked:
    parts: dict[str, PartAsked] = {}

    def find(section: Section, at: str) -> Mapping[str, Any]:
        """The model of each variant and component, and a component's full name."""
        if section.made not in ("Variant", "Component"):
            return {}
        key = at.rpartition(".")[2]
        called = section.name if section.made == "Variant" else f"{name}-{key}"  # type: ignore[attr-defined]
        with_model = section if isinstance(section, ModelSection) and section.model is not None else None
        parts[called] = PartAsked(
            section=f"{path}.hosting.{at}", model=model_asked(with_model, looked_up) if with_model is not None else None
        )
        return {"name": called}

    hosting = settings.hosting.into_option(find) if settings.hosting is not None else None
    return EndpointAsked(
        section=path,
        name=name,
        model=model_asked(settings, looked_up),
        image=image,
        **({"hosting": hosting} if hosting is not None else {}),
        parts=parts,
        environment=settings.environment or {},
        vllm=settings.vllm.into_option() if settings.vllm is not None else None,
        rollout=settings.rollout.into_option() if settings.rollout is not None else None,
        network=settings.network is not None,
        subnets=len(settings.network.subnets) if settings.network is not None else None,
        network_isolation=settings.network_isolation,
        data_capture=settings.data_capture is not None,
        metrics=settings.metrics.into_option() if settings.metrics is not None else None,
        container_alarms=bool(settings.monitoring is not None and settings.monitoring.container_alarms),
        encryption_key=settings.encryption_key is not None,
        role=settings.role is not None,
        role_path=settings.role_path is not None,
        permissions_boundary=settings.permissions_boundary is not None,
        verify=settings.verify if isinstance(settings.verify, bool) else settings.verify.into_option(),
    )


def model_asked(settings: ModelSection, looked_up: Mapping[str, Any]) -> ModelAsked:
    """A model of the settings, with the known facts about it."""
    weights = settings.weights
    source = source_of(weights)
    hub = isinstance(weights, HubWeights)
    return ModelAsked(
        facts=facts_of(settings, looked_up),
        source=source,
        task=settings.task,
        revision=settings.revision if source in OF_HUB else None,
        trust_remote_code=settings.trust_remote_code,
        token=hub and weights.token_secret is not None,
        copy_token=weights.token_secret is not None if isinstance(weights, MirroredWeights) else None,
        code=weights.inference_code() if hub else None,
        variables=VARIABLES[source],
    )


def source_of(weights: Section) -> Source:
    """The source of the weights."""
    if isinstance(weights, HubWeights):
        return "hub"
    if isinstance(weights, MirroredWeights):
        return "mirrored"
    is_prefix = isinstance(weights, S3Weights) and not weights.key.endswith(".tar.gz")
    return "files" if is_prefix else "archive"


def model_type_asked(settings: ModelSection) -> str | None:
    """The model type of weights outside the Hub: from the settings, the folder's config.json, or the model's name."""
    if isinstance(settings.weights, LocalWeights):
        return settings.model_type or model_type_of(Path(settings.weights.folder))
    return settings.model_type or known_model_type(settings.model)


def facts_of(settings: ModelSection, looked_up: Mapping[str, Any]) -> ModelFacts:
    """The known facts about a model; facts by its name apply only to the weights that the Hub has under that name."""
    if isinstance(settings.weights, (HubWeights, MirroredWeights)):
        return know_model(
            settings.model,
            looked_up=looked_up.get(context_key(settings.model)),
            revision=settings.revision,
            model_type=settings.model_type,
            parameters=settings.parameters,
            task=settings.task,
        )
    return know_model(None, model_type=model_type_asked(settings), parameters=settings.parameters, task=settings.task)
