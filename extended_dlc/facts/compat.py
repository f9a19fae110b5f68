"""Compatibility of base images with transformers releases, and of releases with model types.

Pure functions over the tables in `data/`. As in `checks`, the text of a `ValueError` completes "`<option>` (<value>)
…", where the option is the transformers release: the broken rule, with both sides and the nearest pair that works.
Only `check_model_type` raises whole sentences. What the tables do not have passes, with notes that the caller
annotates.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from extended_dlc.facts._tables import did_you_mean, table
from extended_dlc.facts.catalog import (
    INFERENCE,
    PYTORCH,
    TRAINING,
    VLLM,
    DlcImage,
    TagFacts,
    Version,
    dlc_images,
    read_tag,
    repository_of,
    version,
)
from extended_dlc.facts.gpus import pick_host_image
from extended_dlc.facts.instances import find_instance
from extended_dlc.facts.releases import Release, releases

Json = dict[str, Any]

Server = Literal["native", "stock"]
"""`native` is this project's server, `stock` the server in AWS's image."""

Family = Literal["inference", "vllm", "training"]
"""Image families that can be extended: Hugging Face's PyTorch inference and similar images, Hugging Face's vLLM, and
Hugging Face's PyTorch training and similar images."""

PLAIN = (PYTORCH, "pytorch-inference", "pytorch-training")
"""Families of AWS's PyTorch images, which have neither transformers nor a server."""

NATIVE_PYTHON = (3, 10)
NATIVE_TRANSFORMERS = (4, 46)


@dataclass(frozen=True, kw_only=True)
class ModelType:
    """A `model_type` of config.json, and the releases whose `AutoConfig` has it."""

    model_type: str
    first: str
    """First release; `4.0.0` also stands for older ones."""

    last: str | None
    """Last release; None if the newest still has it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A chosen base image, with the reason."""

    image: DlcImage
    uri: str
    """Full reference in the requested region."""

    why: str
    """One sentence: why this image, and why not the next newer one."""

    known: bool = True
    """False for a release that the tables do not have: the caller annotates it."""

    notes: tuple[str, ...] = ()
    """Further notes, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class StockServer:
    """The facts on a stock server with a release that is not refused."""

    measured: bool
    how: str
    """How the pair was measured, or that it was not."""

    needs: tuple[str, ...] = ()
    """Requirements to install with it, such as `huggingface_hub<0.26`."""


# Releases.


def find_release(transformers: str) -> Release | None:
    """The requirements of a release; None for one older or newer than the table.

    Raises `ValueError` with the nearest release for one within the table that does not exist or was withdrawn.
    """
    known = releases()
    if found := known.get(transformers):
        return found
    asked = version(transformers)
    if not version(next(iter(known))) < asked < version(next(reversed(known))):
        return None
    older = [release for release in known if version(release) < asked][-1]
    newer = next(release for release in known if version(release) > asked)
    near = [release for release in (older, newer) if version(release)[:2] == asked[:2]] or [older, newer]
    raise ValueError(
        f"is not on PyPI, or was withdrawn there: take {' or '.join(near)} "
        "(extended-dlc catalog refresh reads the list again)"
    )


# Bases.


def pick_base(transformers: str, accelerator: str, region: str, server: Server = "native") -> Choice:
    """The newest Hugging Face PyTorch inference image that a transformers release can be installed on.

    The image must have the Python and torch that the wheel requires, run the server, and be published in the region. A
    base made for a newer major release is used only if no other fits, because its dependencies (huggingface_hub 1.x
    against 0.x) would have to be downgraded too. With the native server an older release of the same major may replace
    the base's newer one, with a note; with the stock server, whose toolkit was published with the base, transformers is
    only upgraded.

    AWS no longer builds that family. If none of its images fits the release, the native server is installed on the
    newest of AWS's PyTorch images that does.
    """
    if accelerator not in ("cpu", "gpu"):
        raise ValueError(f"has no base that computes with '{accelerator}': take cpu or gpu")
    _check_native(transformers, server)
    release = find_release(transformers)
    family = dlc_images(INFERENCE, accelerator=accelerator)
    plain = [] if server == "stock" else _plain_images(accelerator)
    _check_region(region, [*family, *plain])
    why_not: dict[str, str] = {}
    for allow_newer_major in (False, True):
        for image in reversed(family):
            reason = _why_not(image, transformers, release, region, server)
            if reason is None and not allow_newer_major and version(image.release)[0] > version(transformers)[0]:
                reason = f"is made for transformers {image.release.split('.')[0]}"
            if reason is None:
                return Choice(
                    image=image,
                    uri=image.uri(region),
                    why=_why(image, family, why_not, transformers, region),
                    known=release is not None,
                    notes=tuple(_notes(transformers, release, image.release))
                    + _stock_notes(image, transformers, server),
                )
            why_not.setdefault(image.tag, reason)
    for image in reversed(plain):
        reason = _why_not(image, transformers, release, region, server)
        if reason is None:
            return Choice(
                image=image,
                uri=image.uri(region),
                why=f"{image.name} is the newest of AWS's own PyTorch images for {accelerator} in {region}, and no "
                f"{INFERENCE} image carries transformers {transformers}: the newest, {family[-1].tag}, "
                f"{why_not[family[-1].tag]}",
                known=release is not None,
                notes=(*_notes(transformers, release, None), *plain_notes(image)),
            )
        why_not.setdefault(image.tag, reason)
    published = [image for image in (*family, *plain) if region in image.regions]
    raise ValueError(_impossible(transformers, release, server, published, why_not))


def _plain_images(accelerator: str) -> list[DlcImage]:
    """AWS's PyTorch images in ECR whose Python is known, oldest torch first."""
    images = dlc_images(PYTORCH, accelerator=accelerator)
    return [image for image in images if image.login and image.python]


