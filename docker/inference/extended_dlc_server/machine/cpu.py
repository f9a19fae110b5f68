"""Thread counts that fit the container's CPU quota, where the host's core count is wrong."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

_SPINS = "50000"
"""Iterations, about 150 us, for which an OpenMP thread spins for work before it sleeps: longer than a model's gaps.

Measured with a tiny BLOOM on two cores. Fewer iterations cost a single client 4 ms more; no spinning at all halves the
throughput of 16 clients. libgomp's default of 300,000 is no faster, and a third as fast as this value while another
process, such as ffmpeg, is busy.
"""

_TOKENIZERS = "TOKENIZERS_PARALLELISM"


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of cores by CPU affinity, or the cgroup's quota where that is less; at least 1."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions that multiply bfloat16 in a fraction of the time of float32.

    These are Intel's AMX (m7i, c7i, r7i and newer) and AVX-512's bfloat16 instructions (m7a, c7a and newer). Graviton's
    were not measured.
    """
    known = {"amx_bf16", "avx512_bf16"}
    try:
        return any(known & set(line.split()) for line in cpuinfo.open() if line.startswith("flags"))
    except OSError:
        return False


def set_thread_count(environment: MutableMapping[str, str]) -> None:
    """Set OpenMP's thread count, before torch is imported. A value that the user has set stays."""
    threads = environment.get("OMP_NUM_THREADS") or str(usable_cpus())
    environment["OMP_NUM_THREADS"] = threads
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPINS)
    # Without this, fast tokenizers start as many threads as the host has cores.
    environment.setdefault("RAYON_NUM_THREADS", threads)
    # Set now, to the default: setenv of a new name while another thread calls getenv is unsafe.
    environment.setdefault(_TOKENIZERS, "true")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Make torch and the fast tokenizers use one thread: for work that is over before other threads could help.

    Only for the one thread that owns a model on the CPU. Takes 2 us.
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
"""Least seconds between two measurements of the load on the cores."""

_NEARLY = 0.25
"""Share of a core that may be busy while it still counts as free: there is always some background load."""


class FreeCores:
    """Chooses the thread count of the next inference: the number of cores that no other process keeps busy.

    The threads of one inference synchronize after each operation. Where one of them shares its core with another
    process, all wait until the kernel schedules it, 3 ms and more for an operation of 0.1 ms: two threads are then a
    tenth as fast as one. Free cores are those that were idle since the last look, plus those that this process used.
    """

    def __init__(self, most: int, stat: Path = Path("/proc/stat")) -> None:
        """`most` is the largest thread count; `stat` is the kernel's file of CPU times per core."""
        self._most, self._stat = most, stat
        self._cores = frozenset(f"cpu{number}" for number in os.sched_getaffinity(0))
        self._last = self._read()
        self.threads = most

    def look(self) -> int:
        """Return the number of threads to use from now on. Measures at most four times a second."""
        now = time.monotonic()
        if self._most > 1 and now - self._last[0] >= _LOOK_SECONDS:
            (then, used, idle, counted), self._last = self._last, self._read()
            now, used_now, idle_now, counted_now = self._last
            seconds = now - then
            if (
                counted_now - counted < seconds * len(self._cores) / 2
            ):  # the kernel reports no times, or not for all cores
                self.threads = self._most
            else:
                free = (used_now - used + idle_now - idle) / seconds
                self.threads = max(1, min(self._most, math.floor(free + _NEARLY)))
        return self.threads

    def _read(self) -> tuple[float, float, float, float]:
        """Return the time, and seconds: CPU time of this process, idle time of its cores, all counted core time."""
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
    """Return a function that the thread owning a model on the CPU calls before each inference."""
    import torch

    cores = FreeCores(torch.get_num_threads())

    def adjust() -> None:
        threads = cores.look()
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    return adjust


def _quota(cgroup: Path) -> float | None:
    """Return the quota of cgroup v2 or v1 as a number of cores; None without a limit."""
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
