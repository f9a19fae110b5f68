"""Load a tiny model for every task of the installed transformers as the server does, ask it, and print the answers.

One process for all tasks, since importing transformers takes longer than all of them. Run by `test_tasks.py`. With
`HALF` in the environment the device would rather have bfloat16, as a GPU and a large CPU would.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import tiny_tasks
from extended_dlc_server.errors import StartError
from extended_dlc_server.machine import devices
from extended_dlc_server.model import loading
from extended_dlc_server.model.loading import _auto_mappings, load_pipelines
from extended_dlc_server.reading.decoding import decode
from extended_dlc_server.reading.tasks import infer_task
from extended_dlc_server.settings import Settings

LABELS = {"candidate_labels": ["a cat", "a dog"]}


def image() -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((48, 40), 64).convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def audio() -> str:
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, 16_000, 0, "NONE", ""))
        wav.writeframes(bytes(32_000))
    return base64.b64encode(file.getvalue()).decode()


def request_of(task: str) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "any-to-any": {"images": image(), "text": "<image>hello"},
        "decision": {"state": "hello", "questions": {"polite": {"type": "noul", "instructions": "Is it polite?"}}},
        "document-question-answering": {
            "image": image(),
            "question": "hello",
            "word_boxes": [["hello", [0, 0, 10, 10]], ["world", [10, 0, 20, 10]]],
        },
        "fill-mask": "hello [MASK]",
        "image-text-to-text": {"images": image(), "text": "<image>hello"},
        "keypoint-matching": [image(), image()],
        "question-answering": {"question": "hello", "context": "hello world"},
        "table-question-answering": {"query": "hello", "table": {"name": ["a", "b"], "age": ["1", "2"]}},
        "visual-question-answering": {"image": image(), "question": "hello"},
    }
    parameters = {
        "mask-generation": {"pred_iou_thresh": -100, "stability_score_thresh": 0},
        "object-detection": {"threshold": 0},
        "zero-shot-object-detection": {**LABELS, "threshold": 0},
    }
    if task in asked:
        inputs = asked[task]
    elif "audio-" in task or "speech" in task:
        inputs = audio()
    elif "image" in task or task in ("depth-estimation", "mask-generation", "object-detection") or "object" in task:
        inputs = image()
    else:
        inputs = "hello"
    return {"inputs": inputs, "parameters": parameters.get(task, LABELS if task.startswith("zero-shot") else {})}


def outcome(task: str, folder: Path) -> dict[str, Any]:
    """Load a model of the task as an endpoint does; return its answer, or the reason of its refusal."""
    tiny_tasks.make(task, folder / "model")
    try:
        (model,) = load_pipelines(Settings(model_folder=folder / "model", task=task))
    except StartError as error:
        return {"refused": str(error)}
    request = decode(json.dumps(request_of(task)).encode(), "application/json", model.expected)
    from transformers.pipelines import PIPELINE_REGISTRY

    model.prepare(request)
    config = json.loads((folder / "model" / "config.json").read_text())
    return {
        "answer": json.loads(model.answer(request)),
        "precision": str(model.pipeline.model.dtype),
        "inferred": infer_task(config, _auto_mappings(), PIPELINE_REGISTRY.supported_tasks),
    }


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    logging.disable()
    if os.environ.get("HALF"):
        devices.LARGE, loading.multiplies_bfloat16 = 0, lambda: True
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    transformers.logging.set_verbosity_error()
    for task in sys.argv[2:] or sorted(PIPELINE_REGISTRY.supported_tasks):
        print(json.dumps({"task": task, **outcome(task, Path(sys.argv[1]) / task)}), flush=True)