def _plain_repository(base: str | DlcImage) -> str | None:
    """The repository of a base without Hugging Face's packages; None for any other base."""
    facts = base if isinstance(base, DlcImage) else read_tag(base)
    repository = base.repository if isinstance(base, DlcImage) else repository_of(base)
    return repository if facts is not None and facts.transformers is None and repository in PLAIN else None


def plain_notes(base: str | DlcImage) -> tuple[str, ...]:
    """Notes on a base without Hugging Face's packages: which packages the layer adds."""
    repository = _plain_repository(base)
    if repository is None:
        return ()
    return (
        f"{repository} is AWS's own PyTorch image, not Hugging Face's: the layer puts in what it lacks (accelerate, "
        "sentencepiece, protobuf, ffmpeg) and replaces its entry point; the pair was not run on it",
    )


def pick_vllm(transformers: str, region: str) -> Choice:
    """The newest vLLM image in a region that a transformers release can be installed on.

    vLLM is published with the transformers release that it was built for: an older one is not installed, and a newer
    one only if the image's Python allows it. A note says that vLLM was not measured with the newer one.
    """
    release = find_release(transformers)
    family = [image for image in dlc_images(VLLM) if image.transformers]
    _check_region(region, family)
    why_not: dict[str, str] = {}
    for image in reversed(family):
        reason = _cannot_carry(image, transformers, release, "stock")
        if reason is None and version(image.release) > version(transformers):
            reason = f"has the newer transformers {image.release}, and vLLM is not moved back"
        if reason is None and region not in image.regions:
            reason = f"is not published in {region}"
        if reason is None:
            notes = tuple(_notes(transformers, release, image.release))
            if image.release != transformers:
                notes += (f"vLLM {image.tag.split('-')[0]} was not measured with transformers {transformers}",)
            why = _why(image, family, why_not, transformers, region)
            return Choice(image=image, uri=image.uri(region), why=why, known=release is not None, notes=notes)
        why_not[image.tag] = reason
    oldest = min(version(image.release) for image in family)
    raise ValueError(
        f"goes onto no vLLM image in {region}: the newest, {family[-1].tag}, {why_not[family[-1].tag]}; take "
        f"{_dotted(oldest)} or newer"
    )


