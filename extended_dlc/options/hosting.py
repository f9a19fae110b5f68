"""How an endpoint is hosted: `RealTime`, `Async`, `Serverless` or `Components`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from extended_dlc.facts.checks import check_endpoint_name
from extended_dlc.facts.instances import Instance, find_instance
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import (
    OptionError,
    check_fleet,
    instance_names,
    is_token,
    refuse_all,
    require,
    require_known,
    within,
    within_limit,
)
from extended_dlc.options.capture import check_expiry
from extended_dlc.options.placement import Consolidation, Placement, PrefixAware, RoutingStrategy, check_routing
from extended_dlc.options.scaling import (
    BacklogScaling,
    ConcurrencyScaling,
    CopyConcurrencyScaling,
    CopyScaling,
    InvocationScaling,
    ProvisionedScaling,
)

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_sns as sns

    from extended_dlc.images.published import ServingImage
    from extended_dlc.models.model import ServedModel

DEFAULT_INSTANCE_TYPE = "ml.m5.xlarge"
"""4 vCPU and 16 GiB without a GPU, which small models run on."""

DEFAULT_STARTUP_TIMEOUT_SECONDS = 900

MAIN_VARIANT = "AllTraffic"
"""Name of the first production variant: what SageMaker's own SDK calls it, so dashboards and scripts fit."""

_NAMES_CONSTRUCTS = "the ids of its constructs are made from it"


