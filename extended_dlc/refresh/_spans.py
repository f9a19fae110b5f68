"""Converts names per release, such as model types, to rows with the first and last release of each name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from extended_dlc.facts.catalog import version
from extended_dlc.refresh._pip import Json

Name = tuple[str | None, ...]


def rows(keys: tuple[str, ...], known: Mapping[str, set[Name]]) -> Iterator[Json]:
    """A sorted row for each name: its parts under `keys`, its first and last release; None if the newest has it."""
    releases = sorted(known, key=version)
    for name in sorted(set().union(*known.values()), key=lambda name: [part or "" for part in name]):
        having = [release for release in releases if name in known[release]]
        last = None if having[-1] == releases[-1] else having[-1]
        yield {**dict(zip(keys, name, strict=True)), "first": having[0], "last": last}


def known(keys: tuple[str, ...], spans: list[dict[str, Any]], releases: list[str]) -> dict[str, set[Name]]:
    """Convert rows back to the names of each release."""

    def has(row: Json, release: str) -> bool:
        return version(row["first"]) <= version(release) and (
            row["last"] is None or version(release) <= version(row["last"])
        )

    return {release: {tuple(row[key] for key in keys) for row in spans if has(row, release)} for release in releases}