def pick_training(transformers: str, accelerator: str, region: str) -> Choice:
    """The newest Hugging Face PyTorch training image that a transformers release can be installed on.

    All images of that family are for GPUs, and also run on a CPU. A base made for a newer major release is used only if
    no other fits. If none fits, and for images without CUDA, one of AWS's PyTorch images for SageMaker training is
    used, which have the same entry point (`sagemaker-training`).
    """
    if accelerator not in ("cpu", "gpu"):
        raise ValueError(f"has no base that computes with '{accelerator}': take cpu or gpu")
    release = find_release(transformers)
    family = dlc_images(TRAINING, accelerator=accelerator)
    plain = [image for image in _plain_images(accelerator) if image.tag.endswith("-sagemaker")]
    _check_region(region, [*family, *plain])
    why_not: dict[str, str] = {}
    for allow_newer_major in (False, True):
        for image in reversed(family):
            reason = _cannot_train(image, transformers, release)
            if reason is None and region not in image.regions:
                reason = f"is not published in {region}"
            if reason is None and not allow_newer_major and version(image.release)[0] > version(transformers)[0]:
                reason = f"is made for transformers {image.release.split('.')[0]}"
            if reason is None:
                return Choice(
                    image=image,
                    uri=image.uri(region),
                    why=_why(image, family, why_not, transformers, region),
                    known=release is not None,
                    notes=tuple(_notes(transformers, release, image.release)),
                )
            why_not.setdefault(image.tag, reason)
    for image in reversed(plain):
        reason = _cannot_train(image, transformers, release)
        if reason is None and region in image.regions:
            because = f": the newest, {family[-1].tag}, {why_not[family[-1].tag]}" if family else ""
            return Choice(
                image=image,
                uri=image.uri(region),
                why=f"{image.name} is the newest of AWS's own PyTorch images for {accelerator} in {region}, and no "
                f"{TRAINING} image for {accelerator} carries transformers {transformers}{because}",
                known=release is not None,
                notes=(*_notes(transformers, release, None), *training_notes(image)),
            )
        why_not.setdefault(image.tag, reason or f"is not published in {region}")
    newest = (family or plain)[-1]
    raise ValueError(
        f"goes onto no training image for {accelerator} in {region}: the newest, {newest.tag}, {why_not[newest.tag]}; "
        "take a newer release, another region, or a base of your own"
    )


def check_training(base: str, transformers: str) -> tuple[str, ...]:
    """Refuse a release that a training base does not support; otherwise return notes, a sentence each."""
    release = find_release(transformers)
    facts = read_tag(base)
    if facts is None:
        return tuple(_notes(transformers, release, None))
    if reason := _cannot_train(facts, transformers, release):
        fitting = [one for one in dlc_images(TRAINING) if _cannot_train(one, transformers, release) is None]
        works = f"; the newest base that carries it is {fitting[-1].name}" if fitting else ""
        raise ValueError(f"cannot go onto {base}: it {reason}{works}")
    return (*_notes(transformers, release, facts.transformers), *training_notes(base))


def training_notes(base: str | DlcImage) -> tuple[str, ...]:
    """Notes on a training base without Hugging Face's packages."""
    repository = _plain_repository(base)
    if repository is None:
        return ()
    return (
        f"{repository} is AWS's own PyTorch image, not Hugging Face's: the layer puts in what it lacks (datasets, "
        "accelerate, peft, trl, evaluate); the pair was not run on it",
    )


def _cannot_train(facts: DlcImage | TagFacts, transformers: str, release: Release | None) -> str | None:
    """Why a training image does not support a release, as the end of a sentence about the image; None if it does."""
    python = python_of(facts.python)
    if python and python < NATIVE_PYTHON:
        return f"has Python {_dotted(python)} and the layer's packages need 3.10"
    if version(transformers)[:2] < NATIVE_TRANSFORMERS:
        oldest = next(one for one in releases() if version(one)[:2] >= NATIVE_TRANSFORMERS)
        return f"gets packages (accelerate, peft, trl) that need transformers {oldest} or newer"
    return _cannot_carry(facts, transformers, release, "stock")


def check_vllm(base: str, transformers: str) -> tuple[str, ...]:
    """Refuse a release that a vLLM base does not support, or older than the base's; otherwise return notes."""
    release = find_release(transformers)
    facts = read_tag(base)
    of_base = facts.transformers if facts else None
    reason = _cannot_carry(facts, transformers, release, "stock") if facts else None
    if reason is None and of_base is not None and version(of_base) > version(transformers):
        reason = f"has the newer transformers {of_base}, and vLLM is not moved back"
    if reason is not None:
        raise ValueError(f"cannot go onto {base}: it {reason}: take {of_base or 'a release'} or newer, or another base")
    notes = tuple(_notes(transformers, release, of_base))
    return (
        notes
        if of_base == transformers
        else (*notes, f"vLLM of {base} was not measured with transformers {transformers}")
    )


