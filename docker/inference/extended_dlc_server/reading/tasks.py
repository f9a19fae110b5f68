"""The task of the model, and the kind of its inputs."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from importlib.util import find_spec
from typing import Any

from ..errors import StartError


class Kind(Enum):
    """The kind of `inputs` of a task."""

    TEXT = "text"
    AUDIO = "audio"
    IMAGE = "image"
    IMAGE_AND_TEXT = "image and text"


KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(
        (
            "feature-extraction",
            "fill-mask",
            "question-answering",
            "sentence-embeddings",
            "summarization",
            "table-question-answering",
            "text-classification",
            "text-generation",
            "text-to-audio",
            "text2text-generation",
            "token-classification",
            "translation",
            "zero-shot-classification",
        ),
        Kind.TEXT,
    ),
    **dict.fromkeys(
        ("audio-classification", "automatic-speech-recognition", "zero-shot-audio-classification"), Kind.AUDIO
    ),
    **dict.fromkeys(
        (
            "depth-estimation",
            "image-classification",
            "image-feature-extraction",
            "image-segmentation",
            "image-to-image",
            "image-to-text",
            "keypoint-matching",
            "mask-generation",
            "object-detection",
            "zero-shot-image-classification",
            "zero-shot-object-detection",
        ),
        Kind.IMAGE,
    ),
    **dict.fromkeys(
        ("any-to-any", "decision", "document-question-answering", "image-text-to-text", "visual-question-answering"),
        Kind.IMAGE_AND_TEXT,
    ),
}
"""The tasks that this server supports. Other pipelines only read files or URLs, which requests must not name."""

REMOVED: Mapping[str, str] = {
    "conversational": "4.42.0",
    "image-to-image": "5.3.0",
    "image-to-text": "5.0.0",
    "question-answering": "5.3.0",
    "summarization": "5.0.0",
    "text2text-generation": "5.0.0",
    "translation": "5.0.0",
    "visual-question-answering": "5.3.0",
}
"""Task -> transformers release that removed its pipeline (read in each release's `pipelines/__init__.py`)."""

EMBEDDING_TASKS = ("feature-extraction", "sentence-embeddings")
"""Tasks that answer with vectors of texts."""

PIPELINES: Mapping[str, str] = {"sentence-embeddings": "feature-extraction"}
"""Task that only this server has -> transformers' pipeline that loads its model."""

ALIASES: Mapping[str, str] = {
    "sentence-similarity": "sentence-embeddings",
    "sentence-ranking": "text-classification",
    "text-ranking": "text-classification",
}
"""Task names on the Hub and in its servers -> this server's name."""

NEEDS: Mapping[str, str] = {
    "any-to-any": "torchvision",
    "mask-generation": "torchvision",
    "table-question-answering": "pandas",
}
"""Task -> package that its pipeline also needs; without it, some releases fail only at a request."""

# The first match is used for a class in several mappings: the most specific first, bare encoders last.
_TASK_BY_MAPPING = (
    ("MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES", "automatic-speech-recognition"),
    ("MODEL_FOR_CTC_MAPPING_NAMES", "automatic-speech-recognition"),
    ("MODEL_FOR_RNNT_MAPPING_NAMES", "automatic-speech-recognition"),
    ("MODEL_FOR_TDT_MAPPING_NAMES", "automatic-speech-recognition"),
    ("MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES", "audio-classification"),
    ("MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES", "text-to-audio"),
    ("MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES", "text-to-audio"),
    ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES", "text-classification"),
    ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES", "token-classification"),
    ("MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES", "question-answering"),
    ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "text-generation"),
    ("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "image-text-to-text"),
    ("MODEL_FOR_VISION_2_SEQ_MAPPING_NAMES", "image-to-text"),
    ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "text2text-generation"),
    ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES", "image-classification"),
    ("MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES", "object-detection"),
    ("MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES", "zero-shot-object-detection"),
    ("MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES", "image-segmentation"),
    ("MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES", "image-segmentation"),
    ("MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES", "image-segmentation"),
    ("MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES", "depth-estimation"),
    ("MODEL_FOR_MASK_GENERATION_MAPPING_NAMES", "mask-generation"),
    ("MODEL_FOR_KEYPOINT_MATCHING_MAPPING_NAMES", "keypoint-matching"),
    ("MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING_NAMES", "document-question-answering"),
    ("MODEL_FOR_TABLE_QUESTION_ANSWERING_MAPPING_NAMES", "table-question-answering"),
    ("MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES", "visual-question-answering"),
    ("MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES", "image-to-image"),
    ("MODEL_FOR_DECISION_MAPPING_NAMES", "decision"),
    ("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES", "zero-shot-image-classification"),
    ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "fill-mask"),
    ("MODEL_FOR_IMAGE_MAPPING_NAMES", "image-feature-extraction"),
    ("MODEL_MAPPING_NAMES", "feature-extraction"),
)

