"""What is kept of prompts and answers that are over, for those to come that begin alike: a chat's next turn does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

LEAST = 64
"""Fewest tokens in common that are worth copying."""

MOST = 256
"""Most sequences that are kept: more of them help nobody, and take the memory of a model."""

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
    """Keys and values of sequences, those that were of use last; bounded in bytes and number.

    Only sequences whose first tokens, `LEAST` of them, are the same are looked at: they are found by these.
    """

    def __init__(self, most_bytes: int) -> None:
        """Empty; 0 bytes keep nothing."""
        self._most = most_bytes
        self.bytes = 0
        """What is kept takes so many."""

        self._kept: OrderedDict[int, tuple[list[int], Any]] = OrderedDict()
        self._alike: dict[tuple[int, ...], set[int]] = {}
        self._number = 0

    def longest(
        self, tokens: Sequence[int], running: Iterable[tuple[Sequence[int], Place]]
    ) -> tuple[int, Place | None]:
        """The longest beginning that is there already, among those kept and those that are growing.

        One token is always left: the next one follows from its scores.
        """
        if len(tokens) <= LEAST:
            return 0, None
        head = tuple(tokens[:LEAST])
        best, place, number = LEAST - 1, None, None
        for known, found in running:
            if tuple(known[:LEAST]) != head:
                continue
            length = min(common(tokens, known), len(tokens) - 1)
            if length > best:
                best, place = length, found
        for key in self._alike.get(head, ()):
            known, cache = self._kept[key]
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
        head = tuple(tokens[:LEAST])
        for key in list(self._alike.get(head, ())):
            known, _ = self._kept[key]
            if common(tokens, known) == len(known):
                self._drop(key)
        while self._kept and (self.bytes + size > self._most or len(self._kept) >= MOST):
            self._drop(next(iter(self._kept)))
        self._number += 1
        self._kept[self._number] = (tokens, cache.copied(row, len(tokens)))
        self._alike.setdefault(head, set()).add(self._number)
        self.bytes += size

    def clear(self) -> None:
        """Nothing is kept, for others need the memory."""
        self._kept.clear()
        self._alike.clear()
        self.bytes = 0

    def _drop(self, key: int) -> None:
        tokens, cache = self._kept.pop(key)
        self.bytes -= len(tokens) * cache.token_bytes
        head = tuple(tokens[:LEAST])
        self._alike[head].discard(key)
        if not self._alike[head]:
            del self._alike[head]
