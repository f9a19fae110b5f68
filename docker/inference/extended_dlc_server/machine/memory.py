"""The memory that the container may use, and the limits on what all requests together take of it."""

from __future__ import annotations

import resource
import threading
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..settings import MEGABYTE

PATIENCE = 30
"""Seconds that a request waits for memory held by others, before it gets 429."""

ALWAYS_TAKEN = 64 * 1024
"""Bytes of a request's body, or of a response, that count nowhere: a connection's buffers hold as much anyway."""

ANSWER_SHARE = 8
"""Divisor: one response, as Python objects and as JSON, may take this fraction of the container's memory."""

_FOR_THREADS = 512 * MEGABYTE
"""Address space that later threads reserve without using it: glibc reserves 64 MB for each heap."""


def container_bytes(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the bytes that this process may use: the least of total memory, cgroup limit and `RLIMIT_AS`."""
    limits = [_of_machine(meminfo, "MemTotal")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((cgroup / name).read_text()))
        except (OSError, ValueError):  # the value is "max", or the container has the other cgroup version
            continue
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def free_bytes(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the bytes that this process can still get: the host's available memory, up to the container's limit."""
    used = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return max(0, min(_of_machine(meminfo, "MemAvailable"), container_bytes(cgroup, meminfo) - used))


def memory_for_texts(device: Any) -> int:
    """Return the bytes for the KV cache beside a loaded model: half of the device's free memory.

    On the CPU it is at most a quarter of all memory, because request bodies and responses have their shares too.
    """
    if device.type == "cuda":
        import torch

        free: int = torch.cuda.mem_get_info(device)[0]
        return free // 2
    return min(free_bytes() // 2, container_bytes() // 4)


def limit_memory() -> None:
    """Make allocations beyond the container's memory fail with an error, instead of the kernel killing the process.

    Linux overcommits memory, and kills a process that then uses it. Call this on a CPU, after the model is loaded. The
    limit is on address space: what is mapped now, plus free memory, plus some for the stacks and heaps of later
    threads. A process with a GPU maps far more than it uses, so it gets no limit.
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
    """A budget in bytes that all requests share for one kind of data. Thread-safe."""

    def __init__(self, size: int, what: str) -> None:
        """Start with all of it free; `what` names the data in error messages, such as "bodies"."""
        self.size = self.left = size
        self.what = what
        self._changed = threading.Condition()

    def take(self, amount: int, patience: float = 0) -> bool:
        """Reserve bytes until `give_back`, waiting for them up to `patience` seconds; return whether it succeeded."""
        with self._changed:
            if amount > self.left and not (patience and self._changed.wait_for(lambda: amount <= self.left, patience)):
                return False
            self.left -= amount
            return True

    def give_back(self, amount: int) -> None:
        with self._changed:
            self.left += amount
            self._changed.notify_all()

    def full(self) -> RequestError:
        return RequestError(
            429,
            "queue-full",
            f"the {self.what} of other requests fill the {self.size // MEGABYTE} MB that all may have: "
            "try again later with a growing pause, add instances, or send less at once",
        )


class Share:
    """The bytes that one request has reserved of a `Room`, released at the end of the `with` block.

    Only a request that holds nothing yet waits for others: two that wait while each holds a part would deadlock.
    """

    def __init__(self, room: Room) -> None:
        self._room, self.held, self._over = room, 0, False

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(0)
        self._over = True

    def take(self, amount: int, code: str) -> None:
        """Reserve more bytes. Raises 413 with `code` if they exceed the whole budget, 429 if others hold it."""
        self.check(amount, code)
        if self._over or not self._room.take(amount, 0 if self.held else PATIENCE):
            raise self._room.full()
        self.held += amount

    def check(self, amount: int, code: str) -> None:
        """Raise 413 with `code` if so many bytes more would exceed the whole budget."""
        if self.held + amount > self._room.size:
            raise RequestError(
                413,
                code,
                f"the {self._room.what} of this request take more than the {self._room.size // MEGABYTE} MB that those "
                "of all requests may have here: send less at once, or choose an instance with more memory",
            )

    def keep(self, amount: int) -> None:
        """Release what is held above `amount` bytes."""
        if self.held > amount:
            self._room.give_back(self.held - amount)
            self.held = amount
