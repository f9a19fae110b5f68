"""Every task that `pipeline()` has, at both ends of the transformers range: answered, or refused with the reason."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="pip install -r tests/runtime/requirements.txt")
pytest.importorskip("PIL", reason="pip install -r tests/runtime/requirements.txt")

from .conftest import NEWEST, OLDEST

IMAGE = Path(__file__).parents[2] / "docker" / "inference"
REFUSED = {
    "video-classification": "reads files or URLs only",
    # PyPI's torchvision cannot be imported beside a torch without CUDA, so it is no requirement of these tests: where
    # somebody installed it (0.28.0 goes with torch 2.13.0), the two must answer
    **(
        {}
        if find_spec("torchvision")
        else dict.fromkeys(
            ("any-to-any", "mask-generation"), "needs the Python package torchvision, which this image lacks"
        )
    ),
}
TASKS = {
    NEWEST: (
        *("any-to-any", "audio-classification", "automatic-speech-recognition", "decision", "depth-estimation"),
        *("document-question-answering", "feature-extraction", "fill-mask", "image-classification"),
        *("image-feature-extraction", "image-segmentation", "image-text-to-text", "keypoint-matching"),
        *("mask-generation", "object-detection", "table-question-answering", "text-classification"),
        *("text-generation", "text-to-audio", "token-classification", "video-classification"),
        *("zero-shot-audio-classification", "zero-shot-classification", "zero-shot-image-classification"),
        "zero-shot-object-detection",
    ),
    OLDEST: (
        *("audio-classification", "automatic-speech-recognition", "depth-estimation", "document-question-answering"),
        *("feature-extraction", "fill-mask", "image-classification", "image-feature-extraction"),
        *("image-segmentation", "image-to-image", "image-to-text", "mask-generation", "object-detection"),
        *("question-answering", "summarization", "table-question-answering", "text-classification"),
        *("text-generation", "text-to-audio", "text2text-generation", "token-classification", "translation"),
        *("video-classification", "visual-question-answering", "zero-shot-audio-classification"),
        *("zero-shot-classification", "zero-shot-image-classification", "zero-shot-object-detection"),
    ),
}
KEYS = {  # of the answer, or of its first row
    "any-to-any": {"input_text", "generated_text"},
    "audio-classification": {"score", "label"},
    "automatic-speech-recognition": {"text"},
    "decision": {"polite"},
    "depth-estimation": {"predicted_depth", "depth"},
    "document-question-answering": {"score", "answer", "start", "end"},
    "fill-mask": {"score", "token", "token_str", "sequence"},
    "image-classification": {"score", "label"},
    "image-segmentation": {"score", "label", "mask"},
    "image-text-to-text": {"input_text", "generated_text"},
    "image-to-text": {"generated_text"},
    "keypoint-matching": {"keypoint_image_0", "keypoint_image_1", "score"},
    "mask-generation": {"masks", "scores"},
    "object-detection": {"score", "label", "box"},
    "question-answering": {"score", "answer", "start", "end"},
    "summarization": {"summary_text"},
    "table-question-answering": {"answer", "coordinates", "cells"},
    "text-classification": {"score", "label"},
    "text-generation": {"generated_text"},
    "text-to-audio": {"audio", "sampling_rate"},
    "text2text-generation": {"generated_text"},
    "token-classification": {"entity", "score", "index", "word", "start", "end"},
    "translation": {"translation_text"},
    "visual-question-answering": {"score", "answer"},
    "zero-shot-audio-classification": {"score", "label"},
    "zero-shot-classification": {"sequence", "labels", "scores"},
    "zero-shot-image-classification": {"score", "label"},
    "zero-shot-object-detection": {"score", "label", "box"},
}
ONLY_FLOAT32 = {
    NEWEST: {"depth-estimation"},
    OLDEST: {
        *("audio-classification", "depth-estimation", "document-question-answering", "question-answering"),
        "text-to-audio",
    },
}
INFERRED_OTHERWISE = {
    "any-to-any": "image-text-to-text",
    "decision": "text-generation",
    "summarization": "text2text-generation",
    "translation": "text2text-generation",
    "zero-shot-audio-classification": "feature-extraction",
    "zero-shot-classification": "text-classification",
}


@pytest.fixture(scope="module", params=["float32", "half"])
def outcomes(request, release, overlay, tmp_path_factory):
    """Task -> its outcome, for each task of this release, as on a device that prefers that precision."""
    path = [*([str(overlay)] if release == OLDEST else []), str(IMAGE)]
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "ask_every_task.py", tmp_path_factory.mktemp("tasks")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "HALF": "1" if request.param == "half" else ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return release, {row["task"]: row for row in map(json.loads, done.stdout.splitlines())}


def first(answer):
    return answer[0] if isinstance(answer, list) else answer


def test_every_task_of_the_release_is_answered_or_refused_with_the_reason(outcomes):
    release, rows = outcomes
    assert set(rows) == set(TASKS[release])
    for task, row in rows.items():
        if task in REFUSED:
            assert REFUSED[task] in row["refused"]
        else:
            assert row.get("answer"), row


def test_an_answer_has_what_its_task_is_known_for(outcomes):
    _, rows = outcomes
    for task in (KEYS.keys() & rows.keys()) - REFUSED.keys():
        assert KEYS[task] == set(first(rows[task]["answer"])), task


def test_what_cannot_answer_in_the_devices_half_precision_does_so_in_float32(request, outcomes):
    release, rows = outcomes
    is_half = request.node.callspec.params["outcomes"] == "half"
    found = {task for task, row in rows.items() if row.get("precision") == "torch.float32"}
    served = {task for task, row in rows.items() if "answer" in row}
    assert found == (ONLY_FLOAT32[release] if is_half else served)


def test_images_in_answers_are_png_in_base64(outcomes):
    _, rows = outcomes
    images = [first(rows["image-segmentation"]["answer"])["mask"], rows["depth-estimation"]["answer"]["depth"]]
    images += [rows["image-to-image"]["answer"]] if "image-to-image" in rows else []
    for image in images:
        assert base64.b64decode(image, validate=True).startswith(b"\x89PNG")


def test_the_task_is_inferred_from_the_models_own_config(outcomes):
    _, rows = outcomes
    for task, row in rows.items():
        if "answer" in row:
            assert row["inferred"] == INFERRED_OTHERWISE.get(task, task)
