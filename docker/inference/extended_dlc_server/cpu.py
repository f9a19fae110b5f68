"""What the container may really use: threads under a quota, where the host's core count is wrong, and memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from collections.abc import Iterator, MutableMapping
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
