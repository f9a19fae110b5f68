"""How a model is trained: its code, what it runs on, when, and what decides whether the result is served."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.training_instances import find_training_instance
from extended_dlc.options._folders import packed_files, parsed
from extended_dlc.options._kinds import check_types
from extended_dlc.options._schedules import check_schedule
from extended_dlc.options._values import (
    OptionError,
    check_fleet,
    check_timezone,
    instance_names,
    is_token,
    refuse_wildcards,
    require,
    require_known,
    within,
    within_limit,
)

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_s3 as s3

DEFAULT_TRAINING_TYPE = "ml.g5.xlarge"
"""One GPU with 22 GiB, which LoRA of a model of a few billion weights fits."""

DAY_SECONDS = 24 * 3600
LARGEST_CODE_BYTES = 20 * 1024 * 1024
"""Code with a small data set beside it; what is larger belongs in a channel."""

_SCRIPT = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._+-]*(/[A-Za-z0-9._+-]+)*")
"""The paths of scripts that the toolkit runs (sagemaker-training 5.1.4, `process.py`)."""

HyperParameter = str | int | float | bool
"""A value of the script's command line."""


def as_argument(value: HyperParameter) -> str:
    """A hyperparameter as SageMaker takes it and the script reads it.

    argparse takes a negative number with an exponent (-1e-05) for an option.
    """
    if isinstance(value, bool):
        return str(value).lower()
    return format(Decimal(repr(value)), "f") if isinstance(value, float) and value < 0 else str(value)


@check_types
@dataclass(frozen=True)
class TrainingCode:
    """A folder with the script that trains, what it imports, and a `requirements.txt` where it needs more packages.

    It is packed as `sourcedir.tar.gz` and uploaded by the deployment; the container installs the requirements and runs
    the script with the hyperparameters as its arguments.
    """

    folder: str
    """The folder. ValueError when it is none, holds more than 20 MB, or a Python file in it does not compile."""

    entry_point: str = "train.py"
    """The script in it. ValueError when it is missing, with the scripts that are there. Default: `train.py`."""

    def __post_init__(self) -> None:
        """Find what would otherwise fail in the container, minutes later."""
        folder = Path(self.folder)
        if not folder.is_dir():
            raise OptionError("folder", self.folder, "is not a folder: correct the path")
        self.require(self.entry_point, "entry_point")
        size = sum(file.stat().st_size for _, file in packed_files(self.folder))
        if size > LARGEST_CODE_BYTES:
            raise OptionError(
                "folder",
                self.folder,
                f"holds {size / 1e6:.0f} MB and code at most {LARGEST_CODE_BYTES / 1e6:.0f}: put data into a channel "
                "(S3Data, MirroredDataset) and weights into base_model",
            )
        for path, file in packed_files(self.folder):
            if path.endswith(".py"):
                parsed(file)

    def require(self, script: str, option: str) -> None:
        """Refuse a script that is not in the folder, or whose name SageMaker's toolkit refuses."""
        if not _SCRIPT.fullmatch(script):
            raise OptionError(
                option,
                script,
                "is a name that SageMaker's toolkit refuses: rename the script to letters, digits and . _ + -, in the "
                "code's folder or below it",
            )
        scripts = [path for path, _ in packed_files(self.folder) if path.endswith(".py")]
        if script in scripts:
            return
        if (Path(self.folder) / script).is_file():
            raise OptionError(
                option,
                script,
                "is not a Python script: start it from one, as train.py with subprocess.run(['accelerate', 'launch', "
                "'loop.py', *sys.argv[1:]], check=True)",
            )
        known = f"it has {', '.join(scripts[:5])}" if scripts else "it has no Python file"
        hint = did_you_mean(script, scripts)
        raise OptionError(option, script, f"is not in {self.folder}: {known}{hint or '; name the script that is run'}")

    def files(self) -> dict[str, Path]:
        """Path in the archive -> file."""
        return dict(packed_files(self.folder))


