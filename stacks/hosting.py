"""The settings of how an endpoint is hosted, scales and is updated."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, model_validator

from extended_dlc.facts.checks import check_model_id, model_id
from extended_dlc.facts.instances import find_instance
from stacks.models import Environment, ModelId, ModelSettings
from stacks.sections import Mirror, Section, checked, kind_of, one_of


def _check_types(types: str | list[str]) -> None:
    for name in [types] if isinstance(types, str) else types:
        try:
            find_instance(name)
        except ValueError as error:
            raise ValueError(str(error) if isinstance(types, str) else f"'{name}' {error}") from None


InstanceType = Annotated[str | list[str], checked(_check_types)]


class ScheduledCapacitySettings(Mirror):
    """Limits of the capacity from a point in time on, until another takes over."""

    made: ClassVar[str] = "ScheduledCapacity"

    schedule: str
    """When, as `cron(0 8 ? * MON-FRI *)`, `rate(1 day)` or `at(2027-01-01T00:00:00)`."""

    minimum: int | None = None
    """The fewest from then on. Default: as before."""

    maximum: int | None = None
    """The most from then on. Default: as before."""

    timezone: str = "UTC"
    """IANA name of the time zone. Default: UTC."""


class _Scaling(Mirror):
    maximum: int
    """The most there may be."""

    minimum: int = 1
    """The fewest there may be."""

    scale_in_seconds: int = 300
    """How long to wait after a removal before the next, seconds."""

    scale_out_seconds: int = 300
    """How long to wait after an addition before the next, seconds."""

    schedules: list[ScheduledCapacitySettings] = []
    """Times at which the limits change. Default: none."""


class _RequestScaling(_Scaling):
    requests_per_second: float
    """How many requests a second one of them bears, from a load test."""

    safety_factor: float = 0.5
    """Which part of that to aim at, above 0 and at most 1."""


class InvocationScalingSettings(_RequestScaling):
    """Instances by the number of requests a minute that each gets."""

    made: ClassVar[str] = "InvocationScaling"
    kind: Literal["invocations"]


class CopyScalingSettings(_RequestScaling):
    """Copies of a component by the number of requests a minute that each gets, down to none with `minimum` 0."""

    made: ClassVar[str] = "CopyScaling"


class ConcurrencyScalingSettings(_Scaling):
    """Instances by the number of requests that each works on at a time."""

    made: ClassVar[str] = "ConcurrencyScaling"
    kind: Literal["concurrency"]

    concurrent_requests: float
    """How many requests at a time one instance is to work on."""


class BacklogScalingSettings(_Scaling):
    """Instances of an asynchronous endpoint by the requests that wait for each, down to none."""

    made: ClassVar[str] = "BacklogScaling"

    minimum: int = 0
    """The fewest there may be."""

    backlog_per_instance: float = 5
    """How many requests may wait for each instance."""


class ProvisionedScalingSettings(_Scaling):
    """The provisioned concurrency of a serverless endpoint by the part of it that is in use."""

    made: ClassVar[str] = "ProvisionedScaling"

    utilization: float = 0.7
    """Which part is to be in use, above 0 and at most 1."""


INSTANCE_SCALINGS: dict[str, type[Section]] = {
    "invocations": InvocationScalingSettings,
    "concurrency": ConcurrencyScalingSettings,
}

InstanceScalingSettings = Annotated[
    Annotated[InvocationScalingSettings, Tag("invocations")]
    | Annotated[ConcurrencyScalingSettings, Tag("concurrency")],
    one_of(INSTANCE_SCALINGS, kind_of("")),
]


class _Instances(Mirror):
    simple: ClassVar[frozenset[str]] = frozenset({"instance_type", "instances", "startup_timeout_seconds"})

    instance_type: InstanceType = "ml.m5.xlarge"
    """SageMaker's name of the instance type, or a list of up to five in order of preference. Default:
    `ml.m5.xlarge`."""

    instances: Annotated[int, Field(ge=1)] = 1
    """How many instances; with `scaling`, how many there are at first. Default: 1."""

    volume_gb: int | None = None
    """Size of each instance's volume, 1 to 512 GB. Default: from the model's size, where the type has a volume."""

    startup_timeout_seconds: Annotated[int, Field(ge=60, le=3600)] | None = None
    """How long a container may take to its first healthy answer, 60 to 3600 s. Default: from the model's size, 900
    where nobody knows it."""

    download_timeout_seconds: int | None = None
    """How long model data may take from S3 to the instance, 60 to 3600 s. Default: from the model's size."""


