"""A sample request for an endpoint, by its model's type and task."""

from __future__ import annotations

import base64
import json
import struct
import zlib

from extended_dlc.asking.content import Content
from extended_dlc.facts.models import SPEECH, SPEECH_TYPES
from extended_dlc.rehearsal.speech import tone_wav

TEXT = "Hello, my name is"

_PICTURE_TASKS = ("depth-estimation", "image-classification", "image-feature-extraction", "image-segmentation")
_PICTURES = (*_PICTURE_TASKS, "image-to-image", "image-to-text", "mask-generation", "object-detection")
_SOUNDS = (SPEECH, "audio-classification")
_PICTURES_WITH_TEXT = ("any-to-any", "image-text-to-text")
_PICTURE_TYPES = (
    "beit",
    "conditional_detr",
    "convnext",
    "deformable_detr",
    "deit",
    "detr",
    "dinov2",
    "resnet",
    "segformer",
    "swin",
    "vit",
    "yolos",
)
_SOUND_TYPES = (*SPEECH_TYPES, "hubert", "wav2vec2", "wavlm")
_BODIES = {
    "fill-mask": {"inputs": "Hello, my <mask> is"},
    "question-answering": {"inputs": {"question": "Who serves?", "context": "SageMaker serves the model."}},
    "sentence-similarity": {"inputs": {"source_sentence": TEXT, "sentences": ["Hello, I am", "It is raining"]}},
    "text-generation": {"inputs": TEXT, "parameters": {"max_new_tokens": 12}},
    "text-ranking": {"inputs": {"query": TEXT, "texts": ["Hello, I am", "It is raining"]}},
    "zero-shot-classification": {"inputs": TEXT, "parameters": {"candidate_labels": ["greeting", "weather"]}},
}


def sample_for(model_type: str, task: str) -> Content:
    """A text, sound or picture, or the body that the task needs."""
    if task in _SOUNDS or (not task and model_type in _SOUND_TYPES):
        return Content(data=tone_wav(seconds=2), content_type="audio/wav")
    if task in _PICTURES or (not task and model_type in _PICTURE_TYPES):
        return Content(data=square_png(64), content_type="image/png")
    if task in _PICTURES_WITH_TEXT or (not task and model_type == "llava"):
        return Content(data=json.dumps(_chat_about(square_png(32))).encode())
    if body := _BODIES.get(task):
        return Content(data=json.dumps(body).encode())
    return Content(text=TEXT)


def _chat_about(png: bytes) -> dict[str, object]:
    """A chat in OpenAI's format about a picture."""
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}}
    message = {"role": "user", "content": [picture, {"type": "text", "text": TEXT}]}
    return {"messages": [message], "max_tokens": 12}


def square_png(side: int) -> bytes:
    """A PNG whose colours change from corner to corner."""
    rows = b"".join(
        b"\0" + bytes(value for x in range(side) for value in (x * 255 // side, y * 255 // side, 128))
        for y in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