@check_types
@dataclass(frozen=True, kw_only=True)
class TrainingInstances:
    """What a training runs on, and for how long."""

    instance_type: str | ec2.InstanceType | Sequence[str | ec2.InstanceType] = DEFAULT_TRAINING_TYPE
    """SageMaker's name of the instance type, or up to five in order of preference: the state machine takes the next
    where SageMaker is short of one or the account has no quota for it. Default: `ml.g5.xlarge`. ValueError for a type
    that SageMaker does not train on, and for types that do not compute with the same kind of accelerator."""

    count: int = 1
    """The number of instances that train together. ValueError for several without `distribution`. Default: one."""

    distribution: Literal["torchrun", "script"] | None = None
    """How processes are started: `torchrun` starts one for each GPU of each instance; with `script`, the script runs
    once on each instance and starts them itself, as by `accelerate launch` with `--machine_rank` from `SM_HOSTS` and
    `SM_CURRENT_HOST`. Default: one process in all, which Trainer spreads over the GPUs of an instance."""

    volume_gb: int = 100
    """Size of the volume of each instance, 1 to 16384 GB; types with local storage have no volume. Default: 100 GB."""

    spot: bool = False
    """Whether managed spot capacity is used, which costs less and can be reclaimed: SageMaker stops the container, and
    starts it again when there is capacity. ValueError without `checkpoints`. Default: no."""

    checkpoints: bool = False
    """Whether SageMaker copies `/opt/ml/checkpoints` to S3 while the job runs, and back when it starts the job again:
    write Trainer's `output_dir` there, and resume from it. Each run has its own prefix. Default: no."""

    max_runtime_seconds: int = DAY_SECONDS
    """How long the training may take, 1 s to 28 days. Default: a day."""

    max_wait_seconds: int | None = None
    """How long the training may take with the waits for spot capacity. ValueError without `spot`, and for less
    than `max_runtime_seconds`. Default: twice `max_runtime_seconds`, with `spot`."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse, or what would train less than it costs."""
        types = instance_names(self.instance_type)
        object.__setattr__(self, "instance_type", types[0] if len(types) == 1 else types)
        for name in types:
            _refuse_token(name)
        found = [each for name in types if (each := require("instance_type", name, find_training_instance))]
        if not types or len(types) > 5:
            raise OptionError("instance_type", ", ".join(types) or "none", "must be one to five types: name some")
        check_fleet(types, found, "trains")
        within("count", self.count, 1, None, "1 trains on a single instance")
        if not is_token(self.count) and self.count > 1 and self.distribution is None:
            raise OptionError(
                "count",
                self.count,
                "would each train the whole model for itself, because nothing distributes the work: say "
                "distribution='torchrun', or 'script' where the script starts the processes of all instances itself, "
                "or take one instance",
            )
        within_limit("volume_gb", self.volume_gb, "training.volume_gb", "16384 GB is SageMaker's limit")
        if self.spot and not self.checkpoints:
            raise OptionError(
                "spot",
                "True",
                "can be stopped at any time, and without checkpoints would begin from nothing: say checkpoints=True "
                "and write the script's checkpoints to /opt/ml/checkpoints, or leave spot out",
            )
        within_limit(
            "max_runtime_seconds", self.max_runtime_seconds, "training.runtime_seconds", "28 days are SageMaker's limit"
        )
        if self.max_wait_seconds is not None and not self.spot:
            raise OptionError("max_wait_seconds", self.max_wait_seconds, "is for spot=True alone: leave it out")
        if self.max_wait_seconds is not None:
            within(
                "max_wait_seconds",
                self.max_wait_seconds,
                self.max_runtime_seconds,
                None,
                "it contains max_runtime_seconds",
            )

    @property
    def instance_types(self) -> tuple[str, ...]:
        """The instance types, the preferred one first."""
        return instance_names(self.instance_type)

    @property
    def found(self) -> tuple[Instance, ...]:
        """The facts on the instance types."""
        return tuple(find_training_instance(name) for name in self.instance_types if not is_token(name))


