"""Estimates the phases of an instance's start, and proposes S3 for large weights: `estimate_start`.

Only the network's baseline, the volume's rate and the model's size are published. The other values are constants here,
and each text that shows them calls them assumed. The timeouts are not the sum of the phases: they allow for a slow day
(`choose_timeouts`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from extended_dlc.decisions.sizing import (
    DOWNLOAD_BYTES_PER_SECOND,
    PREFIX_BYTES_PER_SECOND,
    READ_BYTES_PER_SECOND,
    STORAGE_BYTES_PER_SECOND,
)
from extended_dlc.facts.instances import Instance

MACHINE_SECONDS = 180
"""Time until SageMaker has a running instance. Assumed."""

IMAGE_BYTES = {"cpu": 2e9, "gpu": 8e9}
"""Compressed size of an image. Assumed: AWS does not publish the sizes of its images."""

PULL_BYTES_PER_SECOND = 100e6
"""Pull from ECR with unpacking, if the network is fast enough. Assumed."""

WARM_UP_SECONDS = 60
"""Time for Python's imports and the first request. Assumed."""

LARGE_DOWNLOAD_SECONDS = 300
"""Duration of the Hub download from which an S3 prefix is proposed."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of a start."""

    name: str
    seconds: int | None
    """None if the model's size is unknown."""

    why: str
    """The arithmetic, with its assumptions."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A start, up to the first response."""

    phases: tuple[Phase, ...]
    proposal: str | None
    """A change that would save minutes, as a sentence; None without one."""

    @property
    def seconds(self) -> int:
        """The sum of all phases with a known length."""
        return sum(phase.seconds or 0 for phase in self.phases)


def estimate_start(size: int | None, instance: Instance, *, from_hub: bool) -> Start:
    """Estimate the start of an instance with a model of `size` bytes from the Hub, or else from S3."""
    image = IMAGE_BYTES.get(instance.accelerator, IMAGE_BYTES["cpu"])
    fetch = DOWNLOAD_BYTES_PER_SECOND if from_hub else PREFIX_BYTES_PER_SECOND
    whence = "from the Hub" if from_hub else "from S3"
    read, where, source = READ_BYTES_PER_SECOND, "the volume", "gp2 of a small size: 128 MiB/s at most"
    if instance.local_storage_gb:
        read, where, source = STORAGE_BYTES_PER_SECOND, "storage of its own", "assumed"
    phases = (
        Phase(name="machine", seconds=MACHINE_SECONDS, why="until SageMaker has an instance (assumed)"),
        _transfer("pull", image, PULL_BYTES_PER_SECOND, instance, "of image (assumed) from ECR"),
        _transfer("download", size, fetch, instance, f"of weights {whence}"),
        Phase(
            name="load",
            seconds=None if size is None else math.ceil(size / read),
            why=f"{_size(size)} of weights from {where} at {read / 1e6:.0f} MB/s ({source})",
        ),
        Phase(name="warm-up", seconds=WARM_UP_SECONDS, why="imports and the first request (assumed)"),
    )
    return Start(phases=phases, proposal=_propose(size, instance) if from_hub else None)


def _propose(size: int | None, instance: Instance) -> str | None:
    if size is None:
        return None
    hub = math.ceil(size / _rate(DOWNLOAD_BYTES_PER_SECOND, instance))
    if hub < LARGE_DOWNLOAD_SECONDS:
        return None
    s3 = math.ceil(size / _rate(PREFIX_BYTES_PER_SECOND, instance))
    return (
        f"each start downloads {_size(size)} from the Hub, about {minutes(hub)}, and an S3 prefix takes about "
        f"{minutes(s3)} (rates assumed) and no Hub: weights of the kind 'mirrored' (MirroredModel) copy it there once"
    )


def _transfer(name: str, size: float | None, assumed: float, instance: Instance, what: str) -> Phase:
    rate = _rate(assumed, instance)
    of_the_network = f"the network of {instance.name}" if rate < assumed else "assumed"
    return Phase(
        name=name,
        seconds=None if size is None else math.ceil(size / rate),
        why=f"{_size(size)} {what} at {rate / 1e6:.0f} MB/s ({of_the_network})",
    )


def _rate(assumed: float, instance: Instance) -> float:
    """Bytes per second, at most the instance's network baseline."""
    return assumed if instance.network_gbps is None else min(assumed, instance.network_gbps * 1e9 / 8)


def _size(size: float | None) -> str:
    return "an unknown number of GB" if size is None else f"{size / 1e9:.1f} GB"


def minutes(seconds: float | None) -> str:
    """A duration in readable form: `40 s`, `3 min`."""
    if seconds is None:
        return "not known"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
