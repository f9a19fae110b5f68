"""What the app's settings may hold. The options are the library's, described there; here is what the app adds to them.

What an option takes that only the CDK has (a bucket, a role) is named in the settings by its name or ARN; `app/stacks/`
looks it up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from extended_dlc.app.aws_names import check_bucket, check_region, check_stack_name
from extended_dlc.app.described import described
from extended_dlc.app.section import Section, Sections, by_id, checked, kind_of, one_of
from extended_dlc.facts.checks import check_commit, check_endpoint_name, check_model_id, check_tags, model_id
from extended_dlc.options._values import OptionError, require
from extended_dlc.options.code import InferenceCode
from extended_dlc.options.placement import RoutingStrategy
from extended_dlc.options.sharing import IMAGE_FACTS, facts_of_parameter

HOSTINGS = {"real-time": "RealTime", "async": "Async", "serverless": "Serverless", "components": "Components"}
SCALINGS = {"invocations": "InvocationScaling", "concurrency": "ConcurrencyScaling"}
COPY_SCALINGS = {"invocations": "CopyScaling", "concurrency": "CopyConcurrencyScaling"}
ROLLOUTS = {"all-at-once": "AllAtOnce", "canary": "Canary", "linear": "Linear", "rolling": "Rolling"}
BUILDS = {"local": "LocalBuild", "cloud": "CloudBuild"}
SCHEDULES = {"office-hours": "OfficeHours", "by-hand": "ByHand"}

SECTIONS = Sections(
    names={
        "AlarmName": str,
        "HyperParameter": str | int | float | bool,
        "DAY_SECONDS": 24 * 3600,
        "DEFAULT_TRAINING_TYPE": "ml.g5.xlarge",
        "ContainerAlarmName": str,
        "RoutingStrategy": RoutingStrategy,
        "Interval": Literal[10, 30, 60, 120, 180, 240, 300],
        "Family": Literal["inference", "vllm", "training"],
        "Server": Literal["native", "stock"],
        "LogRetention": str,
        "COOLDOWN_SECONDS": 300,
    },
    kinds={
        "Hosting": HOSTINGS,
        "InstanceScaling": SCALINGS,
        "CopiesScaling": COPY_SCALINGS,
        "Rollout": ROLLOUTS,
        "Schedule": SCHEDULES,
        "Build": BUILDS,
    },
    defaults={
        "Hosting": "real-time",
        "CopiesScaling": "invocations",
        "Schedule": "office-hours",
        "image": "extended",
        "Build": "local",
    },
)

# A model.


def _folder(path: str) -> None:
    if not Path(path).is_dir():
        raise ValueError("is not a folder: correct the path, or leave the option out")


Folder = Annotated[str, checked(_folder)]
BucketName = Annotated[str, checked(check_bucket)]
ModelId = Annotated[str, AfterValidator(model_id), checked(check_model_id)]


class HubWeights(Section):
    """The container downloads the model from the Hub when it starts."""

    kind: Literal["hub"] = "hub"

    token_secret: str | None = None
    """Name or ARN of the Secrets Manager secret with the Hub's token, for a private or gated model. Default: none."""

    code: Folder | None = None
    """A folder with `inference.py`, `requirements.txt` or both, taken along beside the weights. Default: none."""

    requirements: list[str] = Field(default_factory=list)
    """Requirements that are installed when a container starts, as `["pydub"]`. Default: none."""

    @model_validator(mode="after")
    def _checked_code(self) -> HubWeights:
        self.inference_code()
        return self

    def inference_code(self) -> InferenceCode | None:
        """The code and the requirements; None without either."""
        given = self.code or self.requirements
        return InferenceCode(self.code, requirements=self.requirements) if given else None


class MirroredWeights(Section):
    """The deployment copies the model from the Hub to S3, once; containers need neither the Hub nor a network."""

    kind: Literal["mirrored"]

    token_secret: str | None = None
    """Name or ARN of the secret with the Hub's token, which the copy reads. Default: none."""

    bucket: BucketName | None = None
    """Name of the bucket. Default: `extended-dlc-models-ACCOUNT-REGION`, made by the first copy."""

    project: str | None = None
    """Name of the CodeBuild project that copies. Default: a new one."""

    timeout_minutes: Annotated[int, Field(ge=10, le=480)] = 360
    """How long the copy may take."""


