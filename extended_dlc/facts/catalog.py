"""The catalogue of AWS Deep Learning Container images, with their regions and versions."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

from extended_dlc.facts._tables import did_you_mean, table

INFERENCE = "huggingface-pytorch-inference"
TRAINING = "huggingface-pytorch-training"
VLLM = "huggingface-vllm"
PYTORCH = "pytorch"
"""Repository of AWS's PyTorch images from 2.11 on, which are for training and inference."""

Version = tuple[int, ...]


def version(text: str) -> Version:
    """A release such as `4.51.3` as a tuple that compares in order."""
    return tuple(int(part) for part in text.split("."))


@dataclass(frozen=True, kw_only=True)
class DlcImage:
    """One published image of a Deep Learning Container family."""

    repository: str
    tag: str
    accelerator: Literal["cpu", "gpu"]
    torch: str | None
    """None for a vLLM image, whose tag has vLLM's release instead."""

    transformers: str | None
    """None for the families without transformers: `pytorch`, `pytorch-inference`, `pytorch-training`."""

    python: str | None
    """As in the tag: `py312`; None if unknown."""

    cuda: str | None
    """As in the tag: `cu124`; None for a CPU image, and if unknown."""

    regions: tuple[str, ...]
    """Regions where the image is in ECR; empty for an image of the public registry, which serves all regions."""

    login: bool = True
    """Whether pulling it needs a login to the registry of its region."""

    vllm: str | None = None
    """None for every family but `huggingface-vllm`."""

    patched_until: str | None = None
    """Day until which AWS patches the image, such as `2027-09-28`; None if unknown."""

    source: str = "sdk"
    """Its source: `sdk` is sagemaker-core, `dlc` aws/deep-learning-containers, `hand` image_corrections.json."""

    @property
    def name(self) -> str:
        """Repository and tag; for an image of the public registry the full reference."""
        public = "" if self.login else f"{table('images')['public_registry']}/"
        return f"{public}{self.repository}:{self.tag}"

    @property
    def release(self) -> str:
        """Its transformers release; `0` for a family without transformers."""
        return self.transformers or "0"

    def uri(self, region: str) -> str:
        """The full reference in `region`; a `ValueError` where the image is not published there."""
        if not self.login:
            return self.name
        if region not in self.regions:
            raise ValueError(
                f"{self.name} is not published in '{region}'{did_you_mean(region, self.regions)}: "
                f"take one of {', '.join(self.regions)}, or give a reference of your own with base="
            )
        accounts = table("images")["accounts"]
        suffix = table("images")["dns_suffixes"].get(region, "amazonaws.com")
        return f"{accounts[region]}.dkr.ecr.{region}.{suffix}/{self.name}"


def registry_accounts() -> dict[str, str]:
    """The account of AWS's registry of Deep Learning Containers in each region."""
    return dict(table("images")["accounts"])


@functools.cache
def _all_images() -> tuple[DlcImage, ...]:
    data = table("images")
    groups = {name: tuple(regions) for name, regions in data["published"].items()}
    return tuple(
        DlcImage(
            **{
                key: row[key]
                for key in ("repository", "tag", "accelerator", "torch", "transformers", "python", "cuda", "source")
            },
            regions=groups[row["regions"]] if row["regions"] else (),
            login=row["regions"] is not None,
            vllm=row.get("vllm"),
            patched_until=row.get("patched_until"),
        )
        for row in data["images"]
    )


def dlc_images(
    repository: str | None = None, *, accelerator: str | None = None, region: str | None = None
) -> list[DlcImage]:
    """The images of the catalogue, filtered by repository, accelerator and region; oldest first in each repository.

    Images of the public registry count for every region.
    """
    return [
        image
        for image in _all_images()
        if repository in (None, image.repository)
        and accelerator in (None, image.accelerator)
        and (region is None or region in image.regions or not image.login)
    ]


def find_image(reference: str, tag: str | None = None) -> DlcImage:
    """The image of a repository and a tag, or of a text with both: `REPOSITORY:TAG`, with or without a registry.

    Raises `ValueError` with the nearest name if the catalogue has no such image. If both registries have a tag, the
    image in the public one is found only by its full reference.
    """
    text = reference if tag is None else f"{reference}:{tag}"
    name = text.split("@", 1)[0]
    if not name.startswith(f"{table('images')['public_registry']}/"):
        name = name.rsplit("/", 1)[-1]
    matches = [image for image in _all_images() if name in (image.name, f"{image.repository}:{image.tag}")]
    if not matches:
        repository, _, given = name.rpartition("/")[2].partition(":")
        tags = [image.tag for image in dlc_images(repository)]
        if tags:
            hint = did_you_mean(given, tags)
            raise ValueError(
                f"{repository} has no image '{given}' in the catalogue{hint}: list them with "
                f"extended-dlc catalog list --repository {repository}"
            )
        repositories = sorted({image.repository for image in _all_images()})
        raise ValueError(
            f"'{text}' is not in the catalogue{did_you_mean(repository, repositories)}: write REPOSITORY:TAG with "
            f"one of {', '.join(repositories)}"
        )
    # Private images are preferred, because SageMaker pulls from ECR only.
    return next((image for image in matches if image.login), matches[0])


