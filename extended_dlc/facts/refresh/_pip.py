"""Asks the package index through pip, with the caller's own configuration: mirrors, proxies and certificates."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class RefreshError(Exception):
    """Why a table was not refreshed, and what to do."""


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a list, no shell
    if done.returncode == 0:
        return done.stdout
    if "No module named pip" in done.stderr:
        raise RefreshError(
            f"{sys.executable} has no pip, which fetches the sources: run '{sys.executable} -m ensurepip', or call "
            "extended-dlc from an environment with pip"
        )
    if "no such option" in done.stderr:
        raise RefreshError(
            f"pip is too old for 'pip {' '.join(arguments[:2])}': run '{sys.executable} -m pip install --upgrade pip' "
            "and refresh again"
        )
    said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    raise RefreshError(
        f"'pip {' '.join(arguments)}' failed: {said[-1].strip() if said else f'exit code {done.returncode}'}\n"
        "nothing was changed: check the network, or point pip at a mirror of PyPI (pip config set global.index-url …), "
        "and refresh again"
    )


def releases(package: str) -> list[str]:
    """All final releases of a package that were not withdrawn ("yanked"), oldest first."""
    found = json.loads(_pip("index", "versions", package, "--ignore-requires-python", "--json"))["versions"]
    final = [text for text in found if re.fullmatch(r"\d+(\.\d+)+", text)]
    return sorted(final, key=lambda text: [int(part) for part in text.split(".")])


def wheel_metadata(package: str, release: str) -> Json:
    """The metadata of a release's wheel; pip reads it without downloading the wheel where the index has it apart."""
    report = _pip(
        *("install", "--dry-run", "--no-deps", "--ignore-installed", "--ignore-requires-python", "--quiet"),
        *("--only-binary", ":all:", "--report", "-", f"{package}=={release}"),
    )
    metadata: Json = json.loads(report)["install"][0]["metadata"]
    return metadata


def download_wheel(package: str, folder: Path, release: str | None = None) -> Path:
    """The wheel of a release, or of the newest one, in `folder`."""
    wanted = package if release is None else f"{package}=={release}"
    before = set(folder.glob("*.whl"))
    _pip(
        *("download", "--quiet", "--no-deps", "--ignore-requires-python", "--only-binary", ":all:", "--no-cache-dir"),
        *("--dest", str(folder), wanted),
    )
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel
