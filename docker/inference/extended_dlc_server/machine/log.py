"""The container's log: every record is one line, and no line holds content of a request.

SageMaker sends standard output and standard error to CloudWatch, whose metric filters and alarms read lines of JSON. So
only `request_log` writes lines that begin with `{`. All other output to the file descriptors 1 and 2 (`print`, loggers
with their own handlers, native code, child processes) goes through pipes to a process that puts the time and the source
in front of each line. This is a process because a thread could not read while native code that prints holds the GIL,
and because output printed just before the server dies would be lost with a thread.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import io
import logging
import os
import re
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from typing import Any

OURS = "extended_dlc_server"
"""The package name, which is the parent of all the server's loggers."""

LONGEST_RECORD = 16 * 1024
"""Most characters of a record. A longer one loses its middle: the reason of an error is at the start or the end."""

LONGEST_PRINTED = 4000
"""Most bytes of a printed line; longer ones are split. Below PIPE_BUF, so a write is not interleaved with others."""

HIDDEN_SECONDS = 60
"""Least seconds between two log lines about hidden output of the same source."""

DRAIN_SECONDS = 2
"""How long the process waits at its end for printed output to be written."""

_FIRST_FRAMES, _LAST_FRAMES, _CAUSES = 5, 25, 5

_HIDE, _END = b"h", b"e"

# Characters that some readers take for a line end, that move the cursor or change the text direction, and surrogates.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/'\"]*@")

_DEVICE = ("CUDA", "CUBLAS", "cuDNN", "NCCL", "out of memory", "not enough memory", "can't allocate memory")

log = logging.getLogger(__name__)


class _State:
    """Global state of the process's log."""

    out, err = 1, 2
    """File descriptors of the container's real outputs; `start_log` replaces 1 and 2 by pipes."""

    control = -1
    process = 0
    hidden = ended = False
    watch: threading.Thread | None = None


def start_log() -> None:
    """Redirect the outputs. Call it once, before a second thread starts, because it forks."""
    pipes = [os.pipe() for _ in range(3)]
    (out, to_out), (err, to_err), (control, to_control) = pipes
    _State.out, _State.err, _State.process = os.dup(1), os.dup(2), os.getpid()
    child = os.fork()
    if child == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the child ends after the server
        try:
            for _, end in pipes:
                os.close(end)
            gc.disable()
            _read({out: _Printed("stdout", _State.err), err: _Printed("stderr", _State.err)}, control, _State.process)
        finally:
            os._exit(0)
    for source, target in ((to_out, 1), (to_err, 2)):
        os.dup2(source, target)
        os.close(source)
    for source in (out, err, control):
        os.close(source)
    _State.control = to_control
    _State.watch = threading.Thread(target=_watch, args=(child,), name="log", daemon=True)
    _State.watch.start()
    atexit.register(end_log)
    _write_by_line()
    faulthandler.enable(_State.err)
    handler = _Handler()
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for chatty in ("httpx", "httpx2"):  # they log a line per request to the Hub
        logging.getLogger(chatty).setLevel(logging.WARNING)
    sys.excepthook = lambda _, error, __: log.critical("the server ends", exc_info=error)
    sys.unraisablehook = lambda args: log.error("an error that nobody can catch", exc_info=args.exc_value)
    threading.excepthook = _thread_ended


def hide_requests() -> None:
    """Hide printed output, other packages' log records and messages of exceptions: they may hold request content.

    Call it before the first request is accepted. It is not called with code of the user or of the model's repository:
    its authors need its output.
    """
    _State.hidden = True
    logging.getLogger(OURS).setLevel(logging.INFO)
    logging.getLogger().setLevel(logging.ERROR)
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level and not _is_ours(name):
            logger.setLevel(max(logger.level, logging.ERROR))
    logging.raiseExceptions = False  # otherwise logging prints the arguments of a record that it cannot write
    warnings.simplefilter("ignore")
    _tell(_HIDE)


def end_log() -> None:
    """Wait until printed output is written, but not for the pipes to close: a running child may hold them open."""
    if os.getpid() != _State.process or _State.ended:
        return
    _State.ended = True
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    _tell(_END)
    if _State.watch:
        _State.watch.join(DRAIN_SECONDS + 1)