class S3Weights(Section):
    """The model is in S3 already; `model` only names it."""

    kind: Literal["s3"]

    bucket: BucketName
    """Name of the bucket."""

    key: str
    """Key of a `.tar.gz`, or the prefix of the files, which ends in `/`."""

    @model_validator(mode="after")
    def _checked_key(self) -> S3Weights:
        from extended_dlc.options.weights import check_key

        check_key(self.key)
        return self


class LocalWeights(Section):
    """The model is in a folder of this machine, packed and uploaded by the deployment; `model` only names it."""

    kind: Literal["local"]

    folder: Folder
    """The folder, with `config.json` at its top, at most 2 GiB."""

    @model_validator(mode="after")
    def _checked_folder(self) -> LocalWeights:
        from extended_dlc.options.weights import files_of

        files_of(Path(self.folder))
        return self


WEIGHTS: Mapping[str, type[Section]] = {
    "hub": HubWeights,
    "mirrored": MirroredWeights,
    "s3": S3Weights,
    "local": LocalWeights,
}

_TEXTS = {option.name: option.text for option in described("models.model", "HubModel")}


class ModelSection(Section):
    """A model: which one, where its files come from, and what its container is told."""

    model: ModelId
    """Hub id of the model; `bloom` and `whisper` stand for bigscience/bloom-560m and openai/whisper-base."""

    weights: one_of(WEIGHTS, kind_of("hub")) = HubWeights()  # type: ignore[valid-type]
    """Where its files come from, by its `kind`. Default: `hub`, the container downloads them."""

    revision: str | None = Field(default=None, description=_TEXTS["revision"])
    task: str | None = Field(default=None, description=_TEXTS["task"])
    model_type: str | None = Field(default=None, description=_TEXTS["model_type"])
    parameters: Annotated[int, Field(ge=1)] | None = Field(default=None, description=_TEXTS["parameters"])
    trust_remote_code: bool = Field(default=False, description=_TEXTS["trust_remote_code"])

    @model_validator(mode="after")
    def _commit_of_a_mirror(self) -> ModelSection:
        if isinstance(self.weights, MirroredWeights):
            try:
                check_commit(self.revision or "")
            except ValueError as error:
                raise OptionError("revision", self.revision, str(error)) from None
        return self


OF_A_MODEL = frozenset(ModelSection.model_fields)


class OwnModelSection(ModelSection):
    """A variant or component, which may have a model of its own."""

    model: ModelId | None = Field(  # type: ignore[assignment]  # only here it can be another's
        default=None,
        description="Hub id of its model. Default: the endpoint's model, with all that is said of it there.",
    )

    @model_validator(mode="after")
    def _is_said_of_a_model(self) -> OwnModelSection:
        said = sorted(self.model_fields_set & OF_A_MODEL - {"model"})
        if self.model is None and said:
            raise OptionError(
                said[0], rule="is said of a model of its own: name it as 'model', or say it of the endpoint"
            )
        return self


# The hosting.

_make = SECTIONS.make


def _named(what: str, check: Callable[[str], None] | None = None) -> tuple[Any, Any]:
    """A setting with the name or ARN of an AWS resource."""
    return Annotated[str, checked(check) if check else Field()] | None, Field(default=None, description=what)


def _topic(topic: str) -> None:
    if topic != "new" and not topic.startswith("arn:"):
        raise ValueError("must be the ARN of a topic, or 'new' for one of the endpoint's own")


_make("options.scaling", "ScheduledCapacity")
for _kind, _name in SCALINGS.items():
    _make("options.scaling", _name, kind=_kind)
for _kind, _name in COPY_SCALINGS.items():
    _make("options.scaling", _name, kind=_kind)