class VariantSettings(_Instances):
    """More instances behind a real-time endpoint, with a model or an instance type of their own."""

    made: ClassVar[str] = "Variant"
    resources: ClassVar[frozenset[str]] = frozenset({"model", "revision", "task", "model_type"})

    name: str
    """Its name, unique in the endpoint."""

    weight: float = 1
    """Its share of the requests, as a ratio to the weights of all."""

    model: Annotated[str, checked(lambda name: check_model_id(model_id(name)))] | None = None
    """Hub id of its model. Default: the endpoint's model."""

    revision: str | None = None
    """The model's commit, tag or branch. Default: what `main` points at when a container starts."""

    task: str | None = None
    """Name of the transformers pipeline. Default: inferred."""

    model_type: str | None = None
    """`model_type` in the model's config.json. Default: known by name for BLOOM and Whisper."""

    scaling: InstanceScalingSettings | None = None
    """How the number of its instances follows the load. Default: it does not."""

    def build(self, **given: Any) -> Any:
        """The variant with its model."""
        from extended_dlc import HubModel

        if self.model is not None:
            given["model"] = HubModel(self.model, self.revision, self.task, self.model_type)
        return super().build(**given)


class RealTimeSettings(_Instances):
    """Instances that run all the time."""

    made: ClassVar[str] = "RealTime"
    kind: Literal["real-time"] = "real-time"

    routing: Literal["least-outstanding-requests", "random"] | None = None
    """Which instance gets a request. Default: SageMaker's own choice."""

    scaling: InstanceScalingSettings | None = None
    """How the number of instances follows the load. Default: it does not."""

    weight: float = 1
    """The share of the requests where there are `variants`."""

    variants: list[VariantSettings] = []
    """More variants that take their shares of the requests. Default: none."""

    shadow: VariantSettings | None = None
    """A variant that gets a copy of the requests and whose answers nobody sees. Default: none."""


class AsyncSettings(_Instances):
    """Instances that take their requests from a queue, down to none."""

    made: ClassVar[str] = "Async"
    resources: ClassVar[frozenset[str]] = frozenset({"bucket", "success_topic", "error_topic"})
    kind: Literal["async"]

    scaling: BacklogScalingSettings | None = None
    """How the number of instances follows the queue. Default: it does not."""

    concurrency: int | None = None
    """How many requests an instance gets at a time, 1 to 1000. Default: SageMaker's choice."""

    bucket: str | None = None
    """Name of the bucket of requests and answers. Default: a new one."""

    expire_days: int | None = None
    """After how many days what is in the new bucket is deleted. Default: 30."""

    success_topic: str | None = None
    """ARN of a topic that is told of each answer, or `new`. Default: none."""

    error_topic: str | None = None
    """ARN of a topic that is told of each failure, or `new`. Default: none."""


class ServerlessSettings(Mirror):
    """Containers without GPU that SageMaker starts for requests."""

    made: ClassVar[str] = "Serverless"
    kind: Literal["serverless"]

    memory_mb: int = 6144
    """Memory of each container, 1024 to 6144 MB in steps of 1024."""

    max_concurrency: int = 5
    """How many requests are answered at a time, 1 to 200."""

    provisioned_concurrency: int | None = None
    """For how many of them containers are kept running. Default: none."""

    scaling: ProvisionedScalingSettings | None = None
    """How the provisioned concurrency follows the load. Default: it does not."""

    @property
    def instance_type(self) -> list[str]:
        """None."""
        return []


_OF_A_MODEL = frozenset(ModelSettings.model_fields) - {"environment"}


class ComponentSettings(ModelSettings, Mirror):
    """A model that shares the endpoint's instances, and what each copy of it reserves of one."""

    made: ClassVar[str] = "Component"
    resources: ClassVar[frozenset[str]] = _OF_A_MODEL

    model: ModelId | None = None  # type: ignore[assignment]  # only here it can be another's
    """Hub id of its model. Default: the endpoint's model, with all that is said of it there."""

    environment: Environment = {}
    """More environment variables for its container. Default: the endpoint's."""

    memory_mb: int
    """Memory that each copy reserves, 128 MB or more."""

    copies: int = 1
    """How many copies serve; with `scaling`, how many there are at first."""

    cpu_cores: float | None = None
    """Cores that each copy reserves, 0.25 or more. Default: none, and the copies share what there is."""

    accelerators: int | None = None
    """GPUs that each copy has for itself; required where the instance type has some. Default: none."""

    scaling: CopyScalingSettings | None = None
    """How the number of copies follows the load. Default: it does not."""

    @model_validator(mode="after")
    def _is_said_of_a_model(self) -> ComponentSettings:
        said = sorted(self.model_fields_set & _OF_A_MODEL - {"model"})
        if self.model is None and said:
            raise ValueError(
                f"'{said[0]}' is said of a model of its own: name it as 'model', or say it of the endpoint"
            )
        return self

    def build(self, **given: Any) -> Any:
        """The component; its key is its name, which it does not know."""
        return super().build(**{"name": "component", **given})


