"""The decisions about a training before a container runs: its image, refusals and annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extended_dlc.decisions.decide import decide
from extended_dlc.decisions.found import Found, Note
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.decisions.of_training import check_training_instance
from extended_dlc.decisions.training import TrainingAsked, decide_training
from extended_dlc.images.decided import annotate, image_asked, model_asked, notes_of_image, refuse, region_of
from extended_dlc.images.image import EcrImage, ExtendedDlc
from extended_dlc.images.published import PublishedImage
from extended_dlc.models.model import HubModel
from extended_dlc.options._values import OptionError

if TYPE_CHECKING:
    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint
    from extended_dlc.images.published import ServingImage
    from extended_dlc.training.given import TrainingOptions
    from extended_dlc.training.job import TrainingJob
    from extended_dlc.training.model import TrainedModel


def endpoint_of(serves: TrainedModel | None) -> HuggingFaceEndpoint | None:
    """The endpoint that serves the weights; None without `serves`. ValueError where no endpoint serves them."""
    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint

    if serves is None:
        return None
    for home in serves.endpoints:
        for each in [home, *home.node.scopes]:
            if isinstance(each, HuggingFaceEndpoint):
                return each
    raise OptionError(
        "serves",
        serves.node.path,
        "is served by no endpoint: define the HuggingFaceEndpoint with model= of it before the training",
    )


def decide_image(job: TrainingJob, image: ServingImage) -> tuple[ImageDecision, Sequence[Note]]:
    """The image's decision, and the notes about it. ValueError for an image that cannot train."""
    asked = image_asked(image)
    if asked.kind == "stock":
        raise OptionError(
            "image", "StockDlc", "serves models: pass ExtendedDlc(family='training', …), or AWS's training image "
            "from a repository of yours with EcrImage"
        )  # fmt: skip
    if asked.kind == "other":
        return ImageDecision(kind="other"), ()
    decision = decide(asked, [], region=region_of(job))
    refuse(decision)
    annotate(job, notes_of_image(decision.notes, None))
    return decision.image, decision.notes


def decide_job(job: TrainingJob, options: TrainingOptions, image: ImageDecision) -> None:
    """Refuse options that would make a job fail, and annotate the construct with the notes."""
    _check_adapter(options)
    found = Found()
    decide_training(_asked(job, options, image), found)
    if image.kind == "extended":
        for instance in options.instances.found:
            check_training_instance(image, instance, region_of(job), found.at(""))
    for refusal in found.refusals:
        raise ValueError(refusal.sentence)
    annotate(job, found.notes)


def _check_adapter(options: TrainingOptions) -> None:
    serves, adapter = options.result.serves, options.adapter
    if serves is not None and serves.adapter != (adapter == "beside"):
        wanted = "adapter='beside'" if serves.adapter else f"no adapter='{adapter}'"
        raise OptionError(
            "adapter",
            str(adapter),
            f"does not go with the TrainedModel, whose endpoint expects {wanted}: say the same of both",
        )


def _asked(job: TrainingJob, options: TrainingOptions, image: ImageDecision) -> TrainingAsked:
    base, result = options.base_model, options.result
    return TrainingAsked(
        name=job.job_name,
        code=options.code,
        hyperparameters=options.hyperparameters,
        channels=tuple(options.channels),
        model=model_asked(job, base) if base is not None else None,
        instances=options.instances,
        adapter=options.adapter,
        gate=result.gate,
        registry=result.registry,
        environment=options.environment,
        metrics=options.metrics,
        transformers=image.transformers,
        serving=serving_release(job.endpoint),
        served_base=result.serves.id if result.serves is not None else None,
        served_revision=result.serves.revision if result.serves is not None else None,
        serves=result.serves is not None,
        isolated=options.network_isolation,
        own_groups=options.network is not None and bool(options.network.security_groups),
        image_training=image.family == "training" if image.kind == "extended" else None,
    )


def serving_release(endpoint: HuggingFaceEndpoint | None) -> str | None:
    """The transformers release in the endpoint's image; None where it is not known."""
    parts = endpoint.decision.parts if endpoint is not None else ()
    return parts[0].image.transformers if parts else None


def publish(
    job: TrainingJob, options: TrainingOptions, decided: ImageDecision, notes: Sequence[Note]
) -> PublishedImage:
    """The image in a registry from which SageMaker can pull."""
    image = options.image
    if isinstance(image, (ExtendedDlc, EcrImage)):
        return image.publish_decided(job, decided, notes)
    first, *_ = options.instances.found
    return image.publish_for(job, instance=first, model=options.base_model or HubModel("unknown"))
