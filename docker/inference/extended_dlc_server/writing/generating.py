"""Text that continues a prompt, token by token: what OpenAI's interfaces need of a model beside a pipeline's answer.

All of it runs on the model's thread. Each step is looked at in a criterion of `generate`, which every release calls
with the tokens so far: rows end there, streams are fed there, and who has left is noticed there.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .choosing import Plan
from .detokenizing import Detokenizer
from .streaming import StreamEndedError

_TOKENS_OF_CONTEXT = 8
"""Tokens of the prompt that are decoded with a continuation: whether it begins with a space depends on them."""


@dataclass(frozen=True, kw_only=True)
class Likely:
    """How likely a token was, by the model's own scores."""

    token: int
    logprob: float
    others: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place, with theirs."""


@dataclass(kw_only=True, eq=False)
class Generation:
    """What one request asks of the model."""

    tokens: list[int] | None
    """The prompt; None where `features` make it."""

    features: Callable[[], Mapping[str, Any]] | None = None
    """The model's inputs of a prompt with images, made on the model's thread."""

    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `generate`."""

    plan: Plan | None = None
    """What they mean, as far as the scheduler can do it."""

    most: int
    """The most new tokens of each sequence."""

    count: int = 1
    """How many sequences it wants."""

    copies: int = 1
    """How often each of them is told: without chance all would be equal."""

    prompt_tokens: int = 0
    """How many tokens the prompt has, once that is known."""

    ends: frozenset[int]
    """Tokens that end a sequence."""

    stops: tuple[str, ...] = ()
    """Texts that end a sequence, and are no part of it."""

    keep: frozenset[int] | None = frozenset()
    """Special tokens whose text is kept; None keeps that of all."""

    seed: int | None = None
    """What its random numbers begin with."""

    frequency_penalty: float = 0.0
    """Taken from a token's score for each time that it stands in the sequence already."""

    presence_penalty: float = 0.0
    """Taken once from the score of each token that stands in the sequence already."""

    likely: int | None = None
    """How many of the likeliest tokens are told beside each one; None tells nothing."""

    grammar: Callable[[], Any] | None = None
    """Makes a processor of scores that allows only what a grammar does."""

    with_context: bool = False
    """Whether the text continues the prompt's last word."""

    tells: bool = True
    """Whether anybody asks for its text before the end."""

    tells_end: bool = False
    """Whether it is told how likely the token was that ended a sequence."""

    def processors(self) -> list[Any]:
        """What changes scores beside what `generate` knows, made for one sequence or one batch."""
        found: list[Any] = []
        if self.frequency_penalty or self.presence_penalty:
            found.append(penalties(self.frequency_penalty, self.presence_penalty))
        return [*found, self.grammar()] if self.grammar else found

    @property
    def is_plain(self) -> bool:
        """Whether it means the same in a padded batch."""
        asks = (self.seed, self.likely, self.grammar, self.features)
        return not (any(one is not None for one in asks) or self.frequency_penalty or self.presence_penalty)


@dataclass(kw_only=True, eq=False)
class Row:
    """One sequence while it grows."""

    asked: Generation
    """For whom."""

    text: Detokenizer
    """Its text so far."""

    number: int = 0
    """Which one of the request's."""

    tokens: list[int] = field(default_factory=list)
    likely: list[Likely] = field(default_factory=list)
    reason: str = ""
    """Why it ended: `end` (a token), `stop` (a text) or `length`; empty while it grows."""

    @classmethod
    def of(cls, tokenizer: Any, asked: Generation, number: int) -> Row:
        """One that has nothing yet."""
        context = (asked.tokens or [])[-_TOKENS_OF_CONTEXT:] if asked.with_context else ()
        text = Detokenizer(tokenizer, stops=asked.stops, keep=asked.keep, context=context)
        return cls(asked=asked, number=number, text=text)

    def random(self) -> random.Random:
        """Its own random numbers: by the request's seed, where it has one."""
        seed = self.asked.seed
        return random.Random() if seed is None else random.Random(f"{seed}/{self.number}")  # noqa: S311 - no secret

    def add(self, token: int, likely: Likely | None) -> str:
        """One more token; returns the text that is certain now."""
        self.tokens.append(token)
        if likely and (self.asked.tells_end or token not in self.asked.ends):
            self.likely.append(likely)
        if token in self.asked.ends:
            self.reason = "end"
            if self.asked.keep is None:
                self.text.keep(token)
            return self.text.rest()
        new = ""
        if self.asked.tells or self.asked.stops:
            new = self.text.add(token)
        else:
            self.text.keep(token)
        if self.text.stopped:
            self.reason = "stop"
        elif len(self.tokens) >= self.asked.most:
            self.reason = "length"
            new += self.text.rest()
        return new


