"""Reads pip requirements, as far as the checks need them (PEP 508, by `packaging`)."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One requirement."""

    name: str
    """The package's normalized name: lower case, with `-` for `_` and `.`."""

    range: SpecifierSet
    text: str
    """The text as the user wrote it."""

    @property
    def exact(self) -> str | None:
        """The only release that it accepts; None if it accepts several."""
        clauses = [each for each in self.range if each.operator in ("==", "===") and "*" not in each.version]
        return clauses[0].version if clauses else None

    def accepts(self, release: str) -> bool:
        """Whether a release such as `5.23.0` is in the range; an invalid version passes."""
        try:
            return self.range.contains(Version(release), prereleases=True)
        except InvalidVersion:
            return True


def read_requirement(text: str) -> Requirement:
    """Parse one line of a requirements file; raises ValueError with a text that completes "requirement '…'"."""
    try:
        found = Parsed(text.strip())
    except InvalidRequirement:
        raise ValueError("cannot be read: write it as 'package==1.2.3', one on a line") from None
    return Requirement(name=canonicalize_name(found.name), range=found.specifier, text=text.strip())
