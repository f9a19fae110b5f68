"""The images of endpoints: `ExtendedDlc`, `StockDlc` and `EcrImage`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import jsii
from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from constructs import Construct, IDependable, IValidation

from extended_dlc.constructs.platform_rules import check_own_image
from extended_dlc.decisions.asked import EndpointAsked, ImageAsked
from extended_dlc.decisions.decide import Decision, decide
from extended_dlc.decisions.found import Note
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.facts.compat import Family, Server
from extended_dlc.facts.instances import Instance
from extended_dlc.images.build import Destination, build_image, new_repository
from extended_dlc.images.decided import annotate, model_asked, notes_of_image, refuse, region_of
from extended_dlc.images.places import PULL, Registry, check_region_of, is_within_reach
from extended_dlc.images.published import PublishedImage
from extended_dlc.models.model import ServedModel
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, require_known
from extended_dlc.options.build import Build, LocalBuild
from extended_dlc.options.hosting import RealTime, Serverless
from extended_dlc.options.lock import read_lock
from extended_dlc.options.sharing import facts_of_parameter

if TYPE_CHECKING:
    from extended_dlc.images.cloud_build import CloudBuilt
    from extended_dlc.images.parameter import NamedImage

_CHECKED = "models and instances are checked against it"


class ExtendedDlc(Construct):
    """A Deep Learning Container extended with a transformers release and, unless told otherwise, our server.

    Builds the Dockerfile of its family, in `docker/inference` or `docker/training`, as a `DockerImageAsset` and copies
    it under its content hash into an ECR repository of its own, where no clean-up of the bootstrap repository reaches
    it. One image serves any number of endpoints, or of training jobs.
    """

    _built: CloudBuilt | None = None
    _decided: ImageDecision | None = None
    _published: PublishedImage | None = None

    @check_types
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
        lock: str | None = None,
        build: Build | None = None,
        repository: ecr.IRepository | None = None,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
        immutable_tags: bool = False,
    ) -> None:
        """Define the image.

        :param transformers: The exact release to install, as `5.23.0`. ValueError for anything else, and for a release
            that the base or the server cannot carry, with the nearest pair that works.
        :param base: Reference of the image to extend: a DLC, or a mirror of one in a registry of your own. A digest or
            a tag that ends in `-vM.m` stays what it is; any other is annotated, because AWS patches the image behind it
            without a change of the hash. Default: the newest Hugging Face PyTorch inference DLC that can carry the
            release, for the accelerator; an annotation says why.
        :param base_region: Region of the registry that the default base is pulled from. ValueError where the DLC is not
            published. Default: the stack's region, us-east-1 where the template does not say it.
        :param family: `inference`, or `vllm` for text models over several GPUs, with vLLM's own server and OpenAI's
            requests; `training` for a `TrainingJob`, which no endpoint takes. ValueError where it contradicts `base`,
            `accelerator` or `server`. Default: what the base says;
            without `base` and `accelerator` vLLM where the model of the first endpoint generates text and is too large
            for one of its instance's GPUs, which an annotation says; otherwise `inference`.
        :param accelerator: What the instances compute with. Default: what the base's tag says, otherwise what the
            instance type of the first endpoint that uses the image has.
        :param server: `native`, this project's own, or `stock`, the one in the base. Default: native.
        :param model_types: Model types, as `bloom`, that the image promises to know: the build fails when its
            transformers does not. ValueError for one that is known to be missing. Default: none.
        :param rebuild: Any text; a new one builds the image again although nothing else changed, which picks up a base
            that was patched in place. Default: none.
        :param lock: A file that `extended-dlc lock` wrote and that you commit: what is installed, by version and hash.
            ValueError for one that is no lock, or of another release. Default: what pip chooses
            when the image is built.
        :param build: Where the image is built: `LocalBuild` or `CloudBuild`. Default: `LocalBuild()`, by Docker on this
            machine.
        :param repository: The repository to publish to; the one who gives it decides about its tags and its life cycle.
            Default: a new one, scanned on push, mutable tags, untagged images expire after 14 days, tagged ones never.
        :param removal_policy: What happens to the new repository when it leaves the stack. `DESTROY` deletes the images
            with it. Default: it is retained.
        :param immutable_tags: Whether no tag of the new repository can be pushed to again, as Security Hub's ECR.2 asks
            for; what is there already is then not copied again. ValueError with `repository`, whose own setting counts.
            Default: tags are mutable.
        """
        super().__init__(scope, construct_id)
        check_own_image(self)
        _require_known(transformers=transformers, base=base, base_region=base_region, rebuild=rebuild)
        _require_known(model_types=model_types)
        self.transformers = transformers
        self._asked = ImageAsked(
            kind="extended",
            key=self.node.path,
            transformers=transformers,
            base=base,
            base_region=base_region,
            family=family,
            accelerator=accelerator,
            server=server,
            model_types=tuple(sorted(model_types)),
            rebuild=rebuild,
        )
        self._lock = read_lock(lock, transformers) if lock is not None else None
        self._build: Build = build or LocalBuild()
        self._unasked: dict[str, Any] = {
            **{"lock": lock, "build": build},
            **{"removal_policy": removal_policy, "immutable_tags": immutable_tags},
        }
        """The options that are not in `asked`, for the same image in another region or account."""
        self._copies_once = immutable_tags or repository is not None
        decision = decide(self._asked, [], region=region_of(self))
        refuse(decision)
        self.repository: ecr.IRepository = _repository(self, repository, removal_policy, immutable_tags=immutable_tags)
        if base is not None or decision.image.accelerator is not None:  # a training image always has one
            self._publish(decision.image, decision.notes)
        self.node.add_validation(_IsPublished(self))

    @property
    def asked(self) -> ImageAsked:
        """The options as input of `decide`; the first endpoint decides on family and accelerator left out."""
        return self._asked

    @property
    def image_uri(self) -> str:
        """Reference of the published image, tagged with its content hash."""
        return self._require_published().uri

    @property
    def ready(self) -> IDependable | None:
        """A dependency on it waits until the image is in its repository."""
        return self._require_published().ready

    @property
    def decided(self) -> ImageDecision:
        """The decision for the image: its base, its family, its CUDA."""
        self._require_published()
        assert self._decided is not None  # noqa: S101 - set together with _published
        return self._decided

    @property
    def cloud_build(self) -> CloudBuilt | None:
        """The build in CodeBuild; None where the image is built on this machine."""
        self._require_published()
        return self._built

    @check_types
    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image."""
        return self.repository.grant_pull(grantee)

    def publish_for(self, scope: Construct, *, instance: Instance, model: ServedModel) -> PublishedImage:
        """The image for an endpoint; ValueError where it was built for another accelerator or cannot load the model."""
        decision = _decide_for(self._asked, scope, instance, model)
        annotate(scope, notes_of_image(decision.notes, None))
        return self.publish_decided(scope, decision.image, decision.notes)

    def publish_decided(self, scope: Construct, decided: ImageDecision, notes: Iterable[Note] = ()) -> PublishedImage:
        """The image for an endpoint whose decision is made; the first endpoint decides what the options left out."""
        if self._published is None:
            is_open = self._asked.family is None and self._asked.server == "native"
            self._asked = replace(
                self._asked,
                family=decided.family,
                accelerator=decided.accelerator,
                settled_for=scope.node.path if is_open else None,
            )
            self._publish(decided, notes)
        published = self._require_published()
        return published if is_within_reach(self, scope) else _twin_beside(self, scope, published)

    def _require_published(self) -> PublishedImage:
        if self._published is None:
            raise ValueError(_UNPUBLISHED.format(path=self.node.path))
        return self._published

    def _publish(self, decided: ImageDecision, notes: Iterable[Note]) -> None:
        annotate(self, notes_of_image(notes, self._asked.key))
        self._decided = decided
        to = Destination(repository=self.repository, copies_once=self._copies_once)
        built = build_image(self, self._asked, decided, how=self._build, lock=self._lock, to=to)
        self._built = built.in_cloud
        self._published = PublishedImage(
            uri=built.uri,
            ready=built.ready,
            cuda=decided.cuda,
            logs_requests=decided.is_native,
            family=decided.family,
        )


