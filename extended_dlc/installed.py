"""What belongs to this package where it is installed, and the words by which pip installs it again."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_NAME = "extended-dlc"

_REHEARSE = ("moto", "werkzeug", "yaml")
"""Modules that the extra `rehearse` brings."""


def requirement(extra: str) -> str:
    """A wheel's file, a repository or a checkout (PEP 610), else the release of an index; with one of its extras."""
    try:
        installed = distribution(_NAME)
    except PackageNotFoundError:  # a folder on PYTHONPATH
        return f"{_NAME}[{extra}]"
    text = installed.read_text("direct_url.json")
    source: dict[str, Any] = json.loads(text) if text else {}
    url = str(source.get("url", ""))
    if source.get("dir_info", {}).get("editable"):
        return f"-e {unquote(urlsplit(url).path)}[{extra}]"
    if vcs := source.get("vcs_info"):
        return f"{_NAME}[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"{_NAME}[{extra}] @ {url}" if url else f"{_NAME}[{extra}]=={installed.version}"


def missing_for_rehearsal() -> list[str]:
    """The modules of the extra `rehearse` that are not installed."""
    return [module for module in _REHEARSE if find_spec(module) is None]


def pip_words(requirement: str) -> str:
    """A requirement as it stands in a shell, after `pip install`."""
    if requirement.startswith("-e "):
        return f"-e {shlex.quote(requirement[3:])}"
    return shlex.quote(requirement)


def docker_folder(family: str) -> Path:
    """The build context of a family: `docker/<family>`, beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / "docker" / family
    return inside if inside.is_dir() else package.parent / "docker" / family
