"""The requirements, model types and tasks of transformers releases, read from each wheel without importing it.

Every release from 4.0 on is read once; later refreshes take its content from the tables.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

from extended_dlc.facts.catalog import version
from extended_dlc.refresh import _pip, _spans
from extended_dlc.refresh._pip import Json, Upload
from extended_dlc.refresh.releases import OLDEST, row, torch_gate
from extended_dlc.refresh.source import tasks_in_source, types_in_source

TYPE_KEYS = ("model_type",)
TASK_KEYS = ("task", "alias_of")

AT_ONCE = 2
"""Wheels in parallel: each takes a download of 10 MB and a start of pip."""

_AUTO = "transformers/models/auto"
_TYPES = (f"{_AUTO}/auto_mappings.py", f"{_AUTO}/configuration_auto.py")
_TASKS = "transformers/pipelines/__init__.py"
_GATES = ("transformers/utils/import_utils.py", "transformers/file_utils.py")


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """The content of one release's wheel."""

    row: Json
    types: set[_spans.Name]
    tasks: set[_spans.Name]


def tables(
    uploads: Mapping[str, Upload], before: Mapping[str, Json | None], say: Callable[[str], None]
) -> Iterator[tuple[str, Json]]:
    """The tables `releases`, `model_types` and `tasks`; `before` has the current ones.

    Yanked releases have a row in `releases` and are left out of the other two.
    """
    kept = [release for release in uploads if version(release)[0] >= 4]
    valid = [release for release in kept if not uploads[release].yanked]
    of_today = [release for release in kept if version(release) >= OLDEST]
    offered = [release for release in of_today if not uploads[release].yanked]
    rows = {row["release"]: row for row in (before["releases"] or {"releases": []})["releases"]}
    types = _known(before, "model_types", TYPE_KEYS, valid)
    tasks = _known(before, "tasks", TASK_KEYS, offered)
    missing = ({*of_today} - {*rows}) | ({*valid} - {*types}) | ({*offered} - {*tasks})
    for release, wheel in _read(sorted(missing, key=version), say):
        rows[release], types[release], tasks[release] = wheel.row, wheel.types, wheel.tasks
    yield (
        "releases",
        {
            "source": "PyPI transformers: date and withdrawal from the index, the rest from each release's wheel "
            f"(Requires-Python, Requires-Dist, utils/import_utils.py); the newest read is {valid[-1]}",
            "releases": [rows[release] | uploads[release].as_row() for release in of_today],
        },
    )
    yield (
        "model_types",
        {
            "source": "PyPI transformers, the config mapping in models/auto of the wheel of each release in 'read'; a "
            "type of the first release may be older, 'last' is null while the newest release has it",
            "read": valid,
            "model_types": list(_spans.rows(TYPE_KEYS, {release: types[release] for release in valid})),
        },
    )
    yield (
        "tasks",
        {
            "source": "PyPI transformers, pipelines/__init__.py of the wheel of each release in 'read'; a task of the "
            "first release may be older, 'last' is null while the newest release has it",
            "read": offered,
            "tasks": list(_spans.rows(TASK_KEYS, {release: tasks[release] for release in offered})),
        },
    )


def _known(
    before: Mapping[str, Json | None], name: str, keys: tuple[str, ...], releases: list[str]
) -> dict[str, set[_spans.Name]]:
    content = before[name]
    if not content:
        return {}
    return _spans.known(keys, content[name], [release for release in content["read"] if release in releases])


def _read(releases: list[str], say: Callable[[str], None]) -> Iterator[tuple[str, Wheel]]:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        for number, found in enumerate(pool.map(lambda one: (one, read_wheel(one, Path(folder))), releases), 1):
            say(f"transformers: {number}/{len(releases)} wheels read, {found[0]} has {len(found[1].types)} model types")
            yield found


def read_wheel(release: str, folder: Path) -> Wheel:
    """Read one release; its wheel is downloaded to `folder` and deleted again."""
    target = folder / release
    target.mkdir()
    file = _pip.download_wheel("transformers", target, release)
    try:
        with zipfile.ZipFile(file) as archive:
            members = set(archive.namelist())

            def text(*names: str) -> list[str]:
                return [archive.read(name).decode() for name in names if name in members]

            metadata = message_from_string(text(f"transformers-{release}.dist-info/METADATA")[0])
            return Wheel(
                row=row(release, metadata["Requires-Python"], metadata.get_all("Requires-Dist", []))
                | {"torch_gate": torch_gate(text(*_GATES))},
                types={(name,) for name in types_in_source(text(*_TYPES))},
                tasks=set(tasks_in_source(text(_TASKS)[0]).items()) if version(release) >= OLDEST else set(),
            )
    finally:
        file.unlink()
