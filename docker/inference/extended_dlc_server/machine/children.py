"""Runs programs such as ffmpeg on request data, with limits on time, memory and files, and as an unprivileged user."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import resource
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO

from .ending import check

log = logging.getLogger(__name__)

MEMORY_BYTES = 2 * 1024**3
"""Address space of a child. ffmpeg and tesseract take 0.1 to 0.5 GB of it."""

FILE_BYTES = 100 * 1024**2
"""Largest file that a child may write. tesseract writes the words of a page to a file."""

OPEN_FILES = 64
"""Most files that a child may have open."""

_CHECK_SECONDS = 0.5
"""How often to look whether anybody still waits for what a child makes."""

NOBODY = 65534
"""The id of the user and group nobody, in every Linux distribution."""

MOST_ERRORS = 4 * 1024**2
"""Bytes of standard error after which a child is ended. ffmpeg writes 200 of them for each frame that it cannot decode,
and a file of 20 MB may have 20 million frames. An hour of MP3 has 138,000 frames."""

MOST_SAID = 8 * 1024
"""Bytes of a child's standard error kept from its beginning, which describes the input, and again from its end."""

# The program and its arguments are positional parameters ("$@"), so the shell never parses request data.
# With this oom_score_adj the kernel kills the child, not the server, when the container runs out of memory.
_LIMITED = """
ulimit -c 0; ulimit -t "$1"; ulimit -v "$2"; ulimit -f "$3"; ulimit -n "$4"
echo 1000 2>/dev/null >/proc/self/oom_score_adj
shift 4; exec "$@"
"""
_SYSTEM = "/usr/bin:/bin:/usr/sbin:/sbin"
_WITHOUT_RIGHTS = (
    *(shutil.which("setpriv", path=_SYSTEM) or "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    "--no-new-privs",
)

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TESSDATA_PREFIX", "OMP_THREAD_LIMIT", "TMPDIR")
"""Variables that a child inherits. The others may hold tokens or the URL of the role's credentials."""


class NoisyError(TimeoutError):
    """A child has written more errors than anybody reads, and is ended as one that takes too long."""


def input_of(data: bytes) -> IO[bytes]:
    """Return an open file of these bytes for a child's standard input: in memory where no folder for it is writable."""
    try:
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        file.write(data)
        file.seek(0)
    except OSError:  # a read-only or a full disk
        file = os.fdopen(os.memfd_create("input"), "w+b")
        file.write(data)
        file.seek(0)
    os.fchmod(file.fileno(), 0o444)  # ffmpeg opens it by name, as a user without permissions
    return file


def run(
    command: Sequence[str],
    *,
    seconds: int,
    stdin: IO[bytes] | None = None,
    output: Callable[[bytes], None],
    cpu_seconds: int | None = None,
    drops_rights: bool = True,
    errors: Callable[[bytes], None] = lambda said: None,
) -> tuple[int, bytes]:
    """Run a program; return its exit code and standard error.

    `output` receives standard output in pieces, and `errors` the standard error so far; both may raise to end the run.
    Raises `TimeoutError` after `seconds`, `NoisyError` after `MOST_ERRORS` bytes of standard error, `EndedError`
    soon after nobody waits for the result any longer, and `MemoryError` where the system cannot start a process.
    `cpu_seconds` is by default the same.
    """
    try:
        child = subprocess.Popen(  # noqa: S603 - a list of arguments that no request chooses
            _limited(command, cpu_seconds or seconds, drops_rights=drops_rights),
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env=_environment(),
        )
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EAGAIN):
            raise MemoryError from None
        raise
    try:
        said = _read(child, output, errors, time.monotonic() + seconds)
        return child.wait(), said
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # kill its children too: they share its process group
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe:
                pipe.close()


def _read(
    child: subprocess.Popen[bytes], output: Callable[[bytes], None], errors: Callable[[bytes], None], deadline: float
) -> bytes:
    """Read both pipes to their ends: a child blocks for ever on a full pipe that is not read."""
    said, count = bytearray(), 0
    with selectors.DefaultSelector() as selector:
        for pipe in filter(None, (child.stdout, child.stderr)):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            check()
            for key, _ in selector.select(min(left, _CHECK_SECONDS)):
                piece = os.read(key.fd, 1 << 20)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    output(piece)
                else:
                    said += piece
                    count += len(piece)
                    if count > MOST_ERRORS:
                        raise NoisyError
                    errors(bytes(said))
                    if len(said) > 2 * MOST_SAID:
                        del said[MOST_SAID:-MOST_SAID]
    return bytes(said)


def _limited(command: Sequence[str], seconds: int, *, drops_rights: bool = True) -> list[str]:
    program, *arguments = command
    program = os.path.realpath(program)
    limits = (
        _at_most(seconds, resource.RLIMIT_CPU),
        _at_most(MEMORY_BYTES, resource.RLIMIT_AS) // 1024,  # the shell's ulimit takes KiB here
        _at_most(FILE_BYTES, resource.RLIMIT_FSIZE) // 512,  # and 512-byte blocks here
        _at_most(OPEN_FILES, resource.RLIMIT_NOFILE),
    )
    rights = _WITHOUT_RIGHTS if drops_rights and _runs_without_rights(program) else ()
    return ["/bin/sh", "-c", _LIMITED, "sh", *map(str, limits), *rights, program, *arguments]


def _at_most(wanted: int, kind: int) -> int:
    """Return the wanted limit, or the server's hard limit where that is lower: a child cannot raise it."""
    hard_limit = resource.getrlimit(kind)[1]
    return wanted if hard_limit == resource.RLIM_INFINITY else min(wanted, hard_limit)


@functools.lru_cache
def _runs_without_rights(program: str) -> bool:
    """Whether this process may switch to the user `NOBODY`, and that user may run the program. Tried once for each."""
    if os.geteuid() != 0:
        return False  # the server is not root, so there are no privileges to drop
    trial = [*_WITHOUT_RIGHTS, "test", "-x", program]
    with contextlib.suppress(OSError):
        if subprocess.run(trial, env={"PATH": _SYSTEM}, capture_output=True, check=False).returncode == 0:  # noqa: S603
            return True
    log.warning("%s runs as root: this container has no setpriv, or the user %d may not run it", program, NOBODY)
    return False


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # By default glibc reserves an arena of 64 MB of address space for each thread.
    return {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "2", **kept}
