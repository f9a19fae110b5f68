"""The lock file of an image's layer: the packages to install, each with its version and hash."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from extended_dlc.installed import docker_folder
from extended_dlc.options._values import OptionError

HEAD = "# extended-dlc lock"
_MOST_BYTES = 128_000
"""The longest argument of a build: Linux takes 131,071 bytes of one argument (`MAX_ARG_STRLEN`), with its name."""

_LINE = re.compile(r"[A-Za-z0-9][\w.-]*==[\w.+!-]+( --hash=sha256:[0-9a-f]{64})+")


def read_lock(file: str, transformers: str) -> str:
    """The content of a lock file, without comments except for the Python version; `OptionError` for an unusable one."""
    path = Path(file)
    if not path.is_file():
        raise OptionError("lock", file, "is not a file: run 'extended-dlc lock', or leave the option out")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise OptionError("lock", file, "is not UTF-8 text: run 'extended-dlc lock' again") from None
    if not lines or not lines[0].startswith(HEAD):
        raise OptionError("lock", file, "was not written by 'extended-dlc lock': run it, and name its file")
    wrong = [line for line in lines if line and not line.startswith("#") and not _LINE.fullmatch(line)]
    if wrong:
        raise OptionError("lock", file, f"has a line without a version or a hash ({wrong[0][:60]}): lock again")
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0].lower()) for line in lines if line[:1] not in ("", "#")]
    if twice := {name for name in names if names.count(name) > 1}:
        raise OptionError("lock", file, f"names a package twice ({', '.join(sorted(twice))}): lock again")
    if of_base := sorted(filter(_protected().fullmatch, names)):
        raise OptionError("lock", file, f"names what the base image has and keeps ({', '.join(of_base)}): lock again")
    if f"transformers=={transformers}" not in {line.partition(" ")[0] for line in lines}:
        raise OptionError("lock", file, f"is not of transformers {transformers}: run 'extended-dlc lock' again")
    text = "\n".join(line for line in lines if line and (not line.startswith("#") or line.startswith("# python ")))
    if len(text.encode()) > _MOST_BYTES:
        raise OptionError(
            "lock", file, f"has {len(names)} packages, of which one argument of a build takes some 1,100: lock again"
        )
    return text


def _protected() -> re.Pattern[str]:
    """The packages of the base that no install replaces, as `docker/inference/install.py` reads them."""
    lines = (docker_folder("inference") / "protected.txt").read_text("utf-8").splitlines()
    return re.compile("|".join(each for each in lines if each and not each.startswith("#")))


def write_lock(report: Mapping[str, Any], *, base: str, day: str) -> str:
    """The text of a lock.

    :param report: The output of `pip install --dry-run --report` (pip documentation, "Installation Report").
    """
    python = ".".join(str(report["environment"]["python_full_version"]).split(".")[:2])
    head = [HEAD, f"# base {base}", f"# python {python}", f"# date {day}"]
    return "\n".join([*head, *sorted(_lines(report)), ""])


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    for each in report["install"]:
        named = each["metadata"]
        hashes = each["download_info"].get("archive_info", {}).get("hashes", {})
        if "sha256" not in hashes:
            raise ValueError(f"pip says no hash of {named['name']} {named['version']}: {json.dumps(each)[:200]}")
        yield f"{named['name'].lower()}=={named['version']} --hash=sha256:{hashes['sha256']}"
