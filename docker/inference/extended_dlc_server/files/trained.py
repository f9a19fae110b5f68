"""Logs the transformers release that trained a model, which the training image records beside the weights."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)

RECORD = "extended_dlc_training.json"
"""Written by the training image (`docker/training`): package releases, task, base model."""

_LARGEST_BYTES = 64 * 1024


def log_training(folder: Path, installed: str) -> None:
    """Log the release that trained the model, as a warning if it is newer than the installed one."""
    trained = _release(folder / RECORD)
    if trained is None:
        return
    if _numbers(trained) > _numbers(installed):
        log.warning(
            "%s was trained with transformers %s, and this image has %s, which is older and may read less of it: build "
            "the image with %s",
            folder.name,
            trained,
            installed,
            trained,
        )
    else:
        log.info("trained with transformers %s, which transformers %s reads", trained, installed)


def _release(file: Path) -> str | None:
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            return None
        release = json.loads(file.read_text())["transformers"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return release if isinstance(release, str) and re.fullmatch(r"\d{1,4}(\.\w{1,20}){1,4}", release) else None


def _numbers(release: str) -> tuple[int, ...]:
    """Return major and minor version; patch releases do not matter here."""
    return tuple(int(part) for part in re.findall(r"\d+", release)[:2])
