"""What goes with which transformers, as far as it was measured: the packages that import it or that it imports."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import version
from extended_dlc.facts.specifiers import read_requirement


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One measured range of a package's releases with one range of transformers' releases."""

    package: str
    range: str
    """Releases of the package, as `<=2.4.0`."""

    first: str
    """First transformers release."""

    last: str | None
    """Last transformers release; None: no end is known."""

    works: bool
    reason: str | None
    """Why it does not work; None where it does."""

    how: str
    """How it was measured."""

    source: str
    """Where that was written down, or what measures it again."""

    checked: str

    def covers(self, release: str, transformers: str) -> bool:
        """Whether the row tells of this release of the package with this transformers."""
        asked = version(transformers)
        within = version(self.first) <= asked and (self.last is None or asked <= version(self.last))
        return within and read_requirement(f"{self.package}{self.range}").accepts(release)


@functools.cache
def neighbours() -> tuple[Neighbour, ...]:
    """Every row, sorted by package."""
    return tuple(Neighbour(**row) for row in table("neighbours")["neighbours"])


def find_neighbour(package: str, release: str, transformers: str) -> Neighbour | None:
    """What was measured of a package's release with a transformers release; None where nothing was.

    What fails goes before what works, where ranges of both cover the pair.
    """
    found = [row for row in neighbours() if row.package == package and row.covers(release, transformers)]
    return min(found, key=lambda row: row.works, default=None)
