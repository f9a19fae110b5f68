"""transformers releases: their dates, their requirements and their pipeline tasks."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import version


@dataclass(frozen=True, kw_only=True)
class Release:
    """One transformers release and the requirements of its wheel."""

    release: str
    date: str
    """Day of its upload to PyPI, such as `2026-11-22`."""

    python: str
    """Oldest Python, such as `3.10`."""

    torch: str | None
    """Oldest torch that the `torch` extra accepts; None for any."""

    torch_gate: str | None
    """The torch below which transformers ignores an installed torch; None if it does not check."""

    huggingface_hub: str | None
    """Accepted range, such as `>=1.31.0,<3.0`; None if the wheel does not require the package."""

    tokenizers: str | None
    safetensors: str | None
    yanked: bool
    """Whether it was yanked from PyPI."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task, with the releases whose `pipeline(…)` takes it."""

    task: str
    alias_of: str | None
    """The task that it is an alias of; None if it is no alias."""

    first: str
    """First release; `4.17.0` also stands for older ones."""

    last: str | None
    """Last release; None if the newest still has it."""


@functools.cache
def every_release() -> dict[str, Release]:
    """Every transformers release from 4.17.0 on, yanked ones included, oldest first."""
    return {row["release"]: Release(**row) for row in table("releases")["releases"]}


@functools.cache
def releases() -> dict[str, Release]:
    """Every transformers release from 4.17.0 on that is not yanked, oldest first."""
    return {name: release for name, release in every_release().items() if not release.yanked}


@functools.cache
def task_names() -> frozenset[str]:
    """Every task of any release, with all aliases."""
    return frozenset(row["task"] for row in table("tasks")["tasks"])


def find_task(task: str) -> tuple[Task, ...]:
    """The ranges of releases that take a task, oldest first; empty if no release in the table does.

    There are several if a task was removed and its name later became an alias. Names such as `translation_en_to_fr`
    stand for `translation`.
    """
    name = "translation" if task.startswith("translation_") else task
    spans = (Task(**row) for row in table("tasks")["tasks"] if row["task"] == name)
    return tuple(sorted(spans, key=lambda span: version(span.first)))


def tasks_of(transformers: str) -> dict[str, str | None] | None:
    """The tasks of a release -> the task that each is an alias of; None for a release outside the table."""
    known = list(releases())
    asked = version(transformers)
    if not version(known[0]) <= asked <= version(known[-1]):
        return None
    return {
        row["task"]: row["alias_of"]
        for row in table("tasks")["tasks"]
        if version(row["first"]) <= asked and (row["last"] is None or asked <= version(row["last"]))
    }
