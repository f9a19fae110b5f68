"""Prefix cache: keys and values of finished sequences, for prompts that begin alike, such as a chat's next turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

LEAST = 64
"""Minimum length of a common prefix that is worth copying."""

MOST = 256
"""Maximum number of cached sequences: more would take memory without being of use."""

RowOfCache = tuple[Any, int]
"""A cache and a row in it."""


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


class Beginnings:
    """An LRU cache of the keys and values of sequences, bounded in bytes and number.

    Sequences are indexed by their first `LEAST` tokens; only those with the same are compared.
    """

    def __init__(self, most_bytes: int) -> None:
        """Start empty; with 0 bytes nothing is cached."""
        self._most = most_bytes
        self.bytes = 0
        """Size of all cached sequences."""

        self._kept: OrderedDict[int, tuple[list[int], Any]] = OrderedDict()
        self._alike: dict[tuple[int, ...], set[int]] = {}
        self._number = 0

    def longest(
        self, tokens: Sequence[int], running: Iterable[tuple[Sequence[int], RowOfCache]]
    ) -> tuple[int, RowOfCache | None]:
        """Find the longest prefix of `tokens` among cached and running sequences.

        At least one token remains for the model, since the next token is chosen from its scores.
        """
        if len(tokens) <= LEAST:
            return 0, None
        head = tuple(tokens[:LEAST])
        best, source, number = LEAST - 1, None, None
        for known, found in running:
            if tuple(known[:LEAST]) != head:
                continue
            length = min(common(tokens, known), len(tokens) - 1)
            if length > best:
                best, source = length, found
        for key in self._alike.get(head, ()):
            known, cache = self._kept[key]
            length = min(common(tokens, known), len(tokens) - 1)
            if length > best:
                best, source, number = length, (cache, 0), key
        if number is not None:
            self._kept.move_to_end(number)
        return (best, source) if source is not None else (0, None)

    def keep(self, tokens: list[int], cache: Any, row: int) -> None:
        """Cache a sequence that has ended; `tokens` are those with keys and values in `cache`."""
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
        """Drop everything, to free memory."""
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
