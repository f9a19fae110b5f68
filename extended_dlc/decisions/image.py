"""Decides on the image: family, accelerator and base, from all parts that it serves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from extended_dlc.decisions.asked import ImageAsked, ImageKind
from extended_dlc.decisions.found import Finder, Found
from extended_dlc.decisions.part import Part
from extended_dlc.decisions.vllm import refuses_vllm, why_vllm
from extended_dlc.facts.catalog import (
    INFERENCE,
    TRAINING,
    VLLM,
    TagFacts,
    dlc_images,
    is_moving,
    read_tag,
    repository_of,
)
from extended_dlc.facts.checks import check_release
from extended_dlc.facts.compat import (
    Choice,
    Family,
    Server,
    check_model_type,
    check_pair,
    check_training,
    check_vllm,
    find_release,
    pick_base,
    pick_training,
    pick_vllm,
)
from extended_dlc.facts.gpus import cuda_version
from extended_dlc.facts.stock import pick_stock


@dataclass(frozen=True, kw_only=True)
class ImageDecision:
    """The image of one part, with its content."""

    kind: ImageKind
    base: str | None = None
    """Reference of the image that is extended, or served unchanged; None if unknown."""

    why: str = "it is an image of yours"
    transformers: str | None = None
    server: Server | None = None
    """The server in it; None for an image that the user built."""

    family: Family | None = None
    """None for an image that the user built, unless the user names it."""

    base_region: str | None = None
    """Region of the registry that AWS's image is pulled from, if it is not that of the deployment."""

    any_region: bool = False
    """Whether `base` stands for AWS's image in the region of the deployment, which is not known at synth."""

    accelerator: str | None = None
    accelerator_of: str | None = None
    """The part whose instances have the accelerator, in words; None if no part has it."""

    cuda: str | None = None
    tag: TagFacts | None = None
    layer: tuple[str, ...] = ()
    """The packages installed on the base, as far as the release's wheel names them."""

    @property
    def is_native(self) -> bool:
        """Whether it serves with this project's server, which logs each request as a line of JSON."""
        return self.kind == "extended" and self.server == "native" and self.family not in ("vllm", "training")


def choose_image(
    asked: ImageAsked, parts: Sequence[Part], *, region: str | None, found: Found
) -> dict[str, ImageDecision]:
    """The image of each part, by the part's key.

    All parts share an extended image; AWS publishes a stock image per accelerator. `parts` is empty if an image is
    checked before an endpoint uses it.
    """
    finder = found.at(f"image:{asked.key}" if asked.key else "image")
    match asked.kind:
        case "extended":
            decided = _extended(asked, parts, region, finder)
            return {part.key: decided for part in parts} or {"": decided}
        case "stock":
            return _stock(asked, parts, region, finder)
        case _:
            cuda = asked.cuda
            is_cuda = cuda is not None and finder.ask("cuda", cuda, partial(cuda_version, cuda)) is not None
            decided = ImageDecision(
                kind=asked.kind,
                transformers=asked.transformers,
                accelerator=asked.accelerator,
                cuda=cuda if is_cuda else None,
                family=asked.family,
            )
            return {part.key: decided for part in parts} or {"": decided}


