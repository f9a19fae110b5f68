"""What each transformers release needs, from the metadata of its wheel."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from extended_dlc.facts.refresh import _pip
from extended_dlc.facts.refresh._pip import Json

OLDEST = (4, 17)
"""The release of the tutorial's base image: nothing older is ever installed."""

AT_ONCE = 4
"""Metadata requests in parallel: each is a process that mostly waits."""

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(\[.*?\])?\s*\(?(?P<range>[^;()]*)\)?\s*(;(?P<marker>.*))?")


def releases(known: list[str], before: Json | None, say: Callable[[str], None]) -> Json:
    """The table `releases`: the rows there are, and one for each newer release in `known` (all of them, sorted)."""
    rows = {row["release"]: row for row in before["releases"]} if before else {}
    wanted = [release for release in known if _numbers(release) >= OLDEST]
    new = [release for release in wanted if release not in rows]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        read = pool.map(lambda release: row(release, _pip.wheel_metadata("transformers", release)), new)
        for number, found in enumerate(read, 1):
            rows[found["release"]] = found
            if number % 20 == 0:
                say(f"releases: {number}/{len(new)} read, {found['release']}")
    # what was withdrawn since leaves the table, so that nothing recommends it
    return {
        "source": "PyPI transformers, metadata of each release's wheel (Requires-Python, Requires-Dist); "
        f"without withdrawn releases; newest {wanted[-1]}",
        "releases": [rows[release] for release in wanted],
    }


def row(release: str, metadata: Json) -> Json:
    """One release: its oldest Python, its oldest torch (None: any), and the ranges of what it brings along."""
    python = re.search(r">=\s*(\d+\.\d+)", metadata["requires_python"])
    if python is None:
        raise ValueError(f"transformers {release} says Requires-Python '{metadata['requires_python']}'")
    ranges: dict[str, str] = {}
    torch = None
    for requirement in metadata.get("requires_dist", []):
        match = _REQUIREMENT.fullmatch(requirement.strip())
        if match is None:
            raise ValueError(f"transformers {release} requires '{requirement}', which is not understood")
        name, marker = re.sub(r"[-_.]+", "_", match["name"]).lower(), match["marker"]
        if marker is None:
            ranges[name] = ",".join(sorted((part.strip() for part in match["range"].split(",")), reverse=True))
        elif name == "torch" and re.search(r"extra\s*==\s*['\"]torch['\"]", marker):
            floor = re.search(r">=\s*(\d+(\.\d+)+)", match["range"])
            torch = floor[1] if floor else None
    return {
        "release": release,
        "python": python[1],
        "torch": torch,
        **{name: ranges.get(name) for name in ("huggingface_hub", "tokenizers", "safetensors")},
    }


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
