"""Synthesises every example with the oldest release of each dependency that pyproject.toml allows: `make oldest-cdk`.

The environment is made in .cache/oldest, by uv's `--resolution lowest-direct`; the CDK's deprecated calls are errors.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from maintain.uv import make_environment

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".cache" / "oldest"

RUN = """
import importlib.metadata, runpy, sys
print("aws-cdk-lib", importlib.metadata.version("aws-cdk-lib"), flush=True)
for file in sys.argv[1:]:
    try:
        runpy.run_path(file, run_name="__main__")
        print(file, "ok", flush=True)
    except ValueError as error:
        if "needs an aws-cdk-lib that knows it" not in str(error):
            raise
        print(file, "is refused with its reason:", error, flush=True)
"""
"""What the other Python runs: each example as it stands; an option that its CDK lacks has to be refused by name."""


def examples() -> list[Path]:
    """The examples that are apps: they call `synth`."""
    found = sorted((ROOT / "examples").rglob("*.py"))
    return [file for file in found if ".synth()" in file.read_text()]


def main() -> None:
    """Make the environment and run the examples in it; exits with the status of the first that fails."""
    install = ("--resolution=lowest-direct", "--reinstall-package=extended-dlc", str(ROOT))
    python = make_environment(ENVIRONMENT, sys.executable, *install)
    with tempfile.TemporaryDirectory() as out:
        environment = {**os.environ, "JSII_DEPRECATED": "fail", "CDK_OUTDIR": out}
        # not in the checkout, whose package would be imported in place of the installed one
        done = subprocess.run(  # noqa: S603 - own arguments
            [str(python), "-c", RUN, *map(str, examples())], cwd=out, env=environment, check=False
        )
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
