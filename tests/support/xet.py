"""A stand-in for Xet, the storage of the Hub's large files, for the real `hf_xet`: a WSGI application around the Hub's.

It speaks the protocol of https://huggingface.co/docs/xet: the Hub names a file's Xet hash and where a short-lived token
is had; the content-addressed store says which chunks of which xorbs make the file; the xorbs come from signed URLs. A
hash is only a name here, because the client does not compute them when it downloads.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

CHUNK = 64 * 1024
"""Bytes of a chunk; `hf_xet` takes at most 128 KiB."""

CHUNKS = 8
"""Chunks of a xorb."""

LIFETIME = 3600
"""Seconds for which a token is valid; the client renews it half a minute before its end."""

_HEADER = 8


class Xet:
    """Serves the Hub below its own paths, and Xet's storage below `/cas` and `/xorb` of `host`."""

    def __init__(self, hub: Callable[..., Iterable[bytes]]) -> None:
        """Serve files of `hub` whose names end in `.safetensors` by Xet."""
        self._hub = hub
        self.storage = ""
        """The storage's URL; another host than the Hub's."""

        self.asked: list[tuple[str, str, str]] = []
        """Method, path and `Authorization` of each request."""

        self.files: dict[str, bytes] = {}
        """Content by Xet hash."""

        self.versions = ("v2", "v1")
        """Versions of the reconstruction API that are served."""

        self.lifetime = LIFETIME
        self.broken: Callable[[str], int] = lambda path: 0
        """The status with which a path of the storage is refused; 0 to serve it."""

        self._tokens: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, given = environ["PATH_INFO"], environ.get("HTTP_AUTHORIZATION", "")
        with self._lock:
            self.asked.append((environ["REQUEST_METHOD"], path, given))
        if path.startswith(("/cas/", "/xorb/")) and (status := self.broken(path)):
            return _answer(start_response, f"{status} Refused", b"")
        if "/xet-read-token/" in path:
            return self._token(environ, start_response)
        if path.startswith("/cas/"):
            if given.removeprefix("Bearer ") not in self._tokens:
                return _answer(start_response, "401 Unauthorized", b"")
            return self._reconstruction(path, environ, start_response)
        if path.startswith("/xorb/"):
            return self._xorb(path, environ, start_response)
        if "/resolve/" in path and path.endswith(".safetensors"):
            return self._resolved(environ, start_response)
        return self._hub(environ, start_response)

    def requests(self, start: str) -> list[tuple[str, str]]:
        """Path and `Authorization` of the requests whose path begins so."""
        return [(path, given) for _, path, given in self.asked if path.startswith(start)]

    def _resolved(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Add the headers of a file that the Hub keeps in Xet."""
        whole = b"".join(self._hub({**environ, "REQUEST_METHOD": "GET"}, lambda status, headers: None))
        name = hashlib.sha256(b"xet" + whole).hexdigest()
        self.files.setdefault(name, whole)
        token = f"http://{environ['HTTP_HOST']}/api/models/tiny/large/xet-read-token/main"
        more = [("X-Xet-Hash", name), ("Link", f'<{token}>; rel="xet-auth"')]
        return self._hub(environ, lambda status, headers: start_response(status, [*headers, *more]))

    def _token(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer both readers: `huggingface_hub` takes the headers, `hf_xet` the body."""
        if not environ.get("HTTP_AUTHORIZATION"):
            return _answer(start_response, "401 Unauthorized", b"")
        self._tokens.append(f"xet-{len(self._tokens)}")
        ends, cas = int(time.time()) + self.lifetime, f"{self.storage}/cas"
        body = {"accessToken": self._tokens[-1], "exp": ends, "casUrl": cas}
        headers = [
            ("X-Xet-Access-Token", self._tokens[-1]),
            ("X-Xet-Token-Expiration", str(ends)),
            ("X-Xet-Cas-Url", cas),
        ]
        return _answer(start_response, "200 OK", json.dumps(body).encode(), headers)

    def _reconstruction(
        self, path: str, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        version, _, name = path.removeprefix("/cas/").partition("/reconstructions/")
        if version not in self.versions or name not in self.files:
            return _answer(start_response, "404 Not Found", b"")
        size = len(self.files[name])
        start, end = _range(environ, size)
        if start >= size:
            return _answer(start_response, "416 Range Not Satisfiable", b"")
        first, last = start // CHUNK, (end - 1) // CHUNK
        terms, places = [], {}
        for number in range(first // CHUNKS, last // CHUNKS + 1):
            low, high = max(first, number * CHUNKS), min(last + 1, (number + 1) * CHUNKS)
            length = min(high * CHUNK, size) - low * CHUNK
            chunks = {"start": low - number * CHUNKS, "end": high - number * CHUNKS}
            begin = chunks["start"] * (CHUNK + _HEADER)
            places[_xorb(name, number)] = {
                "url": f"{self.storage}/xorb/{name}/{number}?signed=yes",
                "chunks": chunks,
                "bytes": {"start": begin, "end": begin + length + (high - low) * _HEADER - 1},
            }
            terms.append({"hash": _xorb(name, number), "unpacked_length": length, "range": chunks})
        found: dict[str, Any] = {"offset_into_first_range": start - first * CHUNK, "terms": terms}
        if version == "v2":
            found["xorbs"] = {
                xorb: [{"url": at["url"], "ranges": [{"chunks": at["chunks"], "bytes": at["bytes"]}]}]
                for xorb, at in places.items()
            }
        else:
            found["fetch_info"] = {
                xorb: [{"url": at["url"], "range": at["chunks"], "url_range": at["bytes"]}]
                for xorb, at in places.items()
            }
        headers = [("Content-Type", "application/json")]
        return _answer(start_response, "200 OK", json.dumps(found).encode(), headers)

    def _xorb(self, path: str, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name, number = path.removeprefix("/xorb/").split("/")
        begin = int(number) * CHUNKS * CHUNK
        inside = self.files[name][begin : begin + CHUNKS * CHUNK]
        packed = b"".join(_chunk(inside[at : at + CHUNK]) for at in range(0, len(inside), CHUNK))
        start, end = _range(environ, len(packed))
        headers = [("Content-Range", f"bytes {start}-{end - 1}/{len(packed)}")]
        return _answer(start_response, "206 Partial Content", packed[start:end], headers)


def _chunk(content: bytes) -> bytes:
    """A chunk as it lies in a xorb: version, length, no compression, length."""
    length = len(content).to_bytes(3, "little")
    return bytes([0]) + length + bytes([0]) + length + content


def _xorb(name: str, number: int) -> str:
    return hashlib.sha256(f"{name} {number}".encode()).hexdigest()


def _range(environ: dict[str, Any], size: int) -> tuple[int, int]:
    start, _, end = environ.get("HTTP_RANGE", "bytes=0-").removeprefix("bytes=").partition("-")
    return int(start), min(int(end) + 1, size) if end else size


def _answer(
    start_response: Callable[..., Any], status: str, body: bytes, headers: Iterable[tuple[str, str]] = ()
) -> Iterable[bytes]:
    start_response(status, [("Content-Length", str(len(body))), *headers])
    return [body]
