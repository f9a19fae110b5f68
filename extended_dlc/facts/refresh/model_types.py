"""Which transformers release knows which model type, read in the source of the wheels without importing it.

Read are the first and the newest patch of every minor release from 4.0 on, and, where the two differ, the patches
between them, so that a type that came with a patch has exactly that release. Releases that were read once are not read
again: what they knew follows from the table.
"""

from __future__ import annotations

import ast
import itertools
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from extended_dlc.facts.refresh import _pip
from extended_dlc.facts.refresh._pip import Json

_AUTO = "transformers/models/auto"
_FILES = (f"{_AUTO}/auto_mappings.py", f"{_AUTO}/configuration_auto.py")
_NAMES = ("CONFIG_MAPPING_NAMES", "CONFIG_MAPPING")
AT_ONCE = 2
"""Wheels in parallel: each is 10 MB to download and then seconds of pip's start."""


def model_types(known: list[str], before: Json | None, say: Callable[[str], None]) -> Json:
    """The table `model_types`, for the releases in `known` (all of transformers, sorted)."""
    types = _as_read(before, known) if before else {}
    minors = [
        list(group)
        for (major, _), group in itertools.groupby(known, lambda release: _numbers(release)[:2])
        if major >= 4
    ]
    ends = [release for minor in minors for release in dict.fromkeys((minor[0], minor[-1]))]
    types |= _read([release for release in ends if release not in types], say)
    # only where a patch brought or dropped something, the others of its minor
    between = [
        release
        for minor in minors
        if types[minor[0]] != types[minor[-1]]
        for release in minor[1:-1]
        if release not in types
    ]
    types |= _read(between, say)
    read = sorted(types, key=_numbers)
    return {
        "source": "PyPI transformers, the config mapping in models/auto of each wheel in 'releases'; a type of the "
        "first release may be older, 'last' is null while the newest release has it",
        "releases": read,
        "model_types": list(_rows(types, read)),
    }


def _rows(types: dict[str, set[str]], read: list[str]) -> Iterator[Json]:
    for model_type in sorted(set().union(*types.values())):
        having = [release for release in read if model_type in types[release]]
        last = None if having[-1] == read[-1] else having[-1]
        yield {"model_type": model_type, "first": having[0], "last": last}


def _as_read(before: Json, known: list[str]) -> dict[str, set[str]]:
    """What each release that was read before knew, by the table; withdrawn releases are left out."""
    read = [release for release in before["releases"] if release in known]

    def has(row: Json, release: str) -> bool:
        return _numbers(row["first"]) <= _numbers(release) and (
            row["last"] is None or _numbers(release) <= _numbers(row["last"])
        )

    return {release: {row["model_type"] for row in before["model_types"] if has(row, release)} for release in read}


def _read(releases: list[str], say: Callable[[str], None]) -> dict[str, set[str]]:
    found = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        read = pool.map(lambda release: (release, types_in_release(release, Path(folder))), releases)
        for number, (release, types) in enumerate(read, 1):
            say(f"model types: {number}/{len(releases)} wheels, {release} has {len(types)}")
            found[release] = types
    return found


def types_in_release(release: str, folder: Path) -> set[str]:
    """The model types of one release; its wheel comes to `folder` and goes again."""
    own = folder / release
    own.mkdir()
    wheel = _pip.download_wheel("transformers", own, release)
    try:
        with zipfile.ZipFile(wheel) as archive:
            there = set(archive.namelist())
            return types_in_source(archive.read(name).decode() for name in _FILES if name in there)
    finally:
        wheel.unlink()


def types_in_source(sources: Iterable[str]) -> set[str]:
    """The keys of the config mapping: assigned as a literal, and extended by `.update(…)` or keyword unpacking."""
    types: set[str] = set()
    for source in sources:
        for statement in ast.parse(source).body:
            value: ast.expr | None = None
            if isinstance(statement, ast.Assign):
                named = any(isinstance(target, ast.Name) and target.id in _NAMES for target in statement.targets)
                value = statement.value if named else None
            elif isinstance(statement, ast.AnnAssign):
                named = isinstance(statement.target, ast.Name) and statement.target.id in _NAMES
                value = statement.value if named else None
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                function = statement.value.func
                named = (
                    isinstance(function, ast.Attribute)
                    and function.attr == "update"
                    and isinstance(function.value, ast.Name)
                    and function.value.id in _NAMES
                )
                value = statement.value if named else None
            if value is not None:
                types |= set(_keys(value))
    if len(types) < 30:  # 4.0.0 has 37; fewer means that the mapping is written in a way not met yet
        raise _pip.RefreshError(
            f"only {len(types)} model types found in {' and '.join(_FILES)}: the mapping has a new form; report it, "
            "and refresh with an older transformers until this is mended"
        )
    return types


def _keys(value: ast.expr) -> Iterator[str]:
    """The string keys of a dict, of pairs in a list, and of `OrderedDict(…)` of either."""
    match value:
        case ast.Dict(keys=keys, values=values):
            for key, inner in zip(keys, values, strict=True):
                if key is None:
                    yield from _keys(inner)
                elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value
        case ast.List(elts=pairs) | ast.Tuple(elts=pairs):
            for pair in pairs:
                if isinstance(pair, ast.Tuple) and isinstance(pair.elts[0], ast.Constant):
                    yield str(pair.elts[0].value)
        case ast.Call(args=arguments, keywords=keywords):
            for argument in arguments:
                yield from _keys(argument)
            for keyword in keywords:
                if keyword.arg is None:
                    yield from _keys(keyword.value)
                else:
                    yield keyword.arg


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
