"""Which devices the copies of a model go to, and in which precision they run there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import StartError

CPU = -1
"""The device of a copy that runs on the CPU, as pipelines call it."""

AUTO = "auto"
"""The device of a copy that is spread over all GPUs: accelerate's device map."""

SHARE_OF_MEMORY = 0.9
"""How much of a GPU's free memory the weights may take: the rest is for what an inference needs."""

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


def place(gpus: Sequence[Gpu], *, size: int, stored: Any, told: str, has_accelerate: bool) -> Placement:
    """A copy on each GPU, one over all GPUs where it is larger than one, one on the CPU where there is none.

    `size` is what the weights' files hold in bytes, `stored` the precision in which they do, `told` the user's wish.
    """
    dtype = _choose_dtype(gpus, stored, told)
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


def _choose_dtype(gpus: Sequence[Gpu], stored: Any, told: str) -> str:
    """Half precision on a GPU, bfloat16 where it has that and the weights are not float16 already.

    A CPU gets single precision: half is slow there, and some operations do not have it.
    """
    if told != AUTO:
        return told
    if not gpus:
        return "float32"
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
