"""Files of the Hub, compared with the hashes under which it lists them: sha256 of large ones, git's blob of the others.

A large file is hashed while it arrives, by a thread that reads behind the one that writes.
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
"""From how many bytes on a file is hashed while it arrives; a smaller one is hashed in no time afterwards."""

_PIECE = 4 * 1024 * 1024
_PAUSE = 0.02

_UNFINISHED = 64 * 1024
"""Bytes before the end of what is there that may be zeros of a block which is not full yet."""

_NOTES = ".extended-dlc-verified.json"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file as the Hub lists it."""

    size: int
    """Its bytes."""

    kind: str = ""
    """`sha256`, or `git` for a blob's id; empty where the Hub tells neither."""

    digest: str = ""
    """The hash, in hexadecimal digits."""

    def matches(self, digest: str) -> bool:
        """Whether that is the hash of such a file; what is listed without one is what it is."""
        return not self.kind or digest == self.digest


def listed(siblings: Iterable[Any]) -> dict[str, Listed]:
    """Name -> what the Hub says of it in `model_info(files_metadata=True)`."""
    found = {}
    for file in siblings:
        large = getattr(file, "lfs", None)
        kind, digest = ("sha256", large.sha256) if large else ("git", file.blob_id)
        size = file.size or (large.size if large else 0)
        found[file.rfilename] = Listed(size=size, kind=kind if digest else "", digest=digest or "")
    return found


def hash_of(file: Path, kind: str) -> str:
    """The hash of a file's content; empty for no kind."""
    if not kind:
        return ""
    digest = _start(kind, file.stat().st_size)
    buffer = memoryview(bytearray(_PIECE))
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(buffer):
            digest.update(buffer[:count])
    return str(digest.hexdigest())


def end_of_data(file: int, start: int) -> int:
    """Up to where a file that is written in several places is without a hole; its length where nobody can tell."""
    with suppress(OSError):
        return os.lseek(file, start, os.SEEK_HOLE)
    return os.fstat(file).st_size


def _start(kind: str, size: int) -> Any:
    return hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


class Following:
    """Hashes a file of the Hub's cache while it is written there, from front to back, by one or in several places."""

    def __init__(self, blobs: Path, file: Listed) -> None:
        """The cache calls it by its hash, and by more than that until it is whole."""
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
        """The hash, once the file is whole; None where that was not seen from front to back."""
        self._written.set()
        self._thread.join()
        return self._digest.hexdigest() if self._length == self._file.size else None

    def _follow(self) -> None:
        with suppress(OSError):  # then it is read afterwards
            path = self._begun()
            if path is None:
                return
            buffer = memoryview(bytearray(_PIECE))
            with path.open("rb", buffering=0) as opened:  # which stays open when the file is renamed
                while True:
                    over = self._written.is_set()  # before the last look
                    there = self._file.size if over else end_of_data(opened.fileno(), self._length) - _UNFINISHED
                    while self._length < there:
                        count = os.preadv(opened.fileno(), [buffer[: there - self._length]], self._length)
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
    """Which files of a repository in the cache were found to be right, and which make up a whole snapshot."""

    def __init__(self, repository: Path) -> None:
        """Read what an earlier start has noted."""
        self._file = repository / _NOTES
        self._lock = threading.Lock()
        self._right: dict[str, list[int]] = {}
        self._whole: dict[str, list[str]] = {}
        with suppress(OSError, ValueError, TypeError, KeyError):
            noted = json.loads(self._file.read_text(encoding="utf-8"))
            self._right, self._whole = dict(noted["right"]), dict(noted["whole"])

    def knows(self, file: Path, listing: Listed) -> bool:
        """Whether this very file was compared with this hash before, and was not written since."""
        return self._right.get(listing.digest) == _state(file)

    def add(self, file: Path, listing: Listed) -> None:
        with self._lock:
            self._right[listing.digest] = _state(file)

    def keep(self, commit: str, names: Iterable[str]) -> None:
        """The snapshot has all these files; a cache that nobody may write to is compared again next time."""
        self._whole[commit] = sorted(names)
        with suppress(OSError):
            unfinished = self._file.with_name(f"{_NOTES}.{os.getpid()}")
            unfinished.write_text(json.dumps({"right": self._right, "whole": self._whole}), encoding="utf-8")
            unfinished.replace(self._file)

    def missing(self, snapshot: Path) -> list[str]:
        """What a snapshot had when it was whole and has no longer; nothing is known of one that others have made."""
        return [name for name in self._whole.get(snapshot.name, ()) if not (snapshot / name).is_file()]


def _state(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]
