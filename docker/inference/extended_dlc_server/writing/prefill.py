"""Prefill: the prompts of waiting texts go through the model, short ones together and long ones in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..machine.ending import EndedError
from .forward_pass import ForwardPass
from .row_cache import new_cache
from .running_texts import RunningTexts
from .step_proof import LEAST_PIECE
from .texts import Reading, Text, Ticket
from .waiting_texts import WaitingTexts


class PrefillError(Exception):
    """Prompts that were prefilled together have failed."""

    def __init__(self, group: list[Text], cause: Exception) -> None:
        """`cause` is what the model raised."""
        super().__init__(str(cause))
        self.group, self.cause = group, cause


@dataclass(frozen=True, kw_only=True)
class Prefilled:
    """Texts that run from now on, with the scores of the first token of each."""

    texts: list[Text]
    scores: Any


class Prefill:
    """Takes prompts from the queue and adds their keys and values to those of the running texts."""

    def __init__(self, forward: ForwardPass, waiting: WaitingTexts, running: RunningTexts) -> None:
        """Start without a prompt."""
        self._forward, self._waiting, self._running = forward, waiting, running
        self._overtaking = False
        self.reading: Reading | None = None
        """The prompt that is being prefilled in chunks."""

        self.piece = LEAST_PIECE
        """Number of tokens of a chunk."""

        self.asked_tokens = self.known_tokens = 0
        """Metrics: prompt tokens, and those of them found in the prefix cache."""

    def forget(self, ticket: Ticket) -> None:
        """Leave off the prompt in progress if it is of this request."""
        if self.reading and self.reading.text.ticket is ticket:
            self.reading = None

    def step(self) -> Prefilled | None:
        """Prefill the next prompts or chunk; return the texts whose prompts are complete.

        While a long prompt is in progress, every other step is for short ones. Raises `PrefillError`.
        """
        self._overtaking = self.reading is not None and not self._overtaking
        if self.reading is None or self._overtaking:
            group = self._waiting.next_group(self.reading, self.piece)
            if len(group) > 1 or (group and self._waiting.is_short(group[0], self.piece)):
                return self._read_whole(group)
            if group:
                self.reading = self._begin_reading(group[0])
        return self._read_on(self.reading) if self.reading is not None else None

    def _read_whole(self, group: list[Text]) -> Prefilled:
        """Prefill prompts in one forward pass, padded on the left."""
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
            self._running.take_in(group, cache)
        except EndedError:
            self._waiting.give_back(group)
            raise
        except Exception as error:
            raise PrefillError(group, error) from error
        return Prefilled(texts=group, scores=scores)

    def _begin_reading(self, text: Text) -> Reading:
        """Start a prompt that is long, or has a prefix in the cache."""
        text.ticket.begun = True
        length, cached = self._running.known(text)
        cache = new_cache()
        tokens = text.tokens
        self.asked_tokens += len(tokens)
        if cached is not None:
            self.known_tokens += length
            try:
                cache.take_in(*cached, length)
            except Exception as error:
                raise PrefillError([text], error) from error
        return Reading(text=text, cache=cache, tokens=tokens[length:])

    def _read_on(self, reading: Reading) -> Prefilled | None:
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
                return None
            self._running.take_in([reading.text], reading.cache)
        except Exception as error:
            self.reading = None
            raise PrefillError([reading.text], error) from error
        self.reading = None
        return Prefilled(texts=[reading.text], scores=scores)
