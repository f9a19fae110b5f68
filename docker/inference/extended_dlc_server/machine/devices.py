"""Chooses the devices and the precision for the copies of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StartError

CPU = -1
"""The device number that pipelines use for the CPU."""

AUTO = "auto"
"""The device_map of accelerate that spreads one copy over all GPUs."""

SHARE_OF_MEMORY = 0.9
"""Share of a GPU's free memory that the weights may take; inference needs the rest."""

LARGE = 20_000_000
"""Number of weights from which bfloat16 is 1.3 to 5 times faster, on a CPU with instructions for it.

Measured with BERT and BLOOM on a Xeon with AMX, and with BERT of 22 million weights, a Llama of 77 and a Whisper of 38
on an EPYC with AVX-512's bfloat16, alone and in batches of 16. Smaller models lose more by converting than they gain;
with AMX one client of a generation gains nothing at any size measured, and loses up to a fifth near this one.
"""

_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The properties of a GPU that `choose_devices` needs."""

    free: int
    """Bytes of free memory."""

    capability: tuple[int, int]
    """CUDA's compute capability."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The devices and the precision to load a model with."""

    devices: tuple[int | str, ...]
    """One entry per copy: a GPU's number, `CPU` or `AUTO`."""

    dtype: str
    """The name of a torch dtype."""


def choose_devices(
    gpus: Sequence[Gpu], *, size: int, stored: Any, configured: str, has_accelerate: bool, cpu_multiplies_bfloat16: bool
) -> Placement:
    """Place a copy on each GPU, one copy over all GPUs if it is too large for one, or one on the CPU without GPUs.

    `size` is that of the weights' files in bytes, `stored` their precision, `configured` the one that the user has set.
    """
    if configured != AUTO:
        dtype = configured
    elif gpus:
        dtype = _dtype_on(gpus, stored)
    else:
        is_large = size >= LARGE * _BYTES.get(str(stored), _BYTES["float32"])
        dtype = "bfloat16" if cpu_multiplies_bfloat16 and is_large else "float32"
    if not gpus:
        return Placement(devices=(CPU,), dtype=dtype)
    size = size * _BYTES[dtype] // _BYTES.get(str(stored), _BYTES[dtype])
    smallest, free = min(gpu.free for gpu in gpus), sum(gpu.free for gpu in gpus)
    if size <= smallest * SHARE_OF_MEMORY or len(gpus) == 1:
        if size > smallest:
            raise StartError(
                f"the model's weights need {_gigabytes(size)} in {dtype} and the GPU has {_gigabytes(smallest)} free: "
                "choose an instance with a larger GPU, or with several"
            )
        return Placement(devices=tuple(range(len(gpus))), dtype=dtype)
    if size > free:
        raise StartError(
            f"the model's weights need {_gigabytes(size)} in {dtype} and the {len(gpus)} GPUs have "
            f"{_gigabytes(free)} free together: choose an instance with more or larger GPUs"
        )
    if not has_accelerate:
        raise StartError(
            f"the model's weights need {_gigabytes(size)} in {dtype}, more than one GPU has ({_gigabytes(smallest)} "
            "free), and only the package accelerate can spread them over several: put it into code/requirements.txt, "
            "or choose an instance with a larger GPU"
        )
    return Placement(devices=(AUTO,), dtype=dtype)


def _dtype_on(gpus: Sequence[Gpu], stored: Any) -> str:
    """Return bfloat16 if all GPUs support it and the weights are not stored as float16, else float16."""
    has_bfloat16 = all(gpu.capability >= (8, 0) for gpu in gpus)
    return "bfloat16" if has_bfloat16 and stored != "float16" else "float16"


def seen_gpus() -> list[Gpu]:
    """Return the GPUs that torch can use, each with its free memory at this moment."""
    import torch

    return [
        Gpu(free=torch.cuda.mem_get_info(number)[0], capability=torch.cuda.get_device_capability(number))
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
