"""What the rehearsal tells while it runs, and the report that it leaves."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO


class StepFailed(Exception):
    """A step of the rehearsal failed; the message says why, and where to read more."""


@dataclass
class Step:
    """One step: what it did, how long it took and what proves that it worked."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    """Seconds of work, downloads not counted."""

    download_seconds: float = 0.0
    proof: str = ""
    """What was seen that shows the step worked, or the reason why it failed."""

    log: str | None = None
    """File with everything the step printed."""


@dataclass
class Report:
    """Prints each step as it goes, with the time since the start, and collects them."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    steps: list[Step] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run a step; an exception marks it failed, prints its reason and goes on as `StepFailed`."""
        step = Step(name)
        self.steps.append(step)
        self._line(f"{name} ...")
        begun = time.monotonic()
        try:
            yield step
            step.ok = True
        except BaseException as error:
            step.proof = "stopped by the user" if isinstance(error, KeyboardInterrupt) else str(error)
            if isinstance(error, Exception):
                raise StepFailed(step.proof) from error
            raise
        finally:
            step.seconds = round(time.monotonic() - begun - step.download_seconds, 2)
            downloads = f", downloads {step.download_seconds:.1f} s" if step.download_seconds >= 0.1 else ""
            state = "ok" if step.ok else "FAILED"
            self._line(f"{name}: {state} in {step.seconds:.1f} s{downloads}")
            for line in step.proof.splitlines():
                self.say(f"  {line}")
            if step.log and not step.ok:
                self.say(f"  its log: {step.log}")

    def say(self, text: str) -> None:
        """A line under the current step."""
        for line in text.splitlines():
            print(f"          {line}", file=self.out, flush=True)

    def _line(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=self.out, flush=True)

    @property
    def seconds(self) -> float:
        """Seconds of work so far, without downloads."""
        return round(sum(step.seconds for step in self.steps), 2)

    @property
    def download_seconds(self) -> float:
        """Seconds spent on package downloads so far."""
        return round(sum(step.download_seconds for step in self.steps), 2)

    def write(self, file: Path) -> None:
        """Write everything as JSON."""
        content = {
            "ok": bool(self.steps) and all(step.ok for step in self.steps),
            "seconds": self.seconds,
            "download_seconds": self.download_seconds,
            "steps": [asdict(step) for step in self.steps],
        }
        file.write_text(json.dumps(content, indent=2) + "\n")
