"""Whether a training image runs on an instance type."""

from __future__ import annotations

from extended_dlc.decisions.found import Finder
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.facts.compat import bases_for
from extended_dlc.facts.gpus import check_gpu
from extended_dlc.facts.instances import Instance, check_image_runs_on


def check_training_instance(image: ImageDecision, instance: Instance, region: str | None, finder: Finder) -> None:
    """Refuse a type that a training image cannot run on, or whose GPUs it is known not to support.

    A GPU image on a CPU type is allowed with a note, because all Hugging Face training images are for GPUs.
    """
    on_cpu = image.accelerator == "gpu" and instance.accelerator == "cpu"
    accelerator = None if on_cpu else image.accelerator
    if not finder.check("instance_type", instance.name, lambda: check_image_runs_on(instance, accelerator)):
        return
    if on_cpu:
        finder.note(
            "training-on-cpu",
            f"{instance.name} has no GPU, and the image is made for them: it trains there, slowly",
            setting="instance_type",
        )
    torch = image.tag.torch if image.tag else None
    notes = finder.ask(
        "instance_type",
        instance.name,
        lambda: check_gpu(
            instance,
            cuda=image.cuda,
            torch=torch,
            bases=lambda: bases_for(image.transformers, "training"),
            region=region,
        ),
    )
    finder.number("gpu", notes, setting="instance_type")
