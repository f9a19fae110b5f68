"""A key-value cache for continuous batching: sequences join and leave one by one.

All sequences end in the same column; a shorter one begins later, and the attention mask hides the columns before it.
So every model works that supports left-padded batches and transformers' caches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

_MARGIN = 64
"""Minimum number of spare columns when buffers grow, since growing copies everything."""


class _Rows:
    """The methods of the cache: buffers of shape [rows, heads, columns, size] for each layer, partly in use.

    `_class` joins them with transformers' cache, whose import takes too long for this module's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buffers: dict[int, list[Any]] = {}
        self.starts: list[int] = []
        self.end = self.slots = self.columns = 0

    # called by models

    def update(self, keys: Any, values: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Append the keys and values of new tokens; return all of them."""
        new = keys.shape[-2]
        if layer_idx not in self.buffers:
            self.buffers[layer_idx] = [
                one.new_zeros((self.slots, one.shape[1], self.columns, one.shape[3])) for one in (keys, values)
            ]
        rows, first = len(self.starts), self.first
        found = []
        for buffer, added in zip(self.buffers[layer_idx], (keys, values), strict=True):
            buffer[:rows, :, self.end : self.end + new] = added
            found.append(buffer[:rows, :, first : self.end + new])
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the columns in use, without those of the current forward pass."""
        return self.width

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """Return the columns including new ones, given as a count or as positions, and the offset."""
        new = query_length if isinstance(query_length, int) else int(query_length.shape[0])
        return self.width + new, 0

    def __len__(self) -> int:
        return len(self.buffers)

    # called by the scheduler

    @property
    def first(self) -> int:
        """The first column in use."""
        return min(self.starts, default=self.end)

    @property
    def width(self) -> int:
        return self.end - self.first

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in all layers."""
        return sum(one.shape[1] * one.shape[3] * one.element_size() for pair in self.buffers.values() for one in pair)

    def length(self, row: int) -> int:
        return self.end - self.starts[row]

    def begin(self, lengths: Sequence[int]) -> None:
        """Start sequences; `lengths` are the tokens of each in the first forward pass."""
        longest = max(lengths)
        self._reserve(len(lengths), longest)
        self.starts = [longest - length for length in lengths]

    def reserve(self, new: int) -> None:
        """Make room for `new` columns."""
        self._reserve(len(self.starts), self.width + new)

    def added(self, new: int) -> None:
        """Count the tokens of a forward pass, after it."""
        self.end += new

    def take_in(self, other: Any, row: int, length: int | None = None) -> None:
        """Copy a sequence of another cache, or its first `length` tokens, into a new row."""
        length = other.length(row) if length is None else length
        source = slice(other.starts[row], other.starts[row] + length)
        self._reserve(len(self.starts) + 1, max(self.width, length), room=max(0, length - self.width))
        old_first = self.first
        if not self.starts:
            self.end = length
        slot, start = len(self.starts), self.end - length
        for index, pair in other.buffers.items():
            mine = self.buffers.get(index)
            if mine is None:
                mine = self.buffers[index] = [
                    one.new_zeros((self.slots, one.shape[1], self.columns, one.shape[3])) for one in pair
                ]
            for buffer, theirs in zip(mine, pair, strict=True):
                # masked columns must not hold NaN either
                if start < old_first and slot:
                    buffer[:slot, :, start:old_first] = 0
                elif slot:
                    buffer[slot, :, old_first:start] = 0
                buffer[slot, :, start : self.end] = theirs[row, :, source]
        self.starts.append(start)

    def copied(self, row: int, length: int) -> Any:
        """Return a new cache with the first `length` tokens of a row, without room for more."""
        made, start = new_cache(), self.starts[row]
        for index, pair in self.buffers.items():
            made.buffers[index] = [one[row : row + 1, :, start : start + length].clone() for one in pair]
        made.starts, made.end, made.slots, made.columns = [0], length, 1, length
        return made

    def leave(self, row: int) -> None:
        """Remove a sequence; the last one moves to its row."""
        last = len(self.starts) - 1
        if row != last:
            window = slice(self.first, self.end)
            for pair in self.buffers.values():
                for buffer in pair:
                    buffer[row, :, window] = buffer[last, :, window]
            self.starts[row] = self.starts[last]
        self.starts.pop()
        if not self.starts:
            self.forget()

    def forget(self) -> None:
        """Remove all sequences and free the buffers."""
        self.buffers.clear()
        self.starts = []
        self.end = self.slots = self.columns = 0

    def _reserve(self, rows: int, width: int, room: int = 0) -> None:
        """Grow the buffers to `rows` and to `width` columns, of which `room` are before the first one in use."""
        if rows <= self.slots and self.first >= room and self.first - room + width <= self.columns:
            return
        slots = rows if rows <= self.slots or not self.slots else max(rows, min(2 * self.slots, rows + 8))
        slots = max(slots, self.slots)
        columns = width + max(_MARGIN, width // 2)
        used, old_first, old_end = len(self.starts), self.first, self.end
        for pair in self.buffers.values():
            for index, buffer in enumerate(pair):
                larger = buffer.new_zeros((slots, buffer.shape[1], columns, buffer.shape[3]))
                larger[:used, :, room : room + old_end - old_first] = buffer[:used, :, old_first:old_end]
                pair[index] = larger
        self.starts = [start - old_first + room for start in self.starts]
        self.end = room + old_end - old_first
        self.slots, self.columns = slots, columns


@functools.cache
def _class() -> Any:
    """Make the class: a subclass of a transformers cache, since models check the type."""
    from transformers import DynamicCache

    class RowCache(_Rows, DynamicCache):  # type: ignore[misc] # no types
        """A cache that models take, with the methods of `_Rows`."""

    return RowCache


def new_cache() -> Any:
    return _class()()
