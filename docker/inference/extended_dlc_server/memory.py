"""The memory that the container may use, and what requests together may take of it."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

from .errors import RequestError
from .settings import MEGABYTE


def container_bytes(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that this process may use: the least of the machine's memory, the cgroup's limit and `RLIMIT_AS`."""
    limits = [_of_machine(meminfo, "MemTotal")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((cgroup / name).read_text()))
        except (OSError, ValueError):  # "max", or the other version of cgroups
            continue
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def free_bytes(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that it can still get: what the machine has available, and at most what the container has left."""
    used = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return max(0, min(_of_machine(meminfo, "MemAvailable"), container_bytes(cgroup, meminfo) - used))


def _of_machine(meminfo: Path, name: str) -> int:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines[name].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return 16 * 1024 * MEGABYTE


class Room:
    """What all requests together may have in memory of one kind of thing, in bytes. Any thread may ask."""

    def __init__(self, size: int, what: str) -> None:
        """All of it is free; `what` names the things in messages, such as "bodies"."""
        self.size = self.left = size
        self._what = what
        self._lock = threading.Lock()

    def take(self, amount: int) -> bool:
        """Whether there was room for so many bytes, which are then taken until they are given back."""
        with self._lock:
            if amount > self.left:
                return False
            self.left -= amount
            return True

    def give_back(self, amount: int) -> None:
        """So many bytes are free again."""
        with self._lock:
            self.left += amount

    def full(self) -> RequestError:
        """The answer to a request that finds no room."""
        return RequestError(
            429,
            "queue-full",
            f"the {self._what} of other requests fill the {self.size // MEGABYTE} MB that all may have: "
            "try again later with a growing pause, add instances, or send less at once",
        )
