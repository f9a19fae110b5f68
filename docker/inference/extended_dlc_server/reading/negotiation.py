"""Content negotiation: the response formats of a task, and the choice by the Accept header."""

from __future__ import annotations

import functools
from enum import Enum

from ..errors import RequestError


class Form(Enum):
    """A response format."""

    JSON = "application/json"
    TEXT = "text/plain"
    CSV = "text/csv"
    EVENTS = "text/event-stream"
    """One server-sent event per generated token."""

    PNG = "image/png"
    """The answer's only image, as a file."""

    NPY = "application/x-npy"
    """An array in NumPy's file format."""

    HUB = "application/json;profile=hub"
    """JSON as in Hugging Face's API, if it differs from the pipeline's result."""

    @property
    def content_type(self) -> str:
        """The Content-Type header of the response."""
        if self is Form.HUB:
            return Form.JSON.value
        return f"{self.value}; charset=utf-8" if self in (Form.TEXT, Form.CSV) else self.value


_ONE_TEXT = (
    *("automatic-speech-recognition", "image-text-to-text", "image-to-text", "summarization"),
    *("text-generation", "text2text-generation", "translation"),
)
_ROWS = (
    *("audio-classification", "fill-mask", "image-classification", "question-answering", "summarization"),
    *("text-classification", "text-generation", "text2text-generation", "token-classification", "translation"),
    *("zero-shot-audio-classification", "zero-shot-classification", "zero-shot-image-classification"),
)


_IMAGES = ("depth-estimation", "image-to-image")
_ARRAYS = ("feature-extraction", "image-feature-extraction", "sentence-embeddings")
_OTHER_ON_THE_HUB = ("zero-shot-classification",)


def offers(task: str) -> tuple[Form, ...]:
    """Return the formats for a task, JSON first."""
    family = "translation" if task.startswith("translation_") else task
    also = (
        *((Form.TEXT, _ONE_TEXT), (Form.CSV, _ROWS), (Form.EVENTS, ("text-generation",))),
        *((Form.PNG, _IMAGES), (Form.NPY, _ARRAYS), (Form.HUB, _OTHER_ON_THE_HUB)),
    )
    return (Form.JSON, *(form for form, tasks in also if family in tasks))


@functools.lru_cache(maxsize=64)
def choose_form(accept: str, task: str) -> Form:
    """Choose the format with the highest quality, then the most specific match, then JSON; 406 if none is accepted."""
    ranges = [_parse_range(part) for part in accept.split(",") if part.strip()]
    offered = offers(task)
    if not ranges:
        return offered[0]
    best, form = max(((_rank(ranges, form.value), form) for form in offered), key=lambda pair: pair[0])
    if best[0] <= 0:
        raise not_acceptable(f"an answer of {task} cannot be written as '{accept[:100]}'", task)
    if form is Form.JSON and Form.HUB in offered and any(map(_asks_for_hub, accept.split(","))):
        return Form.HUB
    return form


def not_acceptable(problem: str, task: str) -> RequestError:
    """Make the error for an Accept header without an available format."""
    known = ", ".join(form.value for form in offers(task))
    return RequestError(406, "not-acceptable", f"{problem}: set Accept to one of: {known}")


def _asks_for_hub(part: str) -> bool:
    """Whether a part of the header is JSON with the profile `hub`."""
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    profiles = [value.strip().strip('"').split() for name, _, value in pairs if name.strip() == "profile"]
    return media == Form.JSON.value and any(found[:1] == ["hub"] for found in profiles)


def _parse_range(part: str) -> tuple[str, float]:
    media, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return media.lower(), min(1.0, max(0.0, float(value)))
            except ValueError:
                return media.lower(), 0.0
    return media.lower(), 1.0


def _rank(ranges: list[tuple[str, float]], media: str) -> tuple[float, int]:
    """Return the quality for a media type, and how specific the match is (a named type wins over `*/*`)."""
    patterns = {media: 2, f"{media.partition('/')[0]}/*": 1, "*/*": 0}
    found = [(patterns[pattern], quality) for pattern, quality in ranges if pattern in patterns]
    exactness, quality = max(found, default=(0, 0.0))
    return quality, exactness
