"""The memory that the container may use, and what requests together may take of it."""

from __future__ import annotations

import resource
import threading
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..settings import MEGABYTE

PATIENCE = 30
"""Seconds that a request waits for the room which others have, before it is told to come back later."""

_FOR_THREADS = 512 * MEGABYTE
"""Address space that later threads reserve and do not use: a heap of glibc's takes 64 MB of it."""


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


def memory_for_texts(device: Any) -> int:
    """Bytes that keys and values of texts may take beside a model that is loaded: half of what is free on its device.

    On the CPU at most a quarter of all memory, for bodies and answers have their shares too.
    """
    if device.type == "cuda":
        import torch

        free: int = torch.cuda.mem_get_info(device)[0]
        return free // 2
    return min(free_bytes() // 2, container_bytes() // 4)


def limit_memory() -> None:
    """Let an allocation that the container has no memory for fail, instead of ending the process.

    For after the model is loaded, on a CPU: Linux promises more than there is, and kills whoever then uses it. The
    limit is of address space: what is mapped now, what is free, and a little for the stacks and heaps of later threads.
    A process with a GPU maps far more than it uses, and gets none.
    """
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = mapped + free_bytes() + _FOR_THREADS
    if soft == resource.RLIM_INFINITY or limit < soft:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


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
        self.what = what
        self._changed = threading.Condition()

    def take(self, amount: int, patience: float = 0) -> bool:
        """Whether there was room for so many bytes within so many seconds: they are taken until they are given back."""
        with self._changed:
            if amount > self.left and not (patience and self._changed.wait_for(lambda: amount <= self.left, patience)):
                return False
            self.left -= amount
            return True

    def give_back(self, amount: int) -> None:
        """So many bytes are free again."""
        with self._changed:
            self.left += amount
            self._changed.notify_all()

    def full(self) -> RequestError:
        """The answer to a request that finds no room."""
        return RequestError(
            429,
            "queue-full",
            f"the {self.what} of other requests fill the {self.size // MEGABYTE} MB that all may have: "
            "try again later with a growing pause, add instances, or send less at once",
        )


class Share:
    """What one request has of a room, in bytes. All of it goes back at the end of the `with` block.

    Only a request that has nothing yet waits for others: two that wait while each holds a part would wait for ever.
    """

    def __init__(self, room: Room) -> None:
        self._room, self.held, self._over = room, 0, False

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(0)
        self._over = True

    def take(self, amount: int, code: str) -> None:
        """So many bytes more: 413 with that code where all of the room is too small, 429 where it is full."""
        if self.held + amount > self._room.size:
            raise RequestError(
                413,
                code,
                f"the {self._room.what} of this request take more than the {self._room.size // MEGABYTE} MB that those "
                "of all requests may have here: send less at once, or choose an instance with more memory",
            )
        if self._over or not self._room.take(amount, 0 if self.held else PATIENCE):
            raise self._room.full()
        self.held += amount

    def keep(self, amount: int) -> None:
        """What is held above so many bytes goes back."""
        if self.held > amount:
            self._room.give_back(self.held - amount)
            self.held = amount