@dataclass(frozen=True, kw_only=True)
class Instances:
    """Instances that serve a model: what `RealTime`, `Async` and `Variant` have in common.

    In a stack, `instance_type` takes `ec2.InstanceType` too, and CDK tokens, of which nothing is checked.
    """

    instance_type: str | ec2.InstanceType | Sequence[str | ec2.InstanceType] = DEFAULT_INSTANCE_TYPE
    """SageMaker's name of the instance type, or up to five in order of preference: SageMaker takes the next where it is
    short of one. Default: `ml.m5.xlarge`. ValueError for a type it does not host on, and for types that do not compute
    with the same kind of accelerator."""

    instances: int = 1
    """How many instances serve, 1 or more; with `scaling`, how many there are at first. Default: one."""

    volume_gb: int | None = None
    """Size of the volume of each instance, 1 to 512 GB. ValueError for a type with storage of its own, which has no
    volume. Default: the model's size and 30 GB, SageMaker's choice where nobody knows it."""

    startup_timeout_seconds: int | None = None
    """How long a container may take from its start, a download from the Hub included, to its first healthy `/ping`; 60
    to 3600 s (SageMaker API, `ContainerStartupHealthCheckTimeoutInSeconds`). Default: from the model's size, 900 s
    where nobody knows it."""

    download_timeout_seconds: int | None = None
    """How long model data may take from S3 to the instance, 60 to 3600 s (SageMaker API,
    `ModelDataDownloadTimeoutInSeconds`). Default: from the model's size, SageMaker's own where nobody knows it."""

    capacity_reservation: str | None = None
    """ARN of a reservation of SageMaker's ML capacity, on which alone the instances then run (SageMaker API,
    ProductionVariantCapacityReservationConfig). ValueError for the ARN of something else. Default: none."""

    provision_timeout_seconds: int | None = None
    """How long SageMaker may look for instances of the types, 300 to 3600 s (SageMaker API, ProductionVariant,
    `VariantInstanceProvisionTimeoutInSeconds`). Default: SageMaker's own."""

    ssm_access: bool = False
    """Whether Systems Manager has access to the instances, for a shell in a container that misbehaves (SageMaker API,
    ProductionVariant, `EnableSSMAccess`; developer guide, "Access containers through SSM"). The account has to be
    allowed it by AWS's support, and SageMaker then patches and replaces the instances a day later. Default: it has
    none."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        names = instance_names(self.instance_type)
        object.__setattr__(self, "instance_type", names[0] if len(names) == 1 else names)
        found = [each for name in self.instance_types if (each := require("instance_type", name, find_instance))]
        within_limit(
            "instance_type", len(self.instance_types), "variant.instance_types", "name the likeliest to be had"
        )
        check_fleet(self.instance_types, found, "serves")
        if not is_token(self.instances) and self.instances < 1:
            raise OptionError("instances", self.instances, "must be 1 or more: delete the endpoint to run none")
        within_limit(
            "volume_gb", self.volume_gb, "volume_gb", "a larger model needs a type with storage of its own, as ml.g5"
        )
        with_storage = [each.name for each in found if each.local_storage_gb]
        if self.volume_gb is not None and with_storage:
            raise OptionError(
                "volume_gb",
                self.volume_gb,
                f"cannot be chosen for {with_storage[0]}, which has storage of its own "
                "instead of a volume: leave it out",
            )
        way_out = "a model that needs longer has to come from S3 instead of the Hub"
        within_limit("startup_timeout_seconds", self.startup_timeout_seconds, "startup_timeout_seconds", way_out)
        within_limit(
            "download_timeout_seconds",
            self.download_timeout_seconds,
            "download_timeout_seconds",
            "take an uncompressed model",
        )
        within_limit(
            "provision_timeout_seconds",
            self.provision_timeout_seconds,
            "provision_timeout_seconds",
            "name more types, of which one may be had sooner",
        )
        if self.capacity_reservation is not None:
            require("capacity_reservation", self.capacity_reservation, _check_reservation)

    @property
    def instance_types(self) -> tuple[str, ...]:
        """The instance types, the preferred one first."""
        return instance_names(self.instance_type)


InstanceScaling = InvocationScaling | ConcurrencyScaling
"""What the instances of a real-time endpoint may scale on."""

CopiesScaling = CopyScaling | CopyConcurrencyScaling
"""What the copies of a component may scale on."""


@check_types
@dataclass(frozen=True, kw_only=True)
class Variant(Instances):
    """More instances behind a real-time endpoint, with their own model, image or instance type."""

    name: str
    """Its name, unique in the endpoint: callers may ask for it as `TargetVariant`."""

    weight: float = 1
    """Its share of the requests, as a ratio to the weights of all; 0 for none but those that ask for it. Default: 1."""

    model: ServedModel | None = None
    """The model that it serves. Default: the endpoint's."""

    image: ServingImage | None = None
    """Its image. Default: the endpoint's."""

    environment: Mapping[str, str] | None = None
    """More environment variables for its container. Default: the endpoint's."""

    scaling: InstanceScaling | None = None
    """The scaling of its instances. Default: none."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        super().__post_init__()
        require_known("name", self.name, _NAMES_CONSTRUCTS)
        require("name", self.name, check_endpoint_name)
        if self.name == MAIN_VARIANT:
            raise OptionError("name", self.name, "is the endpoint's own first variant: choose another")
        _check_weight(self.weight)
        _check_scaling(self, self.scaling)


@check_types
@dataclass(frozen=True, kw_only=True)
class RealTime(Instances):
    """Instances that run all the time and answer each request within 60 s."""

    routing: RoutingStrategy | PrefixAware | None = None
    """Which instance gets a request: the one with the fewest unanswered; any; or, with `PrefixAware`, the one that got
    others that begin alike. Default: SageMaker's own, any."""

    scaling: InstanceScaling | None = None
    """The scaling of the instances. Default: none."""

    weight: float = 1
    """The share of the requests where there are `variants`, as a ratio to the weights of all. Default: 1."""

    variants: Sequence[Variant] = ()
    """More variants that take their shares of the requests, 9 at most. Default: none."""

    shadow: Variant | None = None
    """A variant that gets a copy of the requests and whose answers nobody sees. ValueError with `variants`. Default:
    none."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        super().__post_init__()
        check_routing(self.routing)
        _check_weight(self.weight)
        _check_scaling(self, self.scaling)
        names = [each.name for each in self.variants]
        within_limit("variants", 1 + len(names), "endpoint.variants", "make another endpoint of some")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise OptionError("variants", rule=f"has two of the name '{twice}': rename one")
        if self.shadow is not None and self.variants:
            raise OptionError(
                "shadow", self.shadow.name, "needs an endpoint of one variant: remove 'variants', or the shadow"
            )
        if self.shadow is not None and self.shadow.scaling is not None:
            raise OptionError(
                "scaling",
                rule=f"of the shadow ({self.shadow.name}): a shadow has its number of instances; set 'instances'",
            )


@check_types
@dataclass(frozen=True, kw_only=True)
class Async(Instances):
    """Instances that take their requests from a queue: up to 1 GB from S3, up to an hour each, down to no instance."""

    scaling: BacklogScaling | None = None
    """The scaling of the instances by the queue. Default: none."""

    concurrency: int | None = None
    """How many requests an instance gets at a time, 1 to 1000. Default: SageMaker's choice."""

    bucket: s3.IBucket | None = None
    """Where requests, answers and failures are, under `ENDPOINT/input/`, `ENDPOINT/output/` and `ENDPOINT/failure/`.
    Default: a new one, encrypted, kept when the stack is deleted."""

    expire_days: int | None = None
    """Days after which objects in the new bucket are deleted. ValueError with `bucket`. Default: 30."""

    success_topic: sns.ITopic | Literal["new"] | None = None
    """Topic that gets a message for each answer, or `"new"` for a new topic. Default: none."""

    error_topic: sns.ITopic | Literal["new"] | None = None
    """Topic that gets a message for each failure, or `"new"` for a new topic. Default: none."""

    answers_in_topics: bool = False
    """Whether the topics get the answers too, beside where these are in S3 (SageMaker API,
    AsyncInferenceNotificationConfig, `IncludeInferenceResponseIn`). ValueError without a topic. Default: they do
    not."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        super().__post_init__()
        _check_scaling(self, self.scaling)
        within_limit("concurrency", self.concurrency, "async.concurrency", "add instances")
        check_expiry(self.bucket, self.expire_days)
        for option in ("success_topic", "error_topic"):
            if isinstance(topic := getattr(self, option), str) and topic != "new":
                raise OptionError(option, topic, "must be a topic, or 'new' for one of the endpoint's own")
        if self.answers_in_topics and self.success_topic is None and self.error_topic is None:
            raise OptionError("answers_in_topics", "True", "needs a topic: name success_topic or error_topic")


@check_types
@dataclass(frozen=True, kw_only=True)
class Serverless:
    """Containers without GPU that SageMaker starts for requests and bills by the time of each: 4 MB and 60 s at most.

    Its image may have 10 GB. There is no VPC, no isolation, no data capture and no second variant.
    """

    memory_mb: int = 6144
    """Memory of each container, 1024 to 6144 MB in steps of 1024. Default: 6144, because transformers and torch alone
    take more than one."""

    max_concurrency: int = 5
    """The number of concurrent requests, 1 to 200. Default: 5."""

    provisioned_concurrency: int | None = None
    """For how many of them containers are kept running, at most `max_concurrency`. Default: none, and the first request
    waits for its container."""

    scaling: ProvisionedScaling | None = None
    """The scaling of the provisioned concurrency. Default: none."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        within_limit("memory_mb", self.memory_mb, "serverless.memory_mb", _MORE_MEMORY)
        if not is_token(self.memory_mb) and self.memory_mb % 1024:
            raise OptionError("memory_mb", self.memory_mb, f"must be a multiple of 1024: {_MORE_MEMORY}")
        within_limit(
            "max_concurrency", self.max_concurrency, "serverless.concurrency", "RealTime and Async have no such limit"
        )
        if self.provisioned_concurrency is not None:
            way_out = "raise max_concurrency, or lower it"
            within("provisioned_concurrency", self.provisioned_concurrency, 1, self.max_concurrency, way_out)
        if self.scaling is not None:
            if self.provisioned_concurrency is None:
                raise OptionError(
                    "scaling",
                    rule="changes the provisioned concurrency, and there is none: set provisioned_concurrency",
                )
            within("scaling.maximum", self.scaling.maximum, 1, self.max_concurrency, "raise max_concurrency")
            _check_between(self.scaling, "provisioned_concurrency", self.provisioned_concurrency)


