"""A new project: the files of `template/`, with the given model, instance type and region."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from extended_dlc import installed
from extended_dlc.app.read import Raw
from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.catalog import INFERENCE, dlc_images
from extended_dlc.facts.models import SPEECH, know_model

TEMPLATE = Path(__file__).parent / "template"
SCHEMA = Path(__file__).parent / "settings.schema.json"

SERVERLESS = "serverless"

_MAY_BE_THERE = {".DS_Store", ".git", ".idea", ".rehearsal", ".venv", ".vscode", "venv"}
"""Files that a folder may contain and still count as empty."""

_NAMES = {"gitignore": ".gitignore"}
"""Files that have another name in the package, because git would obey a .gitignore there."""

_LONGEST_NAME = 40

_OPTIONS = {
    "endpoints.model.model": "--model",
    "endpoints.model.hosting.instance_type": "--instance-type",
    "region": "--region",
}
"""The place of a setting to the option of `extended-dlc init` that gives it."""


@dataclass(frozen=True, kw_only=True)
class NewProject:
    """The options of a new project."""

    model: str = "bigscience/bloom-560m"
    instance_type: str = "ml.m5.xlarge"
    """The instance type, or `serverless`."""

    region: str = "us-east-1"

    def write(self, folder: Path) -> list[str]:
        """Write all files of the project or none, and return their paths. ValueError with the way out otherwise."""
        check_empty(folder)
        name = _name_for(folder)
        content = self.settings(name)
        if problems := _problems(content):
            raise ValueError("\n".join(problems))
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".extended-dlc-init-", dir=folder))
        except OSError as error:
            raise ValueError(f"{folder} cannot be written ({error.strerror}): name another folder") from None
        moved: list[Path] = []
        try:
            for path, text in self._files(name, content):
                file = scratch / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, "utf-8")
            for each in sorted(scratch.iterdir()):
                os.replace(each, folder / each.name)
                moved.append(folder / each.name)
            scratch.rmdir()
        except BaseException:
            for each in (scratch, *moved):
                shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)
            if made:
                folder.rmdir()
            raise
        return sorted(path for path, _ in self._files(name, content))

    def check(self, *options: str) -> None:
        """Raise ValueError with what the app would refuse of these options, such as `instance_type`."""
        words = tuple(f"'--{each.replace('_', '-')}' " for each in options)
        if found := [each for each in _problems(self.settings("extended-dlc")) if each.startswith(words)]:
            raise ValueError("\n".join(found))

    def settings(self, name: str) -> dict[str, Any]:
        """The settings of the template, with the given options."""
        found: dict[str, Any] = json.loads((TEMPLATE / "settings.json").read_text("utf-8"))
        hosting = {"kind": "real-time", "instance_type": self.instance_type}
        shipped = found["endpoints"]["model"]
        endpoint = {
            **(shipped if self.model == shipped["model"] else {"model": self.model}),  # with the commit of its revision
            "hosting": {"kind": SERVERLESS} if self.instance_type == SERVERLESS else hosting,
        }
        return {**found, "name": name, "region": self.region, "endpoints": {"model": endpoint}}

    def _files(self, name: str, settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """The files of the project: path and content."""
        made = {
            "settings.json": json.dumps(settings, indent=2) + "\n",
            "settings.schema.json": SCHEMA.read_text("utf-8"),
            "requirements.txt": "".join(f"{line}\n" for line in requirements()),
        }
        yield from made.items()
        for file in sorted(TEMPLATE.rglob("*")):
            path = file.relative_to(TEMPLATE).as_posix()
            if file.is_file() and path not in made and "__pycache__" not in path:
                text = file.read_text("utf-8")
                if path == "README.md":
                    request = "--sample" if know_model(self.model).task == SPEECH else '"Hello, my name is"'
                    for field, value in {"name": name, "model": self.model, "request": request}.items():
                        text = text.replace(f"{{{field}}}", value)
                yield _NAMES.get(path, path), text


def check_empty(folder: Path) -> None:
    """Raise ValueError for a path that is no empty folder."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'FOLDER' ({folder}) is a file: name a folder that is empty or does not exist")
    existing = sorted({each.name for each in folder.iterdir()} - _MAY_BE_THERE) if folder.exists() else []
    if existing:
        shown = ", ".join(existing[:3]) + (" …" if len(existing) > 3 else "")
        raise ValueError(
            f"'FOLDER' ({folder}) is not empty ({shown}): name a new one (extended-dlc init my-endpoint), or take the "
            "app into your own by its stacks (from extended_dlc.app.define import define_stacks)"
        )


def requirements() -> list[str]:
    """The requirements of a project: this package from its own source, the installed CDK, and pytest."""
    found = [installed.requirement("rehearse")]
    with suppress(PackageNotFoundError):
        found.append(f"aws-cdk-lib=={distribution('aws-cdk-lib').version}")
    return [*found, "pytest>=8"]


def _name_for(folder: Path) -> str:
    """The name of the stack, from the folder's name."""
    plain = unicodedata.normalize("NFKD", folder.resolve().name.lower().replace("ß", "ss"))
    letters = "".join(each for each in plain if not unicodedata.combining(each))  # bücher is bucher, not b-cher
    name = re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:_LONGEST_NAME].strip("-")
    return name if name[:1].isalpha() else "extended-dlc"


def _problems(settings: dict[str, Any]) -> list[str]:
    """Everything that the app would refuse, a line each, in the words of the command."""
    from extended_dlc.app.settings import read  # pydantic takes half a second

    region = settings["region"]
    regions = {each for image in dlc_images(INFERENCE) for each in image.regions}
    content = {key: each for key, each in settings.items() if key[0] != "$"}
    problems = list(read(Raw(origin="what was asked", content=content)).problems)
    if region not in regions:
        problems = [each for each in problems if not each.startswith(("image.", "region ", "region:"))]
        problems.append(f"region ({region}): is no region with AWS's base images{did_you_mean(region, regions)}")
    return [_as_option(each) for each in problems]


def _as_option(problem: str) -> str:
    """A problem of the settings in the words of the command that writes them."""
    found = re.fullmatch(r"([\w.]+)( \(.*?\))?: (.*)", problem, re.DOTALL)
    if found is None or found[1] not in _OPTIONS:
        return problem
    return f"'{_OPTIONS[found[1]]}'{found[2] or ' ()'} {found[3]}"