def _check_region(region: str, family: list[DlcImage]) -> None:
    regions = sorted({region for image in family for region in image.regions})
    if region not in regions:
        near = did_you_mean(region, regions)
        ways = f"{near} Else" if near else f": take one of {', '.join(regions)}, or"
        raise ValueError(f"has no base in '{region}'{ways} give a reference of your own with base=")


def check_pair(base: str | DlcImage, transformers: str, server: Server = "native") -> tuple[str, ...]:
    """Refuse a release that a base does not support; otherwise return notes, a sentence each.

    The facts come from the base's tag; another tag passes. A release older than the base's is allowed for the native
    server (from 4.46 on) with a note, because pip downgrades the dependencies within their ranges; for the stock server
    it passes as not measured.
    """
    _check_native(transformers, server)
    release = find_release(transformers)
    facts = base if isinstance(base, DlcImage) else read_tag(base)
    if facts is None:
        return tuple(_notes(transformers, release, None))
    name = base.name if isinstance(base, DlcImage) else base
    if reason := _cannot_carry(facts, transformers, release, server):
        carried = [one for one in releases().values() if _carries(facts, one, server)]
        works = [f"the newest release that it carries is {carried[-1].release}"] if carried else []
        images = dlc_images(INFERENCE, accelerator=facts.accelerator)
        plain = [] if server == "stock" else _plain_images(facts.accelerator)
        # Hugging Face's come last, so that the last one is preferred.
        bases = [one for one in [*plain, *images] if _cannot_carry(one, transformers, release, server) is None]
        works += [f"the newest base that carries {transformers} is {bases[-1].name}"] if bases else []
        raise ValueError(f"cannot go onto {name}: it {reason}" + (f"; {'; '.join(works)}" if works else ""))
    notes = _notes(transformers, release, facts.transformers)
    return (*notes, *_stock_notes(base, transformers, server), *plain_notes(base))


def _check_native(transformers: str, server: Server) -> None:
    if server == "native" and version(transformers)[:2] < NATIVE_TRANSFORMERS:
        oldest = next(one for one in releases() if version(one)[:2] >= NATIVE_TRANSFORMERS)
        raise ValueError(
            f'is older than the native server carries: take {oldest} or newer, or the stock server (server="stock")'
        )


def _cannot_carry(facts: DlcImage | TagFacts, transformers: str, release: Release | None, server: Server) -> str | None:
    """Why an image does not support a release, as the end of a sentence about the image; None if it does."""
    python = python_of(facts.python)
    if server == "native" and python and python < NATIVE_PYTHON:
        return f"has Python {_dotted(python)} and the native server needs 3.10"
    # A release newer than the tables is taken to need at least what the newest known one needs.
    needs = release or (list(releases().values())[-1] if _is_newer(transformers) else None)
    if needs is None:
        return None
    who = f"transformers {transformers} needs" + ("" if release else f" (as {needs.release}) at least")
    if python and python < version(needs.python):
        return f"has Python {_dotted(python)} and {who} {needs.python}"
    if needs.torch and facts.torch and _shorter(version(facts.torch), version(needs.torch)):
        return f"has torch {facts.torch} and {who} {needs.torch}"
    return None


def _carries(facts: DlcImage | TagFacts, release: Release, server: Server) -> bool:
    if server == "native" and version(release.release)[:2] < NATIVE_TRANSFORMERS:
        return False
    if _cannot_carry(facts, release.release, release, server) is not None:
        return False
    return server == "native" or _stock_failure(facts.transformers, release.release) is None


def _why_not(image: DlcImage, transformers: str, release: Release | None, region: str, server: Server) -> str | None:
    if reason := _cannot_carry(image, transformers, release, server):
        return reason
    if server == "stock":
        if version(image.release) > version(transformers):
            return f"has the newer transformers {image.release}, and its stock server is not moved back"
        if row := _stock_failure(image.transformers, transformers):
            return f"has a stock server that cannot run it: {row['reason']}"
    return None if region in image.regions else f"is not published in {region}"


