"""What the log says before the model is loaded: everything that a report of a problem has to name."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from . import __version__
from .settings import MEGABYTE, Settings


def banner(settings: Settings, model: str, task: str, devices: str) -> str:
    """One block: the versions, what is served and from where, on what, and the limits in force."""
    packages = ", ".join(f"{package} {_version(package)}" for package in ("transformers", "torch", "huggingface_hub"))
    limits = (
        f"bodies of {settings.max_body_bytes // MEGABYTE} MB within {settings.body_seconds} s, "
        f"audio of {settings.max_audio_seconds} s, {settings.queue_length} waiting requests, "
        f"batches of {settings.batch_size}, {settings.request_seconds} s an inference"
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
    head = f"extended-dlc server {__version__} with {packages} and Python {platform.python_version()}"
    return "\n".join([head, *(f"  {name}: {text}" for name, text in lines.items())])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(none)"
