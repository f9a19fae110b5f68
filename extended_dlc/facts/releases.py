"""transformers' releases: when they came, what they need, and which pipeline tasks they have."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import version


@dataclass(frozen=True, kw_only=True)
class Release:
    """One transformers release and what its wheel asks for."""

    release: str
    date: str
    """Day of its upload to PyPI, as `2026-11-22`."""

    python: str
    """Oldest Python, as `3.10`."""

    torch: str | None
    """Oldest torch that the `torch` extra accepts; None: any."""

    torch_gate: str | None
    """Torch below which it runs as if there were none; None where it does not look."""

    huggingface_hub: str | None
    """Accepted range, as `>=1.31.0,<3.0`; None where the wheel does not ask for the package."""

    tokenizers: str | None
    safetensors: str | None
    yanked: bool
    """Whether it was withdrawn from PyPI."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The releases whose `pipeline(…)` takes a task."""

    task: str
    alias_of: str | None
    """The task that it is another name of; None for a task of its own."""

    first: str
    """First release; `4.17.0` also stands for anything older."""

    last: str | None
    """Last release; None while it is there."""


@functools.cache
def every_release() -> dict[str, Release]:
    """Every transformers release from 4.17.0 on, withdrawn ones included, oldest first."""
    return {row["release"]: Release(**row) for row in table("releases")["releases"]}


@functools.cache
def releases() -> dict[str, Release]:
    """Every transformers release from 4.17.0 on that is not withdrawn, oldest first."""
    return {name: release for name, release in every_release().items() if not release.yanked}


@functools.cache
def task_names() -> frozenset[str]:
    """Every task that some release has or had, under each of its names."""
    return frozenset(row["task"] for row in table("tasks")["tasks"])


def find_task(task: str) -> tuple[Task, ...]:
    """The releases that take a task, oldest first; empty for one that no release read here takes.

    More than one where a task was removed and its name led to another one later. `translation_en_to_fr` and the like
    are `translation`.
    """
    name = "translation" if task.startswith("translation_") else task
    spans = (Task(**row) for row in table("tasks")["tasks"] if row["task"] == name)
    return tuple(sorted(spans, key=lambda span: version(span.first)))


def tasks_of(transformers: str) -> dict[str, str | None] | None:
    """The tasks of a release, each with the task that it is another name of; None for a release outside our data."""
    known = list(releases())
    asked = version(transformers)
    if not version(known[0]) <= asked <= version(known[-1]):
        return None
    return {
        row["task"]: row["alias_of"]
        for row in table("tasks")["tasks"]
        if version(row["first"]) <= asked and (row["last"] is None or asked <= version(row["last"]))
    }
