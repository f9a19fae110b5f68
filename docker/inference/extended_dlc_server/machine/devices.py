"""Which devices the copies of a model go to, and in which precision they run there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StartError

CPU = -1
"""The device of a copy that runs on the CPU, as pipelines call it."""

AUTO = "auto"
"""The device of a copy that is spread over all GPUs: accelerate's device map."""

SHARE_OF_MEMORY = 0.9
"""How much of a GPU's free memory the weights may take: the rest is for what an inference needs."""

LARGE = 20_000_000
"""Weights from which a CPU that multiplies bfloat16 itself is faster with it: 1.3 to 5 times, from this size on.

Measured with BERT and BLOOM on a Xeon with AMX, and with BERT of 22 million weights, a Llama of 77 and a Whisper of 38
on an EPYC with AVX-512's bfloat16, alone and in batches of 16. Smaller models lose more by converting than they gain;
with AMX one client of a generation gains nothing at any size measured, and loses up to a fifth near this one.
"""

_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What is seen of a GPU."""

    free: int
    """Bytes of its memory that nobody uses."""

    capability: tuple[int, int]
    """CUDA's compute capability."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What is loaded where."""

    devices: tuple[int | str, ...]
    """One for each copy: a GPU's number, `CPU` or `AUTO`."""

    dtype: str
    """The precision, by torch's name."""


def place(
    gpus: Sequence[Gpu], *, size: int, stored: Any, told: str, has_accelerate: bool, cpu_multiplies_bfloat16: bool
) -> Placement:
    """A copy on each GPU, one over all GPUs where it is larger than one, one on the CPU where there is none.

    `size` is what the weights' files hold in bytes, `stored` the precision in which they do, `told` the user's wish.
    """
    if told != AUTO:
        dtype = told
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
    """Half precision: bfloat16 where all have that and the weights are not float16 already."""
    has_bfloat16 = all(gpu.capability >= (8, 0) for gpu in gpus)
    return "bfloat16" if has_bfloat16 and stored != "float16" else "float16"


def seen_gpus() -> list[Gpu]:
    """Those that torch can use here, each with what is free on it now."""
    import torch

    return [
        Gpu(free=torch.cuda.mem_get_info(number)[0], capability=torch.cuda.get_device_capability(number))
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
