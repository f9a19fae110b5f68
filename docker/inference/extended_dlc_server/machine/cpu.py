"""What the container may really use: threads under a quota, where the host's core count is wrong, and memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

_SPINS = "50000"
"""Turns, some 150 us, for which a thread of OpenMP looks out for work before it sleeps: longer than a model's gaps.

Measured with a tiny BLOOM on two cores. Fewer cost a single client 4 ms more, and none at all half of what 16 clients
get; libgomp's own 300,000 are no faster, and a third as fast as these beside another busy process, which ffmpeg is too.
"""

_TOKENIZERS = "TOKENIZERS_PARALLELISM"


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores by affinity, or the cgroup's quota where that is less; at least one."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether products of bfloat16 take it a fraction of float32's time.

    Intel's AMX (m7i, c7i, r7i and newer) and AVX-512's instructions for it (m7a, c7a and newer) do. Graviton's were not
    measured.
    """
    known = {"amx_bf16", "avx512_bf16"}
    try:
        return any(known & set(line.split()) for line in cpuinfo.open() if line.startswith("flags"))
    except OSError:
        return False


def set_thread_count(environment: MutableMapping[str, str]) -> None:
    """Tell OpenMP, before torch is imported, how many threads to use. A value that is already there wins."""
    threads = environment.get("OMP_NUM_THREADS") or str(usable_cpus())
    environment["OMP_NUM_THREADS"] = threads
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPINS)
    # fast tokenizers start as many threads as the host has cores unless told
    environment.setdefault("RAYON_NUM_THREADS", threads)
    # their default, there from the start: later it can be changed in place while other threads read the environment
    environment.setdefault(_TOKENIZERS, "true")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch and the fast tokenizers share nothing with other threads: for work that is done before they meet.

    For the one thread that owns a model on the CPU. Takes 2 us.
    """
    import torch

    threads, tokenizers = torch.get_num_threads(), os.environ.get(_TOKENIZERS, "true")
    torch.set_num_threads(1)
    os.environ[_TOKENIZERS] = "false"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ[_TOKENIZERS] = tokenizers


_LOOK_SECONDS = 0.25
"""Least seconds between two looks at who else uses the cores."""

_NEARLY = 0.25
"""What a core may lack to count as free: some of it is always somebody's."""


class FreeCores:
    """How many threads an inference may use now: as many as there are cores that nobody else keeps busy.

    Threads of one inference meet after each operation. Where one of them shares its core with another process, all
    wait until the system gives it a turn, 3 ms and more for an operation of 0.1 ms: two threads are then a tenth as
    fast as one. Free are the cores that were idle since the last look, and those that this process has used itself.
    """

    def __init__(self, most: int, stat: Path = Path("/proc/stat")) -> None:
        """At `most` so many; the kernel's count of what each core did is in `stat`."""
        self._most, self._stat = most, stat
        self._cores = frozenset(f"cpu{number}" for number in os.sched_getaffinity(0))
        self._last = self._read()
        self.threads = most

    def look(self) -> int:
        """The number of threads from now on; a look is taken at most four times a second."""
        now = time.monotonic()
        if self._most > 1 and now - self._last[0] >= _LOOK_SECONDS:
            (then, used, idle, counted), self._last = self._last, self._read()
            now, used_now, idle_now, counted_now = self._last
            seconds = now - then
            if counted_now - counted < seconds * len(self._cores) / 2:  # the kernel counts nothing, or not for all
                self.threads = self._most
            else:
                free = (used_now - used + idle_now - idle) / seconds
                self.threads = max(1, min(self._most, math.floor(free + _NEARLY)))
        return self.threads

    def _read(self) -> tuple[float, float, float, float]:
        """The time, and the seconds that this process has used, that its cores were idle, and that were counted."""
        idle = counted = 0
        with contextlib.suppress(OSError, ValueError):
            for line in self._stat.read_text().splitlines():
                name, *ticks = line.split()
                if name in self._cores:
                    numbers = [int(one) for one in ticks[:8]]
                    idle, counted = idle + numbers[3] + numbers[4], counted + sum(numbers)
        return time.monotonic(), time.process_time(), idle / _TICKS, counted / _TICKS


_TICKS = os.sysconf("SC_CLK_TCK")


def use_free_cores() -> Callable[[], None]:
    """What the thread that owns a model on the CPU calls before each inference."""
    import torch

    cores = FreeCores(torch.get_num_threads())

    def adjust() -> None:
        threads = cores.look()
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    return adjust


def give_back_memory() -> None:
    """Return freed memory that glibc keeps: after a batch of 16 on 100 million weights 135 MB, in 10 ms."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


def _quota(cgroup: Path) -> float | None:
    """CPU time a period as a number of cores, cgroup v2 or v1; None where nothing limits it."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        v1 = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        return None if v1 <= 0 else v1 / int((cgroup / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
