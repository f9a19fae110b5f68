"""Checks of the programs that `cdk deploy` runs: Python, Node.js and the CDK CLI."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from extended_dlc.doctor.findings import Finding, Ok, Problem, Unknown
from extended_dlc.doctor.programs import NoAnswer, ask
from extended_dlc.doctor.target import Target
from extended_dlc.facts.catalog import version

OLDEST_PYTHON = (3, 10)
_OLDEST_PYTHON = ".".join(map(str, OLDEST_PYTHON))
STARTING_NODE = 18
"""The oldest Node.js on which the CDK starts at all (aws-cdk 2.1148.1, `engines`)."""

OLDEST_NODE, WANTED_NODE = 20, 22
"""The oldest Node.js that the CDK runs on, and the oldest that is still maintained (nodejs.org, release schedule)."""

_ACCIDENT = "3.0.0 was published by accident from an old build and refuses every current app (aws/aws-cdk#38113)"
_ABOUT_PYTHON = (
    "import importlib.util as u, sys; print('%d.%d.%d' % sys.version_info[:3], u.find_spec('aws_cdk') is not None)"
)


def python(target: Target) -> Finding:
    """Check that the Python in cdk.json's `app` is new enough and has the CDK library."""
    command = target.cdk_json.get("app")
    program = shlex.split(command)[0] if isinstance(command, str) and command.strip() else "python3"
    if not Path(program).name.startswith("python"):
        return Unknown(f"the app in cdk.json is started by {program}, not by Python itself")
    path = shutil.which(program)
    if path is None:
        return Problem(f"there is no {program} on the path, and cdk.json's app wants it", _install_python(target))
    try:
        answer = ask([path, "-c", _ABOUT_PYTHON], folder=target.folder)
    except NoAnswer as error:
        return Unknown(str(error))
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+) (True|False)", answer.output)
    if found is None:
        # Every Python from 3.4 on has `find_spec`: a failure means that it is older, or not Python.
        return Problem(f"{path} is not a Python that works ({answer.reason})", _install_python(target))
    release = f"{found[1]}.{found[2]}.{found[3]}"
    if (int(found[1]), int(found[2])) < OLDEST_PYTHON:
        return Problem(
            f"{path} is Python {release}, too old: {_OLDEST_PYTHON} is the oldest that works", _install_python(target)
        )
    if found[4] == "False":
        remedy = "activate your virtual environment, then: pip install -r requirements.txt"
        if _has_makefile(target):
            remedy = "make setup && source .venv/bin/activate"
        return Problem(f"{path}, which the app in cdk.json is started with, has no aws-cdk-lib", remedy)
    return Ok(f"{release} with aws-cdk-lib")


def old_node() -> str | None:
    """A warning for a Node.js that works but is no longer maintained; None for any other, and without Node.js."""
    found = _node_release()
    if found is None or found >= WANTED_NODE:
        return None
    return f"Node.js {found} is past its end of life: {_install_node()}"


def unusable_node() -> str | None:
    """What is wrong with a Node.js on which no app and no CDK CLI starts; None for any other, and without Node.js."""
    found = _node_release()
    if found is None or found >= STARTING_NODE:
        return None
    return f"Node.js {found} is too old for the CDK, which would end with an error of its own: {_install_node()}"


def _node_release() -> int | None:
    path = shutil.which("node")
    try:
        found = re.match(r"v(\d+)\.", ask([path, "--version"]).output) if path else None
    except NoAnswer:
        return None
    return int(found[1]) if found else None


def node(target: Target) -> Finding:
    """Check that Node.js, which the CDK library and the CDK CLI run on, is installed and new enough."""
    path = shutil.which("node")
    if path is None:
        return Problem("there is no Node.js, which the CDK runs on", _install_node())
    try:
        answer = ask([path, "--version"])
    except NoAnswer as error:
        return Unknown(str(error))
    found = re.match(r"v(\d+)\.", answer.output)
    if found is None:
        return Unknown(f"{path} --version printed no release: {answer.output or answer.reason}")
    if int(found[1]) < OLDEST_NODE:
        return Problem(
            f"Node.js {answer.output} is too old: the CDK wants {OLDEST_NODE} or newer ({path})", _install_node()
        )
    if int(found[1]) < WANTED_NODE:
        return Ok(f"{answer.output}; it is past its end of life, and {WANTED_NODE} or newer is better")
    return Ok(f"{answer.output}")


def cdk(target: Target) -> Finding:
    """Check the CDK CLI in node_modules, which `make deploy` and `npx cdk` run."""
    local = target.folder / "node_modules" / ".bin" / "cdk"
    install = "npm install" if target.pinned_cdk else f"npm install {_wanted(target)}"
    if (target.folder / "package-lock.json").exists():
        install = "npm ci"
    if local.exists():
        return _judge(local, target, install)
    if target.pinned_cdk is None and shutil.which("cdk"):
        return Ok("none in node_modules, and no package.json pins one: see cdk-on-path")
    return Problem(
        "there is no CDK CLI in node_modules, and a bare 'npx cdk' would fetch whatever the registry calls latest",
        install,
    )


def cdk_on_path(target: Target) -> Finding:
    """Check the CDK CLI that the command `cdk` runs, if there is one."""
    path = shutil.which("cdk")
    if path is None:
        return Ok("none, so 'cdk' cannot be a wrong one; 'npx cdk' runs that of node_modules")
    return _judge(Path(path), target, f"type 'npx cdk' in place of 'cdk', or: npm install --global {_wanted(target)}")


def _judge(program: Path, target: Target, remedy: str) -> Finding:
    environment = {"CDK_DISABLE_VERSION_CHECK": "1", "CDK_DISABLE_CLI_TELEMETRY": "1"}
    try:
        answer = ask([str(program), "--version"], folder=target.folder, environment=environment)
    except NoAnswer as error:
        return Unknown(str(error))
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", answer.output)
    if found is None:
        return Unknown(f"{program} --version printed no release: {answer.output or answer.reason}")
    if found[0] == "3.0.0":
        return Problem(f"{program} is CDK CLI 3.0.0: {_ACCIDENT}", remedy)
    pinned = target.pinned_cdk
    if found[1] != "2":
        return Problem(f"{program} is CDK CLI {found[0]}, and the app is made for 2.x", remedy)
    if pinned and version(found[0]) < version(pinned):
        return Problem(f"{program} is CDK CLI {found[0]}, older than {pinned}, which package.json pins", remedy)
    return Ok(found[0])


def _wanted(target: Target) -> str:
    return f"aws-cdk@{target.pinned_cdk or 2}"


def _install_python(target: Target) -> str:
    then = "make setup PYTHON=python3.12" if _has_makefile(target) else "python3.12 -m venv .venv, and activate it"
    return f"install Python {_OLDEST_PYTHON} or newer, then: {then}"


def _has_makefile(target: Target) -> bool:
    """Whether the app is this project's checkout, whose `make setup` makes the environment."""
    return (target.folder / "Makefile").exists()


def _install_node() -> str:
    return f"install Node.js {WANTED_NODE} or newer (https://nodejs.org), then: node --version"