for _name in ("BacklogScaling", "ProvisionedScaling"):
    _make("options.scaling", _name)
for _name in ("PrefixAware", "Placement", "Consolidation"):
    _make("options.placement", _name)
Variant = _make(
    "options.hosting",
    "Variant",
    base=OwnModelSection,
    without=("model", "image"),
    found=tuple(OF_A_MODEL),
)
_make("options.hosting", "RealTime", kind="real-time")
_make(
    "options.hosting",
    "Async",
    kind="async",
    instead={
        "bucket": _named("Name of the bucket of requests and answers. Default: a new one.", check_bucket),
        "success_topic": _named("ARN of a topic that is told of each answer, or `new`. Default: none.", _topic),
        "error_topic": _named("ARN of a topic that is told of each failure, or `new`. Default: none.", _topic),
    },
    found=("bucket", "success_topic", "error_topic"),
)
_make("options.hosting", "Serverless", kind="serverless")
Component = _make(
    "options.hosting",
    "Component",
    base=OwnModelSection,
    without=("name", "model", "image"),
    found=tuple(OF_A_MODEL),
)
Component.unnamed = {"name": "component"}
_make(
    "options.hosting",
    "Components",
    kind="components",
    instead={
        "components": (
            by_id(Component, check_endpoint_name),
            Field(
                description="The models by their ids; a component's name is `<name>-<endpoint's id>-<id>`. One of them "
                "serves the endpoint's model."
            ),
        )
    },
)

# What else an endpoint has.

for _kind, _name in ROLLOUTS.items():
    _make("options.rollout", _name, kind=_kind)
for _kind, _name in SCHEDULES.items():
    _make("options.schedule", _name, kind=_kind)
_make("options.vllm", "VllmServing")
_make(
    "options.capture",
    "DataCapture",
    instead={"bucket": _named("Name of the bucket. Default: a new one.", check_bucket)},
    found=("bucket",),
)
_make("options.monitoring", "Metrics")
_make(
    "options.monitoring",
    "Monitoring",
    instead={
        "alarm_topic": _named("ARN of the topic that is told of alarms, or `new`. Default: none.", _topic),
        "log_key": _named(
            "ARN of the key for the log, whose policy lets CloudWatch Logs use it. Default: CloudWatch's own."
        ),
        "topic_key": _named("ARN of the key for the new topic, whose policy lets CloudWatch use it. Default: none."),
    },
    found=("alarm_topic", "log_key", "topic_key"),
)
Proof = _make("options.proof", "Proof")


class Network(Section):
    """A VPC that the containers are in."""

    vpc: str
    """Id of the VPC, as `vpc-0123`."""

    subnets: Annotated[list[str], Field(min_length=1, max_length=16)]
    """Ids of its subnets, two or more in different zones."""

    security_groups: Annotated[list[str], Field(max_length=5)] = Field(default_factory=list)
    """Ids of the security groups. Default: a new one that lets nothing in and everything out."""


def _verification(raw: Any) -> str:
    return "switch" if isinstance(raw, bool) else "proof"


_VERIFY = Annotated[Annotated[Proof, Tag("proof")] | Annotated[bool, Tag("switch")], Discriminator(_verification)]  # type: ignore[valid-type]

Endpoint = _make(
    "endpoint.endpoint",
    "HuggingFaceEndpoint",
    base=ModelSection,
    without=("model", "image", "endpoint_name", "schedule"),
    instead={
        "verify": (
            _VERIFY,
            Field(
                default_factory=lambda: Proof.model_validate({"optional": True}),
                description="What proves each deployment: a request, as `{}`; with `true` only that SageMaker can run "
                "the image and serves the configuration that was deployed, which a request includes; `false`: "
                'nothing. Default: `{"optional": true}`, a request where one is known for the model.',
            ),
        ),
        "network": (
            Network | None,
            Field(default=None, description="The VPC of its containers. Default: SageMaker's own, with the internet."),
        ),
        "encryption_key": _named(
            "ARN of the key for volumes, captured data, asynchronous answers and new topics. Default: AWS's own keys."
        ),
        "role": _named("ARN of the role of its containers, which you grant what they need. Default: a new one."),
        "permissions_boundary": _named("ARN of the policy that bounds the new roles. Default: none."),
    },
    found=(*OF_A_MODEL, "network", "encryption_key", "role", "permissions_boundary", "verify"),
)

