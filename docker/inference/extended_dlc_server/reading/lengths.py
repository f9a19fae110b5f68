"""Limits on input tokens and new tokens, checked before inference.

A position or token id outside the model's embeddings is an index error on a CPU and ends the process on a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..machine.ending import check
from ..settings import Settings
from .counting import MOST_CHARACTERS, Counter
from .image_tokens import TASKS as WITH_IMAGES
from .image_tokens import images_in, lengths_of_prompts, tokens_of_images
from .inputs import strings_in

UNKNOWN_POSITIONS = 8192
"""Maximum input tokens of a model whose configuration does not say its number of positions."""

WINDOWS = 32
"""Maximum length, in multiples of the model's positions, of a text that the pipeline reads in windows."""

LONGEST_TO_CUT = 100_000
"""Length in characters up to which a text is always truncated or counted, and never rejected unread."""

MOST_READ = 8
"""How often each token of a text may be read because of overlapping windows."""

_POSITION_TABLES = re.compile(r"(^|\.)(position_embeddings?|wpe|embed_positions|positions_embed)$")
_NOT_OF_TEXT = re.compile(r"vision|visual|image|pixel|audio|patch|query")
_IN_WINDOWS = ("question-answering", "document-question-answering", "table-question-answering")
_WITH_QUESTION = {"question-answering": (384, 128), "document-question-answering": (10**6, 256)}
"""Tasks with windows that hold a question too -> maximum window and overlap of the pipeline."""
_TEMPLATES = {
    "zero-shot-audio-classification": "This is a sound of {}.",
    "zero-shot-image-classification": "This is a photo of {}.",
}
_LABELS = ("zero-shot-audio-classification", "zero-shot-image-classification", "zero-shot-object-detection")


