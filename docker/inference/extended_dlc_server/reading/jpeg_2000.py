"""Decodes JPEG 2000 in a process of its own: OpenJPEG takes seconds for a file, in which no other thread would run.

Pillow gives other threads their turn only where it reads a piece of a file, and this decoder reads all of it at once.
"""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CPU_SECONDS = 30
"""Most CPU time for one image. A photograph of 16 million pixels takes one to eight seconds."""

SECONDS = 120
"""Most time for one image, since others may run beside it."""

_at_once = threading.BoundedSemaphore(2)
"""A file in small blocks takes the 2 GB of a child, which the memory for the pixels of all requests does not count."""

_LOOK_SECONDS = 0.5
"""How often to look whether anybody still waits."""

_SIZE = struct.Struct("<II")


def decoded(data: bytes, size: tuple[int, int]) -> Any:
    """Return an RGB image of the size that the file's head says; `ValueError` for a file that is no such image."""
    from PIL import Image

    from ..machine import children
    from ..machine.ending import check

    spec, made = find_spec("PIL"), bytearray()
    assert spec is not None  # noqa: S101 - it is imported above
    assert spec.origin is not None  # noqa: S101 - it is a package with files
    most = _SIZE.size + 3 * size[0] * size[1]

    def add(piece: bytes) -> None:
        if len(made) + len(piece) > most:
            raise ValueError("it is larger than its head says")
        made.extend(piece)

    while not _at_once.acquire(timeout=_LOOK_SECONDS):
        check()
    try:
        with children.input_of(data) as source:
            code, _ = children.run(
                [sys.executable, "-I", __file__, str(Path(spec.origin).parents[1])],
                seconds=SECONDS,
                cpu_seconds=CPU_SECONDS,
                stdin=source,
                output=add,
                drops_rights=False,  # it opens no file, and Pillow may be readable by the server's user only
            )
    except TimeoutError:
        raise ValueError(f"it takes more than {SECONDS} s: its format is slow to decode") from None
    finally:
        _at_once.release()
    if code or len(made) != most:
        raise ValueError("its data are broken, or need too much time or memory")
    width, height = _SIZE.unpack_from(made)
    return Image.frombytes("RGB", (width, height), memoryview(made)[_SIZE.size :])


def _main() -> None:
    """Write the size and pixels of the image on standard input, upright, with the Pillow of the folder named."""
    sys.path.insert(0, sys.argv[1])
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # the server has counted them
    image = Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=["JPEG2000"])
    image.load()
    upright = image.convert("RGB")
    with contextlib.suppress(Exception):  # invalid metadata is ignored
        upright = ImageOps.exif_transpose(upright)
    sys.stdout.buffer.write(_SIZE.pack(*upright.size))
    sys.stdout.buffer.write(upright.tobytes())


if __name__ == "__main__":
    _main()
