"""Which image serves an endpoint: `ExtendedDlc`, `StockDlc` or `EcrImage`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import jsii
from aws_cdk import Annotations, Duration, RemovalPolicy
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as assets
from aws_cdk import aws_iam as iam
from constructs import Construct, IDependable, IValidation

from extended_dlc._copy_role import copy_role, log_copies
from extended_dlc._model_facts import model_facts
from extended_dlc._private import any_partition, decide, docker_folder, is_token, place_of, require
from extended_dlc.build import LocalBuild
from extended_dlc.facts.catalog import VLLM, DlcImage, TagFacts, is_moving, read_tag, repository_of
from extended_dlc.facts.checks import check_release
from extended_dlc.facts.compat import (
    Family,
    Server,
    bases_for,
    check_model_type,
    check_pair,
    check_stock_server,
    check_vllm,
    pick_base,
    pick_vllm,
)
from extended_dlc.facts.gpus import check_gpu
from extended_dlc.facts.instances import Instance, check_image_runs_on
from extended_dlc.facts.stock import pick_stock
from extended_dlc.facts.tasks import check_task
from extended_dlc.login import ecr_registries
from extended_dlc.model import ServedModel
from extended_dlc.vllm import why_vllm

COPY_MEMORY_MIB = 3008
"""Memory of the function that copies the image: the most that a new account may ask for (Lambda quotas). The function
streams layers of a 10 GB image through it, and Lambda's network and processor shares grow with memory."""


@dataclass(frozen=True, kw_only=True)
class PublishedImage:
    """An image in a registry that SageMaker pulls from."""

    uri: str
    ready: IDependable | None = None
    """What must exist before SageMaker is told of the image. Default: it is there already."""

    cuda: str | None = None
    """The image's CUDA, as `cu124`, which decides on the driver of the host. Default: none, or not known."""

    logs_requests: bool = False
    """Whether its server logs each request as a line of JSON (docker/inference/README.md). Default: not known."""

    family: Family | None = None
    """Which family's server answers: this decides on requests and variables. Default: not known."""


