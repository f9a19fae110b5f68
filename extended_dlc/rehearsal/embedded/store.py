"""Blobs of the embedded registry: content-addressed files in one folder, kept between rehearsals."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterable
from pathlib import Path

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{32}")


class InvalidDigest(ValueError):
    """A digest is not `sha256:` and 64 hexadecimal digits, or not that of the content."""


class UnknownUpload(LookupError):
    """There is no upload in progress with this ID."""


class BlobStore:
    """The blobs of all repositories, each a file named by its digest."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "sha256"
        self._uploads = folder / "uploads"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(parents=True, exist_ok=True)
        for leftover in self._uploads.iterdir():
            leftover.unlink()
        self._hashes: dict[str, hashlib._Hash] = {}
        self._lock = threading.Lock()

    def path(self, digest: str) -> Path:
        """The path of a blob's file. Only a well-formed digest gives a path, so no path leaves the store."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidDigest(digest)
        return self._blobs / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def start(self) -> str:
        """Start an upload and return its ID."""
        upload = secrets.token_hex(16)
        (self._uploads / upload).touch()
        with self._lock:
            self._hashes[upload] = hashlib.sha256()
        return upload

    def size(self, upload: str) -> int:
        """The number of bytes received so far."""
        return self._part(upload).stat().st_size

    def append(self, upload: str, chunks: Iterable[bytes]) -> int:
        """Append to an upload and return its size so far. Bytes sent before a client disconnects count."""
        part = self._part(upload)
        digest = self._hashes[upload]
        with part.open("ab") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
        return part.stat().st_size

    def finish(self, upload: str, digest: str) -> None:
        """Turn a complete upload into a blob. Raises `InvalidDigest`, and drops an upload with another digest."""
        target = self.path(digest)
        part = self._part(upload)
        with self._lock:
            actual = f"sha256:{self._hashes.pop(upload).hexdigest()}"
        if actual != digest:
            part.unlink()
            raise InvalidDigest(f"announced {digest}, received {actual}")
        os.replace(part, target)

    def cancel(self, upload: str) -> None:
        part = self._part(upload)
        with self._lock:
            self._hashes.pop(upload, None)
        part.unlink()

    def _part(self, upload: str) -> Path:
        if not _UPLOAD.fullmatch(upload) or upload not in self._hashes:
            raise UnknownUpload(upload)
        return self._uploads / upload