def _why(image: DlcImage, family: list[DlcImage], why_not: dict[str, str], transformers: str, region: str) -> str:
    what = f"{image.name} is the newest {image.accelerator} base in {region} that carries"
    newer = family[family.index(image) + 1 :]
    if not newer:
        return f"{what} transformers {transformers}, and the newest of its family"
    return f"{what} transformers {transformers}: the next newer, {newer[0].tag}, {why_not[newer[0].tag]}"


def _notes(transformers: str, release: Release | None, base: str | None) -> Iterator[str]:
    if release is None:
        known = list(releases())
        side = f"newer than {known[-1]}" if _is_newer(transformers) else f"older than {known[0]}"
        yield (
            f"transformers {transformers} is {side}, the end of what is known here: what it needs shows when the image "
            "is built"
        )
    if base is not None and version(transformers) < version(base):
        yield (
            f"transformers {transformers} is older than the base's own {base}: it is installed over it, and its "
            "neighbours move back within the ranges that it asks for"
        )


def _stock_notes(base: str | DlcImage, transformers: str, server: Server) -> tuple[str, ...]:
    if server != "stock":
        return ()
    stock = check_stock_server(base, transformers)
    notes: tuple[str, ...] = () if stock.measured else (stock.how,)
    if stock.needs:
        notes += (f"the stock server runs with transformers {transformers} only with {', '.join(stock.needs)}",)
    return notes


def _impossible(
    transformers: str, release: Release | None, server: Server, published: list[DlcImage], why_not: dict[str, str]
) -> str:
    """The error if no published base supports a release: what it needs, why the newest base fails, and what works."""
    newest = published[-1]
    needs = f"needs Python {release.python}" if release else ""
    needs += f" and torch {release.torch}" if release and release.torch else ""
    pairs = [(image, one) for image in published for one in releases().values() if _carries(image, one, server)]
    if server == "stock":
        pairs = [(image, one) for image, one in pairs if version(one.release) >= version(image.release)]
    below = [pair for pair in pairs if version(pair[1].release) <= version(transformers)]
    nearest = ""
    if pairs:
        # The nearest release, on the newest base that supports it.
        image, one = max(below, key=_order) if below else min(pairs, key=lambda pair: version(pair[1].release))
        nearest = f"; the nearest pair that works is transformers {one.release} on {image.name}"
    other = ', or the native server (server="native")' if server == "stock" else ""
    return (
        f"{needs}{': ' if needs else ''}no {newest.accelerator} base in the region carries it; the newest, "
        f"{newest.tag}, {why_not[newest.tag]}{nearest}{other}"
    )


def _order(pair: tuple[DlcImage, Release]) -> tuple[Version, Version]:
    return version(pair[1].release), version(pair[0].release)


def python_of(text: str | None) -> Version | None:
    """The Python in a DLC's tag as numbers: `py310` is 3.10; None if the tag has none."""
    return (int(text[2]), int(text[3:])) if text and len(text) > 3 else None


def _is_newer(transformers: str) -> bool:
    return version(transformers) > version(list(releases())[-1])


def _shorter(have: Version, need: Version) -> bool:
    """Whether a release is below a minimum, compared on the parts that both have (torch 2.6 satisfies 2.6.0)."""
    places = min(len(have), len(need))
    return have[:places] < need[:places]


def _dotted(numbers: Version) -> str:
    return ".".join(map(str, numbers))


# The stock server.


def check_stock_server(base: str | DlcImage, transformers: str) -> StockServer:
    """Refuse a release that the base's server is known not to run; otherwise return the facts on the pair."""
    facts = base if isinstance(base, DlcImage) else read_tag(base)
    of_base = facts.transformers if facts else None
    name = base.name if isinstance(base, DlcImage) else base
    if of_base == transformers:
        return StockServer(measured=True, how=f"{name} is published with transformers {transformers}")
    if row := _stock_failure(of_base, transformers):
        works = [one["last"] for one in _stock_rows(of_base) if one["works"]]
        take = f"transformers {works[-1]}, " if works else f"transformers {of_base}, " if of_base else ""
        raise ValueError(
            f"cannot run on the stock server of {name}: {row['reason']} (measured: {row['how']}): "
            f'take {take}the native server (server="native"), or AWS\'s own transformers 5.5.3 base as '
            "it is"
        )
    for one in _stock_rows(of_base):
        if one["works"] and _within(one, transformers):
            return StockServer(measured=True, how=one["how"], needs=tuple(one["needs"]))
    return StockServer(
        measured=False, how=f"the stock server of {name} was not measured with transformers {transformers}"
    )


