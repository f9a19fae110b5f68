"""Limits on input tokens and new tokens, checked before inference.

A position or token id outside the model's embeddings is an index error on a CPU and ends the process on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..machine.ending import check
from ..settings import Settings
from .counting import MOST_CHARACTERS, Counter
from .image_tokens import TASKS as WITH_IMAGES
from .image_tokens import images_in, lengths_of_prompts
from .inputs import strings_in
from .question_windows import WITH_QUESTION, check_windows
from .text_rooms import IN_WINDOWS, WINDOWS, TextRooms
from .token_ids import TokenIds, check_codes
from .token_limits import TokenLimits

LONGEST_TO_CUT = 100_000
"""Length in characters up to which a text is always truncated or counted, and never rejected unread."""


class Lengths:
    """Checks and truncates the texts of requests to one loaded pipeline."""

    def __init__(self, pipeline: Any, task: str, settings: Settings) -> None:
        """Read the limits from the model's embeddings, its configuration and the settings."""
        self._pipeline, self._task = pipeline, task
        tokenizer = getattr(pipeline, "tokenizer", None)
        self.limits = TokenLimits(pipeline, task, settings)
        self._counter = None if tokenizer is None else Counter(tokenizer)
        self._rooms = None if self._counter is None else TextRooms(pipeline, task, self._counter)
        self.ids = TokenIds(pipeline.model, tokenizer, self._counter)
        check_codes(pipeline.model)

    @property
    def counter(self) -> Counter:
        """The counter of a pipeline with a tokenizer."""
        assert self._counter is not None  # noqa: S101 - only asked for by tasks with a tokenizer
        return self._counter

    @property
    def most_characters(self) -> int | None:
        """Maximum characters of a text before parsing; None for a model without a tokenizer."""
        if self._counter is None:
            return None
        windows = WINDOWS if self._task in IN_WINDOWS else 1
        return max(LONGEST_TO_CUT, MOST_CHARACTERS * self.limits.input_tokens * windows)

    def fit(self, inputs: Any, prompt: Any, arguments: dict[str, Any]) -> tuple[Any, int]:
        """Return the inputs, truncated if `truncation` is set, and the number of tokens lost; 400 if they are too long.

        `prompt` is the rendered chat, or the inputs. May set `max_new_tokens` in the arguments if the request does not.
        """
        if self._counter is None or self._rooms is None:
            return inputs, 0
        cuts, limit = self._limit(arguments)
        self._check_form(inputs, arguments)
        removed, longest = 0, 0
        shortened: dict[str, str] = {}
        for text, room, may_cut in self._rooms.of(inputs, prompt, arguments, limit):
            check()
            tokens = self._tokens(text, room, arguments)
            if tokens > room:
                if not (cuts and may_cut) or room < 1:
                    raise _too_long(text, tokens, room, may_cut)
                shortened[text], lost = self._counter.cut(text, room)
                removed += lost
                tokens = room
            self.ids.check_text(text)
            longest = max(longest, tokens)
        if self.limits.continues and self._task not in WITH_IMAGES:  # with images, `check_expanded` does it
            self.limits.check_continuation(longest, arguments)
        return (_replaced(inputs, shortened) if shortened else inputs), removed

    def _limit(self, arguments: dict[str, Any]) -> tuple[bool, int]:
        """Return whether texts are to be truncated, and the tokens that the model reads at once."""
        below = arguments.get("tokenizer_kwargs") or arguments.get("tokenize_kwargs") or {}
        cuts = any(one.get("truncation") not in (None, False, "do_not_truncate") for one in (arguments, below))
        if self._task not in ("visual-question-answering", "table-question-answering"):
            arguments.pop("truncation", None)  # truncated here, in the same way for all tasks
        shorter = below.get("max_length") or arguments.get("max_length") if cuts else None
        limit = min(self.limits.input_tokens, shorter or self.limits.input_tokens)
        for multiple in _multiples(arguments):  # padding to a multiple needs positions too
            limit -= limit % multiple
        return cuts, limit

    def _check_form(self, inputs: Any, arguments: dict[str, Any]) -> None:
        """400 for texts without what their task needs, whatever their length."""
        if self._task == "fill-mask":
            self._check_masks(inputs)
        if self._task in ("any-to-any", "image-text-to-text"):
            self._check_images(inputs)
        if self._task in WITH_QUESTION:
            length = getattr(self._pipeline.tokenizer, "model_max_length", None)
            most = self.limits.input_tokens
            check_windows(inputs, arguments, task=self._task, model_length=length, most=most, counter=self.counter)

    def _tokens(self, text: str, room: int, arguments: Mapping[str, Any]) -> int:
        """Return the tokens of a text, or an upper bound on them where that is enough."""
        most = self.counter.upper_bound(text)
        if most > room or self.ids.unknown or not self.limits.surely_fits(most, arguments):
            return self.counter.count(text, room)
        return most

    def fit_cut(self, inputs: Any, arguments: dict[str, Any], limit: int) -> int:
        """Estimate how many tokens are lost because the tokenizer truncates texts at `limit`.

        400 for too long texts if the request does not allow truncation, and for token ids outside the vocabulary.
        """
        cuts = arguments.pop("truncation", True) not in (False, "do_not_truncate")
        room, lost = limit - self.counter.special, 0
        for text in inputs if isinstance(inputs, list) else strings_in(inputs):
            check()
            if isinstance(text, list):
                self.ids.check_numbers(text)
                lost += _lost("", len(text) - self.counter.special, room, cuts)
            else:
                lost += self._lost_of(f"{arguments.get('prompt', '')}{text}", 0, room, cuts)
        return lost

    def fit_pairs(self, query: str, texts: Sequence[str], limit: int, *, cuts: bool) -> int:
        """As `fit_cut`, for pairs of a query and a text."""
        beside = self.counter.count(query, limit)
        room, lost = limit - self.counter.special_of_pair, 0
        for text in texts:
            check()
            lost += self._lost_of(text, beside, room, cuts)
        return lost

    def _lost_of(self, text: str, beside: int, room: int, cuts: bool) -> int:
        """Estimate how many tokens of a text do not fit into the room, of which `beside` are taken."""
        tokens = beside + self.counter.upper_bound(text)
        if tokens > room:
            tokens = beside + self.counter.count(text, room)
        self.ids.check_text(text)
        return _lost(text, tokens, room, cuts)

    def prompt(self, text: str, *, special: bool) -> list[int]:
        """Tokenize a prompt; with `special`, add the tokenizer's special tokens. 400 if it is too long."""
        check()
        room = self.limits.input_tokens - (self.counter.special if special else 0)
        if self.counter.upper_bound(text) > room and (tokens := self.counter.count(text, room)) > room:
            raise _too_long(text, tokens, room, may_cut=False)
        self.ids.check_text(text)
        return self.counter.encode(text, special=special)

    def check_chat(self, messages: list[dict[str, Any]], prompt: str) -> None:
        """400 for a rendered chat that is too long with its images, by the tokens that these have at least."""
        assert self._rooms is not None  # noqa: S101 - a chat's model has a tokenizer
        limit, images = self.limits.input_tokens, sum(1 for _ in images_in(messages))
        room = limit - self._rooms.tokens_of_images(messages, limit) + images  # each has a placeholder in the prompt
        if self.counter.upper_bound(prompt) > room and (tokens := self.counter.count(prompt, room)) > room:
            raise _too_long(prompt, tokens, room, may_cut=False)

    def keep_end(self, inputs: Any, most: int) -> tuple[Any, int]:
        """Keep the last `most` tokens of each text; return them with an estimate of the tokens lost. 400 for a chat."""
        texts = inputs if isinstance(inputs, list) else [inputs]
        if not all(isinstance(text, str) for text in texts):
            raise RequestError(
                400, "bad-parameters", "'truncate' is for texts: of a chat leave out the oldest messages"
            )
        kept, lost = [], 0
        for text in texts:
            check()
            if self.counter.upper_bound(text) > most and self.counter.count(text, most) > most:
                text, tokens = self.counter.cut(text, most, "left")
                lost += tokens
            kept.append(text)
        return (kept if isinstance(inputs, list) else kept[0]), lost

    def check_expanded(self, model_inputs: Mapping[str, Any], options: dict[str, Any]) -> None:
        """400 for a prompt that is too long, by the exact number of tokens: the processor has added the image tokens.

        `options` are the arguments of `generate`; `max_new_tokens` may be added to them.
        """
        for tokens in lengths_of_prompts(model_inputs):
            if tokens > self.limits.input_tokens:
                raise RequestError(
                    400,
                    "inputs-too-long",
                    f"'inputs' has {tokens} tokens with those of its images and the model takes "
                    f"{self.limits.input_tokens}: send a shorter text, or fewer or smaller images",
                )
            if self.limits.continues:
                self.limits.check_continuation(tokens, {"generate_kwargs": options})

    def _check_masks(self, inputs: Any) -> None:
        mask = self._pipeline.tokenizer.mask_token
        for text in inputs if isinstance(inputs, list) else [inputs]:
            if isinstance(text, str) and mask not in text:
                raise RequestError(
                    400, "bad-inputs", f"'inputs' has no mask: write {mask} where the model is to fill in a word"
                )

    def _check_images(self, inputs: Any) -> None:
        """400 for more image placeholders than images: each is expanded to image tokens, even without an image."""
        placeholder = getattr(getattr(self._pipeline, "processor", None), "image_token", None)
        named = sum(text.count(placeholder) for text in strings_in(inputs)) if placeholder else 0
        given = sum(1 for _ in images_in(inputs))
        if named > given:
            raise RequestError(
                400,
                "bad-inputs",
                f"'inputs' has {placeholder} {named} times and {given} images: write it once for each image",
            )