def _extended(asked: ImageAsked, parts: Sequence[Part], region: str | None, finder: Finder) -> ImageDecision:
    transformers, base = asked.transformers, asked.base
    exact = transformers is not None and finder.check(
        "transformers", transformers, lambda: check_release(str(transformers))
    )
    if base is not None:
        _check_reference(base, finder)
    tag = read_tag(base) if base else None
    family = _family(asked, parts, region, finder) if exact else asked.family
    accelerator = _accelerator(asked, tag, family, parts, finder)
    choice: Choice | None = None
    if exact and transformers is not None:
        if base is not None:
            notes = finder.ask(
                "transformers", transformers, lambda: _check_pair(base, transformers, family, asked.server)
            )
            finder.number("pair", notes, setting="base")
        elif family is not None and accelerator is not None:
            choice = _pick(asked, transformers, family, accelerator, region, finder)
        for model_type in asked.model_types:
            finder.check("model_types", model_type, partial(check_model_type, model_type, transformers), whole=True)
    reference = base or (choice.uri if choice else None)
    if reference is not None and asked.rebuild is None and is_moving(reference):
        finder.note(
            "moving-base",
            f"base '{reference}' can change without a change of the image's hash: give a digest or a -vM.m tag, or a "
            "rebuild= text that you change when the base was patched",
            setting="base",
        )
    facts = tag or (read_tag(reference) if reference else None)
    why = "it was given" if base else choice.why if choice else "no base was found"
    return ImageDecision(
        kind="extended",
        base=reference,
        why=why,
        transformers=transformers if exact else None,
        server=asked.server,
        family=family,
        base_region=asked.base_region,
        accelerator=accelerator,
        accelerator_of=next(
            (part.words for part in parts if any(each.accelerator == accelerator for each in part.instances)), None
        ),
        cuda=facts.cuda if facts else None,
        tag=facts,
        layer=_layer(transformers, asked.server, family) if exact else (),
    )


def _check_pair(base: str, transformers: str, family: Family | None, server: Server) -> tuple[str, ...]:
    match family:
        case "vllm":
            return check_vllm(base, transformers)
        case "training":
            return check_training(base, transformers)
        case _:
            return check_pair(base, transformers, server)


def _check_reference(base: str, finder: Finder) -> None:
    """Refuse a bare tag: Docker would take it for the name of an image, which no registry has."""
    if ":" not in base and "@" not in base and read_tag(f"image:{base}") is not None:
        known = [image for image in dlc_images() if image.tag == base]
        finder.refuse(
            "base",
            base,
            "is a tag alone: write the image's whole reference, registry/repository:tag"
            + (f", as {known[-1].uri(known[-1].regions[0])}" if known and known[-1].regions else ""),
        )


def _family(asked: ImageAsked, parts: Sequence[Part], region: str | None, finder: Finder) -> Family | None:
    """The given family, or the base's, or vLLM if a model is too large for one GPU and vLLM can serve all parts."""
    is_vllm = asked.base is not None and repository_of(asked.base) == VLLM
    is_training = asked.base is not None and repository_of(asked.base) == TRAINING
    given: Family | None = asked.family
    if given == "training" or (given is None and is_training):
        _refuse_training(asked, parts, finder)
        return "training"
    if is_training:
        finder.refuse(
            "family",
            str(asked.family),
            f"contradicts base '{asked.base}', which trains and does not serve: take an inference image, or "
            'family="training" for a TrainingJob',
        )
        return given
    given = _said(asked, is_vllm=is_vllm)
    if given == "vllm":
        _refuse_beside_vllm(asked, finder)
        return given
    if is_vllm:
        finder.refuse(
            "family", str(asked.family), f"contradicts base '{asked.base}', which is of the vLLM family: leave it out"
        )
        return "vllm"
    if given is not None:
        if given == "inference" and asked.settled_for is not None:
            _refuse_a_guess(asked, parts, finder.found)
        return given
    return _family_of_models(asked, parts, region, finder)


def _said(asked: ImageAsked, *, is_vllm: bool) -> Family | None:
    """The family that follows from the image's options; None where the models decide."""
    given = asked.family
    if given is None and asked.settled_for is None:
        given = "vllm" if is_vllm else "inference" if asked.base or asked.accelerator else None
    return "inference" if given is None and asked.server == "stock" else given


def _refuse_beside_vllm(asked: ImageAsked, finder: Finder) -> None:
    """Refuse options that contradict the vLLM family."""
    for option, value, wrong in (
        ("accelerator", asked.accelerator, "cpu"),
        ("server", asked.server, "stock"),
    ):
        if value == wrong:
            finder.refuse(
                option,
                value,
                "does not go with the vLLM family, whose own server computes with GPUs: leave it out, or take "
                'family="inference"',
            )


