"""Estimates the memory, time and disk that a model needs, and finds the instances that have it.

An instance is refused only if the weights alone do not fit; if only the estimate does not fit, there is a note. The
assumptions are constants, each with its reason.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from extended_dlc.facts.catalog import INFERENCE, VLLM, dlc_images
from extended_dlc.facts.gpus import drives
from extended_dlc.facts.instances import Instance, all_instances, find_instance
from extended_dlc.facts.limits import limit, most
from extended_dlc.facts.models import DTYPE_BYTES, ModelFacts

GIB = 1024**3

DEFAULT_CONTEXT = 2048
"""Default tokens of a request, prompt and response together: BLOOM's limit."""

FIXED_BYTES = GIB
"""Memory of a process besides the model: on a GPU CUDA's context and libraries, on a CPU Python, torch and
transformers. An allowance; `docs/plan.md` has the measurements."""

WORKING_SHARE = 0.1
"""Temporary memory of a forward pass, as a share of the weights. An allowance, too."""

PARALLEL_SHARE = 0.9
"""Share of each GPU that a model spread over several uses (vLLM's `gpu_memory_utilization`, and the native server)."""

DOWNLOAD_BYTES_PER_SECOND = 50e6
"""From the Hub or S3 to an instance: slower than usual, so that the timeouts allow for a slow day."""

READ_BYTES_PER_SECOND = 100e6
"""From the volume into memory: gp2 of a small size gives 128 MiB/s at most (EBS user guide)."""

PREFIX_BYTES_PER_SECOND = 200e6
"""From an S3 prefix with uncompressed files, which SageMaker fetches in parallel. Assumed, used in notes only."""

STORAGE_BYTES_PER_SECOND = 1e9
"""From an instance's NVMe storage into memory. Assumed, used in notes only."""

MOST_ON_CPU = 13_000_000_000
"""Parameters above which no CPU type is proposed: the model would fit, but take seconds for each token."""

START_SECONDS = 600
"""Time of a start besides reading the model: loading packages from a cold disk, and the first request."""

UNKNOWN_START_SECONDS = 900
"""Startup timeout for a model of unknown size."""

DISK_GB = 30
"""Space on the volume besides the model."""

Spread = Literal["one", "all"]
"""Whether a model larger than one GPU is spread over `all` of them, as with the native server and vLLM, or must fit on
`one`, as with AWS's stock server."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """The load of an endpoint at a time."""

    context: int = DEFAULT_CONTEXT
    """Tokens of a request, prompt and response together."""

    batch: int = 1
    """Requests that run in one batch."""

    dtype: str | None = None
    """dtype that the server loads the model in (`EXTENDED_DLC_DTYPE`). Default: the server's choice, 16 bits on a GPU
    and float32 on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Whether a model fits an instance, with the numbers."""

    verdict: Literal["fits", "tight", "too small", "unknown"]
    """`too small`: the weights alone do not fit; `tight`: they fit, but not together with the allowances."""

    weights: int | None
    """Bytes of the weights in memory; None if the size is not known."""

    cache: int
    """Bytes of the attention cache of a batch."""

    working: int
    """Further bytes: `FIXED_BYTES` and `WORKING_SHARE`."""

    available: int | None
    """Available bytes of the instance; None if no published source has them."""

    why: str
    """The arithmetic, as a clause."""

    @property
    def needed(self) -> int | None:
        return None if self.weights is None else self.weights + self.cache + self.working


def fit(model: ModelFacts, instance: Instance, *, spread: Spread = "one", load: Load | None = None) -> Fit:
    """Whether a model fits an instance: one of its GPUs, or with `spread` "all" all of them together."""
    load = load or Load()
    number = _bytes_of_a_number(model, instance, load)
    weights, how = _weights(model, number)
    tokens = min(load.context, model.context or load.context)
    elements = ((model.cache_elements_per_token or 0) * tokens + model.cache_elements) * load.batch
    cache = math.ceil(elements * max(number, 2))
    available, has, devices = _available_memory(instance, spread, weights)
    working = FIXED_BYTES * devices + math.ceil((weights or 0) * WORKING_SHARE)
    verdict: Literal["fits", "tight", "too small", "unknown"]
    if weights is None or available is None:
        verdict, why = "unknown", how if weights is None else has
    else:
        verdict = "too small" if weights > available else "tight" if weights + cache + working > available else "fits"
        why = f"{how}{gib(weights)} of weights"
        if verdict != "too small":
            requests = "a request" if load.batch == 1 else f"{load.batch} requests"
            why += f", {gib(cache)} for {requests} of {tokens} tokens" if cache else ""
            why += f" and {gib(working)} to work in"
        why += f"; {instance.name} has {has}"
    return Fit(verdict=verdict, weights=weights, cache=cache, working=working, available=available, why=why)


def check_fit(
    model: ModelFacts,
    instance: Instance,
    *,
    spread: Spread = "one",
    load: Load | None = None,
    region: str | None = None,
) -> str | None:
    """Refuse an instance that the weights alone are too large for; return a note where it is tight."""
    found = fit(model, instance, spread=spread, load=load)
    if found.verdict in ("fits", "unknown"):
        return None
    name = model.model_id or "the model"
    way_out = _way_out(model, instance, load, region)
    if found.verdict == "too small":
        raise ValueError(
            f"cannot hold {name}: {found.why}: {way_out}; if the size is not right, say the number of parameters "
            "(parameters=)"
        )
    return (
        f"{name} may be too large for {instance.name}: {found.why}: if it fails with out-of-memory (507), {way_out}, "
        "or send shorter or fewer requests at a time"
    )


def smallest_instances(
    model: ModelFacts,
    accelerator: str,
    *,
    spread: Spread = "one",
    load: Load | None = None,
    region: str | None = None,
) -> tuple[str, ...]:
    """The smallest instance types that a model fits, one per family, three at most; empty if there are none.

    GPU types are included only if AWS's newest image supports them: vLLM's for a model that is spread over them.
    """
    found: dict[str, str] = {}
    if accelerator == "cpu" and (model.parameters or 0) > MOST_ON_CPU:
        return ()
    for instance in _by_size(accelerator, VLLM if spread == "all" else INFERENCE):
        family = instance.name.rpartition(".")[0]
        if family in found or (region is not None and instance.is_offered(region) is False):
            continue
        if fit(model, instance, spread=spread, load=load).verdict == "fits":
            found[family] = instance.name
        if len(found) == 3:
            break
    return tuple(found.values())


PREVIOUS_GENERATIONS = ("ml.c4.", "ml.m4.", "ml.p2.", "ml.p3.", "ml.p3dn.", "ml.t2.")
"""Families that are not proposed: EC2's previous generations, whose GPUs current torch builds do not support."""


