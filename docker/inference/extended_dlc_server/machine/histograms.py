"""Histograms in Prometheus' format, and the latencies of tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 480)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper bounds of the buckets of histograms. Each adds a time series to every scrape."""

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]
"""The suffix of the metric's name, its labels, and its value."""


class Histogram:
    """Counts values per bucket, and their sum. Only one thread may add values."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """Start empty, with these upper bounds and a last bucket without a bound."""
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    @classmethod
    def together(cls, several: Iterable[Histogram], bounds: Sequence[float] = SECONDS) -> Histogram:
        """Return the sum of several histograms with the same bounds."""
        whole = cls(bounds)
        for one in several:
            whole._counts = [mine + theirs for mine, theirs in zip(whole._counts, one._counts, strict=True)]
            whole._sum += one._sum
        return whole

    def samples(self) -> Iterator[Sample]:
        """Yield Prometheus' samples. Buckets are cumulative."""
        # Another thread may add values meanwhile, but _count must equal the last bucket: work on a copy.
        counts, total, whole = list(self._counts), self._sum, 0
        for bound, count in zip((*map(number, self._bounds), "+Inf"), counts, strict=True):
            whole += count
            yield "_bucket", {"le": bound}, whole
        yield "_sum", {}, total
        yield "_count", {}, whole


class TokenTimes:
    """Latencies of the tokens of all texts that one thread generates."""

    def __init__(self) -> None:
        self.first, self.between = Histogram(), Histogram()
        self.tokens = 0

    def add(self, now: float, last: float | None, queued: float | None) -> None:
        """Count a token: `last` is the time of its text's previous token, `queued` that of the request, if first."""
        self.tokens += 1
        if last is not None:
            self.between.add(now - last)
        elif queued is not None:
            self.first.add(now - queued)


def number(value: float) -> str:
    """Format a value for Prometheus."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
