"""Checks whether further packages are compatible with a transformers release."""

from __future__ import annotations

from collections.abc import Iterable

from extended_dlc.facts.compat import Server
from extended_dlc.facts.measured_packages import find_neighbour, neighbours
from extended_dlc.facts.releases import releases
from extended_dlc.facts.specifiers import Requirement, read_requirement

_OF_THE_STOCK_SERVER = ("sagemaker-huggingface-inference-toolkit", "sagemaker-inference", "setuptools")
"""Packages of the stock server, which the native server does not use: their rows do not apply to it."""


def check_packages(packages: Iterable[str], transformers: str, server: Server) -> tuple[str, ...]:
    """Refuse requirements that are known to be incompatible with a release; otherwise return notes, a sentence each.

    :param packages: As in a requirements file: `peft==0.18.1`. A range is checked only against the requirements of
    the release itself.
    """
    notes = []
    for text in packages:
        requirement = read_requirement(text)
        _check_range(requirement, transformers)
        if requirement.exact is None or (server == "native" and requirement.name in _OF_THE_STOCK_SERVER):
            continue
        measured = find_neighbour(requirement.name, requirement.exact, transformers)
        if measured is not None and not measured.works:
            raise ValueError(
                f"does not go with transformers {transformers}: {measured.reason} (measured: {measured.how}): take "
                "another release, or leave it out"
            )
        if measured is None and any(row.package == requirement.name for row in neighbours()):
            notes.append(f"'{text}' was not measured with transformers {transformers}")
    return tuple(notes)


def tell_package(text: str, transformers: str) -> str:
    """A text on the package's compatibility with a release; `ValueError` where it is known to be incompatible."""
    requirement = read_requirement(text)
    if requirement.exact is None:
        check_packages([text], transformers, "native")
        return "not checked: name one release, as peft==0.18.1"
    check_packages([text], transformers, "native")
    measured = find_neighbour(requirement.name, requirement.exact, transformers)
    if measured is not None:
        return f"goes with transformers {transformers} (measured: {measured.how})"
    if requirement.name in _RANGES:
        return f"in the range that transformers {transformers} asks for"
    return f"nothing is known here of it beside transformers {transformers}"


def _check_range(requirement: Requirement, transformers: str) -> None:
    """Check a requirement against the ranges in the release's wheel."""
    if requirement.name == "transformers" and not requirement.accepts(transformers):
        raise ValueError(f"is not the image's transformers {transformers}: name that release, or leave it out")
    release = releases().get(transformers)
    wanted = getattr(release, requirement.name.replace("-", "_"), None) if requirement.name in _RANGES else None
    if wanted is None or requirement.exact is None:
        return
    if not read_requirement(f"{requirement.name}{wanted}").accepts(requirement.exact):
        raise ValueError(f"does not go with transformers {transformers}, which asks for {wanted}: take one of these")


_RANGES = ("huggingface-hub", "safetensors", "tokenizers")