def _family_of_models(asked: ImageAsked, parts: Sequence[Part], region: str | None, finder: Finder) -> Family | None:
    """vLLM if a model is too large for one GPU, vLLM can serve all parts, and an image of it has the release."""
    if not parts:
        return None
    whys = {part.key: why for part in parts if (why := why_vllm(part))}
    if not whys:
        return "inference"
    wanting = next(part for part in parts if part.key in whys)
    why = whys[wanting.key]
    others = [(part, reason) for part in parts if (reason := refuses_vllm(part)) is not None]
    if others:
        part, reason = others[0]
        finder.note(
            "family",
            f"{why}; but one image serves all, and {part.words} {reason}: the native server is taken. Deploy the two "
            'with images of their own, or say family="inference"',
            setting="family",
        )
        return "inference"
    known = asked.base_region or region or DEFAULT_REGION
    try:
        pick_vllm(str(asked.transformers), known)
    except ValueError as error:
        finder.note(
            "family",
            f"{why}; but transformers {asked.transformers} {error}: the native server is taken",
            setting="family",
        )
        return "inference"
    finder.note("family", why, level="info", setting="family")
    return "vllm"


def _refuse_training(asked: ImageAsked, parts: Sequence[Part], finder: Finder) -> None:
    """Refuse a training image for an endpoint, with the stock server, or on an inference base."""
    if parts:
        finder.refuse(
            "family",
            "training",
            f"trains models, and {parts[0].words} is to be served: leave family= out for the endpoint's image, and "
            "give this one to a TrainingJob",
        )
    if asked.server == "stock":
        finder.refuse("server", "stock", "does not go with the training family, which has no server: leave it out")
    if asked.base is not None and (repository := repository_of(asked.base)) in (INFERENCE, VLLM):
        finder.refuse(
            "base",
            asked.base,
            f"is an image of {repository}, which serves and does not train: take one of {TRAINING} or pytorch "
            f"(extended-dlc catalog list --repository {TRAINING}), or leave base= out",
        )


def _refuse_a_guess(asked: ImageAsked, parts: Sequence[Part], found: Found) -> None:
    """Refuse a part that wants vLLM where an earlier endpoint already decided on the inference family."""
    for part in parts:
        if why := why_vllm(part):
            found.at(part.section, part.who).refuse(
                "model",
                part.model.facts.model_id,
                f"contradicts what {asked.settled_for} settled for the image, the native server, where the family was "
                f'left open ({why}): say family="inference" or family="vllm" of the image',
            )


def _accelerator(
    asked: ImageAsked, tag: TagFacts | None, family: Family | None, parts: Sequence[Part], finder: Finder
) -> str | None:
    """The given accelerator, or the base's, or that of the instances: GPU where they differ."""
    if family == "vllm":
        return "gpu"
    if tag is not None:
        if asked.accelerator not in (None, tag.accelerator):
            finder.refuse(
                "accelerator",
                asked.accelerator,
                f"contradicts base '{asked.base}', which is built for {tag.accelerator}: take the other base, or leave "
                "accelerator= out",
            )
        return tag.accelerator
    if asked.accelerator is not None:
        return asked.accelerator
    if family == "training":
        return "gpu"
    kinds = {instance.accelerator for part in parts for instance in part.instances}
    if kinds == {"unknown"}:
        finder.refuse("accelerator", None, UNKNOWN_ACCELERATOR, whole=True)
        return None
    return "gpu" if "gpu" in kinds else "cpu" if kinds else None


def _pick(
    asked: ImageAsked, transformers: str, family: Family, accelerator: str, region: str | None, finder: Finder
) -> Choice | None:
    known = asked.base_region or region
    if known is None:
        known = DEFAULT_REGION
        finder.note("base-region", ANY_REGION, level="info", setting="base_region")
    choice = finder.ask(
        "transformers",
        transformers,
        lambda: _pick_of(family, transformers, accelerator, known, asked.server),
    )
    if choice is not None:
        finder.note("base", choice.why, level="info", setting="base")
        finder.number("pair", choice.notes, setting="base")
    return choice


def _pick_of(family: Family, transformers: str, accelerator: str, region: str, server: Server) -> Choice:
    match family:
        case "vllm":
            return pick_vllm(transformers, region)
        case "training":
            return pick_training(transformers, accelerator, region)
        case _:
            return pick_base(transformers, accelerator, region, server=server)


