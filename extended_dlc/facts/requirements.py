"""Requirements in pip's words, as far as the checks need to understand them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[A-Za-z0-9._,\s-]*\])?\s*"
    r"(?P<range>\(?(\s*(===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+\s*,?)*\)?|@\s*\S+)\s*(;.*)?"
)
_CLAUSE = re.compile(r"(===|==|~=|!=|<=|>=|<|>)\s*([A-Za-z0-9.*+!_-]+)")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One requirement."""

    name: str
    """The package, in lower case and with `-` for `_` and `.`."""

    clauses: tuple[tuple[str, str], ...]
    """Its range, as `((">=", "4.20"), ("<", "5"))`."""

    text: str
    """As it was written."""

    @property
    def exact(self) -> str | None:
        """The one release that it accepts; None where it accepts several."""
        return next((release for how, release in self.clauses if how in ("==", "===") and "*" not in release), None)

    def accepts(self, release: str) -> bool:
        """Whether a release such as `5.23.0` is in the range; what is not understood here passes."""
        return all(_holds(_numbers(release), how, wanted) for how, wanted in self.clauses)


def read_requirement(text: str) -> Requirement:
    """One line of a requirements file; a ValueError that completes "requirement '…'"."""
    found = _REQUIREMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError("cannot be read: write it as 'package==1.2.3', one on a line")
    name = re.sub(r"[-_.]+", "-", found["name"]).lower()
    given = "" if found["range"].startswith("@") else found["range"]
    return Requirement(name=name, clauses=tuple(_CLAUSE.findall(given)), text=text.strip())


def _numbers(release: str) -> tuple[int, ...] | None:
    return tuple(map(int, release.split("."))) if re.fullmatch(r"\d+(\.\d+)*", release) else None


def _holds(have: tuple[int, ...] | None, how: str, wanted: str) -> bool:
    need = _numbers(wanted.removesuffix(".*"))
    if have is None or need is None:
        return True
    if wanted.endswith(".*") or how == "~=":
        series = need if wanted.endswith(".*") else need[:-1]
        within = have[: len(series)] == series
        return within != (how == "!=") and (how != "~=" or have >= need)
    places = max(len(have), len(need))
    have, need = (numbers + (0,) * (places - len(numbers)) for numbers in (have, need))
    return {
        "==": have == need,
        "===": have == need,
        "!=": have != need,
        "<": have < need,
        "<=": have <= need,
        ">": have > need,
        ">=": have >= need,
    }[how]
