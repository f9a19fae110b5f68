"""ECR's registry: the OCI Distribution API at `/v2/`, over moto's repositories and the blob store.

A repository must exist in ECR before the first push. Every blob of the store counts as present in every repository,
so that a second rehearsal, which starts with an empty ECR and a full store, uploads nothing twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import IO

from moto.ecr.models import Repository
from werkzeug.wrappers import Request, Response

from extended_dlc.rehearsal.embedded import ecr
from extended_dlc.rehearsal.embedded.references import DIGEST, NAME, TAG
from extended_dlc.rehearsal.embedded.store import BlobStore, InvalidDigest, UnknownUpload

MANIFEST_LIMIT = 4 * 1024 * 1024
"""The largest manifest in bytes: the size that the specification asks a registry to accept."""

_CHUNK = 1024 * 1024

_PATHS = (
    (re.compile(rf"/v2/(?P<name>{NAME})/blobs/(?P<digest>{DIGEST})"), "_blob"),
    (re.compile(rf"/v2/(?P<name>{NAME})/blobs/uploads/?"), "_start_upload"),
    (re.compile(rf"/v2/(?P<name>{NAME})/blobs/uploads/(?P<upload>[0-9a-f]{{32}})"), "_upload"),
    (re.compile(rf"/v2/(?P<name>{NAME})/manifests/(?P<reference>{TAG}|{DIGEST})"), "_manifest"),
    (re.compile(rf"/v2/(?P<name>{NAME})/tags/list"), "_tags"),
)


class RegistryError(Exception):
    """An error in the specification's form."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> Response:
        body = {"errors": [{"code": self.code, "message": str(self), "detail": {}}]}
        return Response(json.dumps(body), self.status, mimetype="application/json")


