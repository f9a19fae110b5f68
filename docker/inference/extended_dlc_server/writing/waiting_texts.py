"""The texts whose prompts are still to be read: which of them are next, and which are read together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from .beginnings import LEAST, common
from .generating import Row
from .running_texts import RunningTexts
from .texts import Reading, Text, Ticket


class WaitingTexts:
    """The queue of prompts of one copy of a model, beside the texts that run."""

    def __init__(self, pipeline: Any, running: RunningTexts, most: int) -> None:
        """At most `most` sequences run at once."""
        self._model, self._tokenizer = pipeline.model, pipeline.tokenizer
        self._running, self._most = running, most
        self.texts: deque[Text] = deque()

    def let_join(self, ticket: Ticket) -> None:
        """Queue the next sequences of a request, up to 3/4 of all slots, so that a long list does not block others."""
        while ticket.waiting and ticket.open < max(1, self._most * 3 // 4):
            number = ticket.waiting.popleft()
            asked, rows = ticket.writing.asked[number], ticket.rows[number]
            asked.prompt_tokens = len(asked.tokens or ())
            rows.append(Row.of(self._tokenizer, asked, len(rows)))
            ticket.open += 1
            self.texts.append(Text.of(ticket, rows[-1], self._model.device))

    def give_back(self, group: Sequence[Text]) -> None:
        """Put texts back to the front of the queue."""
        self.texts.extendleft(reversed(group))

    def forget(self, ticket: Ticket) -> None:
        """Remove the texts of a request."""
        self.texts = deque(text for text in self.texts if text.ticket is not ticket)

    def is_short(self, text: Text, piece: int) -> bool:
        """Whether a prompt can be read in one step of `piece` tokens, together with others."""
        return len(text.prompt) + len(text.row.tokens) <= piece and not self._running.known(text)[0]

    def next_group(self, reading: Reading | None, piece: int) -> list[Text]:
        """Take the prompts to read together: short ones, in order, without a common prefix; or one long one.

        `reading` is the prompt that is being read in chunks, beside which only short ones are read.
        """
        group: list[Text] = []
        longest = 0
        while self.texts and len(self._running.texts) + len(group) < self._most:
            text = self.texts[0]
            size = max(longest, len(text.tokens))
            alone = text.singly or not self.is_short(text, piece)
            if reading and (alone or _begin_alike(text, reading.text)):
                break
            if group and (alone or not self._fits(text, group, longest, piece)):
                break
            being_read = len(reading.text.tokens) if reading else 0
            if (group or self._running.texts) and not self._running.have_memory(len(group) + 1, size, being_read):
                break
            group.append(self.texts.popleft())
            longest = size
            if alone:
                break
        return group

    @staticmethod
    def _fits(text: Text, group: list[Text], longest: int, piece: int) -> bool:
        """Whether a short prompt is read with a group: padding costs time too, and a common prefix is read once."""
        length = len(text.tokens)
        size = max(longest, length)
        alike = size * (len(group) + 1) <= max(piece, size) and 2 * min(longest, length) >= size
        return alike and not any(_begin_alike(text, one) for one in group)


def _begin_alike(text: Text, other: Text) -> bool:
    return common(text.tokens, other.tokens) >= LEAST
