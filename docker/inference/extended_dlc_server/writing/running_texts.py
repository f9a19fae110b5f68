"""The texts that share the steps of a model: their rows in the key-value cache, and the memory that these may take."""

from __future__ import annotations

from typing import Any

from .beginnings import Beginnings
from .row_cache import new_cache
from .texts import Text

_SHARE_OF_BEGINNINGS = 4
"""Divisor: the prefix cache of finished sequences gets this fraction of the memory for keys and values."""

_ROOM_TO_WRITE = 64
"""New tokens for which there must be memory before a sequence is started."""


class RunningTexts:
    """The running sequences, in the order of their rows in the cache."""

    def __init__(self) -> None:
        """Start without a sequence, and without memory until `divide` gives some."""
        self.texts: list[Text] = []
        self.cache = new_cache()
        self.token_bytes = 0
        """Memory for the keys and values of one token."""

        self.bytes = 0
        """Memory for the keys and values of running sequences."""

        self.beginnings = Beginnings(0)

    def divide(self, memory: int) -> None:
        """Divide the memory for keys and values between running sequences and the prefix cache."""
        self.beginnings = Beginnings(memory // _SHARE_OF_BEGINNINGS)
        self.bytes = memory - memory // _SHARE_OF_BEGINNINGS

    @property
    def used_bytes(self) -> int:
        """Bytes of the keys and values of running sequences."""
        used: int = len(self.texts) * self.cache.width * self.token_bytes
        return used

    def known(self, text: Text) -> tuple[int, Any]:
        """Find the longest beginning of a text in the prefix cache, or among running sequences."""
        running = ((one.tokens[:-1], (self.cache, number)) for number, one in enumerate(self.texts))
        return self.beginnings.longest(text.tokens, running)

    def have_memory(self, more: int, length: int, being_read: int = 0) -> bool:
        """Whether `more` sequences of this length fit in memory, with `_ROOM_TO_WRITE` new tokens.

        `being_read` is the length of a prompt that is being prefilled beside the running sequences.
        """
        width = max(max(self.cache.width, length) + _ROOM_TO_WRITE, being_read)
        needed: int = (len(self.texts) + more + bool(being_read)) * width * self.token_bytes
        return needed <= self.bytes

    def take_in(self, group: list[Text], cache: Any) -> None:
        """Copy the rows of a cache, one for each text of the group, and run these from now on."""
        for number in range(len(group)):
            self.cache.take_in(cache, number)
        self.texts += group

    def drop_unfinished(self) -> None:
        """Remove rows of texts that were not all taken in."""
        del self.cache.starts[len(self.texts) :]

    def leave(self, text: Text, *, keep: bool = False) -> None:
        """Remove a sequence; with `keep`, add it to the prefix cache."""
        row = self.texts.index(text)
        if keep:
            try:
                # the newest token has no keys and values yet
                self.beginnings.keep(text.tokens[:-1], self.cache, row)
            except (MemoryError, RuntimeError):  # the text is complete, whether or not there is memory to keep it
                self.beginnings.clear()
        self.cache.leave(row)
        last = self.texts.pop()
        if last is not text:
            self.texts[row] = last

    def preempt(self) -> Text | None:
        """If memory is short for one more token of each sequence, remove the newest one and return it."""
        needed: int = len(self.texts) * (self.cache.width + 1) * self.token_bytes
        if len(self.texts) <= 1 or needed <= self.bytes:
            return None
        self.cache.leave(len(self.texts) - 1)
        return self.texts.pop()
