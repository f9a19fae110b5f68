"""The catalogue of images, from sagemaker-core's `image_uri_config`, AWS's list (`dlc`) and manual corrections."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from extended_dlc.facts._tables import DATA
from extended_dlc.facts.catalog import version
from extended_dlc.refresh import dlc
from extended_dlc.refresh._groups import group
from extended_dlc.refresh._pip import Json, RefreshError

PUBLIC_REGISTRY = "public.ecr.aws/deep-learning-containers"

_CONFIG = "sagemaker/core/image_uri_config"
_COLUMNS = (
    *("repository", "tag", "accelerator", "torch", "transformers", "python", "cuda", "vllm"),
    *("regions", "patched_until", "source"),
)
_FILES = ("huggingface", "huggingface-vllm", "pytorch", "pytorch-amzn2023")


def images(sagemaker_core: Path, dlc_images: Json) -> Json:
    """The table `images`: Hugging Face's PyTorch and vLLM images, and AWS's similar PyTorch images.

    :param dlc_images: The table of that name, the second source: it has images that the SDK does not have yet, and
    columns that the SDK's tags do not tell.
    """
    with zipfile.ZipFile(sagemaker_core) as wheel:
        configs = {name: json.loads(wheel.read(f"{_CONFIG}/{name}.json")) for name in _FILES}
    accounts: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    rows = []
    for row, registries in (
        *_hugging_face(configs["huggingface"]),
        *_pytorch(configs["pytorch"]),
        *_amazon_linux(configs["pytorch-amzn2023"]),
        *_vllm(configs["huggingface-vllm"]),
    ):
        for region, account in registries.items():
            if accounts.setdefault(region, account) != account:
                raise RefreshError(
                    f"two accounts own {row['repository']} in {region}, which the table cannot say: exclude the row, "
                    "or give it an account of its own"
                )
        rows.append(row | {"regions": group(groups, row["repository"], sorted(registries)), "source": "sdk"})
    rows = _corrected(_merged(sorted(rows, key=_order), dlc_images))
    release = sagemaker_core.name.split("-")[1]
    used = {row["regions"] for row in rows}
    return {
        "source": f"PyPI sagemaker-core {release}, {_CONFIG}/{{{','.join(_FILES)}}}.json (sdk); "
        "dlc_images.json (dlc); image_corrections.json (hand)",
        "accounts": dict(sorted(accounts.items())),
        "dns_suffixes": _dns_suffixes(sorted(accounts)),
        "public_registry": PUBLIC_REGISTRY,
        "published": {name: regions for name, regions in sorted(groups.items()) if name in used},
        "images": [{name: row[name] for name in _COLUMNS if name in row} for row in sorted(rows, key=_order)],
    }


_Found = tuple[Json, dict[str, str]]


def _hugging_face(config: Json) -> Iterator[_Found]:
    for kind in ("inference", "training"):
        for transformers, frameworks in config[kind]["versions"].items():
            for framework, image in frameworks.items():
                # Images without a container version are older than the tag format and have an outdated Python.
                if not framework.startswith("pytorch") or "container_version" not in image:
                    continue
                torch = framework.removeprefix("pytorch")
                (python,) = image["py_versions"]
                for accelerator, container in sorted(image["container_version"].items()):
                    tag = f"{torch}-transformers{transformers}-{accelerator}-{python}-{container}"
                    cuda = container.split("-")[0] if accelerator == "gpu" else None
                    yield (
                        _row(image["repository"], tag, accelerator, torch, transformers, python, cuda),
                        image["registries"],
                    )


def _vllm(config: Json) -> Iterator[_Found]:
    """`huggingface-vllm`: the tag begins with vLLM's release, and the torch release is not known."""
    for vllm, image in config["inference"]["versions"].items():
        (python,) = image["py_versions"]
        for accelerator, container in sorted(image["container_version"].items()):
            tag = f"{image['tag_prefix']}-{accelerator}-{python}-{container}"
            transformers = image["tag_prefix"].split("-transformers")[1]
            row = _row(image["repository"], tag, accelerator, None, transformers, python, container.split("-")[0])
            yield row | {"vllm": vllm}, image["registries"]


