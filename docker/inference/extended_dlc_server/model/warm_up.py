"""The warm-up request of each task."""

from __future__ import annotations

from typing import Any

from ..reading.decoding import Expected
from ..reading.tasks import Kind


def warm_up_request(expected: Expected, pipeline: Any) -> tuple[Any, dict[str, Any]]:
    """Return the inputs and arguments of a minimal request, deterministic where the task allows that."""
    text = "warm up"
    greedy = {"max_new_tokens": 2, "do_sample": False}
    generates = bool(getattr(pipeline.model, "can_generate", lambda: False)())
    below = {"generate_kwargs": greedy} if generates else {}
    if expected.kind is Kind.AUDIO:
        import numpy as np

        audio = {"raw": np.zeros(expected.sampling_rate, np.float32), "sampling_rate": expected.sampling_rate}
        labels = {"candidate_labels": ["a", "b"]} if expected.task.startswith("zero-shot") else {}
        # on silence a model may never generate the EOS token, and would go on to its last position
        return audio, below if expected.task == "automatic-speech-recognition" else labels
    if expected.kind in (Kind.IMAGE, Kind.IMAGE_AND_TEXT):
        from PIL import Image

        image = Image.new("RGB", (64, 64))
        if expected.task == "decision":
            return {"state": text, "questions": {"a": {"type": "noul", "instructions": text}}}, {}
        if expected.task == "keypoint-matching":
            return [image, image], {}
        if expected.task in ("any-to-any", "image-text-to-text"):
            token = getattr(pipeline.processor, "image_token", "")
            return {"images": image, "text": f"{token}{text}"}, below
        if expected.task == "image-to-text":
            return image, below
        if expected.kind is Kind.IMAGE_AND_TEXT:
            words = {"word_boxes": [(text, [0, 0, 10, 10])]} if expected.task.startswith("document") else {}
            return {"image": image, "question": text, **words}, {}  # word boxes make OCR unnecessary
        return image, ({"candidate_labels": ["a", "b"]} if expected.task.startswith("zero-shot") else {})
    match "translation" if expected.task.startswith("translation_") else expected.task:
        case "text-generation" | "text2text-generation" | "summarization" | "translation":
            return text, greedy
        case "text-to-audio":
            return text, {"generate_kwargs": {**greedy, "max_new_tokens": 8}} if generates else {}
        case "zero-shot-classification":
            return text, {"candidate_labels": ["a", "b"]}
        case "fill-mask":
            return f"{text} {pipeline.tokenizer.mask_token}", {}
        case "question-answering":
            return {"question": text, "context": text}, {}
        case "table-question-answering":
            return {"query": text, "table": {"a": ["1"], "b": ["2"]}}, {}
    return text, {}
