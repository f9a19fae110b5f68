"""The Hub's cache: where it is, and which folders can hold it. huggingface_hub reads its variables at import."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from ..errors import StartError

_CACHES = {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
"""Variables that set the Hub's cache, by descending precedence, and the folder below each."""


def place_cache(environment: MutableMapping[str, str], model_id: str | None, others: Sequence[Path]) -> None:
    """Set the Hub's cache to the disk with the most free space: SageMaker mounts an instance's local disk below /tmp.

    A folder that an environment variable names takes precedence, and so does the default cache if it has the model. A
    folder without write access (a read-only root, another user's home, a user without a home) counts as full. Call this
    before huggingface_hub is imported, which reads its environment once; `model_id` is None if nothing is downloaded.
    """
    named = next((name for name in _CACHES if environment.get(name)), None)
    if named:
        cache = Path(os.path.expanduser(environment[named])) / _CACHES[named]
        if model_id and not os.path.isdir(folder_in(cache, model_id)) and not _can_be_written(cache):
            raise StartError(
                f"{named} ('{environment[named]}') cannot be written by user {os.getuid()} and lacks {model_id}: "
                "name a folder of a volume that this user can write, or leave it out"
            )
    if environment.get("HF_HOME") or environment.get("XDG_CACHE_HOME"):
        return
    # expanduser leaves a relative path for a user without a home.
    default = Path(os.path.expanduser("~/.cache/huggingface"))
    is_usable = default.is_absolute() and _can_be_written(default) and _can_be_written(default / "hub")
    holds_it = default.is_absolute() and model_id and os.path.isdir(folder_in(default / "hub", model_id))
    if holds_it or (is_usable and named):
        return
    roomiest, most = (default, shutil.disk_usage(existing(default)).free) if is_usable else (None, -1)
    for folder in filter(_can_be_written, others):
        parent = existing(folder)
        free = shutil.disk_usage(parent).free
        if free > most and not (is_usable and parent.stat().st_dev == existing(default).stat().st_dev):
            roomiest, most = folder / "huggingface", free
    if roomiest is not None and roomiest != default:
        environment["HF_HOME"] = str(roomiest)
    elif roomiest is None and model_id and not named:
        tried = ", ".join(map(str, (default, *others)))
        raise StartError(
            f"no folder for the files of {model_id} can be written by user {os.getuid()} (tried: {tried}): mount a "
            "volume that this user can write, and name it by HF_HOME"
        )


def folder_in(cache: Path, model_id: str) -> Path:
    return cache / f"models--{model_id.replace('/', '--')}"


def existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    # os.path.isdir returns False for folders that this user may not access, where Path.is_dir would raise.
    return next(above for above in (folder, *folder.parents) if os.path.isdir(above))


def _can_be_written(folder: Path) -> bool:
    """Whether this user can create the folder, or files in it."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)):
            return True
    except OSError:
        return False