class Registry:
    """The registry as a WSGI-callable part of the server."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def respond(self, request: Request) -> Response:
        """Respond to one request below `/v2`."""
        try:
            response = self._route(request)
        except RegistryError as error:
            response = error.response()
        except InvalidDigest as error:
            response = RegistryError(400, "DIGEST_INVALID", f"provided digest did not match: {error}").response()
        except UnknownUpload:
            response = RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry").response()
        response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        return response

    def _route(self, request: Request) -> Response:
        if request.path in ("/v2", "/v2/"):
            return Response("{}", mimetype="application/json")
        for pattern, handler in _PATHS:
            if found := pattern.fullmatch(request.path):
                parts = found.groupdict()
                name = parts.pop("name")
                repository = ecr.find_repository(name)
                if repository is None:
                    message = (
                        f"The repository with name '{name}' does not exist in the registry: create it in ECR before "
                        "the first push"
                    )
                    raise RegistryError(404, "NAME_UNKNOWN", message)
                answer: Callable[..., Response] = getattr(self, handler)
                return answer(request, repository, **parts)
        if any(part in ("..", ".") for part in request.path.split("/")) or re.search(r"[^ -~]", request.path):
            raise RegistryError(400, "NAME_INVALID", "invalid repository name")
        raise RegistryError(404, "UNSUPPORTED", f"no such resource: {request.method} {request.path}")

    # blobs

    def _blob(self, request: Request, repository: Repository, digest: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise RegistryError(405, "UNSUPPORTED", f"{request.method} of a blob is not supported")
        if not self._blobs.has(digest):
            raise RegistryError(404, "BLOB_UNKNOWN", f"blob unknown to registry: {digest}")
        path = self._blobs.path(digest)
        size = path.stat().st_size
        start, end = 0, size
        status = HTTPStatus.OK
        headers = {"Docker-Content-Digest": digest, "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}
        if request.range and request.range.units == "bytes":
            window = request.range.range_for_length(size)
            if window is None:
                refusal = RegistryError(416, "RANGE_INVALID", f"the blob has {size} bytes").response()
                refusal.headers["Content-Range"] = f"bytes */{size}"
                return refusal
            start, end = window
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        body: Iterable[bytes] = () if request.method == "HEAD" else _read(path.open("rb"), start, end - start)
        response = Response(body, status, headers, mimetype="application/octet-stream")
        response.content_length = end - start
        return response

    def _start_upload(self, request: Request, repository: Repository) -> Response:
        if request.method != "POST":
            raise RegistryError(405, "UNSUPPORTED", f"{request.method} of uploads is not supported")
        if (mount := request.args.get("mount")) and self._blobs.has(mount):
            return _created(repository, "blobs", mount)
        if digest := request.args.get("digest"):
            self._blobs.path(digest)  # raises for a malformed digest before anything is stored
        upload = self._blobs.start()
        if digest:
            return self._finish(request, repository, upload, digest)
        return _accepted(repository, upload, 0)

    def _upload(self, request: Request, repository: Repository, upload: str) -> Response:
        if request.method == "PATCH":
            size = self._blobs.size(upload)
            if (asked := request.headers.get("Content-Range")) and not asked.removeprefix("bytes ").startswith(
                f"{size}-"
            ):
                raise RegistryError(416, "BLOB_UPLOAD_INVALID", f"the next byte is {size}, the request sends {asked}")
            return _accepted(repository, upload, self._blobs.append(upload, _body(request)))
        if request.method == "PUT":
            digest = request.args.get("digest")
            if not digest:
                raise RegistryError(400, "DIGEST_INVALID", "the digest is missing: PUT …?digest=sha256:…")
            return self._finish(request, repository, upload, digest)
        if request.method == "GET":
            response = _accepted(repository, upload, self._blobs.size(upload))
            response.status_code = HTTPStatus.NO_CONTENT
            return response
        if request.method == "DELETE":
            self._blobs.cancel(upload)
            return Response(status=HTTPStatus.NO_CONTENT)
        raise RegistryError(405, "UNSUPPORTED", f"{request.method} of an upload is not supported")

    def _finish(self, request: Request, repository: Repository, upload: str, digest: str) -> Response:
        self._blobs.append(upload, _body(request))
        self._blobs.finish(upload, digest)
        return _created(repository, "blobs", digest)

    # manifests

    def _manifest(self, request: Request, repository: Repository, reference: str) -> Response:
        if request.method == "PUT":
            return self._put_manifest(request, repository, reference)
        if request.method not in ("GET", "HEAD"):
            raise RegistryError(405, "UNSUPPORTED", f"{request.method} of a manifest is not supported: use the ECR API")
        image = ecr.find_image(repository, reference)
        if image is None:
            message = f"Requested image not found: {repository.name} has no image '{reference}'"
            raise RegistryError(404, "MANIFEST_UNKNOWN", message)
        body = image.image_manifest.encode()
        response = Response(body, headers={"Docker-Content-Digest": image.image_digest})
        response.headers["Content-Type"] = str(image.image_manifest_media_type)
        return response

    def _put_manifest(self, request: Request, repository: Repository, reference: str) -> Response:
        body = b"".join(_body(request, MANIFEST_LIMIT))
        digest = ecr.digest_of(body)
        tag = None if ":" in reference else reference
        if tag is None and digest != reference:
            raise RegistryError(400, "DIGEST_INVALID", f"the manifest's digest is {digest}, not {reference}")
        try:
            ecr.push(repository, body, request.content_type, tag, self._blobs)
        except ecr.Refused as error:
            raise RegistryError(error.status, error.code, str(error)) from None
        return _created(repository, "manifests", digest)

    def _tags(self, request: Request, repository: Repository) -> Response:
        tags = sorted(tag for image in list(repository.images) for tag in image.image_tags)
        return Response(json.dumps({"name": repository.name, "tags": tags}), mimetype="application/json")


def _created(repository: Repository, kind: str, digest: str) -> Response:
    headers = {"Location": f"/v2/{repository.name}/{kind}/{digest}", "Docker-Content-Digest": digest}
    return Response(status=HTTPStatus.CREATED, headers=headers)


def _accepted(repository: Repository, upload: str, size: int) -> Response:
    headers = {
        "Location": f"/v2/{repository.name}/blobs/uploads/{upload}",
        "Docker-Upload-UUID": upload,
        "Range": f"0-{max(size - 1, 0)}",
    }
    return Response(status=HTTPStatus.ACCEPTED, headers=headers)


def _body(request: Request, limit: int | None = None) -> Iterator[bytes]:
    """The request's body in pieces, whether it has a length or is chunked."""
    received = 0
    while piece := request.stream.read(_CHUNK):
        received += len(piece)
        if limit is not None and received > limit:
            raise RegistryError(413, "SIZE_INVALID", f"the body is larger than {limit} bytes")
        yield piece


def _read(file: IO[bytes], start: int, length: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while length > 0 and (piece := file.read(min(_CHUNK, length))):
            length -= len(piece)
            yield piece