# The image.

_make("options.build", "LocalBuild", kind="local")
_make("options.build", "AllowedFinding")
_make("options.build", "ScanGate")
_make(
    "options.build",
    "CloudBuild",
    kind="cloud",
    instead={
        "network": (
            Network | None,
            Field(
                default=None,
                description="The VPC that the build runs in, with endpoints of ECR and S3 or a way to the internet. "
                "Default: CodeBuild's own, with the internet.",
            ),
        ),
        "pip_config": _named("Name or ARN of the secret whose text is a pip configuration file. Default: none."),
        "role": _named("ARN of the role of the build, which you grant what it needs. Default: a new one."),
        "project": _named("Name of the CodeBuild project that builds. Default: a new one."),
        "records": _named(
            "Name of the bucket that keeps a bill of materials of each image that is built. Default: none; the stack "
            "of a platform's images has its own.",
            check_bucket,
        ),
    },
    found=("network", "pip_config", "role", "project", "records"),
)


class _NamedImage(Section):
    """An image by its repository, or by a parameter that names it."""

    @model_validator(mode="after")
    def _is_named_once(self) -> _NamedImage:
        image: Any = self
        if image.parameter is not None:
            said = next((name for name in ("repository", "tag") if getattr(image, name) is not None), None)
            if said is not None:
                raise OptionError(said, getattr(image, said), "and 'parameter' both name the image: give one of them")
            facts_of_parameter(image.parameter, {name: getattr(image, name) for name in IMAGE_FACTS})
        elif missing := next((name for name in ("repository", "tag") if getattr(image, name) is None), None):
            raise OptionError(missing, rule="is required, unless 'parameter' names the image")
        return self


IMAGES: Mapping[str, type[Section]] = {
    "extended": _make("images.image", "ExtendedDlc", kind="extended", without=("repository", "removal_policy")),
    "stock": _make("images.image", "StockDlc", kind="stock", renamed={"region": "base_region"}),
    "ecr": _make(
        "images.image",
        "EcrImage",
        kind="ecr",
        instead={
            "repository": (
                str | None,
                Field(
                    default=None,
                    description="Name of the repository in the same account and region, or the ARN of another's.",
                ),
            ),
            "tag": (
                str | None,
                Field(default=None, description="A tag, or a digest that begins with `sha256:`."),
            ),
            "parameter": (
                str | None,
                Field(
                    default=None,
                    description="Instead of both: name or ARN of the parameter of Systems Manager that names the "
                    "image, as an `ImageStack` makes them; each deployment follows it.",
                ),
            ),
        },
        without=("tag_or_digest",),
        found=("repository", "tag", "parameter"),
        base=_NamedImage,
    ),
}


# A training.


class S3Channel(Section):
    """Files in S3 that a training finds in a folder."""

    kind: Literal["s3"] = "s3"

    bucket: BucketName
    """Name of the bucket."""

    prefix: str
    """The part of the files' keys before their names, which ends in `/`."""

    @model_validator(mode="after")
    def _checked_prefix(self) -> S3Channel:
        from extended_dlc.options.training import check_prefix

        require("prefix", self.prefix, check_prefix)
        return self


class HubChannel(Section):
    """A data set of the Hub, which the deployment copies to S3, once."""

    kind: Literal["hub"]

    dataset: Annotated[str, checked(check_model_id)]
    """Its id on the Hub, as `nyu-mll/glue`."""

    revision: Annotated[str, checked(check_commit)]
    """The commit, 40 digits."""

    token_secret: str | None = None
    """Name or ARN of the secret with the Hub's token, which the copy reads. Default: none."""

    bucket: BucketName | None = None
    """Name of the bucket. Default: `extended-dlc-models-ACCOUNT-REGION`, made by the first copy."""

    project: str | None = None
    """Name of the CodeBuild project that copies. Default: a new one."""

    timeout_minutes: Annotated[int, Field(ge=10, le=480)] = 360
    """How long the copy may take."""


