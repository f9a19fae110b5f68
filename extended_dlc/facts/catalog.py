"""The catalogue of AWS Deep Learning Container images: which are published, where, and what is inside."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from extended_dlc.facts._tables import did_you_mean, table

INFERENCE = "huggingface-pytorch-inference"
TRAINING = "huggingface-pytorch-training"

Version = tuple[int, ...]


def version(text: str) -> Version:
    """A release such as `4.51.3` as numbers that compare in order."""
    return tuple(int(part) for part in text.split("."))


@dataclass(frozen=True, kw_only=True)
class DlcImage:
    """One published image of a Deep Learning Container family."""

    repository: str
    tag: str
    accelerator: Literal["cpu", "gpu"]
    torch: str
    transformers: str
    python: str
    """As in the tag: `py312`."""

    cuda: str | None
    """As in the tag: `cu124`; None for a CPU image."""

    regions: tuple[str, ...]
    """Where the image is published."""

    def uri(self, region: str) -> str:
        """The full reference in `region`; a `ValueError` where the image is not published there."""
        if region not in self.regions:
            raise ValueError(
                f"{self.repository}:{self.tag} is not published in '{region}'{did_you_mean(region, self.regions)}: "
                f"take one of {', '.join(self.regions)}, or give a reference of your own with base="
            )
        accounts = table("images")["accounts"]
        suffix = table("images")["dns_suffixes"].get(region, "amazonaws.com")
        return f"{accounts[region]}.dkr.ecr.{region}.{suffix}/{self.repository}:{self.tag}"


def dlc_images(repository: str | None = None) -> list[DlcImage]:
    """All images of the catalogue, or those of one repository, oldest transformers first."""
    data = table("images")
    return [
        DlcImage(**{**row, "regions": tuple(data["published"][row["regions"]])})
        for row in data["images"]
        if repository in (None, row["repository"])
    ]


def default_base(accelerator: str, region: str) -> str:
    """The newest Hugging Face PyTorch inference image for `accelerator` (`cpu` or `gpu`), as published in `region`."""
    return [image for image in dlc_images(INFERENCE) if image.accelerator == accelerator][-1].uri(region)


@dataclass(frozen=True, kw_only=True)
class TagFacts:
    """What the tag of a DLC says: `{torch}-transformers{version}-{cpu|gpu}-py{NN}[-cu{NNN}]-{os}`."""

    torch: str
    transformers: str
    accelerator: Literal["cpu", "gpu"]
    python: str
    cuda: str | None
    moving: bool
    """Whether AWS patches the image in place under this tag: it has no `-vM.m` suffix."""


_TAG = re.compile(
    r"(?P<torch>\d+\.\d+\.\d+)-transformers(?P<transformers>\d+\.\d+\.\d+)-(?P<accelerator>cpu|gpu)-(?P<python>py\d+)"
    r"(-(?P<cuda>cu\d+))?-(?P<os>[a-z0-9.]+)(?P<suffix>(-[\w.]+)*)"
)
_FIXED = re.compile(r"-v\d+\.\d+(-|$)")


def read_tag(reference: str) -> TagFacts | None:
    """What an image reference says of itself, or None when its tag is not a DLC's (a digest, a name of one's own)."""
    match = _TAG.fullmatch(tag_of(reference))
    if match is None:
        return None
    accelerator: Literal["cpu", "gpu"] = "gpu" if match["accelerator"] == "gpu" else "cpu"
    return TagFacts(
        torch=match["torch"],
        transformers=match["transformers"],
        accelerator=accelerator,
        python=match["python"],
        cuda=match["cuda"],
        moving=is_moving(reference),
    )


def tag_of(reference: str) -> str:
    """The tag in an image reference; empty where there is none."""
    name = reference.split("@", 1)[0].rsplit("/", 1)[-1]
    return name.split(":", 1)[1] if ":" in name else ""


def is_moving(reference: str) -> bool:
    """Whether the content behind a reference can change: it has neither a digest nor a tag that ends in `-vM.m`."""
    return "@sha256:" not in reference and not _FIXED.search(tag_of(reference))
