"""Stores lists of regions that many rows share only once."""

from __future__ import annotations


def group(groups: dict[str, list[str]], owner: str, regions: list[str]) -> str:
    """The name of a list of regions in `groups`: its first owner and its length."""
    for name, known in groups.items():
        if known == regions:
            return name
    name = f"{owner}-{len(regions)}"
    while name in groups:
        name += "b"
    groups[name] = regions
    return name
