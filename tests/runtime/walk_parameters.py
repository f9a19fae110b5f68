"""Print, as JSON, every name of a parameter that the installed transformers knows: task -> names. Run by tests."""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

import transformers
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.generation.utils import GenerationMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin
from transformers.pipelines import PIPELINE_REGISTRY


def names_of(function: Any) -> list[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, found in inspect.signature(function).parameters.items() if found.kind not in kinds]


def pipeline_of(task: str) -> Any:
    implementation = PIPELINE_REGISTRY.check_task(task)[1]["impl"]
    if isinstance(implementation, str):
        module, _, name = implementation.rpartition(".")
        implementation = getattr(importlib.import_module(module), name)
    return implementation


def image_processor() -> list[str]:
    try:
        from transformers.processing_utils import ImagesKwargs
    except ImportError:
        return names_of(BaseImageProcessor.preprocess)
    return list(ImagesKwargs.__annotations__)


groups = {
    "generate": [
        *(name for name in vars(GenerationConfig()) if not name.startswith("_")),
        *names_of(GenerationMixin.generate),
        *names_of(WhisperGenerationMixin.generate),
    ],
    "tokenizer": names_of(PreTrainedTokenizerFast.__call__),
    "template": names_of(PreTrainedTokenizerFast.apply_chat_template),
    "image": image_processor(),
}
tasks = {
    task: names_of(pipeline_of(task)._sanitize_parameters)
    for task in PIPELINE_REGISTRY.supported_tasks
    if task != "video-classification"  # which this server does not serve
}
print(json.dumps({"release": transformers.__version__, "groups": groups, "tasks": tasks}))
