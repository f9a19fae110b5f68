"""Being stopped, and not being stopped: what keeps a clean-up from being interrupted."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO


class TimeIsUp(Exception):
    """The time limit was reached."""


class Interrupts:
    """Ctrl-C, SIGTERM, a closed terminal and the time limit, as exceptions until it is time to clean up.

    The first one raises; those that follow are answered in words, because they would interrupt the destruction.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)

    def __init__(self, *, say: Callable[[str], None]) -> None:
        self._say = say
        self._held = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Signals come as exceptions inside."""
        before = {number: signal.signal(number, self._on_signal) for number in self._SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """The time limit of what is inside."""
        self._limit = seconds
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def hold(self) -> None:
        """From here on nothing is interrupted."""
        self._held = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._say("everything is being destroyed; stopping that would leave instances that cost")
            return
        self._held = True
        if number == signal.SIGALRM:
            raise TimeIsUp(f"the limit of {self._limit / 60:g} minutes is reached")
        raise KeyboardInterrupt


class Heedless(io.TextIOBase):
    """A stream to print to whose end may go away, with the terminal or a pipe: a clean-up goes on without readers."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether the stream is a terminal; one that has gone is none."""
        with suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose what was written."""
        with suppress(OSError, ValueError):
            self._stream.flush()
