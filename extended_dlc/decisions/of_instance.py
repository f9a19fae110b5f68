"""Checks a part's instances: accelerator, GPU, memory, region, and the limits of Serverless Inference."""

from __future__ import annotations

from extended_dlc.decisions.access import check_serverless_data
from extended_dlc.decisions.deciding import Deciding
from extended_dlc.decisions.sizing import check_fit
from extended_dlc.facts.catalog import DlcImage
from extended_dlc.facts.compat import bases_for, inference_ami_version
from extended_dlc.facts.gpus import check_gpu
from extended_dlc.facts.instances import Instance, check_image_runs_on
from extended_dlc.facts.limits import most
from extended_dlc.options.hosting import Serverless


def check_instance(about: Deciding, instance: Instance) -> None:
    """Refuse a type that cannot run the image or hold the model, and note what is unknown of it."""
    image, finder, name = about.image, about.hosting, instance.name
    if instance.accelerator == "unknown":
        finder.note(
            "instance-type",
            "'instance_type' is a CDK token: that SageMaker hosts on it, and that it has the memory, the "
            "accelerator and the driver that the model and the image need, is not checked",
            setting="instance_type",
        )
        return
    serverless = isinstance(about.part.hosting, Serverless)
    option, value = ("memory_mb", instance.memory_mib) if serverless else ("instance_type", name)
    because = _because(about, instance)

    def runs() -> None:
        try:
            check_image_runs_on(instance, image.accelerator)
        except ValueError as error:
            raise ValueError(f"{error}{because}") from None

    if not finder.check("hosting" if serverless else option, name, runs):
        return
    if about.region is not None and instance.is_offered(about.region) is False:
        finder.note(
            "not-offered",
            f"EC2 does not offer {name.removeprefix('ml.')} in {about.region}, so SageMaker will hardly host on it "
            "there: take another type or region, or see your quotas for it",
            setting=option,
        )
    _check_gpu(about, instance)
    note = finder.ask(
        option,
        value,
        lambda: check_fit(
            about.part.model.facts, instance, spread=about.spread, load=about.load_with_dtype, region=about.region
        ),
    )
    finder.note("memory", note, setting=option)


def _because(about: Deciding, instance: Instance) -> str:
    """Why the image has another accelerator than the instance, as the end of an error; empty if it has not."""
    asked, accelerator = about.part.image, about.image.accelerator
    if accelerator in (None, instance.accelerator):
        return ""
    if asked.base is not None:
        return f" (image.base is built for {accelerator})"
    if about.image.family == "vllm":
        return " (image.family is vllm)"
    if asked.accelerator is not None and asked.settled_for is None:
        return f" (image.accelerator is {accelerator})"
    other = asked.settled_for or about.image.accelerator_of
    if other is None:  # the image is made for a default, because no instance is one that it could be made for
        return ""
    return f" (the image is made for {accelerator}, which {other} computes with)" if other else ""


def _check_gpu(about: Deciding, instance: Instance) -> None:
    image, finder = about.image, about.hosting
    if not instance.gpus:
        return
    if image.kind == "ecr" and image.cuda is None:
        finder.note(
            "cuda",
            "nothing says which CUDA the image has, so SageMaker's own driver is used, with which images for CUDA "
            "12 and newer do not start on several types: give cuda=, as cu124",
        )
    if image.kind == "other" or (image.kind != "ecr" and image.tag is None) or image.cuda is None:
        return
    extended = image.transformers if image.kind == "extended" else None

    def bases() -> list[DlcImage]:
        if image.kind == "ecr":
            return []
        return bases_for(extended, image.family or "inference", image.server or "native")

    torch = image.tag.torch if image.tag else None
    notes = finder.ask(
        "instance_type",
        instance.name,
        lambda: check_gpu(instance, cuda=image.cuda, torch=torch, bases=bases, region=about.region),
    )
    finder.number("gpu", notes, setting="instance_type")


def check_serverless(about: Deciding) -> None:
    """Refuse a model that is too large or not packed, and note the limit of the image."""
    model, facts = about.part.model, about.part.model.facts
    about.hosting.note(
        "serverless-image",
        f"Serverless takes images of {most('serverless.image_gb')} GB at most, and nothing is known of this one's "
        "size, which AWS does not publish. Once it is in ECR, aws ecr describe-images says imageSizeInBytes, "
        "packed; if SageMaker refuses it, take RealTime or Async",
    )
    disk = most("serverless.disk_gb")
    if facts.size is not None and facts.size > disk * 1e9:
        about.hosting.refuse(
            "hosting",
            "Serverless",
            f"has {disk} GB of disk, and the model's files are {facts.size / 1e9:,.1f} GB: take RealTime or Async",
            setting="kind",
        )
    if model.source in ("files", "mirrored"):
        about.model.check(
            "model",
            "files in S3 as they are",
            lambda: check_serverless_data(archive=False),
            setting="weights",
        )


def host_image(about: Deciding) -> str | None:
    """`InferenceAmiVersion`; None leaves SageMaker's default."""
    unknown = any(instance.accelerator == "unknown" for instance in about.part.instances)
    if isinstance(about.part.hosting, Serverless) or unknown:
        return None
    names = [instance.name for instance in about.part.instances]
    return about.hosting.ask("instance_type", ", ".join(names), lambda: inference_ami_version(about.image.cuda, names))