CHANNELS: Mapping[str, type[Section]] = {"s3": S3Channel, "hub": HubChannel}
"""The kinds of training channels."""

_make("options.training", "TrainingCode")
_make("options.training", "TrainingInstances")
_make("options.training", "EvaluationGate")
_make("options.training", "TrainingSchedule")

Training = _make(
    "training.job",
    "TrainingJob",
    without=("serves", "bucket", "job_name", "tags"),
    instead={
        "endpoint": (
            str | None,
            Field(
                default=None,
                description="Id of the endpoint whose model is trained, and which goes over to what is accepted. "
                "Default: none, the model stays in S3.",
            ),
        ),
        "image": (
            one_of({kind: IMAGES[kind] for kind in ("extended", "ecr")}, kind_of("extended")) | None,
            Field(
                default=None,
                description="The image that it runs in, by its `kind`. Default: `extended`, with the release in the "
                "image of the endpoints.",
            ),
        ),
        "base_model": (
            ModelSection | None,
            Field(default=None, description="What is trained further. Default: the endpoint's model, if it has one."),
        ),
        "channels": (
            dict[str, one_of(CHANNELS, kind_of("s3"))],  # type: ignore[misc]
            Field(
                default_factory=dict,
                description="What the container finds below `/opt/ml/input/data/`, by the folders' names. Default: "
                "none.",
            ),
        ),
        "network": (
            Network | None,
            Field(default=None, description="The VPC of its containers. Default: SageMaker's own, with the internet."),
        ),
        "encryption_key": _named("ARN of the key for volumes and results. Default: AWS's own keys."),
        "role": _named("ARN of the role of its containers, which you grant what they need. Default: a new one."),
        "permissions_boundary": _named("ARN of the policy that bounds the new roles. Default: none."),
    },
    found=(
        *("endpoint", "image", "base_model", "channels", "network"),
        *("encryption_key", "role", "permissions_boundary"),
    ),
)


_make(
    "options.functions",
    "Functions",
    instead={
        "network": (
            Network | None,
            Field(
                default=None,
                description="The VPC of the functions, with a way to the internet or with endpoints of the services "
                "that they call. Default: Lambda's own, with the internet.",
            ),
        )
    },
    found=("network",),
)


class Settings(Section):
    """Everything that the app deploys."""

    name: Annotated[str, checked(check_stack_name)] = "extended-dlc"
    """Name of the stack and first part of each endpoint's name, to deploy several copies. Default: `extended-dlc`."""

    region: Annotated[str, Field(validate_default=True), checked(check_region)] = ""
    """Region to deploy to. Default: the one that the CDK CLI deploys to, as AWS_REGION or the profile says."""

    image: one_of(IMAGES, kind_of("extended"))  # type: ignore[valid-type]
    """The image that all endpoints share, by its `kind`. Default: `extended`."""

    endpoints: Annotated[dict[str, Endpoint], Field(min_length=1)]  # type: ignore[valid-type]
    """The endpoints by their ids; an endpoint's name is `<name>-<id>`."""

    training: dict[str, Training] = Field(default_factory=dict)  # type: ignore[valid-type]
    """Trainings by their ids, in a stack of their own, `<name>-training`; a job's name begins with `<name>-<id>`.
    Default: none."""

    schedule: SECTIONS.named("Schedule") | None = None  # type: ignore[valid-type]
    """Who turns the endpoints off and on, by its `kind`. Default: nobody."""

    functions: SECTIONS.named("Functions") | None = None  # type: ignore[valid-type]
    """How the Lambda functions of the stacks run. Default: as AWS runs them."""

    tags: Annotated[dict[str, str], checked(check_tags)] = Field(default_factory=dict)
    """Tags of everything that can have some, 50 at most. Default: none."""