class ComponentsSettings(_Instances):
    """Instances that several models share; SageMaker adds and removes them as the copies of these need them."""

    made: ClassVar[str] = "Components"
    kind: Literal["components"]

    components: dict[str, ComponentSettings]
    """The models by their ids; a component's name is `<name>-<endpoint's id>-<id>`. One of them serves the endpoint's
    model."""

    maximum: int
    """The most instances there may be."""

    minimum: int = 1
    """The fewest there may be; 0 for none while no component has a copy."""

    def build(self, **given: Any) -> Any:
        """The hosting; without the components' models and full names, it is only good for being checked."""
        own = [each.build(name=key) for key, each in self.components.items()]
        return super().build(**{"components": own, **given})


HOSTINGS: dict[str, type[Section]] = {
    "real-time": RealTimeSettings,
    "async": AsyncSettings,
    "serverless": ServerlessSettings,
    "components": ComponentsSettings,
}

hosting_kind = kind_of("real-time")

HostingSettings = Annotated[
    Annotated[RealTimeSettings, Tag("real-time")]
    | Annotated[AsyncSettings, Tag("async")]
    | Annotated[ServerlessSettings, Tag("serverless")]
    | Annotated[ComponentsSettings, Tag("components")],
    one_of(HOSTINGS, hosting_kind),
]


class _Rollout(Mirror):
    alarms: list[str] = []
    """Names of alarms that roll an update back, 10 at most. Default: none."""

    bake_seconds: int = 300
    """How long the alarms are watched after each step, 0 to 3600 s."""

    timeout_seconds: int | None = None
    """How long the whole update may take, 600 to 28800 s. Default: SageMaker's own."""


class AllAtOnceSettings(_Rollout):
    """All requests go to a second fleet at once."""

    made: ClassVar[str] = "AllAtOnce"
    kind: Literal["all-at-once"]

    keep_old_seconds: int = 0
    """How long the first fleet is kept after the last request to it, 0 to 3600 s."""


class CanarySettings(_Rollout):
    """A small part of the requests goes to the second fleet; the rest follows when it has baked."""

    made: ClassVar[str] = "Canary"
    kind: Literal["canary"]

    keep_old_seconds: int = 0
    """How long the first fleet is kept after the last request to it, 0 to 3600 s."""

    percent: int = 10
    """The small part, 1 to 50 % of the capacity."""


class LinearSettings(_Rollout):
    """The requests go to the second fleet in equal steps."""

    made: ClassVar[str] = "Linear"
    kind: Literal["linear"]

    keep_old_seconds: int = 0
    """How long the first fleet is kept after the last request to it, 0 to 3600 s."""

    percent: int = 25
    """One step, 10 to 50 % of the capacity."""


class RollingSettings(_Rollout):
    """Instances are replaced a batch at a time."""

    made: ClassVar[str] = "Rolling"
    kind: Literal["rolling"]

    percent: int = 25
    """One batch, 5 to 50 % of the capacity."""

    rollback_percent: int | None = None
    """One batch of a rollback, 5 to 100 %. Default: all at once."""


ROLLOUTS: dict[str, type[Section]] = {
    "all-at-once": AllAtOnceSettings,
    "canary": CanarySettings,
    "linear": LinearSettings,
    "rolling": RollingSettings,
}

RolloutSettings = Annotated[
    Annotated[AllAtOnceSettings, Tag("all-at-once")]
    | Annotated[CanarySettings, Tag("canary")]
    | Annotated[LinearSettings, Tag("linear")]
    | Annotated[RollingSettings, Tag("rolling")],
    one_of(ROLLOUTS, kind_of("")),
]


class DataCaptureSettings(Mirror):
    """Requests and answers that SageMaker writes to S3 as they come."""

    made: ClassVar[str] = "DataCapture"
    resources: ClassVar[frozenset[str]] = frozenset({"bucket"})

    sampling_percent: int = 100
    """Which part of the requests, 1 to 100 %."""

    capture: list[Literal["input", "output"]] = ["input", "output"]
    """What of each. Default: both."""

    bucket: str | None = None
    """Name of the bucket. Default: a new one."""

    expire_days: int | None = None
    """After how many days what is in the new bucket is deleted. Default: 30."""


class NetworkSettings(Section):
    """A VPC that the containers are in."""

    vpc: str
    """Id of the VPC, as `vpc-0123`."""

    subnets: Annotated[list[str], Field(min_length=1, max_length=16)]
    """Ids of its subnets, two or more in different zones."""

    security_groups: Annotated[list[str], Field(max_length=5)] = []
    """Ids of the security groups. Default: a new one that lets nothing in and everything out."""
