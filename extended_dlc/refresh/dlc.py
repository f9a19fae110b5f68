"""The images in AWS's repository aws/deep-learning-containers, which lists them before the SDK does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from extended_dlc.refresh._pip import Json, RefreshError

REPOSITORY = "https://github.com/aws/deep-learning-containers"

FAMILIES = (
    "huggingface-pytorch-inference",
    "huggingface-pytorch-training",
    "huggingface-vllm",
    "pytorch",
    "pytorch-inference",
    "pytorch-training",
)
"""The families of the catalogue: those to extend, and AWS's PyTorch images, which are similar."""

_DATA = "docs/src/data"
SOURCE = f"aws/deep-learning-containers, {_DATA}; each row names the commit in which it was read, and its day"


def clone(address: str, folder: Path) -> Path:
    """Clone the repository's newest commit to `folder`; raises `RefreshError` if git fails."""
    _git("clone", "--quiet", "--depth=1", "--no-checkout", address, str(folder))
    return folder


def images(repository: Path, before: Json | None = None) -> Json:
    """The table `dlc_images`: each file of the families that is for SageMaker, with its tags.

    :param repository: A clone; its current commit is read.
    :param before: The current table. The rows of files that the repository no longer has are kept, because the
    registry keeps the images; an unchanged file keeps its row.
    """
    commit, date = _git("-C", str(repository), "log", "-1", "--format=%H %cs").split()
    folders = [f"{_DATA}/{family}" for family in FAMILIES]
    files = _git("-C", str(repository), "ls-tree", "-r", "--name-only", "HEAD", *folders).split()
    if not files:
        raise RefreshError(
            f"{repository} has no {_DATA}: give a clone of {REPOSITORY}, or look where its data went and change "
            "facts/refresh/dlc.py"
        )
    known = {row["file"]: row for row in (before or {}).get("dlc_images", ())}
    for file in files:
        content = yaml.safe_load(_git("-C", str(repository), "show", f"HEAD:{file}"))
        if content.get("platform") != "sagemaker":
            continue
        row = read(file, content, commit, date)
        if known.get(file, {}) | {"commit": commit, "date": date} != row:
            known[file] = row
    return {"source": SOURCE, "dlc_images": [known[file] for file in sorted(known)]}


def read(file: str, content: dict[str, Any], commit: str, date: str | None) -> Json:
    """The row of the file `docs/src/data/<repository>/<name>.yml` in a commit, with the commit's date."""
    return {
        "file": file,
        "repository": file.split("/")[-2],
        "tags": content["tags"],
        "accelerator": content["accelerator"],
        "framework": content["framework"],
        "version": str(content["version"]),
        "transformers": content.get("transformers"),
        "python": content["python"],
        "cuda": content.get("cuda"),
        "public": bool(content.get("public_registry")),
        "patched_until": content.get("eop"),
        "commit": commit,
        "date": date,
    }


def as_images(table: Json) -> Iterator[Json]:
    """A row of the catalogue for each tag, and another if it is in the public registry; the regions are not known."""
    for row in table["dlc_images"]:
        vllm = row["framework"] == "vLLM"
        for tag in row["tags"]:
            release = tag.split("-")[0]  # 2.12.1, where the file has only 2.12
            common = {
                "repository": row["repository"],
                "tag": tag,
                "accelerator": row["accelerator"],
                "torch": None if vllm else release,
                "transformers": row["transformers"],
                "python": row["python"],
                "cuda": row["cuda"],
                **({"vllm": release} if vllm else {}),
                "patched_until": row["patched_until"],
                "source": "dlc",
            }
            yield common
            if row["public"]:
                yield {**common, "regions": None}


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - a list, no shell
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    except FileNotFoundError:
        raise RefreshError("git is not there, which reads AWS's list of images: install it") from None
    except subprocess.TimeoutExpired:
        raise RefreshError(f"'git {' '.join(arguments)}' took more than 300 s: check the network") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise RefreshError(f"'git {' '.join(arguments)}' failed: {said[-1] if said else done.returncode}")
    return done.stdout
