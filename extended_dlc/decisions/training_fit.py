"""Estimates the memory of a fine-tuning: weights, gradients and optimizer states.

An instance is refused only if the way to train with the least memory does not fit; if what the script most likely does
does not fit, there is a note. Neither counts activations, which depend on sequence lengths and batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from extended_dlc.decisions.script_source import arguments_of
from extended_dlc.decisions.sizing import PREVIOUS_GENERATIONS, gib
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.models import DTYPE_BYTES, ModelFacts
from extended_dlc.facts.training_instances import all_training_instances
from extended_dlc.options.training import TrainingCode

STATE_NUMBERS = {
    "adamw": 2.0,
    "adam": 2.0,
    "lion": 1.0,
    "adagrad": 1.0,
    "rmsprop": 1.0,
    "lomo": 0.0,
    "sgd": 0.0,
    "adafactor": 0.0,
    "galore": 0.5,
    "apollo": 0.5,
    "grokadamw": 2.0,
    "schedule": 2.0,
    "stable": 2.0,
}
"""Start of the name in TrainingArguments' `optim` -> numbers that the optimizer keeps for each weight."""

LORA_SHARE = 0.01
"""The weights of a LoRA adapter as a share of the base's: rank 16 on all linear layers of a Llama with 8 billion
weights has 42 million, 0.5 %."""

QUANTISED = {"load_in_4bit": 0.5, "load_in_8bit": 1.0}
"""Arguments that load the base quantised -> bytes of a weight."""

FUSED = ("lomo", "layerwise")
"""Parts of optimizers' names that use each gradient at once, and keep none."""

OFFLOAD = "offload"
"""What DeepSpeed, FSDP and their configurations call keeping states or weights in the CPU's memory."""

LARGEST_READ_BYTES = 1024 * 1024
"""Larger files of the code are data."""

TRUE = ("true", "1", "yes", "y", "t", "on")


@dataclass(frozen=True, kw_only=True)
class TrainingFit:
    """Whether a training fits an instance, with the numbers."""

    verdict: Literal["fits", "tight", "too small", "unknown"]
    """`too small`: training with the least memory does not fit; `tight`: that fits, but the usual way does not."""

    why: str = ""
    """The arithmetic, as a clause."""


def fit_training(
    model: ModelFacts,
    instance: Instance,
    *,
    adapter: bool,
    arguments: Mapping[str, str],
    instances: int = 1,
    torchrun: bool = False,
) -> TrainingFit:
    """Whether a model can be trained on instances of a type.

    :param adapter: Whether only a LoRA adapter's weights are trained.
    :param arguments: Arguments of the script, some of which configure the Trainer.
    """
    available, has = _available_memory(instance, arguments, instances, torchrun)
    if model.parameters is None or available is None:
        return TrainingFit(verdict="unknown")
    usual_number = _usual_number(model, arguments, adapter)
    least, sum_of_least = _needed(model, adapter=adapter, arguments=arguments, number=2.0)
    usual, sum_of_usual = _needed(model, adapter=adapter, arguments=arguments, number=usual_number)
    if least > available and not _may_offload(arguments):
        return TrainingFit(verdict="too small", why=f"{sum_of_least}; {has}")
    if usual > available:
        return TrainingFit(verdict="tight", why=f"{sum_of_usual}; {has}")
    return TrainingFit(verdict="fits", why=f"{sum_of_usual}; {has}")


def implied_arguments(code: TrainingCode, script: str) -> dict[str, str]:
    """What the code does to its memory without an argument of the script: it quantises the base, or offloads."""
    known = arguments_of(code, script)
    names = set() if known is None else known.names
    read = (file for file in code.files().values() if file.suffix in (".py", ".json", ".yaml", ".yml"))
    text = "".join(file.read_text(errors="replace") for file in read if file.stat().st_size <= LARGEST_READ_BYTES)
    return {name: "true" for name in (*QUANTISED, OFFLOAD) if name in text and name not in names}


def smallest_for_training(fits: Callable[[Instance], bool], accelerator: str) -> tuple[str, ...]:
    """The two smallest types of different families that a training fits; empty if there are none."""
    found: dict[str, str] = {}
    types = [each for each in all_training_instances() if each.accelerator == accelerator]
    for each in sorted(types, key=lambda one: (one.gpus * one.gpu_memory_mib, one.memory_mib or 0, one.name)):
        family = each.name.rpartition(".")[0]
        if family not in found and not each.name.startswith(PREVIOUS_GENERATIONS) and fits(each):
            found[family] = each.name
        if len(found) == 2:
            break
    return tuple(found.values())