Told = Callable[[Row, str], None]


def generate(
    pipeline: Any,
    asked: Sequence[Generation],
    told: Told = lambda row, text: None,
    gone: threading.Event | None = None,
) -> list[list[Row]]:
    """The sequences of each request: one, or several plain ones as a batch with equal arguments.

    `told` hears of each token of a sequence, with the text that it adds.
    """
    import torch
    from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

    model, tokenizer = pipeline.model, pipeline.tokenizer
    first = asked[0]
    rows = [Row.of(tokenizer, one, number) for one in asked for number in range(one.count)]
    inputs = first.features() if first.features else _padded(model, tokenizer, [one.tokens or [] for one in asked])
    for one in asked:
        one.prompt_tokens = len(one.tokens) if one.tokens is not None else int(inputs["input_ids"].shape[1])
    with likelihoods(model, first.likely) as steps:

        class Watch(StoppingCriteria):  # type: ignore[misc] # no types
            """Looks at the newest token of each row."""

            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                if gone is not None and gone.is_set():
                    raise StreamEndedError
                step = steps.popleft() if steps else None
                for index, token in enumerate(input_ids[:, -1].tolist()):
                    row = rows[index]
                    if not row.reason:
                        likely = None if step is None else likely_token(step, index, token, first.likely or 0)
                        told(row, row.add(token, likely))
                return torch.tensor([bool(row.reason) for row in rows], dtype=torch.bool, device=input_ids.device)

        with seeded(model.device, first.seed), torch.inference_mode():
            model.generate(
                **inputs,
                **first.arguments,
                num_return_sequences=first.count,
                num_beams=1,
                max_new_tokens=max(one.most for one in asked),
                eos_token_id=sorted(first.ends) or None,
                pad_token_id=_padding(tokenizer),
                logits_processor=LogitsProcessorList(first.processors()),
                stopping_criteria=StoppingCriteriaList([Watch()]),
            )
    made, start = [], 0
    for one in asked:
        made.append(rows[start : start + one.count])
        start += one.count
    return made


def _padding(tokenizer: Any) -> int:
    known = [one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None]
    return int(known[0]) if known else 0


def _padded(model: Any, tokenizer: Any, prompts: Sequence[list[int]]) -> dict[str, Any]:
    """Prompts as one batch, with their padding on the left."""
    import torch

    longest, padding = max(map(len, prompts)), _padding(tokenizer)
    ids = [[padding] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    device = model.device
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def penalties(frequency: float, presence: float) -> Any:
    """OpenAI's: by the tokens of the sequence that were generated, not those of its prompt."""
    from transformers import LogitsProcessor

    class Penalties(LogitsProcessor):  # type: ignore[misc] # no types
        """Of one call of `generate`, whose first step has the prompt alone."""

        prompt: int | None = None

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            import torch

            if self.prompt is None:
                self.prompt = input_ids.shape[1]
            made = input_ids[:, self.prompt :]
            counts = torch.zeros_like(scores).scatter_add_(1, made, torch.ones_like(made, dtype=scores.dtype))
            return scores - frequency * counts - presence * (counts > 0)

    return Penalties()


@contextmanager
def likelihoods(model: Any, wanted: int | None) -> Iterator[deque[Any]]:
    """The logarithms of all tokens' likelihoods, step by step, before parameters change the scores."""
    steps: deque[Any] = deque()
    if wanted is None:
        yield steps
        return

    def look(_: Any, __: Any, output: Any) -> None:
        steps.append(output.logits[:, -1].float().log_softmax(-1))

    handle = model.register_forward_hook(look)
    try:
        yield steps
    finally:
        handle.remove()


def likely_token(step: Any, index: int, token: int, wanted: int) -> Likely:
    """What a row's step says of a token, and of the likeliest ones."""
    scores = step[index]
    top = scores.topk(wanted) if wanted else None
    others = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return Likely(token=token, logprob=float(scores[token]), others=others)


@contextmanager
def seeded(device: Any, seed: int | None) -> Iterator[None]:
    """Inside, random numbers begin with the seed; those of others go on as if nothing had been."""
    import torch

    if seed is None:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        yield
