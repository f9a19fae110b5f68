"""Resolves the lock of the shipped app from the package index: `python -m maintain.shipped_lock`, part of `make lock`.

`extended-dlc lock` asks the base's own pip, and so needs the base. This module needs the index alone: it resolves what
`docker/inference/install.py` asks for, with the base's Python, platform and torch, and leaves out what the image must
keep and what only torch needs. The result can name packages of which the base has a release that would do; the last
step of the build compares the image with the base's own requirements.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from extended_dlc import files
from extended_dlc.cli._settings import decided, raw_settings
from extended_dlc.facts.catalog import find_image
from extended_dlc.installed import docker_folder
from extended_dlc.options.lock import write_lock

ROOT = Path(__file__).parent.parent
FILE = ROOT / "extended-dlc.lock"

HOW = (
    "# made with uv and pip from the package index, for the base's Python, platform and torch, not by the base's own\n"
    "# pip: the last step of the build says if the base needs other versions, and 'extended-dlc lock' asks the base\n"
)

RECIPE = ("transformers", "accelerate", "diffusers", "peft")
"""What the recipe of the base installs of the packages that `install.py` upgrades with transformers
(aws/deep-learning-containers, huggingface/pytorch/inference/docker/2.6/py3/Dockerfile.cpu at 07771ac)."""

PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (35, 34, 31, 28, 27, 26, 24, 17, 12, 5)]
"""The platforms of wheels that Ubuntu 22.04, the base's system (glibc 2.35), installs."""


def install_step() -> Any:
    """The module that installs the layer inside the image."""
    spec = importlib.util.spec_from_file_location("install", docker_folder("inference") / "install.py")
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - for the type checker
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shipped_image() -> Any:
    """What is decided of the image of the repository's own cdk.json."""
    return decided(raw_settings(None, folder=ROOT), folder=ROOT).decision.image


def asked(transformers: str) -> list[str]:
    """The requirements of the layer on the base of the shipped app."""
    pinned = (docker_folder("inference") / "requirements.txt").read_text().splitlines()
    named = install_step().requirements(transformers, dict.fromkeys(RECIPE, ""))
    return [*named, *(line for line in pinned if line and not line.startswith("#"))]


def main() -> None:
    """Resolve the packages, ask for the hash of each wheel, and write the file."""
    image = shipped_image()
    base = find_image(image.base)
    python = re.sub(r"py3(\d+)", r"3.\1", str(base.python))
    with tempfile.TemporaryDirectory() as folder:
        wanted, pins = Path(folder, "wanted.txt"), Path(folder, "pins.txt")
        wanted.write_text("\n".join([*asked(image.transformers), f"torch=={base.torch}"]))
        resolved = _output(
            *("uv", "pip", "compile", "--quiet", "--no-header", "--annotation-style=line"),
            *(f"--python-version={python}", "--python-platform=x86_64-manylinux_2_35", str(wanted)),
        )
        pins.write_text("\n".join(_layer(resolved.splitlines())))
        report = _output(
            *("pip", "install", "--quiet", "--dry-run", "--report=-", "--no-deps", "--ignore-installed"),
            *(f"--target={folder}", "--only-binary=:all:", f"--python-version={python}"),
            *(*(f"--platform={each}" for each in PLATFORMS), f"--requirement={pins}"),
        )
    made = json.loads(report)
    made["environment"]["python_full_version"] = f"{python}.0"  # pip reports its own Python, not the one asked for
    text = write_lock(made, base=image.base, day=datetime.now(timezone.utc).date().isoformat())
    head, day, rest = text.partition(text.splitlines()[3] + "\n")
    files.write(FILE, head + day + HOW + rest)


def _layer(resolved: Iterable[str]) -> list[str]:
    """The resolved packages, without those that the image keeps and those that only these need."""
    needed_by: dict[str, set[str]] = {}
    pins: dict[str, str] = {}
    for line in resolved:
        pin, _, needing = line.partition("# via ")
        name = pin.partition("==")[0].strip()
        pins[name] = pin.strip()
        needed_by[name] = {each.strip() for each in needing.split(",")}
    protected = install_step().PROTECTED
    kept_by_base = {name for name in pins if protected.fullmatch(name)}
    while more := {name for name in pins.keys() - kept_by_base if needed_by[name] <= kept_by_base}:
        kept_by_base |= more
    return [pin for name, pin in pins.items() if name not in kept_by_base]


def _output(tool: str, *arguments: str) -> str:
    """The output of a tool of the environment; its errors are shown."""
    command = [str(Path(sys.executable).parent / tool), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - own arguments


if __name__ == "__main__":
    main()