@check_types
@dataclass(frozen=True, kw_only=True)
class Component:
    """A model of `Components`, and what each copy of it takes of an instance (an inference component)."""

    name: str
    """Its name, unique in the account and region: callers say it as `InferenceComponentName`."""

    memory_mb: int
    """Memory that each copy reserves, 128 MB or more."""

    copies: int = 1
    """How many copies serve, 1 or more; with `scaling`, how many there are at first. Default: one."""

    cpu_cores: float | None = None
    """Cores that each copy reserves, 0.25 or more. Default: none, and the copies share what there is."""

    accelerators: int | None = None
    """GPUs that each copy has for itself. ValueError without, where the instance type has some. Default: none."""

    model: ServedModel | None = None
    """The model that it serves. Default: the endpoint's."""

    image: ServingImage | None = None
    """Its image. Default: the endpoint's."""

    environment: Mapping[str, str] | None = None
    """More environment variables for its container. Default: the endpoint's."""

    startup_timeout_seconds: int | None = None
    """How long a copy may take from its start to its first healthy `/ping`, 60 to 3600 s. Default: the endpoint's."""

    download_timeout_seconds: int | None = None
    """How long model data may take from S3 to the instance, 60 to 3600 s. Default: the endpoint's."""

    scaling: CopiesScaling | None = None
    """The scaling of the copies. Default: none."""

    cached: bool | None = None
    """Whether instances keep the image and the model's data, so that more copies start sooner (SageMaker API,
    InferenceComponentDataCacheConfig). Default: SageMaker's own."""

    placement: Placement | None = None
    """How the copies are placed on the instances. Default: SageMaker's own."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        require_known("name", self.name, _NAMES_CONSTRUCTS)
        require("name", self.name, check_endpoint_name)
        within("copies", self.copies, 1, None, "a component is made with a copy; CopyScaling takes it to none later")
        within("memory_mb", self.memory_mb, 128, None, "it is what a copy reserves, and SageMaker's least")
        within("cpu_cores", self.cpu_cores, 0.25, None, "leave it out to reserve no core")
        within("accelerators", self.accelerators, 1, None, "leave it out where the instance type has none")
        for option in ("startup_timeout_seconds", "download_timeout_seconds"):
            within_limit(option, getattr(self, option), option, "a model that needs longer has to be made smaller")
        if self.scaling is not None:
            _check_between(self.scaling, "copies", self.copies)


@check_types
@dataclass(frozen=True, kw_only=True)
class Components(Instances):
    """Instances that several models share; SageMaker adds and removes instances as the copies of these need them."""

    components: Sequence[Component]
    """The models, one or more; the first is the endpoint's own where it names no other."""

    maximum: int
    """The maximum number of instances."""

    minimum: int = 1
    """The minimum number of instances; with 0 the endpoint has none while no component has a copy. Default: 1."""

    routing: RoutingStrategy | PrefixAware = "least-outstanding-requests"
    """Which copy gets a request, as with `RealTime`. Default: that with the fewest unanswered requests."""

    consolidation: Consolidation | None = None
    """How copies are moved together so that instances can be removed. Default: only instances without a copy are."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        super().__post_init__()
        if len(self.instance_types) > 1:
            raise OptionError(
                "instance_type",
                ", ".join(self.instance_types),
                "must be one type, because components reserve parts of it: name one",
            )
        check_routing(self.routing)
        within("minimum", self.minimum, 0, self.maximum, "raise maximum or lower minimum")
        within("instances", self.instances, max(self.minimum, 1), self.maximum, "it is how many there are at first")
        if not self.components:
            raise OptionError("components", "none", "must be one or more: an endpoint without a model answers nothing")
        names = [each.name for each in self.components]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise OptionError("components", rule=f"has two of the name '{twice}': rename one")
        (instance,) = find_instances(self)
        refuse_all(error for each in self.components for error in _without_room(each, instance))


def _without_room(component: Component, instance: Instance) -> Iterator[OptionError]:
    """What a copy asks for that no instance has."""
    if instance.accelerators and component.accelerators is None:
        yield OptionError(
            f"components.{component.name}.accelerators",
            "none",
            f"must be from 1 to {instance.accelerators} on {instance.name}: a copy without sees no accelerator",
        )
    for option, has in (
        ("accelerators", instance.accelerators),
        ("cpu_cores", instance.vcpu),
        ("memory_mb", instance.memory_mib),
    ):
        asked = getattr(component, option)
        if has is not None and asked is not None and not is_token(asked) and asked > has:
            yield OptionError(
                f"components.{component.name}.{option}",
                asked,
                f"is more than {instance.name} has ({has}): take less, or a larger type",
            )


Hosting = RealTime | Async | Serverless | Components
"""The kinds of hosting."""

_MORE_MEMORY = "a model that needs more runs on instances, as RealTime or Async"


def _check_reservation(arn: str) -> None:
    if not arn.startswith("arn:") or arn.split(":")[2:3] != ["sagemaker"]:
        raise ValueError(
            "is no ARN of SageMaker's: write that of the reservation, as aws sagemaker list-training-plans says it"
        )


def _check_weight(weight: float) -> None:
    if not is_token(weight) and weight < 0:
        raise OptionError("weight", weight, "must be 0 or more: 0 for a variant that gets no share")


def _check_scaling(hosting: Instances, scaling: InstanceScaling | BacklogScaling | None) -> None:
    if scaling is None:
        return
    burstable = [name for name in hosting.instance_types if name.startswith("ml.t")]
    if burstable:  # SageMaker developer guide, "Automatic scaling of Amazon SageMaker AI models", prerequisites
        raise OptionError(
            "scaling",
            rule=f"does not go with {burstable[0]}: SageMaker does not scale burstable types; take an ml.m type",
        )
    _check_between(scaling, "instances", hosting.instances)


def _check_between(
    scaling: InstanceScaling | BacklogScaling | ProvisionedScaling | CopiesScaling, option: str, value: int
) -> None:
    low, high = max(scaling.minimum, 1), scaling.maximum
    if not any(map(is_token, (low, high, value))) and not low <= value <= high:
        raise OptionError(
            option, value, f"must be between what 'scaling' may choose ({low} to {high}): change one of them"
        )


def _unknown(name: str) -> Instance:
    """What stands for an instance type that CloudFormation knows later."""
    return Instance(name=name, accelerator="unknown", architecture="x86_64", vcpu=None, memory_mib=None)


def find_instances(hosting: Instances | Serverless) -> list[Instance]:
    """What it computes with: each of its instance types, or a stand-in for what SageMaker runs serverless on."""
    if isinstance(hosting, Serverless):
        return [
            Instance(
                name="serverless",
                accelerator="cpu",
                architecture="x86_64",
                vcpu=None,
                memory_mib=None if is_token(hosting.memory_mb) else hosting.memory_mb,
            )
        ]
    return [_unknown(name) if is_token(name) else find_instance(name) for name in hosting.instance_types]
