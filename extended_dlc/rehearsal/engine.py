"""The container engine of the rehearsal: found on this machine, or installed, and called by its command line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A container engine with Docker's command line: Docker itself, or podman."""

    program: str
    """Absolute path of the program. The CDK CLI gets it as `CDK_DOCKER`."""

    environment: Mapping[str, str]
    """What every call of the program (the CDK CLI's calls too) needs in its environment, beyond the caller's own."""

    def call(self, *arguments: str, timeout: float | None = 600) -> str:
        """Run `program arguments…` and return its standard output; raise `EngineError` with its last lines if it fails."""
        done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            [self.program, *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise EngineError(f"{Path(self.program).name} {arguments[0]} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def save(self, file: Path) -> None:
        """Write the engine down for another process."""
        file.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(file: Path) -> Engine:
        """Read what `save` wrote."""
        return Engine(**json.loads(file.read_text()))


class EngineError(RuntimeError):
    """The container engine is missing or refused; the message ends with the next thing to do."""
