"""Checks the public interface with pyright, as a user of the wheel sees it: `make pyright`.

The wheel is built and installed into .cache/pyright, beside pyright from npm. The example apps are checked in strict
mode in a folder without the checkout, and each public name of `extended_dlc` must have a type that is written down.
Errors about a class and an interface of the CDK alone are left out: jsii gives some arguments another name in each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import extended_dlc
from maintain.uv import make_environment

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "pyright"
VERSION = "1.1.411"

UNTYPED = (
    "reportUnknownMemberType",
    "reportUnknownVariableType",
    "reportUnknownArgumentType",
    "reportMissingTypeStubs",
)
"""Rules of the strict mode on what other packages leave without a type."""


def main() -> None:
    """Check the examples and the interface; exits with what is wrong."""
    program = CACHE / "node_modules" / ".bin" / "pyright"
    install = [
        "npm",
        "install",
        "--silent",
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        f"--prefix={CACHE}",
    ]
    subprocess.run([*install, f"pyright@{VERSION}"], check=True)  # noqa: S603 - own arguments
    with tempfile.TemporaryDirectory() as folder:
        python = _installed(Path(folder))
        for example in _apps():
            shutil.copy(example, folder)
        rules = {"typeCheckingMode": "strict", "include": ["*.py"], **dict.fromkeys(UNTYPED, False)}
        Path(folder, "pyrightconfig.json").write_text(json.dumps(rules))
        examples = _run(program, python, Path(folder))
        interface = _run(program, python, Path(folder), "--verifytypes=extended_dlc", "--ignoreexternal")
    wrong = [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in examples["generalDiagnostics"]
        if each["severity"] == "error" and not _of_the_cdk(each["message"])
    ]
    homes = tuple(f"extended_dlc.{home}.{name}" for name, home in extended_dlc._HOMES.items())
    public = [each for each in interface["typeCompleteness"]["symbols"] if each["name"].startswith(homes)]
    wrong += [f"{each['name']}: {why['message']}" for each in public for why in each["diagnostics"]]
    if wrong or not public:
        sys.exit("\n".join(wrong) or "pyright found no public names")
    print(f"pyright {VERSION}: {examples['summary']['filesAnalyzed']} examples and {len(public)} public names")


def _apps() -> list[Path]:
    """The examples that are apps; the others run in containers, with packages that are only there."""
    examples = ROOT / "examples"
    return sorted([*examples.glob("*.py"), *examples.glob("hosting/*.py"), *examples.glob("operating/*.py")])


def _of_the_cdk(message: str) -> bool:
    """Whether an error is about a class and an interface of the CDK, whose arguments have different names."""
    return "Parameter name mismatch" in message and not any(f'"{name}"' in message for name in extended_dlc.__all__)


def _installed(folder: Path) -> Path:
    """The Python of an environment that has the wheel of this checkout."""
    build = [sys.executable, "-m", "build", "--wheel", f"--outdir={folder}", str(ROOT)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - own arguments
    (wheel,) = folder.glob("*.whl")
    requirements = ("--requirement", str(ROOT / "requirements.txt"))
    return make_environment(
        CACHE / "python", sys.executable, *requirements, "--reinstall-package=extended-dlc", str(wheel)
    )


def _run(program: Path, python: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    # --verifytypes asks the Python of the path, whatever else it is told.
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [str(program), "--outputjson", *arguments]
    done = subprocess.run(  # noqa: S603 - own arguments
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        sys.exit(f"pyright failed:\n{done.stdout}{done.stderr}")
    return found


if __name__ == "__main__":
    main()
