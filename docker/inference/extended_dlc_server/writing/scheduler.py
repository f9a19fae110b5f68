"""Continuous batching: sequences join at any step of the model and leave when they are complete.

A step prefills some of the waiting prompts (a long one in chunks, so that running sequences do not wait for it), and
generates one token for each running sequence. Each request has its own parameters (length, sampling, stop strings,
schema), so sequences with any supported parameters share the steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import panics_are_errors
from ..machine.device_errors import explain_device
from ..machine.histograms import TokenTimes
from ..machine.worker import FatalError, took_too_long, waited_too_long
from .forward_pass import ForwardPass
from .generating import likely_token
from .next_tokens import next_tokens
from .prefill import Prefill, PrefillError
from .running_texts import RunningTexts
from .step_proof import prove
from .texts import Text, Ticket, Writing
from .waiting_texts import WaitingTexts

log = logging.getLogger(__name__)

_OUT_OF_MEMORY = 507
"""Status of a request that fails for lack of memory."""


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
        self._pipeline, self._explained = pipeline, explained
        self.most, self._memory, self._longest = most, memory, longest
        self._forward = ForwardPass(pipeline.model)
        self.running = RunningTexts()
        self._waiting = WaitingTexts(pipeline, self.running, most)
        self.prefill = Prefill(self._forward, self._waiting, self.running)
        self._ended: list[tuple[Any, Any]] = []
        self.times = TokenTimes()
        self.preemptions = 0
        """Metric: sequences that were preempted."""

    def prove(self, ids: Sequence[int]) -> None:
        """Test whether the model supports the scheduler, and divide the memory for keys and values.

        `ids` are any tokens. Raises `CannotShareStepsError` if it does not.
        """
        proof = prove(self._forward, ids, self._longest)
        self.running.token_bytes, self.prefill.piece = proof.token_bytes, proof.piece
        memory = self._memory()
        self.running.divide(memory)
        log.info(
            "texts share the steps of the model: up to %d at once, keys and values of up to %d tokens (%.1f GB), "
            "prompts in pieces of %d tokens",
            *(self.most, self.bytes // self.running.token_bytes, memory / 1e9, self.prefill.piece),
        )

    def another(self, parts: int) -> Scheduler:
        """Return an idle scheduler with the results of this one's test and a part of its memory, for an adapter."""
        named: dict[str, Any] = {"most": self.most, "memory": self._memory, "longest": self._longest}
        made = Scheduler(self._pipeline, **named, explained=self._explained)
        made.prefill.piece, made.times = self.prefill.piece, self.times
        made.running.token_bytes = self.running.token_bytes
        made.running.divide(self._memory() // parts)
        return made

    # called by the worker

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.running.texts or self._waiting.texts or self.prefill.reading)

    @property
    def size(self) -> int:
        """Number of sequences that run or wait to."""
        return len(self.running.texts) + len(self._waiting.texts) + (self.prefill.reading is not None)

    def has_room(self, more: int = 0) -> bool:
        """Whether another request may join, in addition to `more` that are about to."""
        return self.size + more < self.most

    # metrics, read by any thread

    @property
    def rows(self) -> int:
        """Number of running sequences."""
        return len(self.running.texts)

    @property
    def bytes(self) -> int:
        """Memory for the keys and values of running sequences."""
        return self.running.bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of the keys and values of running sequences."""
        return self.running.used_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes of the prefix cache."""
        return self.running.beginnings.bytes

    @property
    def asked_tokens(self) -> int:
        """Number of prompt tokens of all requests so far."""
        return self.prefill.asked_tokens

    @property
    def known_tokens(self) -> int:
        """Number of those that were found in the prefix cache."""
        return self.prefill.known_tokens

    def add(self, writing: Writing, job: Any) -> None:
        """Add a request; its prompts are prefilled in the next steps."""
        self._waiting.let_join(Ticket.of(writing, job))

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

    def _read(self) -> None:
        """Prefill some prompts; the texts whose prompts are complete get their first tokens."""
        try:
            complete = self.prefill.step()
        except PrefillError as error:
            self._reading_failed(error.group, error.cause)
            return
        if complete is not None:
            self._choose(complete.texts, complete.scores)

    def _reading_failed(self, group: list[Text], error: Exception) -> None:
        """Retry each prompt alone if several failed together; fail the request if it was alone."""
        explained = self._explain(error)
        self.running.drop_unfinished()
        if len(group) == 1:
            self._fail(group[0].ticket, explained)
            return
        log.info("%d prompts were not read together (%s): one by one", len(group), type(error).__name__)
        for text in group:
            text.singly = True
        self._waiting.give_back(group)

    # decoding

    def _write(self) -> None:
        """Generate one token for each running sequence, of which the newest ones wait if memory is short."""
        while (text := self.running.preempt()) is not None:
            self._waiting.give_back([text])
            self.preemptions += 1
        texts = list(self.running.texts)
        if not texts:
            return
        try:
            self.running.cache.reserve(1)
            scores = self._forward(self.running.cache, [[text.row.tokens[-1]] for text in texts])
        except Exception as error:
            explained = self._explain(error)
            # the cause is mostly memory, and the newest sequence has exceeded it
            self._fail(texts[-1].ticket, explained)
            return
        self._choose(texts, scores)

    def _choose(self, texts: Sequence[Text], scores: Any) -> None:
        """Add the next token to each sequence, chosen from its row of scores."""
        try:
            chosen = next_tokens(texts, scores)
        except Exception as error:
            # the cause is mostly memory: without the newest request the others may have enough
            self._fail(texts[-1].ticket, self._explain(error))
            left = [row for row, text in enumerate(texts) if not text.ticket.over]
            if left:
                self._choose([texts[row] for row in left], scores[left])
            return
        for text in texts:
            text.ticket.job.batch = max(text.ticket.job.batch, len(self.running.texts))
        now = time.perf_counter()
        for text, token, likelihoods in chosen:
            if isinstance(token, Exception):
                self._fail(text.ticket, self._explain(token))
            elif not text.ticket.over:
                self._hear(text, now)
                self._add(text, token, likelihoods)

    def _hear(self, text: Text, now: float) -> None:
        """Record the time of a token; a request's first token is also counted from when the request was queued."""
        ticket = text.ticket
        self.times.add(now, text.heard, None if ticket.heard else ticket.job.queued)
        text.heard, ticket.heard = now, True

    def _add(self, text: Text, token: int, likelihoods: Any) -> None:
        row, ticket = text.row, text.ticket
        try:
            with panics_are_errors():
                likely = None if likelihoods is None else likely_token(likelihoods, 0, token, row.asked.likely or 0)
                new = row.add(token, likely)
                if ticket.writing.on_token:
                    ticket.writing.on_token(row, new)
                if row.reason:
                    ticket.left -= 1
                    ticket.open -= 1
                    self.running.leave(text, keep=True)
                    self._waiting.let_join(ticket)
                    if not ticket.left:
                        self._end(ticket, ticket.writing.finish(ticket.rows))
        except Exception as error:
            self._fail(ticket, self._explain(error))

    # end of a request

    def _leave_what_is_over(self) -> None:
        now = time.monotonic()
        for ticket in dict.fromkeys(text.ticket for text in self._all()):
            if ticket.job.is_over(now):
                self._fail(ticket, took_too_long() if ticket.begun else waited_too_long())

    def _all(self) -> Iterator[Text]:
        yield from self.running.texts
        if self.prefill.reading:
            yield self.prefill.reading.text
        yield from self._waiting.texts

    def _end(self, ticket: Ticket, result: Any) -> None:
        ticket.over = True
        self._ended.append((ticket.job, result))

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        """End a request with an error."""
        if ticket.over:
            return
        self.prefill.forget(ticket)
        self._waiting.forget(ticket)
        for text in [one for one in self.running.texts if one.ticket is ticket]:
            self.running.leave(text)
        self._end(ticket, error)

    def _explain(self, error: Exception) -> Exception:
        explained = explain_device(error) or self._explained(error)
        if isinstance(explained, FatalError):
            raise explained from error
        if getattr(explained, "status", 0) == _OUT_OF_MEMORY:
            self.running.beginnings.clear()
        return explained