def search_images(text: str) -> list[DlcImage]:
    """The images whose full name contains every word of `text`, such as `gpu 4.51 inference`."""
    words = text.lower().split()
    return [image for image in _all_images() if all(word in image.name for word in words)]


@dataclass(frozen=True, kw_only=True)
class TagFacts:
    """The parts of a DLC's tag: `{torch}[-transformers{version}]-{cpu|gpu}-py{NN}[-cu{NNN}]-{os}`.

    Parts that the tag lacks are filled in from the catalogue.
    """

    torch: str | None
    """None where the tag begins with another release: vLLM's, or one below 1, as no DLC has such a torch."""

    transformers: str | None
    """None for a family without transformers."""

    accelerator: Literal["cpu", "gpu"]
    python: str | None
    """None if unknown, as for a mirror's `2.13.0-cu133-amzn2023-sagemaker`."""

    cuda: str | None
    """None for a CPU image, and if unknown."""

    moving: bool
    """Whether AWS patches the image in place under this tag: it has no `-vM.m` suffix."""

    vllm: str | None = None


_TAG = re.compile(
    r"(?P<torch>\d+\.\d+\.\d+)-transformers(?P<transformers>\d+\.\d+\.\d+)-(?P<accelerator>cpu|gpu)-(?P<python>py\d+)"
    r"(-(?P<cuda>cu\d+))?-(?P<os>[a-z0-9.]+)(?P<suffix>(-[\w.]+)*)"
)
_PYTORCH_TAG = re.compile(
    r"(?P<torch>\d+\.\d+(\.\d+)?)-(?P<accelerator>cpu|gpu)-(?P<python>py\d+)(-(?P<cuda>cu\d+))?(?P<suffix>(-[\w.]+)*)"
)
_AMZN_TAG = re.compile(
    r"(?P<torch>\d+\.\d+(\.\d+)?)(-transformers(?P<transformers>\d+\.\d+(\.\d+)?))?-(cpu|(?P<cuda>cu\d+))"
    r"-(?P<os>amzn\d+)(?P<suffix>(-[\w.]+)*)"
)
_FIXED = re.compile(r"-v\d+\.\d+(-|$)")


def read_tag(reference: str) -> TagFacts | None:
    """The facts in an image reference's tag; None if it is not a DLC's tag (a digest, or a user-defined name)."""
    tag = tag_of(reference)
    match = _TAG.fullmatch(tag) or _PYTORCH_TAG.fullmatch(tag) or _AMZN_TAG.fullmatch(tag)
    if match is None:
        return None
    facts = match.groupdict()
    first = facts["torch"]
    is_vllm = repository_of(reference) == VLLM
    gpu = facts["cuda"] is not None or facts.get("accelerator") == "gpu"
    known = _by_name().get(f"{repository_of(reference)}:{tag}")
    return TagFacts(
        torch=None if is_vllm or first.startswith("0.") else first,
        transformers=known.transformers if known else facts.get("transformers"),
        accelerator="gpu" if gpu else "cpu",
        python=facts.get("python") or (known.python if known else None),
        cuda=facts["cuda"] or (known.cuda if known else None),
        moving=is_moving(reference),
        vllm=(known.vllm if known else first) if is_vllm else None,
    )


@functools.cache
def _by_name() -> dict[str, DlcImage]:
    return {f"{image.repository}:{image.tag}": image for image in _all_images()}


def repository_of(reference: str) -> str:
    """The last part of an image reference's name, without registry, tag and digest."""
    return reference.split("@", 1)[0].rsplit("/", 1)[-1].split(":", 1)[0]


def tag_of(reference: str) -> str:
    """The tag in an image reference; empty where there is none."""
    name = reference.split("@", 1)[0].rsplit("/", 1)[-1]
    return name.split(":", 1)[1] if ":" in name else ""


def is_moving(reference: str) -> bool:
    """Whether the content behind a reference can change: it has neither a digest nor a tag that ends in `-vM.m`."""
    return "@sha256:" not in reference and not _FIXED.search(tag_of(reference))
