"""Reads the package index through pip, with the caller's configuration: mirrors, proxies and certificates."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extended_dlc.facts.catalog import version

Json = dict[str, Any]


class RefreshError(Exception):
    """A table was not refreshed; the message tells why and what to do."""


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


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A release in the index."""

    date: str
    """Day of its wheel's upload, UTC, such as `2026-11-22`."""

    yanked: bool
    """Whether it was yanked."""

    def as_row(self) -> Json:
        """Its columns of a row."""
        return {"date": self.date, "yanked": self.yanked}


def uploads(package: str, index: str) -> dict[str, Upload]:
    """All final releases of a package with a wheel, yanked ones included, oldest first.

    They are read from the index's page (PEP 691, PEP 700), because pip does not print dates.
    """
    page = f"{index}/{package}/"
    request = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the URL of the user's index
            files = json.load(answer)["files"]
            found = {_release(file["filename"]): file for file in files if file["filename"].endswith(".whl")}
            pairs = {
                release: Upload(date=file["upload-time"][:10], yanked=bool(file["yanked"]))
                for release, file in found.items()
                if re.fullmatch(r"\d+(\.\d+)+", release)
            }
    except (OSError, ValueError, KeyError) as error:
        raise RefreshError(
            f"{page} does not tell the releases and their dates ({type(error).__name__}: {error})\n"
            "nothing was changed: check the network, or point pip at an index with PEP 700 such as PyPI itself "
            "(PIP_INDEX_URL), and refresh again"
        ) from None
    return dict(sorted(pairs.items(), key=lambda pair: version(pair[0])))


def _release(filename: str) -> str:
    return filename.split("-")[1]


def index() -> str:
    """URL of the index that pip is configured with; the environment takes precedence, as in pip."""
    configured = [line.split("=", 1) for line in _pip("config", "list").splitlines() if ".index-url=" in line]
    by_section = {key.rsplit(".", 1)[0]: value.strip("'\"") for key, value in configured}
    address = by_section.get(":env:") or by_section.get("global") or _own_index()
    return address.rstrip("/")


def _own_index() -> str:
    """pip's default index, which no pip command prints."""
    program = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RefreshError(f"pip does not tell its index: set PIP_INDEX_URL, and refresh again\n{done.stderr}")
    return done.stdout.strip()


def download_wheel(package: str, folder: Path, release: str | None = None) -> Path:
    """Download the wheel of a release, or of the newest one, to `folder`."""
    wanted = package if release is None else f"{package}=={release}"
    before = set(folder.glob("*.whl"))
    _pip(
        *("download", "--quiet", "--no-deps", "--ignore-requires-python", "--only-binary", ":all:", "--no-cache-dir"),
        *("--dest", str(folder), wanted),
    )
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel
