"""Measured compatibility of transformers with packages that import it or that it imports."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import version
from extended_dlc.facts.specifiers import read_requirement


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A measured range of a package's releases with a range of transformers releases."""

    package: str
    range: str
    """Releases of the package, such as `<=2.4.0`."""

    first: str
    """First transformers release."""

    last: str | None
    """Last transformers release; None if no last one is known."""

    works: bool
    reason: str | None
    """Why it does not work; None if it does."""

    how: str
    """How it was measured."""

    source: str
    """The source of the result, or the program that repeats the measurement."""

    checked: str

    def covers(self, release: str, transformers: str) -> bool:
        """Whether the row applies to this release of the package with this transformers."""
        asked = version(transformers)
        within = version(self.first) <= asked and (self.last is None or asked <= version(self.last))
        return within and read_requirement(f"{self.package}{self.range}").accepts(release)


@functools.cache
def neighbours() -> tuple[Neighbour, ...]:
    """Every row, sorted by package."""
    return tuple(Neighbour(**row) for row in table("neighbours")["neighbours"])


def find_neighbour(package: str, release: str, transformers: str) -> Neighbour | None:
    """The measurement of a package's release with a transformers release; None without one.

    If ranges of failing and of working rows both cover the pair, the failing row counts.
    """
    found = [row for row in neighbours() if row.package == package and row.covers(release, transformers)]
    return min(found, key=lambda row: row.works, default=None)
