"""A user's CDK app: its folder, the command that synthesizes it, and the CDK CLI that deploys it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extended_dlc import files
from extended_dlc.rehearsal.cdk import ACCOUNT, REGION
from extended_dlc.running import run

TEMPLATE = Path(__file__).parents[1] / "app" / "template"
"""The files of a new project."""

CLI: str = json.loads((TEMPLATE / "package.json").read_text("utf-8"))["devDependencies"]["aws-cdk"]
"""The CDK CLI's release in a new project, which npx downloads where a project has none."""

_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Project:
    """An app to deploy."""

    folder: Path
    command: str
    """The command that synthesizes it, such as `python3 app.py`."""

    context: tuple[str, ...] = ()
    """Values of `-c`, such as `model=gpt2`."""

    @classmethod
    def find(cls, folder: Path, command: str | None = None, context: tuple[str, ...] = ()) -> Project:
        """The app of a command or of the folder's `cdk.json`. Raises `ValueError` where there is none."""
        named = command or _cdk_json(folder).get("app")
        if not isinstance(named, str) or not named:
            raise ValueError(
                f"{folder} has no app: name the command that synthesizes it (--app 'python3 my_app.py'), go to a "
                "folder whose cdk.json has 'app', or make a project with extended-dlc init"
            )
        for each in context:
            if "=" not in each.strip("="):
                raise ValueError(f"'--context' ({each}) must be KEY=VALUE")
        return cls(folder=folder, command=named, context=context)

    @property
    def known_context(self) -> dict[str, Any]:
        """The context as the CDK CLI passes it: of `cdk.json`, `cdk.context.json` and `-c`."""
        given = dict(each.split("=", 1) for each in self.context)
        context = _cdk_json(self.folder).get("context")
        noted = files.read_json(self.folder / "cdk.context.json")
        return {**(context if isinstance(context, dict) else {}), **(noted if isinstance(noted, dict) else {}), **given}

    def synthesize(self, out: Path, log: Path) -> None:
        """Run the command once, without lookups. Raises `RuntimeError` with its last lines."""
        shutil.rmtree(out, ignore_errors=True)
        environment = {
            **os.environ,
            "PATH": path_with_this_python(),
            "CDK_OUTDIR": str(out),
            "CDK_CONTEXT_JSON": json.dumps(self.known_context),
            "CDK_DEFAULT_ACCOUNT": ACCOUNT,
            "CDK_DEFAULT_REGION": REGION,
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        }
        done = run(self.command, folder=self.folder, environment=environment, together=True)
        log.write_text(f"$ {self.command}\n{done.stdout}")
        last = "\n".join(done.stdout.splitlines()[-_LINES:])
        if done.returncode != 0:
            raise RuntimeError(f"'{self.command}' failed with exit status {done.returncode}:\n{last}")
        if not (out / "manifest.json").is_file():
            raise RuntimeError(
                f"'{self.command}' wrote no cloud assembly: let it call app.synth(), with no outdir of its own\n{last}"
            )


def find_cli(folder: Path) -> list[str]:
    """The CDK CLI: the project's, one above it, the one on the path, or npx's. Raises `ValueError` without any."""
    for each in (folder, *folder.parents):
        program = each / "node_modules" / ".bin" / "cdk"
        if program.exists():
            return [str(program)]
    if found := shutil.which("cdk"):
        return [found]
    if npx := shutil.which("npx"):
        return [npx, "--yes", f"aws-cdk@{CLI}"]
    raise ValueError(
        f"{folder} has no CDK CLI in node_modules, and neither cdk nor npx is on the path: install Node.js 22 or "
        f"newer, then run 'npm install aws-cdk@{CLI}' there"
    )


def shipped_transformers(folder: Path) -> str:
    """The shipped app's transformers release: of the folder's `cdk.json`, or of a new project's settings."""
    context = _cdk_json(folder).get("context")
    configured = context.get("extended-dlc") if isinstance(context, dict) else None
    settings = (
        configured
        if isinstance(configured, dict)
        else json.loads(TEMPLATE.joinpath("settings.json").read_text("utf-8"))
    )
    return str(settings["image"]["transformers"])


def is_shipped(folder: Path) -> bool:
    """Whether a folder has settings of this package's app in its `cdk.json`, as the checkout does."""
    context = _cdk_json(folder).get("context")
    return isinstance(context, dict) and "extended-dlc" in context


def path_with_this_python() -> str:
    """A PATH on which `python3` is this interpreter."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _cdk_json(folder: Path) -> Mapping[str, Any]:
    content = files.read_json(folder / "cdk.json")
    return content if isinstance(content, dict) else {}
