"""Keys and values of sequences that grow together, and come and go one by one.

All sequences end in the same column: a shorter one begins later, and a mask hides what lies in front of it. So any
model takes them that takes a batch padded on the left and one of transformers' caches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

_MARGIN = 64
"""Least columns that are there for tokens to come when memory is asked for: each time all is copied."""


@functools.cache
def _class() -> Any:
    """The class, which is one of transformers' caches: models look at its type."""
    from transformers import DynamicCache

    class RowCache(DynamicCache):  # type: ignore[misc] # no types
        """Buffers of [rows, heads, columns, size] for each layer, of which a part is in use."""

        def __init__(self) -> None:
            super().__init__()
            self.buffers: dict[int, list[Any]] = {}
            self.starts: list[int] = []
            self.end = self.slots = self.columns = 0

        # what models call

        def update(self, keys: Any, values: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
            """Put the newest tokens behind the others, and give all of them."""
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
            """Columns in use, those of the forward pass that is running left out."""
            return self.width

        def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
            """Columns with the new ones, which come as a count or as positions, and how many are left out."""
            new = query_length if isinstance(query_length, int) else int(query_length.shape[0])
            return self.width + new, 0

        def __len__(self) -> int:
            return len(self.buffers)

        # what the scheduler does

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
            return sum(
                one.shape[1] * one.shape[3] * one.element_size() for pair in self.buffers.values() for one in pair
            )

        def length(self, row: int) -> int:
            return self.end - self.starts[row]

        def begin(self, lengths: Sequence[int]) -> None:
            """New sequences of nothing so far, the first tokens of which come with so many each."""
            longest = max(lengths)
            self._reserve(len(lengths), longest)
            self.starts = [longest - length for length in lengths]

        def reserve(self, new: int) -> None:
            """Make place for so many columns more."""
            self._reserve(len(self.starts), self.width + new)

        def added(self, new: int) -> None:
            """The forward pass is over: its tokens count from now on."""
            self.end += new

        def take_in(self, other: Any, row: int, length: int | None = None) -> None:
            """Another cache's sequence, or its first tokens, as one more row."""
            length = other.length(row) if length is None else length
            source = slice(other.starts[row], other.starts[row] + length)
            old_first = self.first
            self._reserve(len(self.starts) + 1, max(self.width, length), room=max(0, length - self.width))
            old_first = self.first if self.starts else old_first
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
                    # what is masked has to be a number all the same
                    if start < old_first and slot:
                        buffer[:slot, :, start:old_first] = 0
                    elif slot:
                        buffer[slot, :, old_first:start] = 0
                    buffer[slot, :, start : self.end] = theirs[row, :, source]
            self.starts.append(start)

        def copied(self, row: int, length: int) -> Any:
            """A cache of a sequence's first tokens alone, with no room for more."""
            made, start = new_cache(), self.starts[row]
            for index, pair in self.buffers.items():
                made.buffers[index] = [one[row : row + 1, :, start : start + length].clone() for one in pair]
            made.starts, made.end, made.slots, made.columns = [0], length, 1, length
            return made

        def leave(self, row: int) -> None:
            """End a sequence; the last one takes its row."""
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
            """Nothing is in use, and nothing is kept."""
            self.buffers.clear()
            self.starts = []
            self.end = self.slots = self.columns = 0

        def _reserve(self, rows: int, width: int, room: int = 0) -> None:
            """Buffers for so many rows and columns from the first one in use on; `room` of them in front of it."""
            if rows <= self.slots and self.first >= room and self.first - room + width <= self.columns:
                return
            slots = rows if rows <= self.slots or not self.slots else max(rows, min(2 * self.slots, rows + 8))
            slots = max(slots, self.slots)
            columns = width + max(_MARGIN, width // 2)
            used, old_first, old_end = len(self.starts), self.first, self.end
            for pair in self.buffers.values():
                for place, buffer in enumerate(pair):
                    larger = buffer.new_zeros((slots, buffer.shape[1], columns, buffer.shape[3]))
                    larger[:used, :, room : room + old_end - old_first] = buffer[:used, :, old_first:old_end]
                    pair[place] = larger
            self.starts = [start - old_first + room for start in self.starts]
            self.end = room + old_end - old_first
            self.slots, self.columns = slots, columns

    return RowCache


def new_cache() -> Any:
    return _class()()
