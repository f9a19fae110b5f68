"""Continuous batching: sequences join at any step of the model and leave when they are complete.

A step prefills some of the waiting prompts (a long one in chunks, so that running sequences do not wait for it), and
generates one token for each running sequence. Each request has its own parameters (length, sampling, stop strings,
schema), so sequences with any supported parameters share the steps.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ModelFailedError, panics_are_errors
from ..machine.device_errors import explain_device
from ..machine.ending import EndedError
from ..machine.histograms import TokenTimes
from ..machine.worker import FatalError, took_too_long, waited_too_long
from .beginnings import LEAST, Beginnings, common
from .choosing import choose
from .comparing import same, tolerance_of
from .generating import Generation, Row, Told, likely_token
from .row_cache import new_cache

log = logging.getLogger(__name__)

_PIECE_SECONDS = 0.1
"""Approximate limit on the prefill in one step: running sequences wait for it."""

_LEAST_PIECE, _MOST_PIECE = 64, 2048
"""Bounds of the prompt tokens in one step, which are otherwise set by `_PIECE_SECONDS`."""

_SHARE_OF_BEGINNINGS = 4
"""Divisor: the prefix cache of finished sequences gets this fraction of the memory for keys and values."""

_OUT_OF_MEMORY = 507
"""Status of a request that fails for lack of memory."""

_ROOM_TO_WRITE = 64
"""New tokens for which there must be memory before a sequence is started."""


@dataclass(kw_only=True, eq=False)
class Writing:
    """A validated request for the scheduler."""

    asked: Sequence[Generation]
    """The generation of each prompt."""

    finish: Callable[[list[list[Row]]], Any]
    """Makes the result from the sequences of each prompt."""

    told: Told | None = None
    """Called for each token of a sequence, with the text that it adds."""

    adapter: str | None = None
    """The adapter that the request picks (`model/adapters.py`)."""


@dataclass(kw_only=True, eq=False)
class _Ticket:
    """A request in progress."""

    writing: Writing
    job: Any
    """The worker's job, which knows whether a deadline has passed or the client has gone."""

    rows: list[list[Row]]
    waiting: deque[int]
    """The index of the prompt of each sequence that has not joined."""

    left: int
    """Sequences that are not complete."""

    open: int = 0
    """Sequences that have joined and are not complete."""

    begun: bool = False
    """Whether prefill has started for any of its prompts."""

    over: bool = False
    heard: bool = False
    """Whether any token has been generated."""


@dataclass(kw_only=True, eq=False)
class _Text:
    """One sequence, with its state."""

    ticket: _Ticket
    row: Row
    draw: Callable[[], float]
    processors: list[Any]
    prompt: list[int]
    singly: bool = False
    """Whether to prefill it alone, because a prefill together with others failed."""

    heard: float | None = None
    """When its newest token was generated."""

    @property
    def tokens(self) -> list[int]:
        """The prompt and the tokens generated so far."""
        return [*self.prompt, *self.row.tokens]


@dataclass(kw_only=True)
class _Reading:
    """A prompt that is being prefilled in chunks; `tokens` are the remaining ones."""

    text: _Text
    cache: Any
    tokens: list[int]


class CannotShareStepsError(Exception):
    """The model or the transformers release does not support this server's cache; the message says why."""


