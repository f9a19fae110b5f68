"""Serving a large text model with vLLM, the image family `huggingface-vllm`: `VllmServing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extended_dlc._private import within
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.models import ModelFacts
from extended_dlc.facts.sizing import fit, gib
from extended_dlc.model import ServedModel

TASKS = ("text-generation", "image-text-to-text")
"""What its routes answer: completions and chats, of which a part may be pictures."""

COMPLETION: Mapping[str, object] = {"prompt": "Hello", "max_tokens": 8}
"""The smallest request; models without a chat template, as BLOOM, answer it too."""


@dataclass(frozen=True, kw_only=True)
class VllmServing:
    """How vLLM serves a model; each option is a variable that the image's entry point turns into one of vLLM.

    Options of vLLM that are not here go into the endpoint's `environment`: `SM_VLLM_MAX_NUM_SEQS` is `--max-num-seqs`
    (AWS Deep Learning Containers, "vLLM: Configuration"; vLLM, "Engine Arguments").
    """

    tensor_parallel_size: int | None = None
    """Over how many GPUs each layer goes; the model's attention heads must be divisible by it. Default: all GPUs of the
    instance. ValueError for more than it has."""

    max_model_len: int | None = None
    """Tokens of a request, prompt and answer. Default: what the model was trained for, which may be more than the
    memory has room for."""

    gpu_memory_utilization: float | None = None
    """The share of each GPU's memory that it takes, above 0 to 1. Default: vLLM's own, 0.9."""

    dtype: str | None = None
    """Number format of the weights: `auto`, `float16`, `bfloat16` …. Default: vLLM's own, the model's."""

    quantization: str | None = None
    """How the weights are quantised: `awq`, `gptq`, `fp8` …. Default: what the model's config.json says."""

    enforce_eager: bool = False
    """Whether to do without CUDA graphs: slower, and a little less memory. Default: with."""

    tool_call_parser: str | None = None
    """The parser of the model's tool calls, as `hermes`, which lets the model choose tools. Default: it cannot."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        within("tensor_parallel_size", self.tensor_parallel_size, 1, None, "leave it out to take all GPUs")
        within("max_model_len", self.max_model_len, 1, None, "leave it out to take the model's own")
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"'gpu_memory_utilization' ({share:g}) must be above 0 and at most 1: 0.9 is vLLM's own")

    def environment(self, gpus: int) -> dict[str, str]:
        """The variables, on an instance with so many GPUs."""
        within("tensor_parallel_size", self.tensor_parallel_size, 1, gpus, "take an instance type with more GPUs")
        values = {
            "TENSOR_PARALLEL_SIZE": self.tensor_parallel_size or gpus,
            "MAX_MODEL_LEN": self.max_model_len,
            "GPU_MEMORY_UTILIZATION": self.gpu_memory_utilization,
            "DTYPE": self.dtype,
            "QUANTIZATION": self.quantization,
            "ENFORCE_EAGER": "true" if self.enforce_eager else None,
            "ENABLE_AUTO_TOOL_CHOICE": "true" if self.tool_call_parser else None,
            "TOOL_CALL_PARSER": self.tool_call_parser,
        }
        return {f"SM_VLLM_{name}": str(value) for name, value in values.items() if value is not None}


def why_vllm(model: ServedModel, facts: ModelFacts, instance: Instance) -> str | None:
    """Why vLLM is to serve a model where nobody says; None where this project's server is.

    The native server puts such a model over all GPUs too, a layer on each, so that one of them computes at a time.
    """
    if facts.task != "text-generation" or instance.gpus < 2 or model.code is not None or model.token is not None:
        return None
    alone = fit(facts, instance)
    if alone.verdict not in ("too small", "tight") or alone.weights is None or alone.there is None:
        return None
    return (
        f"vLLM serves {facts.model_id or 'the model'}: it generates text, and {gib(alone.weights)} of weights, with "
        f"what they need to work in, are too large for one of the {instance.gpus} GPUs of {instance.name} "
        f'({gib(alone.there)} each); requests are OpenAI\'s (family="inference" keeps the native server)'
    )


def vllm_environment(
    serving: VllmServing,
    model: ServedModel,
    instances: Sequence[Instance],
    *,
    task: str | None,
    placed: Mapping[str, str],
    gpus: int | None = None,
) -> dict[str, str]:
    """What vLLM is told of a model and of the instances; ValueError for what it does not serve.

    :param placed: The variables that the model sets for the other servers.
    :param gpus: How many GPUs a copy has. Default: those of the instance.
    """
    if task is not None and task not in TASKS:
        raise ValueError(
            f"'task' ({task}) is none of vLLM's ({', '.join(TASKS)}): serve it with the native server "
            '(ExtendedDlc(family="inference"))'
        )
    if model.code is not None:
        raise ValueError(
            "'code' (InferenceCode) is not run by vLLM, which would take its folder for the model: take the native "
            'server (ExtendedDlc(family="inference")), or leave it out'
        )
    if model.token is not None:
        raise ValueError(
            "the model's token is a secret that vLLM's server does not read: let MirroredModel copy the weights with it"
        )
    for instance in instances:
        if instance.accelerator != "gpu":
            raise ValueError(
                f"'hosting' ({instance.name}) computes with {instance.accelerator}, and vLLM's image with NVIDIA GPUs: "
                'take RealTime or Async on a type with them, or the native server (ExtendedDlc(family="inference"))'
            )
    if gpus is None and len({instance.gpus for instance in instances}) > 1 and serving.tensor_parallel_size is None:
        kinds = ", ".join(f"{instance.name} with {instance.gpus}" for instance in instances)
        raise ValueError(
            f"'instance_type' ({kinds}) must have as many GPUs each, because one setting serves on all: name types "
            "that do, or set tensor_parallel_size of VllmServing"
        )
    told = serving.environment(gpus or min(instance.gpus for instance in instances))
    if revision := placed.get("HF_MODEL_REVISION"):
        told |= {"SM_VLLM_REVISION": revision, "SM_VLLM_TOKENIZER_REVISION": revision}
    if placed.get("HF_TRUST_REMOTE_CODE"):
        told["SM_VLLM_TRUST_REMOTE_CODE"] = "true"
    return told
