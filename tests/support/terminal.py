"""A pseudo-terminal of any width: what a program shows on it."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

ROOT = Path(__file__).parents[2]


def played(program: list[str], folder: Path, columns: int, *, code: int = 0, **environment: str) -> bytes:
    """What a terminal of this width gets from a program, until that ends with the exit status `code`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in os.environ}
    settings = {
        "TERM": "xterm-256color",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "AWS_REGION": "us-east-1",
    }
    process = subprocess.Popen(
        program, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, **settings, **environment}
    )
    os.close(theirs)
    output = b""
    try:
        while piece := os.read(ours, 65536):
            output += piece
    except OSError as error:
        if error.errno != errno.EIO:  # which says that the last program has gone
            raise
    os.close(ours)
    assert process.wait(60) == code, output.decode()
    return output


def shown(output: bytes) -> str:
    """The lines as they stand in the end: a carriage return, erased lines and moves up have done their work."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-?]*[ -/]*[@-~]|[\r\n]|[^\x1b\r\n]+", output.decode()):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row - len(lines) + 1)
        elif token == "\r":
            column = 0
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token.startswith("\x1b["):
            row -= int(token[2:-1] or 1) if token.endswith("A") else 0
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
    return re.sub(r"\[ *\d+\.\d s\]|\b\d+\.\d s\b", "0.0 s", "\n".join(line.rstrip() for line in lines)) + "\n"
