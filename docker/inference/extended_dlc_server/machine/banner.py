"""Logs the facts that a bug report needs, before the model is loaded."""

from __future__ import annotations

import logging
import platform
from importlib.metadata import PackageNotFoundError, version

from .. import __version__
from ..settings import MEGABYTE, Settings

log = logging.getLogger(__name__)


def log_banner(settings: Settings, model: str, task: str, devices: str) -> None:
    """Log the versions, the model and its source, the task, the devices, the limits and the options."""
    packages = ", ".join(f"{package} {version_of(package)}" for package in ("transformers", "torch", "huggingface_hub"))
    limits = (
        f"bodies of {settings.max_body_bytes // MEGABYTE} MB within {settings.body_seconds} s, "
        f"audio of {settings.max_audio_seconds} s, {settings.queue_length} waiting requests, "
        f"batches of {settings.batch_size}, {settings.answer_seconds} s an answer, {settings.stream_seconds} s a stream"
    )
    options = [
        name
        for name, on in {
            "a token for the Hub": settings.token,
            "code of the model is trusted": settings.trust_remote_code,
            f"metrics in {settings.metrics_namespace}": settings.metrics_namespace,
        }.items()
        if on
    ]
    lines = {
        "model": model,
        "task": task,
        "devices": devices,
        "limits": limits,
        "options": ", ".join(options) or "none",
    }
    log.info("extended-dlc server %s with %s and Python %s", __version__, packages, platform.python_version())
    for name, text in lines.items():
        log.info("  %s: %s", name, text)


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(none)"
