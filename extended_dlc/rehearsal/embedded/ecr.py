"""ECR: moto's backend, changed to store and to refuse what ECR does.

`install` changes moto 5.2.5 in this process. It corrects these differences:

- `PutImage` invents a digest from the layers' names, drops an image whose tag moves instead of leaving it untagged, and
  reports a taken tag with the wrong error code: `_put_image`.
- An image's size is that of its configuration only: `_size`.
- The repository's URI is AWS's, where nothing listens: `_with_local_address`.
- The authorization token expired in 2015 and has AWS's URI as its endpoint: `_get_authorization_token`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.ecr.exceptions import ImageAlreadyExistsException, RepositoryNotFoundException
from moto.ecr.models import ECRBackend, Image, Repository, ecr_backends
from moto.ecr.responses import ECRResponse

from extended_dlc.rehearsal.embedded.references import EcrReference
from extended_dlc.rehearsal.embedded.store import BlobStore, InvalidDigest

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

_lock = threading.RLock()


class ImageTagAlreadyExists(ServiceException):
    """The tag exists and is immutable."""

    code = "ImageTagAlreadyExistsException"


class ImageDigestDoesNotMatch(ServiceException):
    """The request's digest differs from the manifest's."""

    code = "ImageDigestDoesNotMatchException"


class LayersNotFound(ServiceException):
    """The manifest refers to blobs that were not pushed."""

    code = "LayersNotFoundException"


class ReferencedImagesNotFound(ServiceException):
    """The index refers to manifests that were not pushed."""

    code = "ReferencedImagesNotFoundException"


class Refused(Exception):
    """A push that the registry refuses, with the code of the OCI Distribution specification and its HTTP status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class InvalidManifest(ServiceException):
    """The manifest cannot be parsed."""

    code = "InvalidParameterException"


def backends() -> Iterator[ECRBackend]:
    """The ECR backends of every account and region that has been used."""
    for account in list(ecr_backends.values()):
        yield from list(account.values())


def find_repository(name: str) -> Repository | None:
    """The first repository of this name: the path of a registry request has neither account nor region."""
    return next((backend.repositories[name] for backend in backends() if name in backend.repositories), None)


def find_image(repository: Repository, reference: str) -> Image | None:
    """An image by tag or digest."""
    with _lock:
        for image in repository.images:
            if reference == image.image_digest if ":" in reference else reference in image.image_tags:
                return image
    return None


def repository_of(reference: EcrReference) -> Repository | None:
    """The repository of a reference, or None."""
    if reference.account and reference.region:
        return ecr_backends[reference.account][reference.region].repositories.get(reference.repository)
    return find_repository(reference.repository)


def resolve(reference: EcrReference) -> tuple[Repository, Image] | None:
    """The repository and the image of a reference, or None."""
    repository = repository_of(reference)
    image = find_image(repository, reference.digest or reference.tag or "latest") if repository else None
    return (repository, image) if repository and image else None


def is_immutable(repository: Repository, tag: str) -> bool:
    """Whether an existing tag must not be moved."""
    excluded = any(
        fnmatch.fnmatchcase(tag, each["filter"]) for each in repository.image_tag_mutability_exclusion_filters or ()
    )
    return repository.is_tag_immutable() != excluded


def tag_is_immutable_message(repository: Repository, tag: str) -> str:
    """ECR's message to a second push of an immutable tag."""
    return (
        f"The image tag '{tag}' already exists in the '{repository.name}' repository and cannot be overwritten "
        "because the tag is immutable."
    )


def digest_of(manifest: bytes) -> str:
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def put_image(
    repository: Repository, manifest: bytes, media_type: str | None, tag: str | None, blobs: BlobStore
) -> Image:
    """Add a manifest to a repository and move the tag to it, as `PutImage` and a push both do.

    Raises `ImageAlreadyExistsException` for the same digest under the same tag; a push to a mutable tag ignores that.
    """
    digest = digest_of(manifest)
    media_type = _check_manifest(repository, manifest, media_type, blobs)
    with _lock:
        holder = find_image(repository, tag) if tag else None
        if holder and tag and holder.image_digest != digest and is_immutable(repository, tag):
            raise ImageTagAlreadyExists(tag_is_immutable_message(repository, tag))
        image = find_image(repository, digest)
        if image and (image is holder or not tag):
            raise ImageAlreadyExistsException(repository.name, repository.registry_id, digest, str(tag))
        if holder:
            holder.remove_tag(str(tag))
        if image is None:
            image = Image(repository.account_id, tag or "", manifest.decode(), repository.name, media_type, digest)
            if not tag:
                image.image_tags = []
            repository.images.append(image)
        elif tag:
            image.update_tag(tag)
        return image


def push(repository: Repository, manifest: bytes, media_type: str | None, tag: str | None, blobs: BlobStore) -> str:
    """Push a manifest as a registry client does, and return its digest. Raises `Refused`."""
    try:
        put_image(repository, manifest, media_type, tag, blobs)
    except ImageAlreadyExistsException:
        if tag and is_immutable(repository, tag):
            # a second push is refused even of the same digest (containers-roadmap#2179)
            raise Refused(400, "TAG_INVALID", tag_is_immutable_message(repository, tag)) from None
    except ImageTagAlreadyExists as error:
        raise Refused(400, "TAG_INVALID", error.message) from None
    except (LayersNotFound, ReferencedImagesNotFound) as error:
        raise Refused(404, "MANIFEST_BLOB_UNKNOWN", error.message) from None
    except ServiceException as error:
        raise Refused(400, "MANIFEST_INVALID", error.message) from None
    return digest_of(manifest)


