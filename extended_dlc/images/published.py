"""What an endpoint or a training asks of its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from constructs import Construct, IDependable

from extended_dlc.facts.compat import Family
from extended_dlc.facts.gpus import cuda_version
from extended_dlc.options._values import require

if TYPE_CHECKING:
    from extended_dlc.facts.instances import Instance
    from extended_dlc.models.model import ServedModel


@dataclass(frozen=True, kw_only=True)
class PublishedImage:
    """An image in a registry that SageMaker pulls from."""

    uri: str
    """Reference of the image, with its tag or digest."""

    ready: IDependable | None = None
    """What must exist before a SageMaker Model names the image. Default: the image exists already."""

    cuda: str | None = None
    """The image's CUDA, such as `cu124`, which decides on the driver of the host. Default: none, or not known."""

    logs_requests: bool = False
    """Whether its server logs each request as a line of JSON (docker/inference/README.md). Default: not known."""

    family: Family | None = None
    """The family of its server, which decides on the request format and the variables. Default: not known."""

    pulled_from: ecr.IRepository | None = None
    """The repository that grants the pull, where it is not the image's own. Default: the image grants it."""

    def __post_init__(self) -> None:
        """Refuse a CUDA that no host image could be chosen by."""
        if self.cuda is not None:
            require("cuda", self.cuda, cuda_version)


class Pulled(Protocol):
    """The object that grants the pull of an image: the image itself, or its repository."""

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image."""
        ...


class ServingImage(Pulled, Protocol):
    """The interface that an endpoint needs of its image: any class with `publish_for` and `grant_pull`."""

    def publish_for(self, scope: Construct, *, instance: Instance, model: ServedModel) -> PublishedImage:
        """The image for an endpoint on this type of instance; ValueError where it cannot serve `model` there."""
        ...