class Lengths:
    """The limits of one loaded pipeline, in tokens."""

    def __init__(self, pipeline: Any, task: str, settings: Settings) -> None:
        """Read the limits from the model's embeddings, its configuration and the settings."""
        self._pipeline, self._task = pipeline, task
        model = pipeline.model
        self._both = bool(getattr(model.config, "is_encoder_decoder", False))
        table, named = _positions(model, "encoder" if self._both else "")
        known = min([number for number in (table, named) if number], default=UNKNOWN_POSITIONS)
        asked = settings.max_input_tokens
        self.input_tokens = known if asked is None else min(asked, table or asked)
        written = [number for number in _positions(model, "decoder") if number] if self._both else []
        self.new_tokens = min([settings.max_new_tokens, *written])
        self.all_tokens = self.new_tokens if self._both else self.input_tokens + self.new_tokens
        """Maximum of `max_length`, which includes the prompt for a decoder-only model."""
        self._positions = None if self._both else table or (known if named else None)
        """Positions for prompt and new tokens together, for a model that is not an encoder-decoder."""
        try:
            embedding = model.get_input_embeddings()
        except (AttributeError, NotImplementedError):  # models of images and audio
            embedding = None
        tokenizer = getattr(pipeline, "tokenizer", None)
        self.vocabulary = getattr(embedding, "num_embeddings", 0) or len(tokenizer or ()) or 10**6
        self._counter = None if tokenizer is None else Counter(tokenizer)
        self._unknown_tokens = tokenizer is not None and len(tokenizer) > self.vocabulary
        if self._unknown_tokens and embedding is not None:  # the tokenizer may also add unknown ids as special tokens
            embedding.register_forward_pre_hook(lambda _, arguments: self._check_rows(arguments[0]))
        writes = ("any-to-any", "image-text-to-text", "image-to-text", "text-generation")
        generates = task in writes and not self._both
        _check_codes(model)
        self._continues = generates and tokenizer is not None
        self._default_new, self._default_length = _default_new_tokens(pipeline) if self._continues else (None, 0)
        """Default number of new tokens, or of prompt and new tokens together."""

    @property
    def most_characters(self) -> int | None:
        """Maximum characters of a text before parsing; None for a model without a tokenizer."""
        if self._counter is None:
            return None
        windows = WINDOWS if self._task in _IN_WINDOWS else 1
        return max(LONGEST_TO_CUT, MOST_CHARACTERS * self.input_tokens * windows)

    def fit(self, inputs: Any, prompt: Any, arguments: dict[str, Any]) -> tuple[Any, int]:
        """Return the inputs, truncated if `truncation` is set, and the number of tokens lost; 400 if they are too long.

        `prompt` is the rendered chat, or the inputs. May set `max_new_tokens` in the arguments if the request does not.
        """
        if self._counter is None:
            return inputs, 0
        below = arguments.get("tokenizer_kwargs") or arguments.get("tokenize_kwargs") or {}
        cuts = any(one.get("truncation") not in (None, False, "do_not_truncate") for one in (arguments, below))
        if self._task not in ("visual-question-answering", "table-question-answering"):
            arguments.pop("truncation", None)  # truncated here, in the same way for all tasks
        if self._task == "fill-mask":
            self._check_masks(inputs)
        if self._task in ("any-to-any", "image-text-to-text"):
            self._check_images(inputs)
        shorter = below.get("max_length") or arguments.get("max_length") if cuts else None
        limit = min(self.input_tokens, shorter or self.input_tokens)
        for multiple in _multiples(arguments):  # padding to a multiple needs positions too
            limit -= limit % multiple
        removed, longest = 0, 0
        shortened: dict[str, str] = {}
        if self._task in _WITH_QUESTION:
            self._check_windows(inputs, arguments)
        labels = self._longest_label(arguments, limit) if self._task == "zero-shot-classification" else 0
        for text, room, cut in self._texts(inputs, prompt, arguments, limit, labels):
            check()
            tokens = self._counter.upper_bound(text)
            if tokens > room or self._unknown_tokens or not self._surely_fits(tokens, arguments):
                tokens = self._counter.count(text, room)
            if tokens > room:
                if not (cuts and cut) or room < 1:
                    raise self._too_long(text, tokens, room, cut)
                shortened[text], lost = self._counter.cut(text, room)
                removed += lost
                tokens = room
            if self._unknown_tokens:
                self._check_ids(text)
            longest = max(longest, tokens)
        if self._continues and self._task not in WITH_IMAGES:  # with images, `check_expanded` does it
            self._check_continuation(longest, arguments)
        return (_replaced(inputs, shortened) if shortened else inputs), removed

    def fit_cut(self, inputs: Any, arguments: dict[str, Any], limit: int) -> int:
        """Estimate how many tokens are lost because the tokenizer truncates texts at `limit`.

        400 for too long texts if the request does not allow truncation, and for token ids outside the vocabulary.
        """
        assert self._counter is not None  # noqa: S101 - only called for tasks with a tokenizer
        cuts = arguments.pop("truncation", True) not in (False, "do_not_truncate")
        room, lost = limit - self._counter.special, 0
        for text in inputs if isinstance(inputs, list) else strings_in(inputs):
            check()
            if isinstance(text, list):
                self._check_numbers(text)
                tokens = len(text) - self._counter.special
            else:
                text = f"{arguments.get('prompt', '')}{text}"
                tokens = self._counter.upper_bound(text)
                if tokens > room:
                    tokens = self._counter.count(text, room)
                if self._unknown_tokens:
                    self._check_ids(text)
            if tokens > room and not cuts:
                raise self._too_long("" if isinstance(text, list) else text, tokens, room, True)
            lost += max(0, tokens - room, len(text) // 4 - room if tokens > room else 0)
        return lost

    def fit_pairs(self, query: str, texts: Sequence[str], limit: int, *, cuts: bool) -> int:
        """As `fit_cut`, for pairs of a query and a text."""
        assert self._counter is not None  # noqa: S101 - only called for tasks with a tokenizer
        beside = self._counter.count(query, limit)
        room, lost = limit - self._counter.special_of_pair, 0
        for text in texts:
            check()
            tokens = beside + self._counter.upper_bound(text)
            if tokens > room:
                tokens = beside + self._counter.count(text, room)
            if self._unknown_tokens:
                self._check_ids(text)
            if tokens > room and not cuts:
                raise self._too_long(text, tokens, room, True)
            lost += max(0, tokens - room, len(text) // 4 - room if tokens > room else 0)
        return lost

    def _check_numbers(self, tokens: list[int]) -> None:
        if max(tokens) >= self.vocabulary or min(tokens) < 0:
            raise RequestError(
                400,
                "bad-inputs",
                f"the input has the token {max(tokens)}, and the model knows those from 0 to {self.vocabulary - 1}: "
                "send tokens of its own tokenizer, or texts",
            )

    def prompt(self, text: str, *, special: bool) -> list[int]:
        """Tokenize a prompt; with `special`, add the tokenizer's special tokens. 400 if it is too long."""
        assert self._counter is not None  # noqa: S101 - only called for tasks with a tokenizer
        check()
        room = self.input_tokens - (self._counter.special if special else 0)
        if self._counter.upper_bound(text) > room and (tokens := self._counter.count(text, room)) > room:
            raise self._too_long(text, tokens, room, may_cut=False)
        if self._unknown_tokens:
            self._check_ids(text)
        return self._counter.encode(text, special=special)

    def keep_end(self, inputs: Any, most: int) -> tuple[Any, int]:
        """Keep the last `most` tokens of each text; return them with an estimate of the tokens lost. 400 for a chat."""
        assert self._counter is not None  # noqa: S101 - only called for text-generation
        texts = inputs if isinstance(inputs, list) else [inputs]
        if not all(isinstance(text, str) for text in texts):
            raise RequestError(
                400, "bad-parameters", "'truncate' is for texts: of a chat leave out the oldest messages"
            )
        kept, lost = [], 0
        for text in texts:
            check()
            if self._counter.upper_bound(text) > most and self._counter.count(text, most) > most:
                text, tokens = self._counter.cut(text, most, "left")
                lost += tokens
            kept.append(text)
        return (kept if isinstance(inputs, list) else kept[0]), lost

    def new_tokens_after(self, tokens: int, asked: int | None) -> int:
        """Return the maximum of new tokens after a prompt: `asked`, or as many as fit. 400 if there is no room."""
        left = self.new_tokens if self._positions is None else min(self.new_tokens, self._positions - tokens)
        if left < (asked or 1):
            raise RequestError(
                400,
                "inputs-too-long",
                f"the prompt has {tokens} tokens and the answer may have {asked or 1}, and the model has "
                f"{self._positions} positions for both: send less, or a smaller 'max_tokens'",
            )
        return asked or left

    def fit_together(self, tokens: int, new: int) -> bool:
        """Whether the model has positions for a prompt and its new tokens."""
        return self._positions is None or tokens + new <= self._positions

    def _texts(
        self, inputs: Any, prompt: Any, arguments: Mapping[str, Any], limit: int, labels: int
    ) -> Iterator[tuple[str, int, bool]]:
        """Yield each text that the model reads, its maximum number of tokens, and whether it may be truncated.

        `labels` is the number of tokens of the longest label, which is read with each text.
        """
        assert self._counter is not None  # noqa: S101 - only called for tasks with a tokenizer
        if self._task in WITH_IMAGES and not _is_several(prompt):
            limit -= self._tokens_of_images(prompt, limit)
        special, several = self._counter.special, self._counter.special_of_pair
        windows = WINDOWS * limit
        match prompt:
            case str() if self._task == "zero-shot-classification":
                yield prompt, limit - several - labels, True
            case str() if self._task == "token-classification" and "stride" in arguments:
                yield prompt, windows, True
            case str():
                # a rendered chat includes its special tokens, and its end must not be cut off
                chat, prefix = prompt is not inputs, arguments.get("prefix") or ""
                yield prefix + prompt, limit - (0 if chat else special), not chat and not prefix
            case [{"role": _}, *_]:  # a chat with images, which the pipeline renders
                yield " ".join(_said(prompt)), limit - special, False
            case list():
                for one, rendered in zip(inputs, prompt, strict=True):
                    yield from self._texts(one, rendered, arguments, limit, labels)
            case {"text": str(first), "text_pair": str(second)}:
                room = limit - several
                ours, theirs = (self._counter.count(text, room) for text in (first, second))
                # the longer of the two is truncated first, as by tokenizers
                yield first, max(room - theirs, room // 2), True
                yield second, max(room - ours, room - room // 2), True
            case dict():
                room = windows if self._task in _IN_WINDOWS else limit - special
                texts = [value for value in prompt.values() if isinstance(value, str)]
                yield from ((text, room, self._task == "text-classification") for text in texts)
                rest = [value for value in prompt.values() if isinstance(value, (list, dict))]
                yield " ".join(strings_in(rest)), room, False
        if self._task in _LABELS:
            template = arguments.get("hypothesis_template", _TEMPLATES.get(self._task, "{}"))
            for label in _labels(arguments):
                yield template.replace("{}", label), limit - special, False
        if self._task == "image-to-text" and "prompt" in arguments:
            yield arguments["prompt"], limit - special, False

    def _tokens_of_images(self, prompt: Any, limit: int) -> int:
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

    def check_expanded(self, model_inputs: Mapping[str, Any], options: dict[str, Any]) -> None:
        """400 for a prompt that is too long, by the exact number of tokens: the processor has added the image tokens.

        `options` are the arguments of `generate`; `max_new_tokens` may be added to them.
        """
        for tokens in lengths_of_prompts(model_inputs):
            if tokens > self.input_tokens:
                raise RequestError(
                    400,
                    "inputs-too-long",
                    f"'inputs' has {tokens} tokens with those of its images and the model takes {self.input_tokens}: "
                    "send a shorter text, or fewer or smaller images",
                )
            if self._continues:
                arguments = {"generate_kwargs": options}
                self._check_continuation(tokens, arguments)

    def _longest_label(self, arguments: Mapping[str, Any], limit: int) -> int:
        """Return the most tokens of a label in its template: a shorter text may have more tokens than a longer one."""
        assert self._counter is not None  # noqa: S101 - only called for tasks with a tokenizer
        template: str = arguments.get("hypothesis_template", "This example is {}.")
        texts = {template.replace("{}", label) for label in _labels(arguments)}
        longest = 0
        for text in sorted(texts, key=self._counter.upper_bound, reverse=True):
            if self._counter.upper_bound(text) <= longest:
                break
            longest = max(longest, self._counter.count(text, limit))
        return longest

    def _check_windows(self, inputs: Any, arguments: dict[str, Any]) -> None:
        """400 if overlapping windows have too little new text each.

        The step from one window to the next is what the question and the overlap leave free. With a step of one token,
        a page would become as many windows as it has tokens, all in memory at once.
        """
        assert self._counter is not None  # noqa: S101 - only called for tasks with a tokenizer
        usual, overlap = _WITH_QUESTION[self._task]
        names = min(usual, getattr(self._pipeline.tokenizer, "model_max_length", usual))
        if names > self.input_tokens:
            arguments.setdefault("max_seq_len", self.input_tokens)
        length = arguments.get("max_seq_len", names)
        stride = arguments.get("doc_stride", min(length // 2, overlap))
        for one in inputs if isinstance(inputs, list) else [inputs]:
            check()
            questions = one["question"] if isinstance(one["question"], list) else [one["question"]]
            taken = max(self._counter.count(question, length) for question in questions)
            if self._task == "question-answering":  # its pipeline truncates the question
                taken = min(taken, arguments.get("max_question_len", 64))
            left = length - taken - self._counter.special_of_pair
            rest = (text for name in ("context", "word_boxes") for text in strings_in(one.get(name, ())))
            if sum(map(self._counter.upper_bound, rest)) > left and MOST_READ * (left - stride) < length:
                raise RequestError(
                    400,
                    "bad-parameters",
                    f"the text is read in windows of {length} tokens ('max_seq_len'), of which the question takes "
                    f"{taken} and the overlap {stride} ('doc_stride'): at least one in {MOST_READ} must be new text, "
                    "so send a shorter question, a smaller 'doc_stride' or a larger 'max_seq_len'",
                )

    def _surely_fits(self, most: int, arguments: Mapping[str, Any]) -> bool:
        """Whether a prompt of at most `most` tokens fits with all new tokens, so that it need not be counted."""
        if not self._continues or self._positions is None:
            return True
        asked = arguments.get("max_new_tokens") or arguments.get("generate_kwargs", {}).get("max_new_tokens")
        return "max_length" not in arguments and most + (asked or self._default_new_tokens(0)) <= self._positions

    def _check_continuation(self, tokens: int, arguments: dict[str, Any]) -> None:
        """400 if the positions do not suffice for prompt and new tokens; a default number of new tokens is reduced."""
        given = {**arguments, **arguments.get("generate_kwargs", {})}
        positions = self._positions
        asked = given.get("max_new_tokens")
        if asked is None and "max_length" not in given:
            default = self._default_new_tokens(tokens)
            left = default if positions is None else min(default, positions - tokens)
            left = min(left, self.new_tokens)
            if left >= 1:
                if left < default:
                    target = (
                        arguments if self._task == "text-generation" else arguments.setdefault("generate_kwargs", {})
                    )
                    target["max_new_tokens"] = left
                return
            asked = 1
        total = given.get("max_length", 0) if asked is None else tokens + asked
        if positions is not None and total > positions:
            raise RequestError(
                400,
                "inputs-too-long",
                f"'inputs' has {tokens} tokens and the answer may have {asked or total - tokens}, and the model has "
                f"{positions} positions for both: send a shorter text, or a smaller 'max_new_tokens'",
            )
        if total - tokens > self.new_tokens:
            raise RequestError(
                400,
                "bad-parameters",
                f"'max_length' ({total}) asks for more than the {self.new_tokens} new tokens that a request may have: "
                "send a smaller one, or raise EXTENDED_DLC_MAX_NEW_TOKENS",
            )

    def _default_new_tokens(self, tokens: int) -> int:
        """Return the default number of new tokens, by the pipeline or the model's configuration."""
        return self._default_new or max(1, self._default_length - tokens)

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

    def _check_rows(self, tokens: Any) -> None:
        if tokens.numel():
            self._check_largest(int(tokens.max()))

    def _check_ids(self, text: str) -> None:
        self._check_largest(self._counter.largest(text) if self._counter else 0)

    def _check_largest(self, largest: int) -> None:
        if largest >= self.vocabulary:
            raise RequestError(
                400,
                "bad-inputs",
                f"'inputs' has the token {largest}, and the model knows those below {self.vocabulary}: its tokenizer "
                "has more tokens than it, leave out what is special to it",
            )

    def _too_long(self, text: str, tokens: int, room: int, may_cut: bool) -> RequestError:
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


def _default_new_tokens(pipeline: Any) -> tuple[int | None, int]:
    """Return the default `max_new_tokens` if the configuration has one, and the default `max_length`."""
    model = pipeline.model.generation_config
    config = getattr(pipeline, "generation_config", None) or model
    length = int(getattr(config, "max_length", None) or 20)
    if getattr(config, "max_new_tokens", None):
        return int(config.max_new_tokens), length
    # newer releases have pipeline defaults for a model whose generation_config.json sets neither
    defaults = getattr(pipeline, "_generation_defaults", {})
    if "max_new_tokens" in defaults and "max_length" not in model.to_diff_dict():
        return int(defaults["max_new_tokens"]), length
    return None, length


def _check_codes(model: Any) -> None:
    """Wrap the `decode` of audio codecs to reject codes out of range, since a model may generate special tokens.

    A request can cause that with `suppress_tokens`; on a GPU, a code out of range ends the process.
    """

    def checked(decode: Any, size: int) -> Any:
        def look(codes: Any, *arguments: Any, **options: Any) -> Any:
            if codes.numel() and int(codes.max()) >= size:
                raise RequestError(
                    400,
                    "refused-by-model",
                    f"the model has written a code for sound that its codec does not know, which has {size}: send "
                    "another text, or fewer parameters of the generation",
                )
            return decode(codes, *arguments, **options)

        return look

    for module in model.modules():
        size = getattr(module, "codebook_size", None)
        if isinstance(size, int) and callable(getattr(module, "decode", None)):
            module.decode = checked(module.decode, size)


def _positions(model: Any, part: str) -> tuple[int | None, int | None]:
    """Return the positions of the text model, or of its encoder or decoder: by its embeddings and by its config."""
    import torch

    found: list[int] = []
    for name, module in model.named_modules():
        if not _POSITION_TABLES.search(name) or _NOT_OF_TEXT.search(name) or (part and part not in name.split(".")):
            continue
        rows = getattr(module, "num_embeddings", None)
        if not rows:
            continue
        # RoBERTa and similar models count positions from the padding id on; Bart's embeddings have an offset
        own = type(module) is torch.nn.Embedding
        first = module.padding_idx + 1 if own and module.padding_idx is not None else getattr(module, "offset", 0)
        found.append(rows - int(first))
    return min(found, default=None), _named_positions(model.config)


def text_config(config: Any) -> Any:
    """Return the part of a configuration for the input text, or all of it if it has no such part.

    A model such as MusicGen has one part for its input text and one for the audio codes that it generates.
    """
    get_text_config = getattr(config, "get_text_config", None)
    if get_text_config is None:
        return config
    try:
        return get_text_config()
    except ValueError:
        return getattr(config, "text_encoder", config)


def _named_positions(config: Any) -> int | None:
    text = text_config(config)
    for name in ("max_position_embeddings", "seq_length", "max_seq_len", "max_sequence_length"):
        number = getattr(text, name, None)
        if isinstance(number, int) and number > 1:
            return number
    return None


def _multiples(arguments: Mapping[str, Any]) -> Iterator[int]:
    for options in (arguments, *(value for value in arguments.values() if isinstance(value, dict))):
        if "pad_to_multiple_of" in options:
            yield options["pad_to_multiple_of"]


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


def _replaced(inputs: Any, shortened: Mapping[str, str]) -> Any:
    """Replace the truncated texts in the inputs."""
    if isinstance(inputs, list):
        return [_replaced(one, shortened) for one in inputs]
    if isinstance(inputs, dict):
        return {key: _replaced(one, shortened) for key, one in inputs.items()}
    return shortened.get(inputs, inputs) if isinstance(inputs, str) else inputs
