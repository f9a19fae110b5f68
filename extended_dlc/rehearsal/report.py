"""What the rehearsal prints while it runs, and its final report."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from extended_dlc.terminal import Screen, Style, Waiting, is_terminal

_SHOWN_OF_A_FAILURE = 200
"""The number of a failed step's last output lines that are printed; its log has all of them."""


_STOPPED = "stopped by the user"


class StepFailed(Exception):
    """A step of the rehearsal failed; the message has the reason and the log."""


@dataclass
class Step:
    """One step: its name, duration and proof."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    """Seconds of work without downloads."""

    download_seconds: float = 0.0
    proof: str = ""
    """The evidence that the step worked, or the reason of its failure."""

    log: str | None = None
    """The file with all output of the step."""


@dataclass
class Report:
    """Prints each step as it runs, with the time since the start, and collects the steps.

    The output of a step's programs is folded: only its last line is shown while the step runs. All of it is printed
    where the step fails, or with `verbose`.
    """

    out: TextIO = field(default_factory=lambda: sys.stdout)
    verbose: bool = False
    """Whether every line of the programs is printed."""

    steps: list[Step] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _waiting: Waiting | None = field(default=None, repr=False)
    _folded: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_OF_A_FAILURE), repr=False)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run a step. Where it fails, its reason is printed and `StepFailed` is raised."""
        step = Step(name)
        self.steps.append(step)
        self.begin(name)
        begun = time.monotonic()
        self._folded.clear()
        try:
            with Waiting(name, out=self.out) as self._waiting:
                yield step
            step.ok = True
        except KeyboardInterrupt:
            step.proof = _STOPPED
            raise
        except BaseException as error:
            step.proof = str(error)
            if isinstance(error, Exception):
                raise StepFailed(step.proof) from error
            raise
        finally:
            self._waiting = None
            step.seconds = round(time.monotonic() - begun - step.download_seconds, 2)
            self.end(step)

    def begin(self, name: str) -> None:
        """Announce a step; a terminal shows it in place while it runs."""
        if not is_terminal(self.out):
            self._line(f"{name} ...", "")

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def say(self, text: str) -> None:
        """Print a line below the current step."""
        for line in text.splitlines():
            self._print(f"          {line}", "", hang=None)

    def detail(self, text: str) -> None:
        """A line of a program's output: shown beside the step, and below it where the step fails."""
        if self.verbose or self._waiting is None:
            self.say(text)
            return
        for line in text.splitlines():
            self._folded.append(line)
            self._waiting.detail(line)

    def end(self, step: Step) -> None:
        """Print how a step ended, and its proof."""
        downloads = f", downloads {step.download_seconds:.1f} s" if step.download_seconds >= 0.1 else ""
        if step.proof == _STOPPED:  # nobody asks what its programs said last
            self._line(f"{step.name}: {_STOPPED} after {step.seconds:.1f} s", "warning")
            return
        state = "ok" if step.ok else "FAILED"
        self._line(f"{step.name}: {state} in {step.seconds:.1f} s{downloads}", "ok" if step.ok else "problem")
        if not step.ok:
            said = step.proof.splitlines()
            for line in self._folded:
                if line not in said:
                    self._print(f"            {line}", "quiet")
        for line in step.proof.splitlines():
            self._print(f"            {line}", "" if step.ok else "problem")
        if step.log and not step.ok:
            self.say(f"  its log: {_from_here(step.log)}")

    def _line(self, text: str, style: Style) -> None:
        self._print(f"[{self.elapsed():6.1f} s] {text}", style)

    def _print(self, text: str, style: Style, *, hang: int | None = 12) -> None:
        if self._waiting is not None:
            self._waiting.say(text, style, hang=hang)
        else:
            Screen(self.out).line(text, style, hang=hang)

    @property
    def seconds(self) -> float:
        """Seconds of work so far, without downloads."""
        return round(sum(step.seconds for step in self.steps), 2)

    @property
    def download_seconds(self) -> float:
        """Seconds of package downloads so far."""
        return round(sum(step.download_seconds for step in self.steps), 2)

    def write(self, file: Path) -> None:
        content = {
            "ok": bool(self.steps) and all(step.ok for step in self.steps),
            "seconds": self.seconds,
            "download_seconds": self.download_seconds,
            "steps": [asdict(step) for step in self.steps],
        }
        file.write_text(json.dumps(content, indent=2) + "\n")


def _from_here(file: str) -> str:
    """The path from the working directory, if the file is below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
