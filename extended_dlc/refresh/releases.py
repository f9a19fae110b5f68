"""The requirements of a transformers release, from its wheel's metadata and from its source."""

from __future__ import annotations

import re
from collections.abc import Iterable

from extended_dlc.refresh._pip import Json

OLDEST = (4, 17)
"""The release in the tutorial's base image; older ones are never installed."""

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(\[.*?\])?\s*\(?(?P<range>[^;()]*)\)?\s*(;(?P<marker>.*))?")
_GATE = re.compile(r"Disabling PyTorch because PyTorch >= (\d+(\.\d+)+) is required")


def row(release: str, requires_python: str, requirements: Iterable[str]) -> Json:
    """The row of a release: its oldest Python, its oldest torch (None for any), and the ranges of dependencies."""
    python = re.search(r">=\s*(\d+\.\d+)", requires_python)
    if python is None:
        raise ValueError(f"transformers {release} says Requires-Python '{requires_python}'")
    ranges: dict[str, str] = {}
    torch = None
    for requirement in requirements:
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


def torch_gate(sources: Iterable[str]) -> str | None:
    """The torch below which a release ignores an installed torch; None if it has no such check."""
    return next((match[1] for source in sources if (match := _GATE.search(source))), None)
