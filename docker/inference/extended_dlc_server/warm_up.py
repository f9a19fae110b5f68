"""The request with which a model is tried before anybody else asks it."""

from __future__ import annotations

from typing import Any

from .decoding import Expected
from .tasks import Kind


def warm_up_request(expected: Expected, pipeline: Any) -> tuple[Any, dict[str, Any]]:
    """The smallest request of the task."""
    text = "warm up"
    if expected.kind is Kind.AUDIO:
        import numpy as np

        audio = {"raw": np.zeros(expected.sampling_rate, np.float32), "sampling_rate": expected.sampling_rate}
        labels = {"candidate_labels": ["a", "b"]} if expected.task.startswith("zero-shot") else {}
        return audio, labels
    if expected.kind in (Kind.IMAGE, Kind.IMAGE_AND_TEXT):
        from PIL import Image

        image = Image.new("RGB", (64, 64))
        if expected.task == "decision":
            return {"state": text, "questions": {"a": {"type": "noul", "instructions": text}}}, {}
        if expected.task == "keypoint-matching":
            return [image, image], {}
        if expected.task in ("any-to-any", "image-text-to-text"):
            token = getattr(pipeline.processor, "image_token", "")
            return {"images": image, "text": f"{token}{text}"}, {"max_new_tokens": 1}
        if expected.kind is Kind.IMAGE_AND_TEXT:
            words = {"word_boxes": [(text, [0, 0, 10, 10])]} if expected.task.startswith("document") else {}
            return {"image": image, "question": text, **words}, {}  # with words no program has to read the image
        return image, ({"candidate_labels": ["a", "b"]} if expected.task.startswith("zero-shot") else {})
    match expected.task:
        case "text-generation" | "text2text-generation" | "summarization" | "translation":
            return text, {"max_new_tokens": 2}
        case "zero-shot-classification":
            return text, {"candidate_labels": ["a", "b"]}
        case "fill-mask":
            return f"{text} {pipeline.tokenizer.mask_token}", {}
        case "question-answering":
            return {"question": text, "context": text}, {}
        case "table-question-answering":
            return {"query": text, "table": {"a": ["1"], "b": ["2"]}}, {}
    return text, {}