def _require_known(**options: object) -> None:
    for option, value in options.items():
        require_known(option, value, "the image is built before CloudFormation is asked")


def _repository(
    scope: Construct, given: ecr.IRepository | None, removal_policy: RemovalPolicy, *, immutable_tags: bool
) -> ecr.IRepository:
    if given is None:
        return new_repository(scope, removal_policy, immutable_tags=immutable_tags)
    if immutable_tags:
        raise OptionError("immutable_tags", rule="is for the new repository: set it on the one that you pass")
    return given


def _twin_beside(image: ExtendedDlc, scope: Construct, published: PublishedImage) -> PublishedImage:
    """The same image in the stack of an endpoint in another region or account, where SageMaker pulls from."""
    stack, key = Stack.of(scope), f"{image.node.id}{image.node.addr[-8:]}"
    twin = stack.node.try_find_child(key)
    if not isinstance(twin, ExtendedDlc):
        same = ("transformers", "family", "accelerator", "server", "model_types", "rebuild")
        options = {name: getattr(image.asked, name) for name in same}
        twin = ExtendedDlc(stack, key, base=str(image.decided.base), **options, **image._unasked)
    return replace(published, uri=twin.image_uri, ready=twin.ready, pulled_from=twin.repository)


class StockDlc:
    """A Deep Learning Container as AWS publishes it, with its stock server.

    It serves the models that its transformers release knows; SageMaker pulls it from AWS's own registry.
    """

    @check_types
    def __init__(self, *, transformers: str | None = None, base: str | None = None, region: str | None = None) -> None:
        """Name the image.

        :param transformers: Release of transformers in the image, as `4.51.3`. ValueError for a release that AWS has
            published no image with, with those it has. Default: the newest.
        :param base: Reference of the image itself, as of a mirror; instead of `transformers`. Default: AWS's image of
            `transformers`.
        :param region: Region of the registry that it is pulled from. Default: the endpoint's.
        """
        require_known("transformers", transformers, _CHECKED)
        require_known("region", region, _CHECKED)
        self.asked: ImageAsked = ImageAsked(
            kind="stock", key=f"stock/{id(self)}", transformers=transformers, base=base, base_region=region
        )
        refuse(decide(self.asked, [], region=None))
        self._pulled: list[str] = []
        """The ARNs of the repositories of all images published so far."""

    def publish_for(self, scope: Construct, *, instance: Instance, model: ServedModel) -> PublishedImage:
        """The image for an endpoint; ValueError where its transformers cannot load the model."""
        decision = _decide_for(self.asked, scope, instance, model)
        annotate(scope, decision.notes)
        return self.publish_decided(scope, decision.image)

    def publish_decided(self, scope: Construct, decided: ImageDecision, notes: Iterable[Note] = ()) -> PublishedImage:
        """The image for an endpoint for which `decide` has been asked."""
        base = str(decided.base)
        registry = Registry.of_dlcs(scope) if decided.any_region else Registry.of(base)
        if registry is not None:
            base = f"{registry.host}/{base.partition('/')[2]}"
            self._pulled.append(registry.repository_arn(base))
        return PublishedImage(uri=base, cuda=decided.cuda)

    @check_types
    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the images that were published for endpoints so far."""
        arns = list(dict.fromkeys(self._pulled))
        if not arns:
            return iam.Grant.drop(grantee, "a registry without AWS's permissions")
        iam.Grant.add_to_principal(grantee=grantee, actions=["ecr:GetAuthorizationToken"], resource_arns=["*"])
        return iam.Grant.add_to_principal(grantee=grantee, actions=list(PULL), resource_arns=arns)


class EcrImage:
    """An image that is in an ECR repository already, published by another stack, another account or by hand."""

    @check_types
    def __init__(
        self,
        repository: ecr.IRepository | NamedImage,
        tag_or_digest: str,
        *,
        accelerator: Literal["cpu", "gpu"] | None = None,
        cuda: str | None = None,
        family: Family | None = None,
        transformers: str | None = None,
    ) -> None:
        """Name the image.

        :param repository: Where it is, as `ecr.Repository.from_repository_arn(…)` for another account's. That account
            has to let yours pull.
        :param tag_or_digest: A tag, or a digest that begins with `sha256:`. With a tag, an image that is pushed to it
            later reaches no running endpoint.
        :param accelerator: What it computes with. Default: not known, and not checked.
        :param cuda: Its CUDA, as `cu124`, which decides on the driver of the host. Default: SageMaker's own driver.
        :param family: Its family, which decides on variables and on who answers. Default: not known.
        :param transformers: The release in it, as `5.24.0`: ValueError for an endpoint with a model that it does not
            have. Default: not known, and not checked.
        """
        for option, value in {
            "accelerator": accelerator,
            "cuda": cuda,
            "family": family,
            "transformers": transformers,
        }.items():
            require_known(option, value, _CHECKED)
        self._repository = repository
        self._tag_or_digest = tag_or_digest
        self.asked: ImageAsked = ImageAsked(
            kind="ecr",
            key=f"ecr/{id(self)}",
            accelerator=accelerator,
            cuda=cuda,
            family=family,
            transformers=transformers,
        )

    @staticmethod
    @check_types
    def from_parameter(
        scope: Construct,
        construct_id: str,
        parameter: str,
        *,
        accelerator: Literal["cpu", "gpu"] | None = None,
        cuda: str | None = None,
        family: Family | None = None,
        transformers: str | None = None,
        repository: str | None = None,
    ) -> EcrImage:
        """The image that a parameter of Systems Manager names, read by each deployment: it follows the parameter.

        :param parameter: Name of the parameter, or its ARN where another account shares it. The names that `ImageStack`
            gives say what is in the image, `/images/text/inference/5.24.0/cu124`, so that an endpoint is checked
            against it.
        :param accelerator: As of `EcrImage`. ValueError where the parameter's name says something else. Default: what
            the name says.
        :param cuda: As `accelerator`.
        :param family: As `accelerator`.
        :param transformers: As `accelerator`.
        :param repository: Name of the image's repository, which the endpoint's role may pull from. Default: the one
            that the parameter's name says, otherwise each of the registry.
        """
        from extended_dlc.images.parameter import NamedImage

        said = {"accelerator": accelerator, "cuda": cuda, "family": family, "transformers": transformers}
        facts = facts_of_parameter(parameter, said)
        return EcrImage(NamedImage.of_parameter(scope, construct_id, parameter, repository), "", **facts)

    @staticmethod
    @check_types
    def from_lookup(
        scope: Construct,
        construct_id: str,
        parameter: str,
        *,
        accelerator: Literal["cpu", "gpu"] | None = None,
        cuda: str | None = None,
        family: Family | None = None,
        transformers: str | None = None,
        repository: str | None = None,
    ) -> EcrImage:
        """The image that a parameter of Systems Manager names now, noted in `cdk.context.json`: it stays until you run
        `cdk context --reset`.

        The stack needs an account and a region that are known at synth. The options are those of `from_parameter`.

        :param parameter: Name of the parameter in the stack's account and region. ValueError for an ARN.
        :param accelerator: As of `from_parameter`.
        :param cuda: As of `from_parameter`.
        :param family: As of `from_parameter`.
        :param transformers: As of `from_parameter`.
        :param repository: As of `from_parameter`.
        """
        from extended_dlc.images.parameter import NamedImage

        said = {"accelerator": accelerator, "cuda": cuda, "family": family, "transformers": transformers}
        facts = facts_of_parameter(parameter, said)
        return EcrImage(NamedImage.looked_up(scope, construct_id, parameter, repository), "", **facts)

    def publish_for(self, scope: Construct, *, instance: Instance, model: ServedModel) -> PublishedImage:
        """The image for an endpoint; ValueError where it was built for another accelerator."""
        decision = _decide_for(self.asked, scope, instance, model)
        annotate(scope, decision.notes)
        return self.publish_decided(scope, decision.image)

    def publish_decided(self, scope: Construct, decided: ImageDecision, notes: Iterable[Note] = ()) -> PublishedImage:
        """The image for an endpoint for which `decide` has been asked."""
        check_region_of(self._repository, scope)
        uri = self._repository.repository_uri_for_tag_or_digest(self._tag_or_digest)
        return PublishedImage(uri=uri, cuda=decided.cuda, family=self.asked.family)

    @check_types
    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image."""
        return self._repository.grant_pull(grantee)


def _decide_for(asked: ImageAsked, scope: Construct, instance: Instance, model: ServedModel) -> Decision:
    """The decision for one model on one type of instance."""
    serverless = instance.name == "serverless"
    hosting = Serverless(memory_mb=instance.memory_mib or 6144) if serverless else RealTime(instance_type=instance.name)
    endpoint = EndpointAsked(model=model_asked(scope, model), image=asked, hosting=hosting)
    decision = decide(asked, [endpoint], region=region_of(scope))
    refuse(decision)
    return decision


_UNPUBLISHED = (
    "image '{path}' is used by no endpoint and does not know its accelerator: pass accelerator='cpu' or 'gpu', or "
    "define an endpoint that uses it before you ask for its URI"
)


@jsii.implements(IValidation)
class _IsPublished:
    """Reports an image that no endpoint uses: it would silently not be built."""

    def __init__(self, image: ExtendedDlc) -> None:
        self._image = image

    def validate(self) -> list[str]:
        """An error for an unpublished image."""
        return [] if self._image._published else [_UNPUBLISHED.format(path=self._image.node.path)]