@functools.cache
def _by_size(accelerator: str, repository: str) -> tuple[Instance, ...]:
    instances = all_instances()
    fitting = [each for each in instances if each.accelerator == accelerator and each.architecture == "x86_64"]
    newest = dlc_images(repository, accelerator="gpu")[-1]
    known = [
        each
        for each in fitting
        if each.memory_mib
        and not each.name.startswith(PREVIOUS_GENERATIONS)
        and (not each.gpus or drives(each, newest))
    ]
    return tuple(sorted(known, key=lambda each: (each.gpus * each.gpu_memory_mib, each.memory_mib or 0, each.name)))


def _way_out(model: ModelFacts, instance: Instance, load: Load | None, region: str | None) -> str:
    enough = smallest_instances(model, instance.accelerator, load=load, region=region)
    if not enough and instance.accelerator == "cpu":
        enough = smallest_instances(model, "gpu", load=load, region=region)
    if enough:
        return f"take {' or '.join(enough)}"
    parallel = smallest_instances(model, "gpu", spread="all", load=load, region=region)
    if not parallel:
        return "no single instance that SageMaker hosts on holds it"
    gpus = find_instance(parallel[0])
    return (
        f"no {instance.accelerator} type holds it in one piece: serve it with the vLLM family and tensor parallelism "
        f"over {gpus.gpus} GPUs of {gib(gpus.gpu_memory_mib * 1024**2)} ({' or '.join(parallel)})"
    )


def _weights(model: ModelFacts, number: float) -> tuple[int | None, str]:
    """The bytes of the weights in memory at `number` bytes per parameter, and the start of the arithmetic in words."""
    named = {4: "float32", 2: "16 bits", 1: "8 bits"}.get(int(number), f"{number:g} bytes")
    if model.weight_bytes is not None:  # known size of the files: quantised weights stay quantised
        stored = DTYPE_BYTES.get(model.dtype or "", number)
        return math.ceil(model.weight_bytes * number / stored), f"its files, loaded in {named}, are "
    if model.parameters is None:
        return None, "the size of the model is not known"
    return math.ceil(model.parameters * number), f"{model.parameters:,} parameters x {number:g} bytes ({named}) are "


def _bytes_of_a_number(model: ModelFacts, instance: Instance, load: Load) -> float:
    if load.dtype in DTYPE_BYTES:
        return DTYPE_BYTES[load.dtype]
    return 4 if instance.accelerator == "cpu" else min(DTYPE_BYTES.get(model.dtype or "", 2), 2)


def _available_memory(instance: Instance, spread: Spread, weights: int | None) -> tuple[int | None, str, int]:
    """The available bytes for a copy of the model, their description, and the number of devices."""
    if instance.accelerator == "cpu":
        if instance.memory_mib is None:
            return None, f"no published source has the memory of {instance.name}", 1
        return instance.memory_mib * 1024**2, f"{gib(instance.memory_mib * 1024**2)} of memory", 1
    each, gpus = instance.gpu_memory_mib * 1024**2, instance.gpus
    if not each:
        return None, f"no published source has the memory of the accelerators of {instance.name}", 1
    if gpus == 1:
        return each, f"one GPU of {gib(each)}", 1
    if spread == "one" or weights is None or weights <= each * PARALLEL_SHARE:
        alone = ", and AWS's server does not split a model" if spread == "one" else ""
        return each, f"{gib(each)} on each of its {gpus} GPUs{alone}", 1
    share = f"{PARALLEL_SHARE:.0%} of them for the model"
    return int(gpus * each * PARALLEL_SHARE), f"{gpus} GPUs of {gib(each)}, {share}", gpus


