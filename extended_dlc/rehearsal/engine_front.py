"""The program in `CDK_DOCKER` during a rehearsal: a front of the container engine that replaces what is missing.

    python -m extended_dlc.rehearsal.engine_front FRONT.json ARGUMENTS…

In a build, images of AWS's are replaced by their stand-ins, and this machine's pip settings are passed; for podman and
for Docker before 23, options of buildx are removed. So no app needs a change for a rehearsal. All other calls go to the
engine unchanged.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from extended_dlc import files
from extended_dlc.rehearsal.assembly import dlc_repository

TAKES_BOTH = "takes the options of either engine"
"""Part of the reported version, so that `extended-dlc doctor` does not require the engine in the settings."""


_REGISTRY = re.compile(r"^(https://)?\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com")
"""A registry of AWS's own; the account's registry is on this machine."""

_OF_BUILDX = ("--output", "--load", "--provenance", "--cache-to", "--cache-from")

_BUILDS = (("build",), ("buildx", "build"), ("image", "build"))


@dataclass(frozen=True, kw_only=True)
class Front:
    """The engine, and what is replaced in its calls."""

    program: str
    environment: Mapping[str, str]
    is_podman: bool
    has_one_exporter: bool = False
    """As of `Engine`."""

    standins: Mapping[str, str] = field(default_factory=dict)
    """A repository of AWS's to the stand-in for its images with any tag."""

    by_name: tuple[str, ...] = ()
    """AWS's images that a Dockerfile's FROM names itself."""

    secrets: Mapping[str, str] = field(default_factory=dict)
    """ID of a build secret to its file."""

    def install(self, folder: Path) -> Path:
        """Write the front as a program into a folder; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        content = folder / "front.json"
        files.write(content, json.dumps(asdict(self), indent=2))
        program = folder / "container-engine"
        package = Path(__file__).parents[2]
        command = [sys.executable, "-m", "extended_dlc.rehearsal.engine_front", str(content)]
        # the package may be a checkout that is on no other folder's Python path
        path = f"PYTHONPATH={shlex.quote(str(package))}${{PYTHONPATH:+:$PYTHONPATH}}"
        program.write_text(f'#!/bin/sh\n{path} exec {shlex.join(command)} "$@"\n')
        program.chmod(0o755)
        return program


def rewrite(front: Front, arguments: Sequence[str]) -> list[str]:
    """The arguments for the engine."""
    at = next((len(each) for each in _BUILDS if tuple(arguments[: len(each)]) == each), 0)
    if not at:
        return list(arguments)
    more = [f"--secret=id={name},src={file}" for name, file in front.secrets.items() if not _has(arguments, name)]
    more += [f"--build-context={name}=docker-image://{_in_place_of(front, name)}" for name in front.by_name]
    return [*arguments[:at], *more, *_mended(front, arguments[at:])]


def _mended(front: Front, options: Sequence[str]) -> Iterator[str]:
    rest = iter(options)
    for each in rest:
        name, equals, value = each.partition("=")
        if (front.is_podman or front.has_one_exporter) and name in _OF_BUILDX:
            if not equals and name != "--load":
                next(rest, None)
        elif name == "--build-arg" and equals:
            yield f"{name}={_stood_in(front, value)}"
        elif name == "--build-arg":
            yield from (each, _stood_in(front, next(rest, "")))
        else:
            yield each


def _stood_in(front: Front, argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{name}{equals}{_in_place_of(front, value)}"


def _in_place_of(front: Front, image: str) -> str:
    """The image's stand-in, or the image where there is none."""
    return front.standins.get(dlc_repository(image) or "", image)


def _has(arguments: Sequence[str], secret: str) -> bool:
    return any(f"id={secret}" in each.split(",") or f"--secret=id={secret}" in each for each in arguments)


def main(file: str, *arguments: str) -> None:
    """Replace this process by the engine, or respond in its place."""
    front = Front(**json.loads(Path(file).read_text("utf-8")))
    if arguments[:1] == ("login",) and _REGISTRY.search(arguments[-1]):
        print("Login Succeeded: its images are stood in for")
        return
    environment = {**os.environ, **front.environment}
    if arguments == ("--version",):
        print(f"{'podman' if front.is_podman else 'Docker'}, in front of it a rehearsal that {TAKES_BOTH}")
        return
    os.execve(front.program, [front.program, *rewrite(front, arguments)], environment)  # noqa: S606 - no shell


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[2:])
