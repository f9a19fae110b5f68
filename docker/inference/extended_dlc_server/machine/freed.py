"""Returns memory that was freed to the system: glibc keeps it, 135 MB after a batch of 16 on 100M weights."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import time
from collections.abc import Callable
from concurrent.futures import Executor

LOOK_SECONDS = 1
"""How often to check whether memory is to be returned."""

MOST_KEPT = 60
"""Seconds after which memory is returned under steady load: fragments add up over hours."""


class FreedMemory:
    """Returns memory whenever the server becomes idle, and once a minute where it never does."""

    def __init__(self) -> None:
        """Start with nothing to return."""
        self._returned = time.monotonic()
        self._used = False

    def note_use(self) -> None:
        """Note that a request takes memory."""
        self._used = True

    async def watch(self, is_idle: Callable[[], bool], threads: Executor) -> None:
        """Return memory from time to time, on one of the threads, until the task is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            idle = is_idle()
            if self._used and (idle or time.monotonic() - self._returned > MOST_KEPT):
                self._used = not idle
                with contextlib.suppress(RuntimeError):  # no thread can be started for lack of memory
                    await asyncio.get_running_loop().run_in_executor(threads, return_memory, idle)
                self._returned = time.monotonic()


def return_memory(idle: bool) -> None:
    """Return freed memory, which takes about 10 ms; while idle, collect garbage first, such as errors with frames."""
    if idle:
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # C libraries other than glibc lack it
    if trim is not None:
        trim(0)
