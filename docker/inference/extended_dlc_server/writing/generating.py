"""Generation with `generate`, token by token: what the OpenAI-compatible routes need beyond a pipeline's result.

It runs on the model's thread. A stopping criterion, which every release calls after each step with the tokens so far,
ends rows, feeds streams and notices that the client has gone.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from .choosing import Plan
from .detokenizing import Detokenizer
from .streaming import StreamEndedError

_TOKENS_OF_CONTEXT = 8
"""Prompt tokens that are decoded with a continuation: they determine whether it begins with a space."""


@dataclass(frozen=True, kw_only=True)
class Likely:
    """The log probability of a token, before logits processors."""

    token: int
    logprob: float
    others: tuple[tuple[int, float], ...] = ()
    """The top tokens at its position, with their log probabilities."""


@dataclass(kw_only=True, eq=False)
class Generation:
    """One prompt and the parameters of its generation."""

    tokens: list[int] | None
    """The prompt; None if `features` makes it."""

    features: Callable[[], Mapping[str, Any]] | None = None
    """Makes the model's inputs for a prompt with images, on the model's thread."""

    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `generate`."""

    plan: Plan | None = None
    """The arguments for the scheduler; None if it does not support them."""

    most: int
    """Maximum number of new tokens of each sequence."""

    count: int = 1
    """Number of sequences to generate."""

    copies: int = 1
    """How often each sequence is returned: without sampling, all `n` would be equal."""

    prompt_tokens: int = 0
    """Number of tokens of the prompt, once it is known."""

    ends: frozenset[int]
    """Tokens that end a sequence."""

    stops: tuple[str, ...] = ()
    """Stop strings, which are left out of the text."""

    keep: frozenset[int] | None = frozenset()
    """Special tokens whose text is kept; None for all."""

    seed: int | None = None

    frequency_penalty: float = 0.0
    """Subtracted from a token's score for each of its occurrences in the generated text."""

    presence_penalty: float = 0.0
    """Subtracted once from the score of each token that occurs in the generated text."""

    likely: int | None = None
    """Number of top tokens to report with each log probability; None reports no log probabilities."""

    grammar: Callable[[], Any] | None = None
    """Makes a logits processor that enforces a grammar."""

    with_context: bool = False
    """Whether to decode the text together with the end of the prompt."""

    tells: bool = True
    """Whether the text is needed before the end."""

    tells_end: bool = False
    """Whether to report the log probability of the EOS token too."""

    def processors(self) -> list[Any]:
        """Make the logits processors that `generate` lacks, for one sequence or one batch."""
        found: list[Any] = []
        if self.frequency_penalty or self.presence_penalty:
            found.append(penalties(self.frequency_penalty, self.presence_penalty))
        return [*found, self.grammar()] if self.grammar else found

    @property
    def is_plain(self) -> bool:
        """Whether it may run in a padded batch with the same result."""
        asks = (self.seed, self.likely, self.grammar, self.features)
        return not (any(one is not None for one in asks) or self.frequency_penalty or self.presence_penalty)


@dataclass(kw_only=True, eq=False)
class Row:
    """One sequence while it grows."""

    asked: Generation

    text: Detokenizer

    number: int = 0
    """Index of the sequence within the generation."""

    tokens: list[int] = field(default_factory=list)
    likely: list[Likely] = field(default_factory=list)
    reason: str = ""
    """Why it ended: `end` (an EOS token), `stop` (a stop string) or `length`; empty while it grows."""

    @classmethod
    def of(cls, tokenizer: Any, asked: Generation, number: int) -> Row:
        """Make an empty row."""
        context = (asked.tokens or [])[-_TOKENS_OF_CONTEXT:] if asked.with_context else ()
        text = Detokenizer(tokenizer, stops=asked.stops, keep=asked.keep, context=context)
        return cls(asked=asked, number=number, text=text)

    def random(self) -> random.Random:
        """Return a random generator for this row, from the request's seed if it has one."""
        seed = self.asked.seed
        return random.Random() if seed is None else random.Random(f"{seed}/{self.number}")  # noqa: S311 - no secret

    def add(self, token: int, likely: Likely | None) -> str:
        """Add a token; return the new text that is not held back."""
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


OnToken = Callable[[Row, str], None]


def generate(
    pipeline: Any,
    asked: Sequence[Generation],
    on_token: OnToken = lambda row, text: None,
    gone: threading.Event | None = None,
) -> list[list[Row]]:
    """Generate the sequences of one request, or of a batch of plain ones with equal arguments.

    `on_token` is called for each token of a sequence, with the text that it adds.
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
            """Adds the newest token to each row, and ends rows."""

            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                if gone is not None and gone.is_set():
                    raise StreamEndedError
                step = steps.popleft() if steps else None
                for index, token in enumerate(input_ids[:, -1].tolist()):
                    row = rows[index]
                    if not row.reason:
                        likely = None if step is None else likely_token(step, index, token, first.likely or 0)
                        on_token(row, row.add(token, likely))
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
    left = iter(rows)
    return [list(islice(left, one.count)) for one in asked]


def _padding(tokenizer: Any) -> int:
    known = [one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None]
    return int(known[0]) if known else 0


def _padded(model: Any, tokenizer: Any, prompts: Sequence[list[int]]) -> dict[str, Any]:
    """Make a batch of prompts, padded on the left."""
    import torch

    longest, padding = max(map(len, prompts)), _padding(tokenizer)
    ids = [[padding] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    device = model.device
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def penalties(frequency: float, presence: float) -> Any:
    """Make a logits processor for OpenAI's penalties, which count generated tokens, not those of the prompt."""
    from transformers import LogitsProcessor

    class Penalties(LogitsProcessor):  # type: ignore[misc] # no types
        """For one call of `generate`, whose first step has only the prompt."""

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
    """Collect the log probabilities of all tokens, step by step, before logits processors."""
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
    """Return the log probabilities of a token and of the top tokens in a row's step."""
    scores = step[index]
    top = scores.topk(wanted) if wanted else None
    others = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return Likely(token=token, logprob=float(scores[token]), others=others)


@contextmanager
def seeded(device: Any, seed: int | None) -> Iterator[None]:
    """Seed torch's random generator inside the context, and restore its state afterwards."""
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
