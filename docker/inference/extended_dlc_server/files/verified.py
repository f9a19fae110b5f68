"""Verifies files of the Hub by the hashes that it lists: sha256 of large files, git blob ids of the others.

A large file is hashed during its download, by a thread that reads behind the one that writes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

FOLLOWED = 16 * 1024 * 1024
"""Least bytes of a file that is hashed during its download; a smaller one is hashed quickly afterwards."""

_PIECE = 4 * 1024 * 1024
_PAUSE = 0.02

_UNFINISHED = 64 * 1024
"""Bytes before the end of the written data that may still be zeros of a partly written block."""

_NOTES = ".extended-dlc-verified.json"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file as the Hub lists it."""

    size: int
    """The size in bytes."""

    kind: str = ""
    """`sha256`, or `git` for a blob id; empty if the Hub lists neither."""

    digest: str = ""
    """The hash, in hexadecimal digits."""

    def matches(self, digest: str) -> bool:
        """Whether the hash is the listed one; a file that is listed without a hash always matches."""
        return not self.kind or digest == self.digest


def listed(siblings: Iterable[Any]) -> dict[str, Listed]:
    """Return the files of `model_info(files_metadata=True)` by name."""
    found = {}
    for file in siblings:
        large = getattr(file, "lfs", None)
        kind, digest = ("sha256", large.sha256) if large else ("git", file.blob_id)
        size = file.size or (large.size if large else 0)
        found[file.rfilename] = Listed(size=size, kind=kind if digest else "", digest=digest or "")
    return found


def hash_of(file: Path, kind: str) -> str:
    """Return the hash of a file's content; empty for an empty `kind`."""
    if not kind:
        return ""
    digest = _start(kind, file.stat().st_size)
    buffer = memoryview(bytearray(_PIECE))
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(buffer):
            digest.update(buffer[:count])
    return str(digest.hexdigest())


def end_of_data(file: int, start: int) -> int:
    """Return the offset of the first hole in a sparse file, or its length if the file system cannot tell."""
    with suppress(OSError):
        return os.lseek(file, start, os.SEEK_HOLE)
    return os.fstat(file).st_size


def _start(kind: str, size: int) -> Any:
    return hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


class Following:
    """Hashes a file of the Hub's cache from front to back during its download, which may write parts in parallel."""

    def __init__(self, blobs: Path, file: Listed) -> None:
        """The file's name in the cache is its hash, with a suffix until it is complete."""
        self._blobs, self._file = blobs, file
        self._written = threading.Event()
        self._digest = _start(file.kind, file.size)
        self._length = 0
        self._thread = threading.Thread(target=self._follow, name="hash", daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._written.set()
        self._thread.join()

    def digest(self) -> str | None:
        """Return the hash of the complete file; None if the thread has not read all of it."""
        self._written.set()
        self._thread.join()
        return self._digest.hexdigest() if self._length == self._file.size else None

    def _follow(self) -> None:
        with suppress(OSError):  # after an error, the file is hashed after the download
            path = self._begun()
            if path is None:
                return
            buffer = memoryview(bytearray(_PIECE))
            with path.open("rb", buffering=0) as opened:  # it stays valid when the file is renamed
                while True:
                    over = self._written.is_set()  # read it before the size, so that the last round reads everything
                    available = self._file.size if over else end_of_data(opened.fileno(), self._length) - _UNFINISHED
                    while self._length < available:
                        count = os.preadv(opened.fileno(), [buffer[: available - self._length]], self._length)
                        if not count:
                            break
                        self._digest.update(buffer[:count])
                        self._length += count
                    if over:
                        return
                    self._written.wait(_PAUSE)

    def _begun(self) -> Path | None:
        while True:
            over = self._written.is_set()
            for found in self._blobs.glob(f"{self._file.digest}*"):
                return found
            if over:
                return None
            self._written.wait(_PAUSE)


class Notes:
    """Remembers in the cache which files of a repository were verified, and which files a complete snapshot has."""

    def __init__(self, repository: Path) -> None:
        """Read the notes of earlier starts."""
        self._file = repository / _NOTES
        self._lock = threading.Lock()
        self._right: dict[str, list[int]] = {}
        self._whole: dict[str, list[str]] = {}
        with suppress(OSError, ValueError, TypeError, KeyError):
            noted = json.loads(self._file.read_text(encoding="utf-8"))
            self._right, self._whole = dict(noted["right"]), dict(noted["whole"])

    def knows(self, file: Path, listing: Listed) -> bool:
        """Whether the file was verified with this hash before, and has not changed since."""
        return self._right.get(listing.digest) == _state(file)

    def add(self, file: Path, listing: Listed) -> None:
        with self._lock:
            self._right[listing.digest] = _state(file)

    def keep(self, commit: str, names: Iterable[str]) -> None:
        """Note that the snapshot has all these files. Without write access to the cache, nothing is saved."""
        self._whole[commit] = sorted(names)
        with suppress(OSError):
            unfinished = self._file.with_name(f"{_NOTES}.{os.getpid()}")
            unfinished.write_text(json.dumps({"right": self._right, "whole": self._whole}), encoding="utf-8")
            unfinished.replace(self._file)

    def missing(self, snapshot: Path) -> list[str]:
        """Return the files that a noted snapshot has lost; empty for snapshots without notes."""
        return [name for name in self._whole.get(snapshot.name, ()) if not (snapshot / name).is_file()]


def _state(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]
