"""Counts in buckets, as Prometheus has them, and the times of tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 480)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper ends of the buckets of histograms. Each is a number more in every scrape."""

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]
"""What is added to the name, labels and value."""


class Histogram:
    """How often values were within each of its buckets, and their sum. One thread adds to it."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """Empty, with these upper ends and one without an end."""
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    @classmethod
    def together(cls, several: Iterable[Histogram], bounds: Sequence[float] = SECONDS) -> Histogram:
        """The sum of several with the same ends."""
        whole = cls(bounds)
        for one in several:
            whole._counts = [mine + theirs for mine, theirs in zip(whole._counts, one._counts, strict=True)]
            whole._sum += one._sum
        return whole

    def samples(self) -> Iterator[Sample]:
        """As Prometheus has it: each bucket holds the smaller ones too."""
        # another thread may add meanwhile: the count has to be that of the last bucket
        counts, total, whole = list(self._counts), self._sum, 0
        for bound, count in zip((*map(number, self._bounds), "+Inf"), counts, strict=True):
            whole += count
            yield "_bucket", {"le": bound}, whole
        yield "_sum", {}, total
        yield "_count", {}, whole


class TokenTimes:
    """When tokens came of the texts that one thread hears of."""

    def __init__(self) -> None:
        self.first, self.between = Histogram(), Histogram()
        self.tokens = 0

    def add(self, now: float, last: float | None, queued: float | None) -> None:
        """One token more, after the last one of its text, or the first one of a request that was queued then."""
        self.tokens += 1
        if last is not None:
            self.between.add(now - last)
        elif queued is not None:
            self.first.add(now - queued)


def number(value: float) -> str:
    """A value as Prometheus reads it."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