@check_types
@dataclass(frozen=True)
class S3Data:
    """Files in S3 that a container finds in a folder: a channel of a training."""

    bucket: s3.IBucket
    """The bucket, in the job's region. The role may also use the bucket's KMS key."""

    prefix: str
    """The prefix of the objects' keys, with its `/` at the end. ValueError for anything else."""

    def __post_init__(self) -> None:
        """Refuse a value that is no prefix."""
        require("prefix", self.prefix, check_prefix)


def check_prefix(prefix: str) -> None:
    """Refuse a value that is no prefix of objects; the error completes "`prefix` (<value>) …"."""
    if not prefix or not prefix.endswith("/") or prefix.startswith(("/", "s3:")):
        raise ValueError(
            "is not a prefix: give the start of the objects' keys up to a '/', without 's3://' and the bucket, "
            "as 'data/train/'"
        )
    refuse_wildcards(prefix)


@check_types
@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """A schedule that starts a training."""

    expression: str
    """An expression of EventBridge Scheduler: `cron(0 3 ? * SUN *)` or `rate(7 days)`. ValueError for another."""

    timezone: str = "UTC"
    """IANA name of the time zone that a `cron` is in. Default: UTC."""

    def __post_init__(self) -> None:
        """Refuse what EventBridge Scheduler would refuse at the deployment."""
        require("expression", self.expression, check_schedule)
        check_timezone(self.timezone)


@check_types
@dataclass(frozen=True, kw_only=True)
class EvaluationGate:
    """A job with the training's image that measures the trained model, and the bound that decides whether it is served.

    Its script finds the model in the channel `model`, and writes `metrics.json`, an object of names and numbers, into
    `/opt/ml/output/data`. A model that the bound accepts is measured beside the one that is served, with the same
    script on the same data, unless none was trained before it. An artefact of an earlier run, to which a person goes
    back, is judged by the bound alone.
    """

    metric: str
    """Name of the number in `metrics.json` that decides, as `eval_loss`."""

    at_most: float | None = None
    """The bound of a metric that is better the smaller it is. ValueError without it and `at_least`, and with both.
    Default: none."""

    at_least: float | None = None
    """The bound of a metric that is better the larger it is, as `at_most`. Default: none."""

    beside_live: bool = True
    """Whether it must be as good as the model that is served, too. Default: it must."""

    margin: float = 0
    """By how much it may be worse than that one, 0 or more. Default: by nothing."""

    entry_point: str = "evaluate.py"
    """The script, in the folder of the training's code. Default: `evaluate.py`."""

    hyperparameters: Mapping[str, HyperParameter] | None = None
    """Arguments of the script. Default: none."""

    channels: Sequence[str] = ()
    """Which of the training's channels it gets. ValueError for one that the training has not. Default: all but
    `train`."""

    instance_type: str | ec2.InstanceType | None = None
    """What it runs on. Default: the training's, in the same order."""

    max_runtime_seconds: int = 3600
    """How long it may take. Default: an hour."""

    def __post_init__(self) -> None:
        """Refuse a gate that nothing or everything passes."""
        if not self.metric.strip():
            raise OptionError("metric", f"'{self.metric}'", "must be a name in metrics.json: write it as 'eval_loss'")
        if (self.at_most is None) == (self.at_least is None):
            raise OptionError(
                "metric",
                self.metric,
                "needs one bound: at_most= where smaller is better, as a loss, or at_least= where larger is better, as "
                "an accuracy",
            )
        require_known("channels", self.channels, "each is one of the training's")
        require_known("max_runtime_seconds", self.max_runtime_seconds, "the state machine waits for a multiple of it")
        within("margin", self.margin, 0, None, "a margin of 0 takes no model that is worse than the live one")
        within_limit("max_runtime_seconds", self.max_runtime_seconds, "training.runtime_seconds", "an hour is 3600 s")
        if self.instance_type is not None:
            (name,) = instance_names(self.instance_type)
            object.__setattr__(self, "instance_type", name)
            _refuse_token(name)
            require("instance_type", self.instance_type, find_training_instance)


def _refuse_token(name: str) -> None:
    if is_token(name):
        raise OptionError(
            "instance_type",
            "a CDK token",
            "must be a text, because the image, the memory and the storage of a training follow from it: write the "
            'name, as "ml.g5.xlarge"',
        )