def _pytorch(config: Json) -> Iterator[_Found]:
    """`pytorch-inference` and `pytorch-training`: short tags without CUDA."""
    for kind in ("inference", "training"):
        for torch, image in config[kind]["versions"].items():
            # Before 1.2 they were in other accounts, under another name. Python 2 is outdated; "py3" is not exact.
            if image["repository"] != f"pytorch-{kind}":
                continue
            for python in image["py_versions"]:
                if not re.fullmatch(r"py3\d+", python):
                    continue
                for accelerator in sorted(image.get("processors") or config[kind]["processors"]):
                    tag = f"{torch}-{accelerator}-{python}"
                    yield _row(image["repository"], tag, accelerator, torch, None, python, None), image["registries"]


def _amazon_linux(config: Json) -> Iterator[_Found]:
    """`pytorch` on Amazon Linux 2023: the tag has no Python, and its CUDA tells the accelerator."""
    for image in config["training"]["versions"].values():
        for accelerator, container in sorted(image["container_version"].items()):
            cuda = container.split("-")[0] if accelerator == "gpu" else None
            tag = f"{image['tag_prefix']}-{container}"
            row = _row(image["repository"], tag, accelerator, image["tag_prefix"], None, None, cuda)
            yield row, image["registries"]


def _row(
    repository: str,
    tag: str,
    accelerator: str,
    torch: str | None,
    transformers: str | None,
    python: str | None,
    cuda: str | None,
) -> Json:
    return {
        "repository": repository,
        "tag": tag,
        "accelerator": accelerator,
        "torch": torch,
        "transformers": transformers,
        "python": python,
        "cuda": cuda,
    }


def _merged(rows: list[Json], dlc_images: Json) -> list[Json]:
    """The SDK's rows, completed from AWS's list, and the images that only the list has.

    The list has no regions: its images get those of the newest image of the same repository in the SDK.
    """
    found = {(row["repository"], row["tag"], row["regions"] is None): row for row in rows}
    regions = {row["repository"]: row["regions"] for row in rows}
    for theirs in dlc.as_images(dlc_images):
        public = "regions" in theirs
        key = (theirs["repository"], theirs["tag"], public)
        if (ours := found.get(key)) is None:
            placed = theirs if public else theirs | {"regions": regions[theirs["repository"]]}
            found[key] = placed
        elif ours["source"] == "sdk":
            added = {name: ours.get(name) or theirs[name] for name in ("python", "cuda", "patched_until")}
            found[key] = ours | added | {"source": "sdk+dlc"}
    return list(found.values())


def _corrected(rows: list[Json]) -> list[Json]:
    """The rows with the manual corrections: values replaced, rows removed, rows added."""
    for correction in json.loads((DATA / "image_corrections.json").read_text("utf-8"))["image_corrections"]:
        match, change = correction["match"], correction.get("set")
        hit = [row for row in rows if all(row[key] == value for key, value in match.items())]
        if "add" in correction:
            rows = [*rows, *(row | {"source": "hand"} for row in correction["add"] if not _has(rows, row))]
        elif change is None:
            rows = [row for row in rows if row not in hit]
        else:
            rows = [row | change if row in hit else row for row in rows]
    return rows


def _has(rows: list[Json], wanted: Json) -> bool:
    """Whether the sources have the row by now, which then takes precedence."""
    return any(
        row["repository"] == wanted["repository"]
        and row["tag"] == wanted["tag"]
        and (row["regions"] is None) == (wanted["regions"] is None)
        for row in rows
    )


def _order(row: Json) -> tuple[Any, ...]:
    public = row["regions"] is None
    release = version(row["torch"] or row["vllm"] or "0")[:2], len(row["tag"].split("-")[0])
    return row["repository"], version(row["transformers"] or "0"), *release, row["tag"], public


def _dns_suffixes(regions: list[str]) -> dict[str, str]:
    """The DNS suffix of each region whose suffix is not `amazonaws.com`, from botocore's partitions."""
    from botocore.loaders import Loader

    partitions = Loader().load_data("partitions")["partitions"]

    def suffix(region: str) -> str:
        for partition in partitions:
            if region in partition["regions"] or re.fullmatch(partition["regionRegex"], region):
                return str(partition["outputs"]["dnsSuffix"])
        raise ValueError(f"botocore knows no partition of region '{region}'")

    return {region: suffix(region) for region in regions if suffix(region) != "amazonaws.com"}
