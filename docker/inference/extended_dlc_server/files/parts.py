"""Downloads a large file from the Hub in parallel parts: one connection uses a fraction of an instance's bandwidth.

It is for files that the Hub does not offer by Xet, or for an image without hf_xet. The file goes into the Hub's cache
under its hash, where `huggingface_hub` finds it and does the rest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .verified import Listed

PART = 16 * 1024 * 1024
"""Bytes per part: large enough for a connection, small enough that hashing from front to back keeps up."""

IN_PARTS = 8 * PART
"""Least bytes of a file that is downloaded in parts."""

CONNECTIONS = 8
"""Parts downloaded at a time, of all files together."""

_SECONDS = 60
"""Timeout of a connection without data."""

_PAUSES = (0, 1, 5)
"""Seconds before each try of a part."""

_connections = threading.Semaphore(CONNECTIONS)


class NoPartsError(Exception):
    """The server does not support ranges, or the file has another source such as Xet."""


def fetch(model_id: str, file: str, commit: str, token: str | None, listing: Listed, blobs: Path) -> bool:
    """Download a file into the cache; return False if the Hub's client should do it, in one piece or by Xet.

    The content is not verified here.
    """
    if listing.kind != "sha256" or listing.size < IN_PARTS or (blobs / listing.digest).exists():
        return False
    unfinished = blobs / f"{listing.digest}.{os.getpid()}.parts"
    try:
        source = _Source(model_id, file, commit, token, listing)
        blobs.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as opened:
            _fetch_all(source, listing.size, opened.fileno())
        unfinished.replace(blobs / listing.digest)
    except NoPartsError:
        return False
    finally:
        unfinished.unlink(missing_ok=True)
    return True


class _Source:
    """The URL of a file. It may be a presigned URL valid for an hour, so it can be renewed."""

    def __init__(self, model_id: str, file: str, commit: str, token: str | None, listing: Listed) -> None:
        from huggingface_hub import hf_hub_url

        self._url, self._token, self._listing = hf_hub_url(model_id, file, revision=commit), token, listing
        self._lock = threading.Lock()
        self.address, self.headers = self._locate()

    def _locate(self) -> tuple[str, dict[str, str]]:
        from huggingface_hub import file_download, get_hf_file_metadata
        from huggingface_hub.utils import build_hf_headers

        found = get_hf_file_metadata(self._url, token=self._token)
        if found.etag != self._listing.digest or found.size != self._listing.size:
            raise NoPartsError
        knows_xet = getattr(file_download, "is_xet_available", None)  # only newer releases have it
        if knows_xet is not None and knows_xet() and getattr(found, "xet_file_data", None) is not None:
            raise NoPartsError
        headers = dict(build_hf_headers(token=self._token))
        if urlsplit(found.location).netloc != urlsplit(self._url).netloc:
            headers.pop("authorization", None)  # a presigned URL needs no token, and another host must not get it
        return found.location, headers

    def locate_again(self, before: str) -> None:
        """Renew the URL, once for all parts that were refused at the URL `before`."""
        with self._lock:
            if self.address == before:
                self.address, self.headers = self._locate()


def _fetch_all(source: _Source, size: int, target: int) -> None:
    """Download the first part alone, which shows whether the server supports ranges, then the others in parallel."""
    over = threading.Event()

    def fetch_one(start: int) -> None:
        with _connections:
            for tries, pause in enumerate(_PAUSES, 1):
                if over.wait(pause):
                    return
                try:
                    return _fetch_part(source, start, min(start + PART, size), size, target)
                except NoPartsError:
                    raise
                except Exception:
                    if tries == len(_PAUSES):
                        raise

    fetch_one(0)
    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="part")
    try:
        for done in [pool.submit(fetch_one, start) for start in range(PART, size, PART)]:
            done.result()
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _fetch_part(source: _Source, start: int, end: int, size: int, target: int) -> None:
    address = source.address
    headers = {**source.headers, "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    with _response(address, headers) as (response, pieces):
        if response.status_code in (401, 403):
            source.locate_again(address)
        if response.status_code >= 400:
            response.raise_for_status()
        if response.status_code != 206 or response.headers.get("Content-Range") != f"bytes {start}-{end - 1}/{size}":
            raise NoPartsError
        offset = start
        for piece in pieces:
            if offset + len(piece) > end:
                raise NoPartsError
            os.pwrite(target, piece, offset)
            offset += len(piece)
    if offset != end:
        raise ConnectionError(f"{end - offset} bytes of a part are missing")


@contextmanager
def _response(address: str, headers: dict[str, str]) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """Use huggingface_hub's session, which has the proxies and certificates: httpx, before its 1.0 requests."""
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    if callable(getattr(session, "stream", None)):
        with session.stream("GET", address, headers=headers, timeout=_SECONDS, follow_redirects=True) as response:
            yield response, response.iter_raw(1 << 20)
        return
    with session.get(address, headers=headers, timeout=_SECONDS, stream=True) as response:
        yield response, response.iter_content(1 << 20)