def gib(size: float) -> str:
    """Bytes in readable form: `328.3 GiB`, `12 MiB`."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 1024**2:,.0f} MiB"


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """SageMaker's timeouts, in seconds."""

    startup: int
    """`ContainerStartupHealthCheckTimeoutInSeconds`, which includes a download from the Hub."""

    download: int | None
    """`ModelDataDownloadTimeoutInSeconds`; None without a download from S3, or if the size is unknown."""

    notes: tuple[str, ...] = ()
    """Notes where the API's limit is less than the estimate."""


def choose_timeouts(
    size: int | None, *, from_s3: bool = False, as_files: bool = False, own_storage: bool = False
) -> Timeouts:
    """The timeouts for a model of `size` bytes, within SageMaker's limits; 900 s if the size is unknown.

    The timeouts allow for a slow day on any instance; the notes name what is likely to take too long on this one.

    :param as_files: Whether S3 has uncompressed files instead of one archive.
    :param own_storage: Whether the instances have local NVMe storage.
    """
    if size is None:
        return Timeouts(startup=UNKNOWN_START_SECONDS, download=None)
    fetch = size / DOWNLOAD_BYTES_PER_SECOND
    startup = START_SECONDS + size / READ_BYTES_PER_SECOND + (0 if from_s3 else fetch)
    return Timeouts(
        startup=_bounded(startup, "startup_timeout_seconds"),
        download=_bounded(fetch + 60, "download_timeout_seconds") if from_s3 else None,
        notes=tuple(_too_long(size, from_s3=from_s3, as_files=as_files, own_storage=own_storage)),
    )


def _too_long(size: int, *, from_s3: bool, as_files: bool, own_storage: bool) -> Iterator[str]:
    """Notes on phases that take longer than SageMaker waits, with the arithmetic and an alternative."""
    gigabytes = f"{size / 1e9:,.0f} GB"
    read = STORAGE_BYTES_PER_SECOND if own_storage else READ_BYTES_PER_SECOND
    fetch = PREFIX_BYTES_PER_SECOND if as_files else DOWNLOAD_BYTES_PER_SECOND
    seconds = START_SECONDS + size / read + (0 if from_s3 else size / fetch)
    limit_seconds = most("startup_timeout_seconds")
    if seconds > limit_seconds:
        from_hub = "" if from_s3 else f" and {gigabytes} from the Hub at {fetch / 1e6:.0f} MB/s"
        ways = [] if from_s3 else ["serve it from S3, whose download has a time-out of its own"]
        ways += [] if own_storage else ["take instances with NVMe storage of their own, as ml.g5"]
        yield (
            f"the start-up may take {seconds:,.0f} s ({START_SECONDS} s, {gigabytes} read at {read / 1e6:,.0f} MB/s"
            f"{from_hub}), and SageMaker waits {limit_seconds} s at most: {', and '.join(ways) or 'make it smaller'}"
        )
    limit_seconds = most("download_timeout_seconds")
    if from_s3 and size / fetch > limit_seconds:
        ways = ["make it smaller"] if as_files else ["take an uncompressed S3 prefix, which is fetched in parallel"]
        yield (
            f"the download may take {size / fetch:,.0f} s ({gigabytes} at {fetch / 1e6:.0f} MB/s), and SageMaker waits "
            f"{limit_seconds} s at most: {ways[0]}"
        )


def _bounded(seconds: float, name: str) -> int:
    """The seconds rounded up to whole minutes, within SageMaker's limits."""
    return min(max(math.ceil(seconds / 60) * 60, limit(name).min or 0), most(name))


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The disk for a model's files."""

    volume_gb: int | None
    """`VolumeSizeInGB`; None for a type with local storage, and if the size is unknown."""

    notes: tuple[str, ...] = ()
    """Notes where the disk is too small for the model."""


def choose_disk(size: int | None, instance: Instance) -> Disk:
    """The volume for a model of `size` bytes, or a note where local storage is too small."""
    if size is None or instance.vcpu is None:
        return Disk(volume_gb=None)
    needed = math.ceil(size / 1e9 * 1.1) + DISK_GB
    if instance.local_storage_gb:
        if needed <= instance.local_storage_gb:
            return Disk(volume_gb=None)
        note = (
            f"the model's {size / 1e9:,.0f} GB leave no room on the {instance.local_storage_gb} GB of {instance.name}: "
            "take a larger type"
        )
        return Disk(volume_gb=None, notes=(note,))
    largest = most("volume_gb")
    if needed <= largest:
        return Disk(volume_gb=needed)
    note = (
        f"the model's {size / 1e9:,.0f} GB want a volume of {needed} GB, and SageMaker gives {largest} GB at most: "
        "take a type with storage of its own, as ml.g5"
    )
    return Disk(volume_gb=largest, notes=(note,))