DEFAULT_REGION = "us-east-1"
"""Region of AWS's image, in the catalog and for the pull of a build, if the stack's region is not known."""

ANY_REGION = (
    f"the stack may be deployed to any region, and AWS's base is pulled from {DEFAULT_REGION} by the machine that "
    "builds: base_region= names another one"
)


UNKNOWN_ACCELERATOR = (
    "'instance_type' is a CDK token, and which image serves follows from what the instances compute with: say "
    "accelerator='cpu' or 'gpu' (ExtendedDlc), or name the image with base="
)


def _stock(asked: ImageAsked, parts: Sequence[Part], region: str | None, finder: Finder) -> dict[str, ImageDecision]:
    if asked.transformers is not None and asked.base is not None:
        finder.refuse(
            "transformers", asked.transformers, f"and 'base' ({asked.base}) both name the image: give one of them"
        )
    if asked.base is not None and repository_of(asked.base) == TRAINING:
        finder.refuse(
            "base",
            asked.base,
            "trains and does not serve: take an inference image, or give this one to a TrainingJob",
        )
    known = asked.base_region or region or DEFAULT_REGION
    _check_region(asked, region, finder)
    decided = {}
    for part in parts:
        kind = part.instances[0].accelerator if part.instances else "cpu"
        if kind == "unknown" and asked.base is None:
            finder.refuse("base", None, UNKNOWN_ACCELERATOR, whole=True)
        accelerator = "gpu" if kind == "gpu" else "cpu"
        uri, why = asked.base, "it was given"
        if uri is None:
            uri = finder.ask(
                "transformers",
                asked.transformers,
                partial(_stock_uri, asked.transformers, accelerator, known),
                whole=True,
            )
            why = "AWS publishes it with this release" if asked.transformers else "the newest that AWS publishes"
        tag = read_tag(uri) if uri else None
        decided[part.key] = ImageDecision(
            kind="stock",
            base=uri,
            why=why,
            transformers=tag.transformers if tag else None,
            server="stock",
            family="inference",
            base_region=asked.base_region,
            any_region=asked.base is None and asked.base_region is None and region is None,
            accelerator=tag.accelerator if tag else None,
            cuda=tag.cuda if tag else None,
            tag=tag,
        )
    return decided


def _region_of_registry(reference: str) -> str | None:
    found = re.match(r"\d{12}\.dkr\.ecr\.([a-z0-9-]+)\.", reference)
    return found[1] if found else None


def _check_region(asked: ImageAsked, region: str | None, finder: Finder) -> None:
    """Refuse an image in another region than the endpoint (SageMaker API, ContainerDefinition, `Image`)."""
    pulled_from = asked.base_region or _region_of_registry(asked.base or "")
    if region is not None and pulled_from not in (None, region):
        finder.refuse(
            "region" if asked.base is None else "base",
            asked.base or pulled_from,
            f"is in another region than the endpoint, {region}, where SageMaker does not pull it from: leave region= "
            "out for AWS's image in the endpoint's, or take a mirror there",
            setting="base_region" if asked.base is None else "base",
        )


def _stock_uri(transformers: str | None, accelerator: str, region: str) -> str:
    return pick_stock(transformers, accelerator, region).uri(region)


def _layer(transformers: str | None, server: Server, family: Family | None) -> tuple[str, ...]:
    try:
        release = find_release(transformers) if transformers else None
    except ValueError:  # the choice of the base has refused it
        return ()
    ranges = [f"transformers=={transformers}"] if transformers else []
    if family == "vllm":
        return tuple(ranges)
    if release is not None:
        for package in ("huggingface_hub", "tokenizers", "safetensors"):
            accepted = getattr(release, package)
            ranges += [f"{package}{accepted}"] if accepted else []
    if family == "training":
        return (*ranges, "datasets, accelerate, peft, trl, evaluate and jiwer, in ranges that go with it")
    return (*ranges, "this project's server" if server == "native" else "nothing else: the base's server stays")
