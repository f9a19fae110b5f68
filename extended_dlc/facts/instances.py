"""Instance types that SageMaker hosts endpoints on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from extended_dlc.facts._tables import did_you_mean, table

Accelerator = Literal["cpu", "gpu", "neuron", "gaudi"]
"""What an instance computes with. DLCs come for `cpu` and `gpu`; the others need image families of their own."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An instance type, as `ml.g5.xlarge`."""

    name: str
    accelerator: Accelerator
    """`gpu` means NVIDIA; `neuron` Inferentia and Trainium; `gaudi` Habana."""

    architecture: Literal["x86_64", "arm64"]
    vcpu: int | None
    """Virtual cores; None where no published source has them."""

    memory_mib: int | None
    gpus: int
    gpu_memory_mib: int
    """Memory of each GPU, MiB; 0 without a GPU."""

    local_storage_gb: int
    """Local NVMe storage, GB; SageMaker refuses a volume size where there is any."""


def find_instance(name: str) -> Instance:
    """The instance type of this name; a `ValueError` with the nearest name where SageMaker hosts on no such type."""
    rows = table("instances")["instances"]
    if name not in rows:
        hint = did_you_mean(name if name.startswith("ml.") else f"ml.{name}", rows)
        raise ValueError(f"is not an instance type that SageMaker hosts endpoints on{hint}")
    return Instance(name=name, **rows[name])


def check_image_runs_on(instance: Instance, accelerator: str | None) -> None:
    """Refuse, with the way out, an `instance` that an image for `accelerator` (None: not known) cannot run on."""
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
