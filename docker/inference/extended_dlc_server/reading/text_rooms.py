"""The texts of a request that the model reads, each with the tokens that there is room for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import RequestError
from .counting import Counter
from .image_tokens import TASKS as WITH_IMAGES
from .image_tokens import images_in, tokens_of_images
from .inputs import strings_in

WINDOWS = 32
"""Maximum length, in multiples of the model's positions, of a text that the pipeline reads in windows."""

IN_WINDOWS = ("question-answering", "document-question-answering", "table-question-answering")

_TEMPLATES = {
    "zero-shot-audio-classification": "This is a sound of {}.",
    "zero-shot-image-classification": "This is a photo of {}.",
}
_LABELS = ("zero-shot-audio-classification", "zero-shot-image-classification", "zero-shot-object-detection")


class TextRoom(NamedTuple):
    """A text, its maximum number of tokens, and whether it may be truncated."""

    text: str
    room: int
    may_cut: bool


class TextRooms:
    """Finds the texts in the requests of one task."""

    def __init__(self, pipeline: Any, task: str, counter: Counter) -> None:
        """Count special tokens, labels and images with the pipeline's tokenizer and processor."""
        self._pipeline, self._task, self._counter = pipeline, task, counter

    def of(self, inputs: Any, prompt: Any, arguments: Mapping[str, Any], limit: int) -> Iterator[TextRoom]:
        """Yield each text that the model reads, where it reads `limit` tokens at once.

        `prompt` is the rendered chat, or the inputs.
        """
        labels = self._longest_label(arguments, limit) if self._task == "zero-shot-classification" else 0
        yield from self._of(inputs, prompt, arguments, limit, labels)

    def _of(
        self, inputs: Any, prompt: Any, arguments: Mapping[str, Any], limit: int, labels: int
    ) -> Iterator[TextRoom]:
        """`labels` is the number of tokens of the longest label, which is read with each text."""
        if self._task in WITH_IMAGES and not _is_several(prompt):
            limit -= self.tokens_of_images(prompt, limit)
        special = self._counter.special
        match prompt:
            case str() if self._task == "zero-shot-classification":
                yield TextRoom(prompt, limit - self._counter.special_of_pair - labels, True)
            case str() if self._task == "token-classification" and "stride" in arguments:
                yield TextRoom(prompt, WINDOWS * limit, True)
            case str():
                # a rendered chat includes its special tokens, and its end must not be cut off
                chat, prefix = prompt is not inputs, arguments.get("prefix") or ""
                yield TextRoom(prefix + prompt, limit - (0 if chat else special), not chat and not prefix)
            case [{"role": _}, *_]:  # a chat with images, which the pipeline renders
                yield TextRoom(" ".join(_said(prompt)), limit - special, False)
            case list():
                for one, rendered in zip(inputs, prompt, strict=True):
                    yield from self._of(one, rendered, arguments, limit, labels)
            case dict():
                yield from self._of_parts(prompt, limit)
        yield from self._of_parameters(arguments, limit - special)

    def _of_parts(self, prompt: Mapping[str, Any], limit: int) -> Iterator[TextRoom]:
        """Yield the texts of an object: a pair, a question with its context, or others."""
        match prompt:
            case {"text": str(first), "text_pair": str(second)}:
                room = limit - self._counter.special_of_pair
                ours, theirs = (self._counter.count(text, room) for text in (first, second))
                # the longer of the two is truncated first, as by tokenizers
                yield TextRoom(first, max(room - theirs, room // 2), True)
                yield TextRoom(second, max(room - ours, room - room // 2), True)
            case _:
                room = WINDOWS * limit if self._task in IN_WINDOWS else limit - self._counter.special
                texts = [value for value in prompt.values() if isinstance(value, str)]
                yield from (TextRoom(text, room, self._task == "text-classification") for text in texts)
                rest = [value for value in prompt.values() if isinstance(value, (list, dict))]
                yield TextRoom(" ".join(strings_in(rest)), room, False)

    def _of_parameters(self, arguments: Mapping[str, Any], room: int) -> Iterator[TextRoom]:
        if self._task in _LABELS:
            template = arguments.get("hypothesis_template", _TEMPLATES.get(self._task, "{}"))
            for label in _labels(arguments):
                yield TextRoom(template.replace("{}", label), room, False)
        if self._task == "image-to-text" and "prompt" in arguments:
            yield TextRoom(arguments["prompt"], room, False)

    def tokens_of_images(self, prompt: Any, limit: int) -> int:
        """Return the number of image tokens of a prompt; 400 if they leave no room for the text."""
        images = list(images_in(prompt))
        if isinstance(prompt, dict) and isinstance(prompt.get("assets"), dict):  # count each reference to an image
            texts = list(strings_in([value for name, value in prompt.items() if name != "assets"]))
            places = {name: sum(text.count(name) for text in texts) for name in prompt["assets"]}
            images = [image for name, image in prompt["assets"].items() for _ in range(places[name])]
        tokens = tokens_of_images(getattr(self._pipeline, "processor", None), images)
        if tokens >= limit:
            raise RequestError(
                400,
                "inputs-too-long",
                f"the {len(images)} images of 'inputs' take {tokens} tokens and the model takes {limit} with the text: "
                "send fewer images, or smaller ones",
            )
        return tokens

    def _longest_label(self, arguments: Mapping[str, Any], limit: int) -> int:
        """Return the most tokens of a label in its template: a shorter text may have more tokens than a longer one."""
        template: str = arguments.get("hypothesis_template", "This example is {}.")
        texts = {template.replace("{}", label) for label in _labels(arguments)}
        longest = 0
        for text in sorted(texts, key=self._counter.upper_bound, reverse=True):
            if self._counter.upper_bound(text) <= longest:
                break
            longest = max(longest, self._counter.count(text, limit))
        return longest


def _labels(arguments: Mapping[str, Any]) -> list[str]:
    labels = arguments.get("candidate_labels", ())
    return [label.strip() for label in labels.split(",")] if isinstance(labels, str) else list(labels)


def _said(chat: list[Any]) -> Iterator[str]:
    """Yield the texts of a chat, without roles and types."""
    for message in chat:
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            yield from strings_in(part.get("text") if isinstance(part, dict) else part)
        yield from strings_in([value for name, value in message.items() if name not in ("role", "content")])


def _is_several(prompt: Any) -> bool:
    """Whether this is a list of prompts, not one chat."""
    return isinstance(prompt, list) and not (isinstance(prompt[0], dict) and "role" in prompt[0])