# For classes from the model's own code, which the installed transformers does not know, the name tells the task.
_TASK_BY_SUFFIX = (
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCTC", "automatic-speech-recognition"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("ForAudioClassification", "audio-classification"),
    ("ForImageClassification", "image-classification"),
    ("ForObjectDetection", "object-detection"),
)


def infer_task(
    config: Mapping[str, Any], auto_mappings: Mapping[str, Mapping[str, Any]], installed: Collection[str] = KINDS.keys()
) -> str:
    """Infer the task from `config.json` and transformers' auto mappings (mapping name -> type -> classes).

    Only tasks with an installed or removed pipeline count: 4.46 has models for image-text-to-text, but no pipeline yet.
    """
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        for mapping, task in _TASK_BY_MAPPING:
            if (task in installed or task in REMOVED) and name in _class_names(auto_mappings.get(mapping, {}).values()):
                return task
        for suffix, task in _TASK_BY_SUFFIX:
            if str(name).endswith(suffix):
                return task
    raise StartError(
        f"HF_TASK is not set and the model's config.json does not tell its task (architectures: {architectures}). "
        "Set HF_TASK, for example to 'text-generation' or 'automatic-speech-recognition'"
    )


def check_task(task: str, installed: Iterable[str], aliases: Mapping[str, str], version: str) -> str:
    """Return the canonical name of a task; `StartError` unless transformers and this server both support it."""
    wanted = {**ALIASES, **aliases}.get(task, task)
    family = "translation" if wanted.startswith("translation_") else wanted
    tasks = set(installed)
    tasks |= {ours for ours, pipeline in PIPELINES.items() if pipeline in tasks}
    if family in tasks and family in KINDS:
        if family in NEEDS and find_spec(NEEDS[family]) is None:
            raise StartError(
                f"HF_TASK ('{task}') needs the Python package {NEEDS[family]}, which this image lacks: "
                f"choose a base that has {NEEDS[family]}, or name it in code/requirements.txt"
            )
        return wanted
    if family in tasks:
        raise StartError(
            f"HF_TASK ('{task}') is not served by this server, because its pipeline reads files or URLs only. "
            f"It serves: {', '.join(sorted(tasks & KINDS.keys()))}"
        )
    if family in REMOVED:
        raise StartError(
            f"HF_TASK ('{task}') was removed from transformers in {REMOVED[family]}, and this image has {version}: "
            f"build the image with a transformers release before {REMOVED[family]}, or choose another task"
        )
    near = difflib.get_close_matches(wanted, sorted(tasks & KINDS.keys()), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise StartError(
        f"HF_TASK ('{task}') is not a task of transformers {version}{hint} "
        f"Known: {', '.join(sorted(tasks & KINDS.keys()))}"
    )


def kind_of(task: str) -> Kind:
    """Return the kind of inputs of a task that `check_task` has returned."""
    return KINDS["translation" if task.startswith("translation_") else task]


def _class_names(values: Iterable[Any]) -> set[str]:
    names: set[str] = set()
    for value in values:
        names.update([value] if isinstance(value, str) else value)
    return names
