"""Which parameters a request may give: what the pipeline knows, less what would reach beyond the request."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import RequestError

FORBIDDEN = frozenset(
    {
        # load code, models or files that the caller names
        *("assistant_model", "assistant_tokenizer", "custom_generate", "trust_remote_code"),
        # Python objects and tensors, which JSON cannot express
        *("attention_mask", "decoder_attention_mask", "decoder_input_ids", "encoder_outputs", "generation_config"),
        *("input_features", "input_ids", "inputs", "inputs_tensor", "logits_processor", "negative_prompt_ids"),
        *("negative_prompt_attention_mask", "past_key_values", "prefix_allowed_tokens_fn", "prompt_ids"),
        *("stopping_criteria", "streamer", "tokenizer"),
        # change what `generate` returns into something the pipeline cannot read
        *("force_unique_generate_call", "output_attentions", "output_hidden_states", "output_logits"),
        *("output_scores", "return_dict_in_generate", "return_segments", "return_token_timestamps"),
        # other machines, processes and downloads
        *("synced_gpus", "timeout", "num_workers", "kwargs", "self"),
    }
)

# Pipelines that read these out of `**kwargs`, where no signature shows them.
_READ_FROM_KWARGS: Mapping[str, tuple[str, ...]] = {
    "image-segmentation": ("subtask", "threshold", "mask_threshold", "overlap_mask_area_threshold"),
    "mask-generation": (
        *("points_per_batch", "points_per_crop", "crops_n_layers", "crop_overlap_ratio", "crops_nms_thresh"),
        *("crop_n_points_downscale_factor", "mask_threshold", "pred_iou_thresh", "stability_score_offset"),
        *("stability_score_thresh", "output_bboxes_mask", "output_rle_mask"),
    ),
    "object-detection": ("threshold",),
    "zero-shot-audio-classification": ("candidate_labels", "hypothesis_template"),
    "zero-shot-classification": ("candidate_labels", "hypothesis_template", "multi_label"),
    "zero-shot-image-classification": ("candidate_labels", "hypothesis_template", "tokenizer_kwargs"),
    "zero-shot-object-detection": ("candidate_labels", "threshold", "top_k"),
    "table-question-answering": ("padding", "truncation", "sequential"),
}
_TOKENIZER_GROUPS = frozenset({"tokenize_kwargs", "tokenizer_encode_kwargs", "tokenizer_kwargs"})


@dataclass(frozen=True, kw_only=True)
class LegalParameters:
    """The names that `parameters` may hold for the loaded pipeline."""

    pipeline: frozenset[str]
    """What the pipeline itself names."""

    generation: frozenset[str] = frozenset()
    """What `generate` takes, where the pipeline generates."""

    tokenizer: frozenset[str] = frozenset()
    """What the tokenizer takes, for the pipelines that pass it on."""

    groups_generation: bool = False
    """Whether this pipeline wants what `generate` takes below `generate_kwargs`; callers may do either."""

    def check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments for the pipeline; 400 names the first parameter that it does not know."""
        arguments: dict[str, Any] = {}
        generation: dict[str, Any] = {}
        for name, value in parameters.items():
            if name == "generate_kwargs" and self.generation:
                generation.update(_check_group(name, value, self.generation))
            elif name in self.pipeline - {"generate_kwargs"}:
                arguments[name] = _check_group(name, value, self.tokenizer) if name in _TOKENIZER_GROUPS else value
            elif name in self.generation:
                generation[name] = value
            else:
                raise _unknown(name, self.pipeline | self.generation)
        if generation and self.groups_generation:
            arguments["generate_kwargs"] = generation
        else:
            arguments.update(generation)
        return arguments


def legal_parameters(pipeline: Any, task: str) -> LegalParameters:
    """Read the names from the signatures of the installed release."""
    named, takes_more = _names(pipeline._sanitize_parameters)
    model, tokenizer = pipeline.model, getattr(pipeline, "tokenizer", None)
    generates = bool(getattr(model, "can_generate", lambda: False)()) and (
        "generate_kwargs" in named or "max_new_tokens" in named or takes_more
    )
    generation: frozenset[str] = frozenset()
    if generates:
        from transformers import GenerationConfig

        options = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
        generation = frozenset(options | _names(model.generate)[0]) - FORBIDDEN - {"transformers_version"}
    of_tokenizer = frozenset(() if tokenizer is None else _names(type(tokenizer).__call__)[0]) - FORBIDDEN
    names = named | set(_READ_FROM_KWARGS.get(task, ()))
    if takes_more and task in ("text-classification", "token-classification"):
        names |= of_tokenizer
    return LegalParameters(
        pipeline=frozenset(names) - FORBIDDEN - {"decoder_kwargs", "processor_kwargs", "ignore_warning"},
        generation=generation,
        tokenizer=of_tokenizer - {"text", "text_pair", "text_target", "text_pair_target"},
        groups_generation="generate_kwargs" in named,
    )


def _names(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Named parameters of a function, and whether it takes any others."""
    parameters = inspect.signature(function).parameters.values()
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return (
        {parameter.name for parameter in parameters if parameter.kind not in variadic},
        any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters),
    )


def _check_group(name: str, value: Any, legal: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(400, "bad-parameters", f"parameter '{name}' must be an object")
    for inner in value:
        if inner not in legal:
            raise _unknown(inner, legal)
    return value


def _unknown(name: str, legal: frozenset[str]) -> RequestError:
    near = difflib.get_close_matches(name, sorted(legal), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"it takes: {', '.join(sorted(legal))}"
    reason = "may not be set by a request" if name in FORBIDDEN else "is not known to this model"
    return RequestError(400, "unknown-parameter", f"parameter '{name}' {reason}; {hint}")
