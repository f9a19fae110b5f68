"""Instance types that SageMaker hosts endpoints on."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from extended_dlc.facts._tables import did_you_mean, table

Accelerator = Literal["cpu", "gpu", "neuron", "gaudi", "unknown"]
"""The accelerator of an instance. DLCs exist for `cpu` and `gpu`; `neuron` and `gaudi` need other image families;
`unknown` is that of a type that is a CDK token."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An instance type, such as `ml.g5.xlarge`."""

    name: str
    accelerator: Accelerator
    """`gpu` means NVIDIA; `neuron` Inferentia and Trainium; `gaudi` Habana."""

    architecture: Literal["x86_64", "arm64"]
    vcpu: int | None
    """Number of vCPUs; None if no published source has it."""

    memory_mib: int | None
    accelerator_name: str | None = None
    """Such as `NVIDIA A10G`; None without an accelerator."""

    accelerators: int = 0
    accelerator_memory_mib: int = 0
    """Memory of each accelerator, MiB."""

    local_storage_gb: int = 0
    """Local NVMe storage, GB; SageMaker refuses a volume size for types that have it."""

    network_gbps: float | None = None
    """EC2's baseline bandwidth in Gbit/s; None if no published source has it."""

    regions: tuple[str, ...] | None = None
    """Regions where EC2 offers the type; None if unknown. SageMaker may host on it in fewer regions: its own list is
    published only as a page to read."""

    @property
    def gpus(self) -> int:
        """Number of NVIDIA GPUs."""
        return self.accelerators if self.accelerator == "gpu" else 0

    @property
    def gpu_memory_mib(self) -> int:
        """Memory of each GPU, MiB; 0 without a GPU."""
        return self.accelerator_memory_mib if self.gpus else 0

    def is_offered(self, region: str) -> bool | None:
        """Whether EC2 offers the type in a region; None for a region or a type that the table does not cover."""
        if self.regions is None or region not in table("instances")["covered"]:
            return None
        return region in self.regions


def find_instance(name: str) -> Instance:
    """The instance type of this name; raises `ValueError` with the nearest name if SageMaker does not host on it."""
    data = table("instances")
    rows = data["instances"]
    if name not in rows:
        raise ValueError(f"is not an instance type that SageMaker hosts endpoints on{nearest_type(name, rows)}")
    group = rows[name]["regions"]
    return Instance(name=name, **rows[name] | {"regions": tuple(data["offered"][group]) if group else None})


def nearest_type(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown instance type: the nearest name, or the smallest size of a family."""
    name = name.lower() if name.lower().startswith("ml.") else f"ml.{name.lower()}"
    sizes = [each for each in known if each.startswith(f"{name}.")]
    return did_you_mean(min(sizes, key=len) if sizes else name, known)


@functools.cache
def all_instances() -> tuple[Instance, ...]:
    """Every type that SageMaker hosts endpoints on, by name."""
    return tuple(find_instance(name) for name in table("instances")["instances"])


def check_image_runs_on(instance: Instance, accelerator: str | None) -> None:
    """Refuse an `instance` that an image for `accelerator` (None if unknown) cannot run on, with an alternative."""
    if instance.accelerator == "unknown":
        return
    if instance.accelerator not in ("cpu", "gpu"):
        raise ValueError(
            f"computes with {instance.accelerator}, which this image family does not serve: take a type with NVIDIA "
            "GPUs, or one without accelerator"
        )
    if instance.architecture != "x86_64":
        raise ValueError(
            f"is {instance.architecture} and the image is built for x86_64: take a type with Intel or AMD processors"
        )
    if accelerator not in (None, instance.accelerator):
        other = "one with NVIDIA GPUs" if accelerator == "gpu" else "one without GPU"
        raise ValueError(
            f"computes with {instance.accelerator} and the image is built for {accelerator}: take {other}, or an image "
            f"for {instance.accelerator}"
        )