def is_sharded(arguments: Mapping[str, str], torchrun: bool) -> bool:
    """Whether each process holds a part of the model alone."""
    return torchrun and (arguments.get("fsdp") not in (None, "", "False", "false") or "deepspeed" in arguments)


def _may_offload(arguments: Mapping[str, str]) -> bool:
    """Whether the CPU's memory may hold a part of it."""
    return OFFLOAD in arguments or "deepspeed" in arguments or OFFLOAD in arguments.get("fsdp", "")


def _needed(model: ModelFacts, *, adapter: bool, arguments: Mapping[str, str], number: float) -> tuple[float, str]:
    """Bytes that a training needs at `number` bytes per weight, and the arithmetic in words."""
    parameters = model.parameters or 0
    optimizer = arguments.get("optim", "adamw_torch")
    trained = parameters * (LORA_SHARE if adapter else 1)
    frozen = parameters if adapter else 0
    base = _frozen_number(model, arguments, number)
    weights = frozen * base + trained * number
    gradients = 0 if any(each in optimizer for each in FUSED) else trained * number
    states = trained * _states(optimizer) * _state_number(optimizer, number)
    what = (
        f"LoRA on {parameters:,} weights of {base:g} bytes, with {LORA_SHARE:.0%} of them trained,"
        if adapter
        else f"{parameters:,} weights of {number:g} bytes, all of them trained,"
    )
    text = (
        f"{what} take {gib(weights)}, their gradients {gib(gradients)} and {optimizer} {gib(states)}, "
        f"{gib(weights + gradients + states)} without the batches"
    )
    return weights + gradients + states, text


def _frozen_number(model: ModelFacts, arguments: Mapping[str, str], number: float) -> float:
    """Bytes of a weight of a frozen base: quantised by the script or in its files, else as those that are trained."""
    asked = next((size for name, size in QUANTISED.items() if _is_set(arguments, name)), number)
    if model.weight_bytes is not None and model.parameters:
        return min(asked, round(model.weight_bytes / model.parameters, 2))
    return asked


def _state_number(optimizer: str, number: float) -> float:
    """Bytes of each number that an optimizer keeps."""
    return 0.5 if "4bit" in optimizer else 1.0 if "8bit" in optimizer else number


def _states(optimizer: str) -> float:
    return next((kept for start, kept in STATE_NUMBERS.items() if optimizer.lower().startswith(start)), 0.0)


def _usual_number(model: ModelFacts, arguments: Mapping[str, str], adapter: bool) -> float:
    """Bytes of a trained weight: float32, also with `bf16=True`, which computes in 16 bits but keeps 32."""
    for name in ("dtype", "torch_dtype", "model_dtype"):
        if (said := arguments.get(name)) in DTYPE_BYTES:
            return DTYPE_BYTES[str(said)]
    return 2.0 if adapter or DTYPE_BYTES.get(model.dtype or "") == 2.0 else 4.0


def _is_set(arguments: Mapping[str, str], name: str) -> bool:
    return arguments.get(name, "").lower() in TRUE


def _available_memory(
    instance: Instance, arguments: Mapping[str, str], instances: int, torchrun: bool
) -> tuple[float | None, str]:
    """The available bytes for one copy of the model, and their description."""
    sharded = is_sharded(arguments, torchrun)
    many = f"{instances} x {instance.name}" if instances > 1 else instance.name
    if instance.accelerator == "cpu":
        if instance.memory_mib is None:
            return None, ""
        size = instance.memory_mib * 1024**2
        return size, f"{instance.name} has {gib(size)} of memory"
    if not instance.accelerator_memory_mib:
        return None, ""
    each = instance.accelerator_memory_mib * 1024**2
    # Trainer's device_map spreads a frozen base over the GPUs of a process, so all GPUs of a single process count.
    count = instance.accelerators * instances if sharded or not torchrun else 1
    if torchrun and not sharded and instance.accelerators * instances > 1:
        return each, f"{many} has {gib(each)} on each GPU, and torchrun without fsdp keeps all of it on each"
    if count == 1:
        return each, f"{many} has one GPU of {gib(each)}"
    return each * count, f"{many} has {count} GPUs of {gib(each)}, {gib(each * count)} in all"