def write_line(line: bytes) -> None:
    """Write a line to the container's standard output, without a prefix."""
    _write(_State.out, line)


def one_line(text: str) -> str:
    """Escape control characters and remove the credentials of URLs."""
    return _CONTROL.sub(_escaped, hide_credentials(text))


def hide_credentials(text: str) -> str:
    """Replace user and password in URLs such as `https://user:password@host` by asterisks."""
    return _CREDENTIALS.sub("***@", text)


def frames(error: BaseException) -> str:
    """Return the file, line and function of each frame of a traceback, without any data."""
    found = [
        f"{_short(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    more = len(found) - _FIRST_FRAMES - _LAST_FRAMES
    if more > 0:
        found[_FIRST_FRAMES:-_LAST_FRAMES] = [f"({more} more)"]
    return " > ".join(found)


def describe(error: BaseException, *, with_message: bool) -> str:
    """Return an exception and its causes on one line.

    Messages of memory and device errors are always included: they never hold content of a request.
    """
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < _CAUSES:
        text = ""
        if with_message or _is_about_the_machine(current):
            with contextlib.suppress(Exception):  # another package's __str__ may raise
                text = str(current)
        places = frames(current)
        parts.append(f"{type(current).__name__}{text and f': {text}'}{places and f' (at {places})'}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "; because of ".join(parts)


class Formatter(logging.Formatter):
    """Formats a record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record. Another package's message is left out where it may hold content of a request."""
        name = "" if _is_ours(record.name) else f"{record.name}: "
        if name and _State.hidden:
            location = f"{_short(record.pathname)}:{record.lineno} in {record.funcName}"
            text = f"{name}a message from {location}, which is not shown, because it may hold a request's content"
        else:
            try:
                text = name + record.getMessage()
            except Exception:  # the arguments do not match the format string
                text = name + str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text += f": {describe(error, with_message=not _State.hidden)}"
        line = _without_middle(f"{self.formatTime(record)} {record.levelname} {text}")
        return _without_middle(one_line(line))  # escapes may make it too long again


class _Handler(logging.Handler):
    """Writes to the container's real standard error, not to the pipe, so that a dying process's last record arrives."""

    def __init__(self) -> None:
        super().__init__()
        self._reported_at: dict[tuple[str, int], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write each record at once. While requests are served, log one per minute for each place in other packages."""
        if _State.hidden and not _is_ours(record.name):
            location = record.pathname, record.lineno
            if record.levelno < logging.ERROR or record.created - self._reported_at.get(location, 0) < HIDDEN_SECONDS:
                return  # the level is checked here because a logger may set its own after hide_requests
            self._reported_at[location] = record.created
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            _write(_State.err, line.encode("utf-8", "replace") + b"\n")


class _Printed:
    """Writes the printed lines of one output to the log."""

    def __init__(self, name: str, target: int) -> None:
        """`name` is written in front of each line."""
        self._name, self._target = name, target
        self._rest = b""
        self._hidden = 0
        self._reported_at = float("-inf")

    def show(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        # A progress bar redraws itself after a carriage return: keep its last state.
        rest = rest[rest.rfind(b"\r", 0, max(0, len(rest) - 1)) + 1 :]
        while len(rest) > LONGEST_RECORD:
            end = _between_characters(rest, LONGEST_RECORD)
            lines.append(rest[:end])
            rest = rest[end:]
        self._rest = rest
        for line in lines:
            self._line(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))

    def hide(self, data: bytes) -> None:
        self._hidden += len(self._rest) + len(data)
        self._rest = b""

    def tell_hidden(self, *, now: bool = False) -> None:
        """Log how many bytes were hidden, at most once in `HIDDEN_SECONDS` unless `now`."""
        if not self._hidden or not (now or time.monotonic() - self._reported_at > HIDDEN_SECONDS):
            return
        self._line(f"{self._hidden} bytes were printed, which are not shown, because they may hold a request's content")
        self._hidden, self._reported_at = 0, time.monotonic()

    def end(self) -> None:
        self.show(b"\n")
        self.tell_hidden(now=True)

    def _line(self, text: str) -> None:
        left = one_line(text).rstrip().encode("utf-8", "replace")
        while left:
            end = _between_characters(left, LONGEST_PRINTED)
            piece, left = left[:end], left[end:]
            now = time.time()
            stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03d}"
            _write(self._target, f"{stamp} {self._name}: ".encode() + piece + b"\n")


def _between_characters(data: bytes, end: int) -> int:
    """Return the position at or before `end` that does not split a UTF-8 character."""
    return next((at for at in range(end, end - 4, -1) if at >= len(data) or data[at] & 0xC0 != 0x80), end)


def _read(outputs: dict[int, _Printed], control: int, parent: int) -> None:
    """Main loop of the log process: read printed output until the server announces its end, or has ended."""
    hidden = over = False
    poll = select.poll()
    for source in (*outputs, control):
        os.set_blocking(source, False)
        poll.register(source, select.POLLIN)
    deadline = float("inf")
    while time.monotonic() < deadline:
        poll.poll(0 if over else 1000)
        chunks = [(source, _available(source)) for source in outputs]
        # Read control after the outputs: the command to hide is sent before anything is printed about a request.
        said = _available(control)
        hidden = hidden or _HIDE in (said or b"")
        for source, data in chunks:
            if data:
                (outputs[source].hide if hidden else outputs[source].show)(data)
            elif data is not None:
                _forget(poll, source)  # all writers have closed it
        for output in outputs.values():
            output.tell_hidden()
        if over and not any(data for _, data in chunks):
            break
        if not over and (said == b"" or _END in (said or b"") or os.getppid() != parent):
            over, deadline = True, time.monotonic() + DRAIN_SECONDS
    for output in outputs.values():
        output.end()


def _available(source: int) -> bytes | None:
    """Return the bytes that can be read now; None if there are none yet, and b"" at the end of file."""
    try:
        return os.read(source, 64 * 1024)
    except BlockingIOError:
        return None


def _forget(poll: select.poll, source: int) -> None:
    with contextlib.suppress(KeyError):
        poll.unregister(source)


def _watch(child: int) -> None:
    """Redirect the outputs to /dev/null if the log process dies: printing to a pipe without a reader fails."""
    with contextlib.suppress(ChildProcessError):  # other code has already waited for the child
        os.waitpid(child, 0)
    if not _State.ended:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        log.error("the process that writes printed lines has ended: they are lost from now on")


def _write_by_line() -> None:
    """Make stdout and stderr line-buffered, in Python and in C: both buffer some kilobytes on a pipe."""
    # New streams, because the interpreter's remember whether the container's original outputs are seekable.
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, "w", closefd=False)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        library = ctypes.CDLL(None)
        library.setvbuf(ctypes.c_void_p.in_dll(library, "stdout"), None, 1, 0)  # 1: _IOLBF


def _thread_ended(args: Any) -> None:
    if args.exc_type is not SystemExit:
        log.error("the thread '%s' has ended", args.thread.name if args.thread else "?", exc_info=args.exc_value)


def _tell(word: bytes) -> None:
    if _State.control >= 0:
        _write(_State.control, word)


def _write(target: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the reader has closed it
        while data:
            data = data[os.write(target, data) :]


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _without_middle(line: str) -> str:
    more = len(line) - LONGEST_RECORD
    if more <= 0:
        return line
    half = LONGEST_RECORD // 2
    return f"{line[:half]} [{more} letters left out] {line[-half:]}"


def _is_ours(name: str) -> bool:
    return name == OURS or name.startswith(f"{OURS}.")


def _is_about_the_machine(error: BaseException) -> bool:
    from .worker import FatalError

    if isinstance(error, (MemoryError, FatalError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _DEVICE)


def _short(file: str) -> str:
    """Return the path relative to site-packages, or to the folder that holds this package."""
    for folder in ("/site-packages/", "/dist-packages/"):
        _, found, rest = file.rpartition(folder)
        if found:
            return rest
    ours = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep
    return file.removeprefix(ours)
