"""Uploads local files as CDK assets, one by one or as an archive; not part of the public interface."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import cast

from aws_cdk import FileAssetPackaging, Stack, Stage
from constructs import Construct

from extended_dlc.constructs.helpers import synthesizer_of

Content = bytes | Path
"""Content of a file: its bytes, or the path of a local file."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """An object, or a prefix, in a bucket."""

    bucket: str
    key: str


def upload_archive(scope: Construct, files: Mapping[str, Content]) -> Uploaded:
    """Let `cdk deploy` upload a `model.tar.gz` of these files: path in the archive -> content.

    Its name is a hash of its content, and it is identical byte for byte on every machine.
    """
    digest = hashlib.sha256()
    for path, content in sorted(files.items()):
        digest.update(f"{path}\0{_size(content)}\0".encode())
        _read_into(content, digest.update)
    return _upload(scope, digest.hexdigest(), ".tar.gz", lambda target: _pack(files, target))


def upload_file(scope: Construct, file: Path) -> Uploaded:
    """Let `cdk deploy` upload one file as it is."""
    content = file.read_bytes()
    return _upload(scope, hashlib.sha256(content).hexdigest(), file.suffix, lambda target: target.write_bytes(content))


def _upload(scope: Construct, digest: str, suffix: str, write: Callable[[Path], object]) -> Uploaded:
    # Not an `Asset`: that supports only zip archives, would copy the file, and grants read access to the whole bucket.
    stage = cast(Stage, Stage.of(scope))
    target = Path(stage.asset_outdir) / f"asset.{digest}{suffix}"
    if not target.exists():
        partial = target.with_suffix(".partial")
        write(partial)
        partial.rename(target)
    location = synthesizer_of(Stack.of(scope)).add_file_asset(
        # The CDK appends only the last suffix, and SageMaker requires archives to end in .tar.gz.
        source_hash=digest + suffix.rpartition(".")[0],
        file_name=os.path.relpath(target, stage.outdir),
        packaging=FileAssetPackaging.FILE,
        display_name=scope.node.path,
    )
    return Uploaded(bucket=location.bucket_name, key=location.object_key)


def _pack(files: Mapping[str, Content], target: Path) -> None:
    # Weights hardly compress, so this uses the fastest level.
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)  # the same owner, time and mode for all
            entry.size = _size(content)
            if isinstance(content, bytes):
                archive.addfile(entry, BytesIO(content))
            else:
                with content.open("rb") as source:
                    archive.addfile(entry, source)


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _read_into(content: Content, take: Callable[[bytes], object]) -> None:
    if isinstance(content, bytes):
        take(content)
        return
    with content.open("rb") as source:
        while piece := source.read(1024 * 1024):
            take(piece)
