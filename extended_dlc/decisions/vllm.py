"""Decides whether vLLM serves a model, and on its environment variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extended_dlc.decisions.part import Part
from extended_dlc.decisions.sizing import fit, gib
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.tasks import CHAT_TASKS
from extended_dlc.options._values import OptionError
from extended_dlc.options.vllm import VllmServing

COMPLETION: Mapping[str, object] = {"prompt": "Hello", "max_tokens": 8}
"""A minimal request; models without a chat template, such as BLOOM, answer it too."""

_NATIVE = 'serve it with the native server (ExtendedDlc(family="inference"))'


def why_vllm(part: Part) -> str | None:
    """Why vLLM serves a model if the user names no family; None where this project's server does.

    The native server also spreads such a model over all GPUs, but layer by layer, so one GPU computes at a time.
    """
    facts = part.model.facts
    several = [instance for instance in part.instances if instance.gpus >= 2]
    if facts.task != "text-generation" or not several or part.model.code is not None or part.model.token:
        return None
    instance = several[0]
    alone = fit(facts, instance)
    if alone.verdict not in ("too small", "tight") or alone.weights is None or alone.available is None:
        return None
    return (
        f"vLLM serves {facts.model_id or 'the model'}: it generates text, and {gib(alone.weights)} of weights, with "
        f"what they need to work in, are too large for one of the {instance.gpus} GPUs of {instance.name} "
        f'({gib(alone.available)} each); requests are OpenAI\'s (family="inference" keeps the native server)'
    )


def refuses_vllm(part: Part) -> str | None:
    """Why vLLM cannot serve a part, or is not known to, as the end of a sentence."""
    facts = part.model.facts
    if any(instance.accelerator not in ("gpu", "unknown") for instance in part.instances):
        return "has no NVIDIA GPUs"
    if part.model.code is not None:
        return "has code of its own"
    if part.model.token:
        return "has its token in a secret, which vLLM's server does not read"
    if facts.task is None:
        return "has a task that nobody knows"
    return None if facts.task in CHAT_TASKS else f"has the task {facts.task}"


def vllm_variables(serving: VllmServing, part: Part, instances: Sequence[Instance]) -> dict[str, str]:
    """vLLM's environment variables for a model and its instances; `OptionError` if vLLM does not serve it."""
    model = part.model
    if (task := model.facts.task) is not None and task not in CHAT_TASKS:
        raise OptionError("task", task, f"is none of vLLM's ({', '.join(CHAT_TASKS)}): {_NATIVE}")
    if model.code is not None:
        raise OptionError(
            "code",
            "InferenceCode",
            "is not run by vLLM, which would take its folder for the model: take the native server "
            '(ExtendedDlc(family="inference")), or leave it out',
        )
    if model.token:
        raise OptionError(
            "token",
            "a secret",
            "is the model's, and vLLM's server does not read secrets: let MirroredModel copy the weights with it",
        )
    for instance in instances:
        if instance.accelerator not in ("gpu", "unknown"):
            raise OptionError(
                "hosting",
                instance.name,
                f"computes with {instance.accelerator}, and vLLM's image with NVIDIA GPUs: take RealTime or Async on a "
                'type with them, or the native server (ExtendedDlc(family="inference"))',
            )
    if part.gpus is None and serving.tensor_parallel_size is None and _any_unknown(instances):
        raise OptionError(
            "instance_type",
            "a CDK token",
            "does not say how many GPUs there are: set tensor_parallel_size of VllmServing",
        )
    if part.gpus is None and len({each.gpus for each in instances}) > 1 and serving.tensor_parallel_size is None:
        kinds = ", ".join(f"{instance.name} with {instance.gpus}" for instance in instances)
        raise OptionError(
            "instance_type",
            kinds,
            "must have as many GPUs each, because one setting serves on all: name types that do, or set "
            "tensor_parallel_size of VllmServing",
        )
    gpus = part.gpus or (serving.tensor_parallel_size if _any_unknown(instances) else None)
    variables = serving.environment(gpus or min((instance.gpus for instance in instances), default=1))
    if model.source == "hub" and model.revision:
        variables |= {"SM_VLLM_REVISION": model.revision, "SM_VLLM_TOKENIZER_REVISION": model.revision}
    if model.trust_remote_code:
        variables["SM_VLLM_TRUST_REMOTE_CODE"] = "true"
    return variables


def _any_unknown(instances: Sequence[Instance]) -> bool:
    return any(instance.accelerator == "unknown" for instance in instances)
