"""Programs that commands run, and the signals that end a command: what it has started does not outlive it."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

GRACE_SECONDS = 10.0
"""How long a program may take to end after SIGINT, before it is killed."""

_running: set[subprocess.Popen[str]] = set()
_starting = threading.Lock()
"""Held while a program is started."""

_ends = False
"""Whether this program ends: a thread that nobody waits for starts nothing any more."""


_deferred: list[int] | None = None
"""The signals that came while a program was being started; None at any other time."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came, or the terminal was closed: nobody is there to answer a question."""


@contextmanager
def signals_end_as_ctrl_c() -> Iterator[None]:
    """SIGTERM and a closed terminal raise `Terminated`, unless they are ignored (nohup) or handled already.

    None of them, nor Ctrl-C, comes between a program's start and the note of it, by which it is ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    defaults = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    numbers = {each: handler for name, handler in defaults.items() if (each := getattr(signal, name, None)) is not None}
    changed = {number: handler for number, handler in numbers.items() if signal.getsignal(number) == handler}
    for number in changed:
        signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _deferred is not None:
        _deferred.append(number)
    else:
        _raise(number)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


@contextmanager
def _undisturbed() -> Iterator[list[int]]:
    """The signals that come meanwhile, which only the main thread gets, are in the list that this yields."""
    global _deferred
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    with _starting:
        if _ends and not is_main:
            raise OSError("the program ends")
        if is_main:
            _deferred = came
        try:
            yield came
        finally:
            if is_main:
                _deferred = None


def run(
    command: Sequence[str] | str,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    together: bool = False,
) -> subprocess.CompletedProcess[str]:
    """The output of a program, which ends with its children when this call is interrupted or its time is up.

    A container engine's client hands SIGINT on to its container; killed at once, it would leave the container running.
    The program has a session of its own, so that it gets the signal from here only, whoever was sent one.

    Raises what `subprocess.Popen` does, and `subprocess.TimeoutExpired`.

    :param command: A list of arguments, or a text for the shell.
    :param environment: All of its variables. Default: the caller's.
    :param together: Put standard error into the output, where it came.
    """
    with _undisturbed() as came:
        process = subprocess.Popen(  # noqa: S603 - a list of arguments, or the user's own command
            command if isinstance(command, str) else list(command),
            shell=isinstance(command, str),
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if together else subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        _running.add(process)
    try:
        if came:
            _raise(came[0])
        output, errors = process.communicate(timeout=timeout)
    except BaseException:
        _end(process, GRACE_SECONDS)
        for stream in (process.stdout, process.stderr):  # not read to the end: a child's child may hold it
            if stream is not None:
                stream.close()
        raise
    finally:
        _running.discard(process)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def run_in_view(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdout: int | None = None,
    grace: float = GRACE_SECONDS,
) -> int:
    """Run a program on this one's streams; returns its exit status.

    Ctrl-C reaches the program from the terminal, SIGTERM from here. It may use `grace` seconds to save what it has; a
    second Ctrl-C waits no longer.

    :param stdout: A file descriptor for what the program prints. Default: this process's own.
    """
    process = subprocess.Popen(list(command), cwd=folder, env=dict(environment), stdout=stdout)  # noqa: S603 - no shell
    try:
        return process.wait()
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) or isinstance(error, Terminated):
            process.terminate()
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(grace)
        process.kill()
        process.wait()
        raise


def _end(process: subprocess.Popen[str], grace: float) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)


@atexit.register
def _end_abandoned() -> None:
    """End what threads run that nobody waits for any more."""
    global _ends
    with _starting:
        _ends = True
    for process in list(_running):
        _end(process, 1)
