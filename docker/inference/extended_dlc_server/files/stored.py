"""Reads names and some rows of the weights in a file, without the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROWS = 128


def stored_names(file: Path) -> list[str]:
    """Return the names of the weights in a file; none for a file of another kind."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            return list(opened.keys())
    return list(_pickled(file)) if file.suffix == ".bin" else []


def some_rows(file: Path, name: str) -> Any:
    """Return rows of a weight from its beginning, its middle and its end."""
    import torch

    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            part = opened.get_slice(name)
            return torch.cat([part[begin : begin + ROWS] for begin in _begins(part.get_shape()[0])]).float()
    part = _pickled(file)[name]
    return torch.cat([part[begin : begin + ROWS] for begin in _begins(part.shape[0])]).float()


def _begins(rows: int) -> tuple[int, int, int]:
    return 0, rows // 2, max(0, rows - ROWS)


def _pickled(file: Path) -> dict[str, Any]:
    """Return the weights of a pickle, which stay on the disk; none for a file of torch before 1.6."""
    import torch

    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
    except RuntimeError:
        return {}
