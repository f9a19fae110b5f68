"""Checks of weights: an archive or a prefix in S3, or a local folder."""

from __future__ import annotations

import json
from pathlib import Path

from extended_dlc.options._folders import packed_files
from extended_dlc.options._values import OptionError, refuse_wildcards

LARGEST_LOCAL_BYTES = 2 * 1024**3
"""The largest folder: a synth packs it anew when it has changed, and the deployment uploads it from this machine."""


def check_key(key: str) -> None:
    """Refuse a key that is neither an archive's nor a prefix; the error completes "`key` (<value>) …"."""
    if key.startswith(("/", "s3:")) or not key.endswith(("/", ".tar.gz")):
        raise ValueError(
            "is neither an archive nor a prefix: give the key of a '.tar.gz' in the bucket, or the part of the files' "
            "keys before their names, with its '/' at the end, without 's3://' and the bucket"
        )
    refuse_wildcards(key)


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a model's folder by their paths in it; `OptionError` where it is no folder."""
    if not (folder / "config.json").is_file():
        raise OptionError(
            "folder", folder, "has no config.json: give the folder that save_pretrained of the model wrote"
        )
    files = dict(packed_files(folder))
    size = sum(file.stat().st_size for file in files.values())
    if size > LARGEST_LOCAL_BYTES:
        raise OptionError(
            "folder",
            folder,
            f"holds {size / 1024**3:.1f} GiB, and at most {LARGEST_LOCAL_BYTES / 1024**3:.0f} are packed and uploaded "
            "at a deployment: upload it once (aws s3 sync) and name it, S3Model(bucket, 'prefix/')",
        )
    return files


def model_type_of(folder: Path) -> str | None:
    """`model_type` in the folder's config.json; `OptionError` for a file that is no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8-sig"))
        found = config.get("model_type")
    except (ValueError, AttributeError):
        raise OptionError(
            "folder", folder, "has a config.json that is no JSON object: give the folder that save_pretrained wrote"
        ) from None
    return str(found) if found is not None else None
