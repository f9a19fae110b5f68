"""Builds an extended image, on this machine or in CodeBuild, and publishes it to its repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aws_cdk import Duration, IgnoreMode, RemovalPolicy
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as assets
from constructs import Construct, IDependable

from extended_dlc.decisions.asked import ImageAsked
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.facts.compat import Family, check_stock_server
from extended_dlc.images.copy_role import copy_role, log_copies
from extended_dlc.installed import docker_folder
from extended_dlc.options.build import Build, CloudBuild, LocalBuild

if TYPE_CHECKING:
    from extended_dlc.images.cloud_build import CloudBuilt

COPY_MEMORY_MIB = 3008
"""Memory of the function that copies the image: the most that a new account may ask for (Lambda quotas). The function
streams layers of a 10 GB image through it, and Lambda's network and processor shares grow with memory."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The repository that an image is published to."""

    repository: ecr.IRepository
    copies_once: bool
    """Whether a tag that is there is not pushed again, because the repository may refuse it."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image that the deployment builds and publishes."""

    uri: str
    ready: IDependable
    in_cloud: CloudBuilt | None = None
    """The build in CodeBuild; None where the image is built on this machine."""


def build_image(
    scope: Construct, asked: ImageAsked, decided: ImageDecision, *, how: Build, lock: str | None, to: Destination
) -> Built:
    """The image as the deployment builds it, tagged with its content hash."""
    server = "vllm" if decided.family == "vllm" else asked.server
    asset = {
        **_build_context(decided.family or "inference"),
        "target": None if server == "native" else server,
        "build_args": _build_arguments(asked, decided, lock),
        "platform": assets.Platform.LINUX_AMD64,
        # It changes no hash; synthesizers that stage an app's assets (AppStagingSynthesizer) refuse images without one.
        "asset_name": f"extended-dlc-{decided.family or 'inference'}",
        # Secrets and outputs of the build do not change the image.
        "invalidation": assets.DockerImageAssetInvalidationOptions(build_secrets=False, outputs=False),
    }
    if isinstance(how, CloudBuild):
        return _build_in_cloud(scope, how, asset, decided, to)
    return _build_here(scope, how, asset, to)


def _build_arguments(asked: ImageAsked, decided: ImageDecision, lock: str | None) -> dict[str, str]:
    base, transformers = str(decided.base), str(asked.transformers)
    arguments = {"BASE_IMAGE": base, "TRANSFORMERS_VERSION": transformers}
    if asked.rebuild is not None:
        arguments["REBUILD"] = asked.rebuild
    if asked.model_types:
        arguments["MODEL_TYPES"] = ",".join(asked.model_types)
    if lock is not None:
        arguments["LOCK"] = lock
    if asked.server == "stock" and (along := check_stock_server(base, transformers).needs):
        arguments["STOCK_REQUIREMENTS"] = " ".join(along)
    return arguments


def _build_here(scope: Construct, how: LocalBuild, options: Mapping[str, Any], to: Destination) -> Built:
    """Build the image as a CDK asset, and copy it into the repository."""
    # Imported here, because the package unpacks 50 MB that stacks without a local build do not need.
    import cdk_ecr_deployment as ecr_deployment

    asset = assets.DockerImageAsset(scope, "Asset", build_secrets=how.secrets or None, outputs=how.outputs, **options)
    uri = to.repository.repository_uri_for_tag(asset.asset_hash)
    role = copy_role(scope)
    asset.repository.grant_pull(role)
    to.repository.grant_pull_push(role)
    copy = ecr_deployment.ECRDeployment(
        scope,
        "Copy",
        src=ecr_deployment.DockerImageName(asset.image_uri),
        dest=ecr_deployment.DockerImageName(uri),
        memory_limit=COPY_MEMORY_MIB,
        # Without policy updates, because the construct would allow access to every repository and bucket.
        role=role.without_policy_updates(),
    )
    copy.node.add_dependency(role)
    log_copies(scope)
    if to.copies_once:
        from extended_dlc.images.copy_once import copy_once

        copy_once(copy, role=role, repository=to.repository)
    return Built(uri=uri, ready=copy)


def _build_in_cloud(
    scope: Construct, how: CloudBuild, options: Mapping[str, Any], decided: ImageDecision, to: Destination
) -> Built:
    """Build the image with CodeBuild, which pushes it into the repository."""
    from extended_dlc.images.cloud_build import build_in_cloud

    built = build_in_cloud(
        scope,
        how,
        asset=options,
        base=str(decided.base),
        accelerator=decided.accelerator,
        repository=to.repository,
    )
    return Built(uri=to.repository.repository_uri_for_tag(built.tag), ready=built.ready, in_cloud=built)


def new_repository(scope: Construct, removal_policy: RemovalPolicy, *, immutable_tags: bool) -> ecr.Repository:
    """The repository of an image that was given none."""
    # Rollbacks and reverts run the copy again, and ECR refuses a second push to an immutable tag even of the same
    # digest (cdk-ecr-deployment#207): immutable tags need the function that skips such a copy.
    return ecr.Repository(
        scope,
        "Repository",
        image_scan_on_push=True,
        image_tag_mutability=ecr.TagMutability.IMMUTABLE if immutable_tags else ecr.TagMutability.MUTABLE,
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


def _build_context(family: Family) -> dict[str, Any]:
    """The build context of a family's Dockerfile, one for inference and vLLM. The training family's copies programs
    of the inference family, so its context is the folder above both, without the files that it does not copy.
    """
    if family != "training":
        return {"directory": str(docker_folder("inference"))}
    return {
        "directory": str(docker_folder(family).parent),
        "file": "training/Dockerfile",
        "exclude": list(TRAINING_CONTEXT),
        "ignore_mode": IgnoreMode.DOCKER,
    }


TRAINING_CONTEXT = (
    "*",
    "!inference",
    "inference/*",
    *(f"!inference/{name}" for name in ("install.py", "protected.txt", "prove.py", "bytecode.py", "tiny_models.py")),
    "!inference/extended_dlc_server",
    "inference/extended_dlc_server/*",
    *(f"!inference/extended_dlc_server/{name}.py" for name in ("__init__", "errors")),
    "!inference/extended_dlc_server/machine",
    "inference/extended_dlc_server/machine/*",
    *(f"!inference/extended_dlc_server/machine/{name}.py" for name in ("__init__", "secret")),
    "!training",
    *("training/README.md", "**/__pycache__", "**/*.pyc", "**/.mypy_cache", "**/.pytest_cache", "**/.ruff_cache"),
)
"""The exclusions of a training image's context, which is `docker/`, in .dockerignore syntax."""