def _lost(text: str, tokens: int, room: int, cuts: bool) -> int:
    """Estimate the tokens that are truncated from a text; 400 if the request does not allow that."""
    if tokens > room and not cuts:
        raise _too_long(text, tokens, room, True)
    return max(0, tokens - room, len(text) // 4 - room if tokens > room else 0)


def _too_long(text: str, tokens: int, room: int, may_cut: bool) -> RequestError:
    many = f"more than {room}" if tokens > room + 1 else str(tokens)
    if len(text) > MOST_CHARACTERS * room:
        return RequestError(
            400,
            "inputs-too-long",
            f"'inputs' has {len(text)} characters and the model takes {room} tokens, of {MOST_CHARACTERS} "
            "characters at most: send a shorter text",
        )
    return RequestError(
        400,
        "inputs-too-long",
        f"'inputs' has {many} tokens and the model takes {room}: send a shorter text"
        + (", or 'truncation': true to have it cut" if may_cut else ""),
    )


def _multiples(arguments: Mapping[str, Any]) -> Iterator[int]:
    for options in (arguments, *(value for value in arguments.values() if isinstance(value, dict))):
        if "pad_to_multiple_of" in options:
            yield options["pad_to_multiple_of"]


def _replaced(inputs: Any, shortened: Mapping[str, str]) -> Any:
    """Replace the truncated texts in the inputs."""
    if isinstance(inputs, list):
        return [_replaced(one, shortened) for one in inputs]
    if isinstance(inputs, dict):
        return {key: _replaced(one, shortened) for key, one in inputs.items()}
    return shortened.get(inputs, inputs) if isinstance(inputs, str) else inputs