class Scheduler:
    """Generates all sequences of one copy of a model."""

    def __init__(
        self,
        pipeline: Any,
        *,
        most: int,
        memory: Callable[[], int],
        longest: int,
        explained: Callable[[Exception], Exception] = lambda error: error,
    ) -> None:
        """Run at most `most` sequences at once.

        `memory` returns the bytes for keys and values, and is called after the model is loaded. `longest` is the number
        of positions of the model. `explained` converts an error to one for the client.
        """
        self._pipeline, self._model, self._tokenizer = pipeline, pipeline.model, pipeline.tokenizer
        self.most, self._memory, self._longest = most, memory, longest
        takes = inspect.signature(self._model.forward).parameters
        self._options: dict[str, Any] = {"use_cache": True, "return_dict": True}
        for name in ("logits_to_keep", "num_logits_to_keep"):
            if name in takes:
                self._options[name] = 1
        self._positions, self._cache_positions = "position_ids" in takes, "cache_position" in takes
        self._cache = new_cache()
        self._texts: list[_Text] = []
        self._coming: deque[_Text] = deque()
        self._reading: _Reading | None = None
        self._ended: list[tuple[Any, Any]] = []
        self._explained = explained
        self._overtaking = False
        self._token_bytes = 0
        self.bytes = 0
        """Memory for the keys and values of running sequences."""

        self.piece = _LEAST_PIECE
        self._beginnings = Beginnings(0)
        self.times = TokenTimes()
        self.asked_tokens = self.known_tokens = self.preemptions = 0
        """Metrics: prompt tokens, those of them found in the prefix cache, and sequences that were preempted."""

    def another(self, parts: int) -> Scheduler:
        """Return an idle scheduler with the results of this one's test and a part of its memory, for an adapter."""
        named: dict[str, Any] = {"most": self.most, "memory": self._memory, "longest": self._longest}
        made = Scheduler(self._pipeline, **named, explained=self._explained)
        made.piece, made.times, made._token_bytes = self.piece, self.times, self._token_bytes
        made._divide(self._memory() // parts)
        return made

    def _divide(self, memory: int) -> None:
        """Divide the memory for keys and values between running sequences and the prefix cache."""
        self._beginnings = Beginnings(memory // _SHARE_OF_BEGINNINGS)
        self.bytes = memory - memory // _SHARE_OF_BEGINNINGS

    # called by the worker

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._texts or self._coming or self._reading)

    @property
    def size(self) -> int:
        """Number of sequences that run or wait to."""
        return len(self._texts) + len(self._coming) + (self._reading is not None)

    def has_room(self, more: int = 0) -> bool:
        """Whether another request may join, in addition to `more` that are about to."""
        return self.size + more < self.most

    # metrics, read by any thread

    @property
    def rows(self) -> int:
        """Number of running sequences."""
        return len(self._texts)

    @property
    def used_bytes(self) -> int:
        """Bytes of the keys and values of running sequences."""
        used: int = len(self._texts) * self._cache.width * self._token_bytes
        return used

    @property
    def kept_bytes(self) -> int:
        """Bytes of the prefix cache."""
        return self._beginnings.bytes

    def add(self, writing: Writing, job: Any) -> None:
        """Add a request; its prompts are prefilled in the next steps."""
        waiting = deque(number for number, asked in enumerate(writing.asked) for _ in range(asked.count))
        rows: list[list[Row]] = [[] for _ in writing.asked]
        self._let_join(_Ticket(writing=writing, job=job, rows=rows, waiting=waiting, left=len(waiting)))

    def _let_join(self, ticket: _Ticket) -> None:
        """Queue the next sequences of a request, up to 3/4 of all slots, so that a long list does not block others."""
        while ticket.waiting and ticket.open < max(1, self.most * 3 // 4):
            number = ticket.waiting.popleft()
            asked, rows = ticket.writing.asked[number], ticket.rows[number]
            asked.prompt_tokens = len(asked.tokens or ())
            rows.append(Row.of(self._tokenizer, asked, len(rows)))
            ticket.open += 1
            self._coming.append(self._text(ticket, rows[-1]))

    def step(self) -> list[tuple[Any, Any]]:
        """Prefill some prompts and generate one token for each sequence; return each finished job with its result."""
        import torch

        with torch.inference_mode(), panics_are_errors():
            self._leave_what_is_over()
            self._read()
            self._write()
        ended, self._ended = self._ended, []
        return ended

    # prefill

    def _text(self, ticket: _Ticket, row: Row) -> _Text:
        asked = row.asked
        assert asked.tokens is not None  # noqa: S101 - prompts with images do not join the scheduler
        assert asked.plan is not None  # noqa: S101 - nor do arguments that only `generate` supports
        own = asked.plan.processors(len(asked.tokens), sorted(asked.ends))
        processors = [*own, *asked.processors(), *asked.plan.warpers(self._model.device)]
        return _Text(ticket=ticket, row=row, draw=row.random().random, processors=processors, prompt=asked.tokens)

    def _read(self) -> None:
        """Prefill the next prompts or chunk: while a long prompt is in progress, every other step is for short ones."""
        self._overtaking = self._reading is not None and not self._overtaking
        if self._reading is None or self._overtaking:
            group = self._next_group()
            if len(group) > 1 or (group and self._is_short(group[0])):
                self._read_whole(group)
                return
            if group:
                self._begin_reading(group[0])
        if self._reading is not None:
            self._read_on(self._reading)

    def _is_short(self, text: _Text) -> bool:
        """Whether it can be prefilled in one step, together with others."""
        return len(text.prompt) + len(text.row.tokens) <= self.piece and not self._known(text)[0]

    def _next_group(self) -> list[_Text]:
        """Take the prompts to prefill together from the queue: short ones, in order, without a common prefix."""
        group: list[_Text] = []
        longest = 0
        while self._coming and len(self._texts) + len(group) < self.most:
            text = self._coming[0]
            tokens = text.tokens
            size = max(longest, len(tokens))
            alone = text.singly or not self._is_short(text)
            if self._reading and (alone or common(tokens, self._reading.text.tokens) >= LEAST):
                break
            # the shortest must be at least half as long as the longest, since padding costs time too
            fits = size * (len(group) + 1) <= max(self.piece, size) and 2 * min(longest or size, len(tokens)) >= size
            if group and (alone or not fits or any(common(tokens, one.tokens) >= LEAST for one in group)):
                break
            if not self._has_memory(len(group) + 1, size) and (group or self._texts):
                break
            group.append(self._coming.popleft())
            longest = size
            if alone:
                break
        return group

    def _known(self, text: _Text) -> tuple[int, Any]:
        running = ((one.tokens[:-1], (self._cache, number)) for number, one in enumerate(self._texts))
        return self._beginnings.longest(text.tokens, running)

    def _has_memory(self, more: int, length: int) -> bool:
        """Whether `more` sequences of this length fit in memory, with `_ROOM_TO_WRITE` new tokens."""
        width = max(self._cache.width, length) + _ROOM_TO_WRITE
        if self._reading:
            width, more = max(width, len(self._reading.text.tokens)), more + 1
        needed: int = (len(self._texts) + more) * width * self._token_bytes
        return needed <= self.bytes

    def _read_whole(self, group: list[_Text]) -> None:
        """Prefill prompts in one forward pass, padded on the left, and choose their first tokens."""
        cache = new_cache()
        for text in group:
            text.ticket.begun = True
        prompts = [text.tokens for text in group]
        self.asked_tokens += sum(map(len, prompts))
        longest = max(map(len, prompts))
        cache.begin([len(prompt) for prompt in prompts])
        padded = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
        try:
            scores = self._forward(cache, padded)
            for number in range(len(group)):
                self._cache.take_in(cache, number)
        except EndedError:
            self._coming.extendleft(reversed(group))
            raise
        except Exception as error:
            self._reading_failed(group, error)
            return
        self._texts += group
        self._choose(group, scores)

    def _begin_reading(self, text: _Text) -> None:
        """Start a prompt that is long, or has a prefix in the cache."""
        text.ticket.begun = True
        length, place = self._known(text)
        cache = new_cache()
        tokens = text.tokens
        self.asked_tokens += len(tokens)
        if place is not None:
            self.known_tokens += length
            cache.take_in(*place, length)
        self._reading = _Reading(text=text, cache=cache, tokens=tokens[length:])

    def _read_on(self, reading: _Reading) -> None:
        """Prefill the next chunk."""
        piece, rest = reading.tokens[: self.piece], reading.tokens[self.piece :]
        try:
            if reading.cache.starts:
                reading.cache.reserve(len(piece))
            else:
                reading.cache.begin([len(piece)])
            scores = self._forward(reading.cache, [piece])
            reading.tokens = rest
            if rest:
                return
            self._cache.take_in(reading.cache, 0)
        except Exception as error:
            self._reading = None
            self._reading_failed([reading.text], error)
            return
        self._reading = None
        self._texts.append(reading.text)
        self._choose([reading.text], scores)

    def _reading_failed(self, group: list[_Text], error: Exception) -> None:
        """Retry each prompt alone if several failed together; fail the request if it was alone."""
        explained = self._explain(error)
        del self._cache.starts[len(self._texts) :]
        if len(group) == 1:
            self._fail(group[0].ticket, explained)
            return
        log.info("%d prompts were not read together (%s): one by one", len(group), type(error).__name__)
        for text in group:
            text.singly = True
        self._coming.extendleft(reversed(group))

    # decoding

    def _write(self) -> None:
        """Generate one token for each running sequence."""
        self._make_memory()
        texts = list(self._texts)
        if not texts:
            return
        try:
            self._cache.reserve(1)
            scores = self._forward(self._cache, [[text.row.tokens[-1]] for text in texts])
        except Exception as error:
            explained = self._explain(error)
            # the cause is mostly memory, and the newest sequence has exceeded it
            self._fail(texts[-1].ticket, explained)
            return
        self._choose(texts, scores)

    def _make_memory(self) -> None:
        """If memory is short, preempt the newest sequences: they return to the queue and are prefilled again."""
        while len(self._texts) > 1 and not self._fits_one_more():
            self._cache.leave(len(self._texts) - 1)
            self._coming.appendleft(self._texts.pop())
            self.preemptions += 1

    def _fits_one_more(self) -> bool:
        needed: int = len(self._texts) * (self._cache.width + 1) * self._token_bytes
        return needed <= self.bytes

    def _choose(self, texts: Sequence[_Text], scores: Any) -> None:
        """Choose the next token of each sequence from its row of scores."""
        raw = scores
        if any(text.processors for text in texts):
            scores = scores.clone()
        failed: dict[int, Exception] = {}
        for number, text in enumerate(texts):
            if text.processors:
                try:
                    scores[number : number + 1] = self._processed(text, scores[number : number + 1])
                except Exception as error:
                    failed[number] = error
        chances = [text.row.asked.plan.chance if text.row.asked.plan else None for text in texts]
        draws = [text.draw() if chance else 0.0 for text, chance in zip(texts, chances, strict=True)]
        chosen = choose(scores, chances, draws)
        likelihoods = self._likelihoods(texts, raw)
        for text in texts:
            text.ticket.job.batch = max(text.ticket.job.batch, len(self._texts))
        now = time.perf_counter()
        for number, (text, token) in enumerate(zip(texts, chosen, strict=True)):
            if number in failed:
                self._fail(text.ticket, self._explain(failed[number]))
            elif token is None:
                self._fail(text.ticket, _no_numbers())
            elif not text.ticket.over:
                self._hear(text, now)
                self._add(text, token, likelihoods.get(number))

    def _processed(self, text: _Text, scores: Any) -> Any:
        import torch

        tokens = torch.tensor([text.tokens], device=scores.device)
        for processor in text.processors:
            scores = processor(tokens, scores)
        return scores

    @staticmethod
    def _likelihoods(texts: Sequence[_Text], scores: Any) -> dict[int, Any]:
        """Return the log probabilities for sequences that report them; `scores` are those before logits processors."""
        wanted = [number for number, text in enumerate(texts) if text.row.asked.likely is not None]
        if not wanted:
            return {}
        found = scores[wanted].log_softmax(-1)
        return {number: found[place : place + 1] for place, number in enumerate(wanted)}

    def _hear(self, text: _Text, now: float) -> None:
        """Record the time of a token; a request's first token is also counted from when the request was queued."""
        ticket = text.ticket
        self.times.add(now, text.heard, None if ticket.heard else ticket.job.queued)
        text.heard, ticket.heard = now, True

    def _add(self, text: _Text, token: int, likelihoods: Any) -> None:
        row, ticket = text.row, text.ticket
        try:
            likely = None if likelihoods is None else likely_token(likelihoods, 0, token, row.asked.likely or 0)
            new = row.add(token, likely)
            if ticket.writing.told:
                ticket.writing.told(row, new)
            if row.reason:
                ticket.left -= 1
                ticket.open -= 1
                self._leave(text, keep=True)
                self._let_join(ticket)
                if not ticket.left:
                    self._end(ticket, ticket.writing.finish(ticket.rows))
        except Exception as error:
            self._fail(ticket, self._explain(error))

    # end of a sequence

    def _leave_what_is_over(self) -> None:
        now = time.monotonic()
        for ticket in dict.fromkeys(text.ticket for text in self._all()):
            if ticket.job.is_over(now):
                self._fail(ticket, took_too_long() if ticket.begun else waited_too_long())

    def _all(self) -> Iterator[_Text]:
        yield from self._texts
        if self._reading:
            yield self._reading.text
        yield from self._coming

    def _leave(self, text: _Text, *, keep: bool = False) -> None:
        """Remove a sequence; with `keep`, add it to the prefix cache."""
        place = self._texts.index(text)
        if keep:
            # the newest token has no keys and values yet
            self._beginnings.keep(text.tokens[:-1], self._cache, place)
        self._cache.leave(place)
        last = self._texts.pop()
        if last is not text:
            self._texts[place] = last

    def _end(self, ticket: _Ticket, result: Any) -> None:
        ticket.over = True
        self._ended.append((ticket.job, result))

    def _fail(self, ticket: _Ticket, error: Exception) -> None:
        """End a request with an error."""
        if ticket.over:
            return
        if self._reading and self._reading.text.ticket is ticket:
            self._reading = None
        self._coming = deque(text for text in self._coming if text.ticket is not ticket)
        for text in [one for one in self._texts if one.ticket is ticket]:
            self._leave(text)
        self._end(ticket, error)

    def _explain(self, error: Exception) -> Exception:
        explained = explain_device(error) or self._explained(error)
        if isinstance(explained, FatalError):
            raise explained from error
        if getattr(explained, "status", 0) == _OUT_OF_MEMORY:
            self._beginnings.clear()
        return explained

    # forward pass

    def _forward(self, cache: Any, tokens: Sequence[Sequence[int]]) -> Any:
        """Run the model on new tokens of each row, padded on the left; return the scores of the next token."""
        import torch

        device = self._model.device
        new = len(tokens[0])
        starts = torch.tensor([start - cache.first for start in cache.starts])[:, None]
        columns = torch.arange(cache.width + new)[None]
        mask = columns >= starts
        options = dict(self._options)
        if self._positions:
            options["position_ids"] = (columns[:, cache.width :] - starts).clamp(min=0).to(device)
        if self._cache_positions:
            options["cache_position"] = columns[0, cache.width :].to(device)
        made = self._model(
            input_ids=torch.tensor(tokens, device=device),
            attention_mask=mask.long().to(device),
            past_key_values=cache,
            **options,
        )
        cache.added(new)
        return made.logits[:, -1].float()

    # test at the start

    def prove(self, ids: Sequence[int]) -> None:
        """Compare sequences in shared steps with the same ones alone, and measure the speed of prefill.

        `ids` are any tokens. Raises `CannotShareStepsError` if the model does not support the scheduler.
        """
        import torch

        try:
            with torch.inference_mode():
                why = self._difference(list(ids))
                if not why:
                    self._measure(list(ids))
        except Exception as error:
            raise CannotShareStepsError(f"{type(error).__name__}: {error}") from error
        finally:
            self._cache.forget()
        if why:
            raise CannotShareStepsError(why)

    def _difference(self, ids: list[int]) -> str:
        import torch
        from transformers import GenerationMixin, cache_utils

        if type(self._model).generate is not GenerationMixin.generate:
            return "the model has a 'generate' of its own"
        config = self._model.generation_config
        if not hasattr(cache_utils, "DynamicLayer") and getattr(config, "cache_implementation", None) == "hybrid":
            return "the installed release masks windows of attention for a cache of its own only"
        long = (ids * 16)[: max(4, min(16, self._longest - 2))]
        short = list(reversed(long))[: max(2, len(long) // 3)]
        wanted = []
        for tokens in (long, short):
            made = self._model(input_ids=torch.tensor([tokens], device=self._model.device), use_cache=False)
            wanted.append(made.logits[0].float().log_softmax(-1))
        cache, piece = new_cache(), len(long) // 2
        cache.begin([piece])
        self._forward(cache, [long[:piece]])
        cache.reserve(len(long) - piece - 2)
        self._forward(cache, [long[piece:-2]])
        if len(cache) == 0 or cache.width != len(long) - 2:
            return "the model keeps its keys and values in no cache that it is given"
        self._token_bytes = cache.token_bytes
        self._cache.take_in(cache, 0)
        self._cache.reserve(1)
        seen = [(wanted[0][-2], self._forward(self._cache, [[long[-2]]])[0])]
        other = new_cache()
        other.begin([len(short) - 1])
        self._forward(other, [short[:-1]])
        self._cache.take_in(other, 0)
        self._cache.reserve(1)
        both = self._forward(self._cache, [[long[-1]], [short[-1]]])
        seen += [(wanted[0][-1], both[0]), (wanted[1][-1], both[1])]
        tolerance = tolerance_of(self._model)
        for one, scores in seen:
            if not same(one.tolist(), scores.log_softmax(-1).tolist(), tolerance):
                return "texts that share steps would differ from the same ones alone"
        return ""

    def _measure(self, ids: list[int]) -> None:
        """Set the prompt tokens per step from the measured speed, and divide the memory for keys and values."""
        tokens = (ids * 64)[: min(64, self._longest)]
        seconds = []
        for _ in range(2):  # the first run includes warm-up
            cache = new_cache()
            cache.begin([len(tokens)])
            begun = time.perf_counter()
            self._forward(cache, [tokens]).sum().item()
            seconds.append(time.perf_counter() - begun)
        rate = len(tokens) / min(seconds)
        self.piece = min(max(_LEAST_PIECE, int(rate * _PIECE_SECONDS)), _MOST_PIECE)
        memory = self._memory()
        self._divide(memory)
        log.info(
            "texts share the steps of the model: up to %d at once, keys and values of up to %d tokens (%.1f GB), "
            "prompts in pieces of %d tokens",
            *(self.most, self.bytes // self._token_bytes, memory / 1e9, self.piece),
        )


def _no_numbers() -> Exception:
    return ModelFailedError(
        400,
        "refused-by-model",
        "the model has no token that may come next: its scores are no numbers, or what was asked for allows none",
    )
