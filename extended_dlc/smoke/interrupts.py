"""Turns signals into exceptions before the clean-up, and ignores them during it."""

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
    """Raises exceptions for Ctrl-C, SIGTERM, a closed terminal and the time limit, until the clean-up starts.

    Only the first signal raises; later ones print a message, because they would interrupt the destruction.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)

    def __init__(self, *, say: Callable[[str], None]) -> None:
        self._say = say
        self._held = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals within the context."""
        before = {number: signal.signal(number, self._on_signal) for number in self._SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Set the time limit of the context."""
        self._limit = seconds
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def hold(self) -> None:
        """Ignore all later signals."""
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
    """An output stream that ignores a closed terminal or pipe, so that a clean-up continues without a reader."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether the stream is a terminal; False for a closed one."""
        with suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write the text; it is lost if the stream is closed."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()