def _check_manifest(repository: Repository, manifest: bytes, media_type: str | None, blobs: BlobStore) -> str:
    """The manifest's media type. Raises unless everything that the manifest refers to has been pushed."""
    try:
        body = json.loads(manifest)
        if not media_type and "mediaType" not in body:
            raise InvalidManifest("image manifest mediatype not provided in manifest or parameter")
        media_type = media_type or body["mediaType"]
        parts = [body["config"], *body["layers"]] if "config" in body else []
        children = [str(each["digest"]) for each in body.get("manifests", ())]
        absent = [str(part["digest"]) for part in parts if not part.get("urls") and not blobs.has(part["digest"])]
    except (ValueError, KeyError, TypeError, AttributeError, InvalidDigest) as error:
        raise InvalidManifest(
            f"Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax' ({error!r})"
        ) from error
    if absent:
        raise LayersNotFound(
            f"Layers with digests '{', '.join(absent)}' required for pushing image into repository with name "
            f"'{repository.name}' in the registry with id '{repository.registry_id}' do not exist"
        )
    if missing := [digest for digest in children if find_image(repository, digest) is None]:
        raise ReferencedImagesNotFound(
            f"The images with digests '{', '.join(missing)}', referenced by the manifest, do not exist in the "
            f"repository with name '{repository.name}' in the registry with id '{repository.registry_id}'"
        )
    return str(media_type)


def install(*, port: int, blobs: BlobStore) -> None:
    """Change moto's ECR in this process."""

    def _put_image(
        self: ECRBackend,
        repository_name: str,
        image_manifest: str,
        image_tag: str | None,
        image_manifest_mediatype: str | None = None,
        digest: str | None = None,
    ) -> Image:
        repository = self.repositories.get(repository_name)
        if repository is None:
            raise RepositoryNotFoundException(repository_name, self.account_id)
        manifest = image_manifest.encode()
        actual = digest_of(manifest)
        if digest and digest != actual:
            raise ImageDigestDoesNotMatch(f"The provided digest '{digest}' does not match the manifest's, '{actual}'.")
        return put_image(repository, manifest, image_manifest_mediatype, image_tag, blobs)

    def _size(self: Image) -> int | None:
        body = json.loads(self.image_manifest)
        return sum(part["size"] for part in (body["config"], *body["layers"])) if "config" in body else None

    def _with_local_address(repository: Repository) -> dict[str, Any]:
        return {
            "repositoryArn": repository.arn,
            "registryId": repository.registry_id,
            "repositoryName": repository.name,
            "repositoryUri": f"127.0.0.1:{port}/{repository.name}",
            "createdAt": repository.created_at,
            "imageTagMutability": str(
                getattr(repository.image_tag_mutability, "value", repository.image_tag_mutability)
            ),
            "imageTagMutabilityExclusionFilters": repository.image_tag_mutability_exclusion_filters,
            "imageScanningConfiguration": repository.image_scanning_configuration,
            "encryptionConfiguration": repository.encryption_configuration,
        }

    own_images = ECRBackend.batch_get_image

    def _batch_get_image(
        self: ECRBackend, repository_name: str, registry_id: str | None = None, image_ids: Any = None
    ) -> Any:
        """Look in the registry of the request's registryId: moto always looks in the caller's own."""
        registry = ecr_backends[registry_id][self.region_name] if registry_id else self
        return own_images(registry, repository_name, registry_id, image_ids)

    def _localized(original: Any) -> Any:
        def call(self: ECRResponse) -> ActionResult:
            result = dict(original(self).result)
            if "repository" in result:
                result["repository"] = _with_local_address(result["repository"])
            if "repositories" in result:
                result["repositories"] = [_with_local_address(each) for each in result["repositories"]]
            return ActionResult(result)

        return call

    def _get_authorization_token(self: ECRResponse) -> ActionResult:
        accounts = self._get_param("registryIds") or [self.current_account]
        expires = datetime.now(timezone.utc) + timedelta(hours=12)
        return ActionResult(
            {
                "authorizationData": [
                    {
                        "authorizationToken": b64encode(f"AWS:{account}-auth-token".encode()).decode(),
                        "expiresAt": expires,
                        "proxyEndpoint": f"http://127.0.0.1:{port}",
                    }
                    for account in accounts
                ]
            }
        )

    def _get_download_url_for_layer(self: ECRResponse) -> ActionResult:
        name, layer = self._get_param("repositoryName"), self._get_param("layerDigest")
        return ActionResult({"downloadUrl": f"http://127.0.0.1:{port}/v2/{name}/blobs/{layer}", "layerDigest": layer})

    setattr(ECRResponse, "get_download_url_for_layer", _get_download_url_for_layer)  # noqa: B010
    setattr(ECRBackend, "put_image", _put_image)  # noqa: B010 - mypy refuses the plain assignment of a method
    setattr(ECRBackend, "batch_get_image", _batch_get_image)  # noqa: B010
    setattr(Image, "get_image_size_in_bytes", _size)  # noqa: B010
    setattr(ECRResponse, "get_authorization_token", _get_authorization_token)  # noqa: B010
    for operation in ("create_repository", "describe_repositories", "delete_repository"):
        setattr(ECRResponse, operation, _localized(getattr(ECRResponse, operation)))