class ServingImage(Protocol):
    """What an endpoint needs of its image; any class with these two methods will do."""

    def publish_for(self, scope: Construct, *, instance: Instance, model: ServedModel) -> PublishedImage:
        """The image for an endpoint on this type of instance; ValueError where it cannot serve `model` there."""
        ...

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image."""
        ...


class ExtendedDlc(Construct):
    """A Deep Learning Container extended with a transformers release and, unless told otherwise, our server.

    Builds `docker/inference/Dockerfile`, or `docker/vllm/Dockerfile` for the vLLM family, as a `DockerImageAsset` and
    copies it under its content hash into an ECR repository of its own, where no clean-up of the bootstrap repository
    reaches it. One image serves any number of endpoints.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        transformers: str,
        base: str | None = None,
        base_region: str | None = None,
        family: Family | None = None,
        accelerator: Literal["cpu", "gpu"] | None = None,
        server: Server = "native",
        model_types: Sequence[str] = (),
        rebuild: str | None = None,
        build: LocalBuild | None = None,
        repository: ecr.IRepository | None = None,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        """Define the image.

        :param transformers: The exact release to install, as `5.23.0`. ValueError for anything else, and for a release
            that the base or the server cannot carry, with the nearest pair that works.
        :param base: Reference of the image to extend: a DLC, or a mirror of one in a registry of your own. A digest or
            a tag that ends in `-vM.m` stays what it is; any other is annotated, because AWS patches the image behind it
            without a change of the hash. Default: the newest Hugging Face PyTorch inference DLC that can carry the
            release, for the accelerator; an annotation says why.
        :param base_region: Region of the registry that the default base is pulled from. ValueError where the DLC is not
            published. Default: the stack's region, which must then be known at synth.
        :param family: `inference`, or `vllm` for text models over several GPUs, with vLLM's own server and OpenAI's
            requests. ValueError where it contradicts `base`, `accelerator` or `server`. Default: what the base says;
            without `base` and `accelerator` vLLM where the model of the first endpoint generates text and is too large
            for one of its instance's GPUs, which an annotation says; otherwise `inference`.
        :param accelerator: What the instances compute with. Default: what the base's tag says, otherwise what the
            instance type of the first endpoint that uses the image has.
        :param server: `native`, this project's own, or `stock`, the one in the base. Default: native.
        :param model_types: Model types, as `bloom`, that the image promises to know: the build fails when its
            transformers does not. ValueError for one that is known to be missing. Default: none.
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
        tag = None
        is_vllm = base is not None and repository_of(base) == VLLM
        self._family: Family | None = family or ("vllm" if is_vllm else "inference" if base or accelerator else None)
        if server == "stock":
            self._family = self._family or "inference"
        if self._family == "vllm":
            _refuse_with_vllm(accelerator, server)
            accelerator = "gpu"
        elif is_vllm:
            raise ValueError(
                f"'family' ({family}) contradicts base '{base}', which is of the vLLM family: leave it out"
            )
        if base is not None:

            def check_base(reference: str = base) -> tuple[str, ...]:
                if self._family == "vllm":
                    return check_vllm(reference, transformers)
                return check_pair(reference, transformers, server)

            self._annotate(decide("transformers", transformers, check_base))
            tag = read_tag(base)
        if tag is not None and accelerator not in (None, tag.accelerator):
            raise ValueError(
                f"'accelerator' ({accelerator}) contradicts base '{base}', which is built for {tag.accelerator}: "
                "take the other base, or leave accelerator= out"
            )
        self.transformers = transformers
        self._base = base
        self._base_region = base_region
        self._accelerator = tag.accelerator if tag else accelerator
        self._server = server
        self._rebuild = rebuild
        for model_type in model_types:
            check_model_type(model_type, transformers)
        self._model_types = sorted(model_types)
        self._build = build or LocalBuild()
        self._published: PublishedImage | None = None
        self._tag = tag
        self.repository = repository or self._new_repository(removal_policy)
        if base is not None or self._accelerator is not None:
            self._published = self._publish()
        self.node.add_validation(_IsPublished(self))

    @property
    def image_uri(self) -> str:
        """Reference of the published image, tagged with its content hash."""
        return self._require_published().uri

    @property
    def ready(self) -> IDependable | None:
        """Depend on it to wait until the image is in its repository."""
        return self._require_published().ready

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image."""
        return self.repository.grant_pull(grantee)

    def publish_for(self, scope: Construct, *, instance: Instance, model: ServedModel) -> PublishedImage:
        """The image for an endpoint; ValueError where it was built for another accelerator or cannot load the model."""
        require("instance_type", instance.name, lambda _: check_image_runs_on(instance, self._accelerator))
        if model.model_type is not None:
            check_model_type(model.model_type, self.transformers)
        if self._server == "stock":
            _refuse_secret(model)
        if self._family is None:
            self._family = self._pick_family(scope, model, instance)
        if self._family == "inference":
            _check_task(scope, model, self.transformers, self._server)
        if self._published is None:
            self._accelerator = "gpu" if instance.accelerator == "gpu" else "cpu"
            self._published = self._publish()
        bases = partial(bases_for, self.transformers, self._family or "inference", self._server)
        _check_gpu(scope, instance, self._tag, bases)
        return self._published

    def _pick_family(self, scope: Construct, model: ServedModel, instance: Instance) -> Family:
        why = why_vllm(model, model_facts(scope, model), instance)
        if why is None:
            return "inference"
        try:
            pick_vllm(self.transformers, _known_region(self, self._base_region))
        except ValueError as error:
            Annotations.of(self).add_warning_v2(
                "extended-dlc:family", f"{why}; but transformers {self.transformers} {error}: the native server it is"
            )
            return "inference"
        Annotations.of(self).add_info_v2("extended-dlc:family", why)
        return "vllm"

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
        # loaded with the first image that is built: the package unpacks 50 MB that other stacks never need
        import cdk_ecr_deployment as ecr_deployment

        base = self._base or self._default_base()
        if is_moving(base) and self._rebuild is None:
            Annotations.of(self).add_warning_v2(
                "extended-dlc:moving-base",
                f"base '{base}' can change without a change of the image's hash: give a digest or a -vM.m tag, or a "
                "rebuild= text that you change when the base was patched",
            )
        arguments = {"BASE_IMAGE": base, "TRANSFORMERS_VERSION": self.transformers}
        if self._rebuild is not None:
            arguments["REBUILD"] = self._rebuild
        if self._model_types:
            arguments["MODEL_TYPES"] = ",".join(self._model_types)
        if self._server == "stock" and (along := check_stock_server(base, self.transformers).needs):
            arguments["STOCK_REQUIREMENTS"] = " ".join(along)
        asset = assets.DockerImageAsset(
            self,
            "Asset",
            directory=str(docker_folder(self._family or "inference")),
            target=None if self._server == "native" else self._server,
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
        log_copies(self)
        self._tag = read_tag(base)
        return PublishedImage(
            uri=uri,
            ready=copy,
            cuda=self._tag.cuda if self._tag else None,
            logs_requests=self._server == "native" and self._family != "vllm",
            family=self._family,
        )

    def _default_base(self) -> str:
        region = _known_region(self, self._base_region)
        choice = decide(
            "transformers",
            self.transformers,
            lambda: (
                pick_vllm(self.transformers, region)
                if self._family == "vllm"
                else pick_base(self.transformers, str(self._accelerator), region, server=self._server)
            ),
        )
        Annotations.of(self).add_info_v2("extended-dlc:base", choice.why)
        self._annotate(choice.notes)
        return choice.uri

    def _annotate(self, notes: Iterable[str]) -> None:
        for number, note in enumerate(notes):
            Annotations.of(self).add_warning_v2(f"extended-dlc:pair-{number}", note)


class StockDlc:
    """A Deep Learning Container as AWS publishes it, with its stock server.

    It serves the models that its transformers release knows; SageMaker pulls it from AWS's own registry.
    """

    def __init__(self, *, transformers: str | None = None, base: str | None = None, region: str | None = None) -> None:
        """Name the image.

        :param transformers: Release of transformers in the image, as `4.51.3`. ValueError for a release that AWS has
            published no image with, with those it has. Default: the newest.
        :param base: Reference of the image itself, as of a mirror; instead of `transformers`.
        :param region: Region of the registry that it is pulled from. Default: the endpoint's.
        """
        if transformers is not None and base is not None:
            raise ValueError(
                f"'transformers' ({transformers}) and 'base' ({base}) both name the image: give one of them"
            )
        self._transformers = transformers
        self._base = base
        self._region = region
        self._pulled: list[str] = []

    def publish_for(self, scope: Construct, *, instance: Instance, model: ServedModel) -> PublishedImage:
        """The image for an endpoint; ValueError where its transformers cannot load the model."""
        uri = self._base or self._published_by_aws(scope, instance)
        tag = read_tag(uri)
        require(
            "instance_type", instance.name, lambda _: check_image_runs_on(instance, tag.accelerator if tag else None)
        )
        _refuse_secret(model)
        injected = model.code.release_on_stock(uri) if model.code else None
        if injected is not None and model.model_type is not None:
            check_model_type(model.model_type, injected)
        elif tag is not None and tag.transformers is not None and model.model_type is not None:
            check_model_type(model.model_type, tag.transformers, image=uri.rpartition("/")[2])
        _check_task(scope, model, tag.transformers if tag else None, "stock")
        _check_gpu(scope, instance, tag, partial(bases_for, None, "inference", "stock"))
        self._pulled.append(uri)
        return PublishedImage(uri=uri, cuda=tag.cuda if tag else None)

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the images that endpoints asked for so far."""
        arns = [
            f"arn:{any_partition()}:ecr:{registry.region}:{registry.account}:repository/{_repository(uri)}"
            for uri in dict.fromkeys(self._pulled)
            for registry in ecr_registries([uri])
        ]
        if not arns:
            return iam.Grant.drop(grantee, "a registry without AWS's permissions")
        iam.Grant.add_to_principal(grantee=grantee, actions=["ecr:GetAuthorizationToken"], resource_arns=["*"])
        pull = ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]
        return iam.Grant.add_to_principal(grantee=grantee, actions=pull, resource_arns=arns)

    def _published_by_aws(self, scope: Construct, instance: Instance) -> str:
        region = _known_region(scope, self._region)
        accelerator = "gpu" if instance.accelerator == "gpu" else "cpu"
        return pick_stock(self._transformers, accelerator, region).uri(region)


class EcrImage:
    """An image that is in an ECR repository already, published by another stack, another account or by hand."""

    def __init__(
        self,
        repository: ecr.IRepository,
        tag_or_digest: str,
        *,
        accelerator: Literal["cpu", "gpu"] | None = None,
        cuda: str | None = None,
    ) -> None:
        """Name the image.

        :param repository: Where it is, as `ecr.Repository.from_repository_arn(…)` for another account's. That account
            has to let yours pull.
        :param tag_or_digest: A tag, or a digest that begins with `sha256:`. With a tag, an image that is pushed to it
            later reaches no running endpoint.
        :param accelerator: What it computes with. Default: not known, and not checked.
        :param cuda: Its CUDA, as `cu124`, which decides on the driver of the host. Default: SageMaker's own driver.
        """
        self._repository = repository
        self._tag_or_digest = tag_or_digest
        self._accelerator = accelerator
        self._cuda = cuda

    def publish_for(self, scope: Construct, *, instance: Instance, model: ServedModel) -> PublishedImage:
        """The image for an endpoint; ValueError where it was built for another accelerator."""
        require("instance_type", instance.name, lambda _: check_image_runs_on(instance, self._accelerator))
        if self._cuda is not None:
            _annotate_gpu(scope, require("instance_type", instance.name, lambda _: self._check_cuda(instance)))
        elif instance.gpus:
            Annotations.of(scope).add_warning_v2(
                "extended-dlc:cuda",
                "nothing says which CUDA the image has, so SageMaker's own driver is used, with which images for CUDA "
                "12 and newer do not start on several types: give cuda=, as cu124",
            )
        uri = self._repository.repository_uri_for_tag_or_digest(self._tag_or_digest)
        return PublishedImage(uri=uri, cuda=self._cuda)

    def _check_cuda(self, instance: Instance) -> tuple[str, ...]:
        return check_gpu(instance, cuda=self._cuda, torch=None)

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image."""
        return self._repository.grant_pull(grantee)


def _known_region(scope: Construct, given: str | None) -> str:
    region = given or place_of(scope).region
    if is_token(region):
        raise ValueError(
            "the region of AWS's image must be known at synth: give the stack an env with a region, or name the region "
            "with base_region= (ExtendedDlc) or region= (StockDlc), or the image itself with base="
        )
    return region


def _check_gpu(scope: Construct, instance: Instance, tag: TagFacts | None, bases: Callable[[], list[DlcImage]]) -> None:
    """Refuse GPUs that the image cannot drive, with the nearest type and the newest base that does."""
    if tag is None or not instance.gpus:
        return
    region = place_of(scope).region
    known = None if is_token(region) else region
    check = partial(check_gpu, instance, cuda=tag.cuda, torch=tag.torch, bases=bases, region=known)
    _annotate_gpu(scope, decide("instance_type", instance.name, check))


def _annotate_gpu(scope: Construct, notes: Iterable[str] | None) -> None:
    for number, note in enumerate(notes or ()):
        Annotations.of(scope).add_warning_v2(f"extended-dlc:gpu-{number}", note)


def _check_task(scope: Construct, model: ServedModel, transformers: str | None, server: Server) -> None:
    """Refuse a task that the server is known not to have, unless code of the user's own serves the model."""
    task = model.task
    if task is None or model.code is not None:
        return
    note = require("task", task, lambda _: check_task(task, transformers, server))
    if note is not None:
        Annotations.of(scope).add_warning_v2("extended-dlc:task", note)


def _refuse_with_vllm(accelerator: str | None, server: Server) -> None:
    for option, value, wrong in (("accelerator", accelerator, "cpu"), ("server", server, "stock")):
        if value == wrong:
            raise ValueError(
                f"'{option}' ({value}) does not go with the vLLM family, whose own server computes with GPUs: leave it "
                'out, or take family="inference"'
            )


def _refuse_secret(model: ServedModel) -> None:
    if model.token is not None:
        raise ValueError(
            "the model's token is a secret that the stock server does not read: take the native server "
            "(ExtendedDlc(transformers=…)), or let MirroredModel copy the weights with it"
        )


def _repository(uri: str) -> str:
    return uri.partition("/")[2].partition("@")[0].partition(":")[0]


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