def _stock_rows(base: str | None) -> list[Json]:
    rows = table("stock_server")["stock_server"]
    return [row for row in rows if base in row["bases"] or (not row["bases"] and base and base not in row["except"])]


def _stock_failure(base: str | None, transformers: str) -> Json | None:
    if base == transformers:
        return None
    return next((row for row in _stock_rows(base) if not row["works"] and _within(row, transformers)), None)


def _within(row: Json, transformers: str) -> bool:
    first, last = row["first"], row["last"]
    return version(first) <= version(transformers) and (last is None or version(transformers) <= version(last))


# Model types.


@functools.cache
def model_types() -> dict[str, ModelType]:
    """Every model type of any transformers release from 4.0 on, by its name."""
    return {row["model_type"]: ModelType(**row) for row in table("model_types")["model_types"]}


def find_model_type(model_type: str) -> ModelType | None:
    """The releases that have a model type; None, which is not an error, if no release in the table has it.

    Such a type may be newer than the table, or be defined by the model's own code (`trust_remote_code`).
    """
    return model_types().get(model_type)


def near_model_type(model_type: str) -> str:
    """For an unknown type: `; did you mean 'x'?`, or empty."""
    return did_you_mean(model_type, model_types())


def check_model_type(model_type: str, transformers: str | None, image: str | None = None) -> None:
    """Refuse a release that is known not to load a model type; the error names those that do. Unknown types pass.

    :param transformers: None for an image whose release is not known, which passes.
    :param image: The image to name in the error, if the release is the one in an image.
    """
    known = find_model_type(model_type)
    if known is None or transformers is None:
        return
    where = f"transformers {transformers}" + (f" in {image}" if image else "")
    asked = version(transformers)
    if asked < version(known.first) and version(known.first) > (4, 0, 0):
        raise ValueError(
            f"{where} cannot load model type '{model_type}': needs >= {known.first}. extend the image with "
            f"{known.first} or newer (ExtendedDlc(transformers=…)) or pick a newer base (extended-dlc catalog list)"
        )
    if known.last is not None and asked > version(known.last):
        raise ValueError(
            f"{where} cannot load model type '{model_type}': it left after {known.last}, needs {known.first} to "
            f'{known.last}. extend the image with that release (ExtendedDlc(transformers="{known.last}")) or pick an '
            "older base (extended-dlc catalog list)"
        )


# The host.


def inference_ami_version(cuda: str | None, instance_types: Iterable[str] = ()) -> str | None:
    """The host image (`InferenceAmiVersion`) for an image's CUDA, such as `cu124`, on these instance types.

    None leaves SageMaker's default, as for `pick_host_image`. Raises `ValueError`, which completes "`instance_type`
    (<values>) …", if the types need different host images, because a variant has one.
    """
    instances = list(map(find_instance, instance_types))
    row = pick_host_image(cuda, instances)
    if row is None:
        alone = {instance.name: pick_host_image(cuda, [instance]) for instance in instances}
        if any(alone.values()):
            hosts = ", ".join(
                f"{name}: {each.inference_ami_version if each else 'none'}" for name, each in alone.items()
            )
            raise ValueError(f"need different host images ({hosts}), and a variant has one: take types with like GPUs")
    return row.inference_ami_version if row else None


def bases_for(transformers: str | None, family: Family, server: Server = "native") -> list[DlcImage]:
    """The GPU images that support a release, the preferred one last: Hugging Face's, and AWS's where allowed.

    :param transformers: None for images that are not extended.
    """
    if family == "vllm":
        images = dlc_images(VLLM)
        asked = version(transformers) if transformers else None
        return [each for each in images if asked is None or asked[:1] <= version(each.release) <= asked]
    if family == "training":
        known = find_release(transformers) if transformers else None
        both = [*_plain_images("gpu"), *dlc_images(TRAINING)]
        return [each for each in both if transformers is None or _cannot_train(each, transformers, known) is None]
    images = dlc_images(INFERENCE, accelerator="gpu")
    if transformers is None:
        return images
    images = [*_plain_images("gpu"), *images] if server == "native" else images
    release = find_release(transformers)
    return [image for image in images if _cannot_carry(image, transformers, release, server) is None]
