"""Which image serves an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import cdk_ecr_deployment as ecr_deployment
import jsii
from aws_cdk import Annotations, Duration, RemovalPolicy, Stack, Token
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as assets
from aws_cdk import aws_iam as iam
from constructs import Construct, IDependable, IValidation

from extended_dlc._copy_role import copy_role
from extended_dlc._private import docker_folder, require
from extended_dlc.build import LocalBuild
from extended_dlc.facts.catalog import default_base, is_moving, read_tag
from extended_dlc.facts.checks import check_release, check_server
from extended_dlc.facts.instances import Instance, check_image_runs_on

COPY_MEMORY_MIB = 3008
"""Memory of the function that copies the image: the most that a new account may ask for (Lambda quotas). The function
streams layers of a 10 GB image through it, and Lambda's network and processor shares grow with memory."""


@dataclass(frozen=True, kw_only=True)
class PublishedImage:
    """An image in a registry that SageMaker pulls from."""

    uri: str
    ready: IDependable
    """What must exist before SageMaker is told of the image."""


class ServingImage(Protocol):
    """What an endpoint needs of its image: `ExtendedDlc`, or any class of yours with these two methods."""

    def publish_for(self, instance: Instance) -> PublishedImage:
        """The image for this type of instance; ValueError where it cannot run there."""
        ...

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image."""
        ...


class ExtendedDlc(Construct):
    """A Deep Learning Container extended with a transformers release and this project's server.

    Builds `docker/inference/Dockerfile` as a `DockerImageAsset` and copies it under its content hash into an ECR
    repository of its own, where it outlives the bootstrap bucket's garbage collection. One image serves any number of
    endpoints.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        transformers: str,
        base: str | None = None,
        base_region: str | None = None,
        accelerator: Literal["cpu", "gpu"] | None = None,
        rebuild: str | None = None,
        build: LocalBuild | None = None,
        repository: ecr.IRepository | None = None,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        """Define the image.

        :param transformers: The exact release to install, as `5.23.0`. ValueError for anything else, and for a release
            older than 4.46.0, which the server cannot run on.
        :param base: Reference of the image to extend: a DLC, or a mirror of one in a registry of your own. A digest or
            a tag that ends in `-vM.m` stays what it is; any other is annotated, because AWS patches the image behind it
            without a change of the hash. Default: the newest Hugging Face PyTorch inference DLC for the accelerator.
        :param base_region: Region of the registry that the default base is pulled from. ValueError where the DLC is not
            published. Default: the stack's region, which must then be known at synth.
        :param accelerator: What the instances compute with. Default: what the base's tag says, otherwise what the
            instance type of the first endpoint that uses the image has.
        :param rebuild: Any text; a new one builds the image again although nothing else changed, which picks up a base
            that was patched in place. Default: none.
        :param build: How the image is built. Default: `LocalBuild()`, by Docker on this machine.
        :param repository: The repository to publish to; the one who gives it decides about its tags and its life cycle.
            Default: a new one, scanned on push, mutable tags, untagged images expire after 14 days, tagged ones never.
        :param removal_policy: What happens to the new repository when it leaves the stack. `DESTROY` deletes the images
            with it. Default: it is retained.
        """
        super().__init__(scope, construct_id)
        require("transformers", transformers, check_release)
        require("transformers", transformers, lambda release: check_server(release, base))
        tag = read_tag(base) if base else None
        if tag is not None and accelerator not in (None, tag.accelerator):
            raise ValueError(
                f"'accelerator' ({accelerator}) contradicts base '{base}', which is built for {tag.accelerator}: "
                "take the other base, or leave accelerator= out"
            )
        self._transformers = transformers
        self._base = base
        self._base_region = base_region
        self._accelerator = tag.accelerator if tag else accelerator
        self._rebuild = rebuild
        self._build = build or LocalBuild()
        self._published: PublishedImage | None = None
        self.repository = repository or self._new_repository(removal_policy)
        if base is not None or self._accelerator is not None:
            self._published = self._publish()
        self.node.add_validation(_IsPublished(self))

    @property
    def image_uri(self) -> str:
        """Reference of the published image, tagged with its content hash."""
        return self._require_published().uri

    @property
    def ready(self) -> IDependable:
        """Depend on it to wait until the image is in its repository."""
        return self._require_published().ready

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image."""
        return self.repository.grant_pull(grantee)

    def publish_for(self, instance: Instance) -> PublishedImage:
        """The image for this type of instance; ValueError where it was built for another accelerator."""
        require("instance_type", instance.name, lambda _: check_image_runs_on(instance, self._accelerator))
        if self._published is None:
            self._accelerator = "gpu" if instance.accelerator == "gpu" else "cpu"
            self._published = self._publish()
        return self._published

    def _require_published(self) -> PublishedImage:
        if self._published is None:
            raise ValueError(_UNPUBLISHED.format(path=self.node.path))
        return self._published

    def _new_repository(self, removal_policy: RemovalPolicy) -> ecr.Repository:
        # Tags are content hashes and would bear immutability, but the copy is made again on rollback and on a revert,
        # and ECR refuses a second push to an immutable tag even of the same digest (cdk-ecr-deployment#207).
        return ecr.Repository(
            self,
            "Repository",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.MUTABLE,
            encryption=ecr.RepositoryEncryption.AES_256,
            removal_policy=removal_policy,
            empty_on_delete=True if removal_policy == RemovalPolicy.DESTROY else None,
            lifecycle_rules=[
                ecr.LifecycleRule(
                    description="what lost its tag is no longer deployed",
                    tag_status=ecr.TagStatus.UNTAGGED,
                    max_image_age=Duration.days(14),
                )
            ],
        )

    def _publish(self) -> PublishedImage:
        base = self._base or self._default_base()
        if is_moving(base) and self._rebuild is None:
            Annotations.of(self).add_warning_v2(
                "extended-dlc:moving-base",
                f"base '{base}' can change without a change of the image's hash: give a digest or a -vM.m tag, or a "
                "rebuild= text that you change when the base was patched",
            )
        arguments = {"BASE_IMAGE": base, "TRANSFORMERS_VERSION": self._transformers}
        if self._rebuild is not None:
            arguments["REBUILD"] = self._rebuild
        asset = assets.DockerImageAsset(
            self,
            "Asset",
            directory=str(docker_folder("inference")),
            build_args=arguments,
            build_secrets=self._build.secrets or None,
            outputs=self._build.outputs,
            platform=assets.Platform.LINUX_AMD64,
            # how it is built says nothing about what is built
            invalidation=assets.DockerImageAssetInvalidationOptions(build_secrets=False, outputs=False),
        )
        uri = self.repository.repository_uri_for_tag(asset.asset_hash)
        role = copy_role(self)
        asset.repository.grant_pull(role)
        self.repository.grant_pull_push(role)
        copy = ecr_deployment.ECRDeployment(
            self,
            "Copy",
            src=ecr_deployment.DockerImageName(asset.image_uri),
            dest=ecr_deployment.DockerImageName(uri),
            memory_limit=COPY_MEMORY_MIB,
            # without updates: the construct would let the function read and write every repository and bucket
            role=role.without_policy_updates(),
        )
        copy.node.add_dependency(role)
        return PublishedImage(uri=uri, ready=copy)

    def _default_base(self) -> str:
        region = self._base_region or Stack.of(self).region
        if Token.is_unresolved(region):
            raise ValueError(
                "'base_region' (None) must be known at synth, because the base image is pulled before anything is "
                "deployed: give the stack an env with a region, or pass base_region= or base="
            )
        try:
            return default_base(str(self._accelerator), region)
        except ValueError as error:
            raise ValueError(f"'base_region' ({region}): {error}") from None


_UNPUBLISHED = (
    "image '{path}' is used by no endpoint and does not know its accelerator: pass accelerator='cpu' or 'gpu', or "
    "define an endpoint that uses it before you ask for its URI"
)


@jsii.implements(IValidation)
class _IsPublished:
    """An image that nothing asked for would silently not be built."""

    def __init__(self, image: ExtendedDlc) -> None:
        self._image = image

    def validate(self) -> list[str]:
        """The errors of the image at synth."""
        return [] if self._image._published else [_UNPUBLISHED.format(path=self._image.node.path)]
