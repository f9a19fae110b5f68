"""What is kept of prompts and answers that are over, for those to come that begin alike: a chat's next turn does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from .row_cache import new_cache

LEAST = 64
"""Fewest tokens in common that are worth copying."""

Place = tuple[Any, int]
"""A cache and the row in it."""


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginnings."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


class Beginnings:
    """Keys and values of sequences, those that were of use last; bounded in bytes."""

    def __init__(self, most_bytes: int) -> None:
        """Empty; 0 bytes keep nothing."""
        self._most = most_bytes
        self.bytes = 0
        """What is kept takes so many."""

        self._kept: OrderedDict[int, tuple[list[int], Any]] = OrderedDict()
        self._number = 0

    def longest(
        self, tokens: Sequence[int], running: Iterable[tuple[Sequence[int], Place]]
    ) -> tuple[int, Place | None]:
        """The longest beginning that is there already, among those kept and those that are growing.

        One token is always left: the next one follows from its scores.
        """
        best, place, number = LEAST - 1, None, None
        for known, found in running:
            length = min(common(tokens, known), len(tokens) - 1)
            if length > best:
                best, place = length, found
        for key, (known, cache) in self._kept.items():
            length = min(common(tokens, known), len(tokens) - 1)
            if length > best:
                best, place, number = length, (cache, 0), key
        if number is not None:
            self._kept.move_to_end(number)
        return (best, place) if place is not None else (0, None)

    def keep(self, tokens: list[int], cache: Any, row: int) -> None:
        """A sequence that ends: `tokens` are those whose keys and values are there."""
        size = len(tokens) * cache.token_bytes
        if len(tokens) < LEAST or size > self._most:
            return
        for key, (known, _) in list(self._kept.items()):
            if common(tokens, known) == len(known):
                self._drop(key)
        copy = new_cache()
        copy.take_in(cache, row, len(tokens))
        while self.bytes + size > self._most:
            self._drop(next(iter(self._kept)))
        self._number += 1
        self._kept[self._number] = (tokens, copy)
        self.bytes += size

    def clear(self) -> None:
        """Nothing is kept, for others need the memory."""
        self._kept.clear()
        self.bytes = 0

    def _drop(self, key: int) -> None:
        tokens, cache = self._kept.pop(key)
        self.bytes -= len(tokens) * cache.token_bytes
