"""Decodes image files to Pillow images."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from ..machine.ending import check
from ..settings import MEGABYTE
from . import jpeg_2000

if TYPE_CHECKING:
    from ..machine.memory import Share

MAX_PIXELS = 90_000_000
"""Maximum pixels of all images of a request: a file of a few kilobytes can decode to gigabytes."""

MOST_PIXELS_OF_TASK = {
    **dict.fromkeys(("depth-estimation", "image-to-image"), 4_000_000),
    **dict.fromkeys(("image-segmentation", "mask-generation"), 16_000_000),
}
"""Task -> the same limit, if the answer, or a part of it per class, is as large as the image: ten characters for each
pixel, or masks for which the model needs 5 s per 10 million pixels."""

_POINTS_AT_ONCE = 64
"""The points of an image for which transformers makes masks at once, unless the request asks for another number."""

_BYTES_OF_A_POINT = 3 * 4
"""Bytes for each pixel of the image that a point takes: three masks of float32. They are copied once or twice."""

_MASKS_AT_ONCE = 512 * MEGABYTE
"""Bytes of the masks that are made at once. 64 points of an image of 16 million pixels took 14 GB, and 10 s in which
the inference could not be ended."""

MOST_TIMES = 100
"""Maximum aspect ratio: processors scale the shorter side up to the model's size, and would make gigabytes of an image
of 1 x 300,000 pixels, which is a file of 100 bytes."""

_DECODING_BYTES = 8
"""Bytes of a pixel during decoding: that of the file (1 byte for gray, 4 for RGBA) and that of the RGB image."""

_MORE_BYTES = {"JPEG": 10, "MPO": 10, "AVIF": 16, "WEBP": 20, "JPEG2000": 28}
"""The same for decoders that buffer whole images: progressive JPEG, two frames of a WebP, OpenJPEG's integers."""

_DECODED_BYTES = 4
"""Bytes of a pixel of an RGB image in Pillow."""

_LEAST_PIXELS = 2048
"""Minimum pixels to count for an image: thousands of tiny images take memory for their objects."""

MOST_FILES = 1000
"""Maximum images of a request. With 16 requests of 100,000 tiny ones Python's garbage collector held up all threads,
and `/ping`, for 11 s."""

# Formats that contain their pixels. EPS would run Ghostscript, and rare decoders are less tested.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO", "PPM", "ICO", "HEIF")
_TIFF_ROWS_PER_STRIP, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 278, 322, 323
_ICON, _ICON_SIDE, _OLD_BITMAP_HEAD = b"\0\0\1\0", 256, 12
_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION, _UPRIGHT = 0x0112, 1


_JPEG = b"\xff\xd8"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""Any but those inside compressed data: escaped bytes and restarts."""

_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)
_MOST_SCANS = 100
"""Maximum number of scans of a JPEG, as libtiff has it. Progressive files have about ten, and one of 14 bytes makes the
decoder go through all pixels once more."""

_MOST_READS = 200_000
"""How often a decoder may read from one file: Pillow reads a JPEG's head byte by byte, and a chunk of a PNG in three
parts. A file of 25 MB in chunks of 1 KB takes 75,000."""

_PROFILE, _MOST_PROFILES = b"iCCP", 10
"""A color profile of a PNG is decompressed to up to a megabyte; a file has one."""

_reading = threading.local()
"""How many bytes more the image that this thread decodes may read of its file."""


@dataclass
class Opened:
    """An image whose header is read; its pixels are loaded once all images of the request are known to fit."""

    image: Any
    size: int
    """Bytes of its file."""


class _File(io.BytesIO):
    """The bytes of an image, which are read in a limited number of parts, and only while somebody waits."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise ValueError("it has too many parts")
        if self._reads % 1000 == 0:
            check()
        return super().read(size)


class ImageDecoder:
    """Decodes the images of one request: opens all of them, then loads all of them."""

    def __init__(self, share: Share | None = None, task: str = "") -> None:
        """`share` is the request's share of the memory for pixels."""
        self._share, self._most = share, MOST_PIXELS_OF_TASK.get(task, MAX_PIXELS)
        self._opened: list[Opened] = []
        self._pixels = self._decoding = self._decoded = 0

    def open(self, data: bytes) -> Opened:
        """Read the header of an image; 400 if it is invalid, 413 if the images have too many pixels."""
        from PIL import Image  # imported here to save time and memory for tasks without images

        check()
        if len(self._opened) >= MOST_FILES:
            raise RequestError(
                413, "body-too-large", f"a request may have at most {MOST_FILES:,} images: send the others after them"
            )
        Image.init()
        with _refusing(), _reading_at_most(len(data)):
            if data.startswith(_ICON):
                _check_icon(data)  # Pillow loads an icon's pixels when it opens it, whatever the size
            if data.startswith(_JPEG):
                _check_scans(data)
            if data.startswith(_PNG) and data.count(_PROFILE) > _MOST_PROFILES:
                raise ValueError(f"it has more than {_MOST_PROFILES} color profiles")
            image = Image.open(_File(data), formats=[name for name in _FORMATS if name in Image.OPEN])
            pixels = _pixels(image)
        if max(image.size) > MOST_TIMES * min(image.size):
            raise RequestError(
                413,
                "image-too-large",
                f"an image has {image.width} x {image.height} pixels, and one side may be at most {MOST_TIMES} times "
                "the other: cut it into parts",
            )
        self._pixels += pixels
        self._decoding += max(pixels, _LEAST_PIXELS) * _MORE_BYTES.get(image.format or "", _DECODING_BYTES)
        self._decoded += max(pixels, _LEAST_PIXELS) * _DECODED_BYTES
        if self._pixels > self._most:
            raise _too_large(self._most)
        if self._share:
            self._share.check(self._decoding, "image-too-large")
        self._opened.append(Opened(image, len(data)))
        return self._opened[-1]

    def load(self) -> None:
        """Load the pixels of all images, upright and in RGB; 429 if other requests use too much memory."""
        before = self._share.held if self._share else 0
        if self._share and self._opened:
            self._share.take(self._decoding, "image-too-large")
        for opened in self._opened:
            with _refusing(), _reading_at_most(opened.size):
                opened.image = _loaded(opened.image)
        if self._share:
            self._share.keep(before + self._decoded)

    def decode(self, data: bytes) -> Any:
        """Open and load one image."""
        opened = self.open(data)
        self.load()
        return opened.image


def points_at_once(inputs: Any, asked: int | None) -> int:
    """Return for how many points of an image masks are made at once, which changes no mask."""
    pixels: int = max(image.width * image.height for image in (inputs if isinstance(inputs, list) else [inputs]))
    return max(1, min(asked or _POINTS_AT_ONCE, _MASKS_AT_ONCE // (_BYTES_OF_A_POINT * pixels)))


def _pixels(image: Any) -> int:
    """Return the number of pixels that are decoded at once, which can exceed the image's in a TIFF file."""
    width, height = image.size
    count: int = width * height
    if image.format == "TIFF":
        tags = image.tag_v2
        rows = min(tags.get(_TIFF_ROWS_PER_STRIP, 1), height)
        count = max(count, rows * width, tags.get(_TIFF_TILE_WIDTH, 1) * tags.get(_TIFF_TILE_HEIGHT, 1))
    return count


def _check_icon(data: bytes) -> None:
    """Check that each image of an icon is within the maximum size of its directory: the image data may be larger."""
    for entry in range(int.from_bytes(data[4:6], "little")):
        (start,) = struct.unpack_from("<I", data, 6 + 16 * entry + 12)
        if data.startswith(_PNG, start):
            size = struct.unpack_from(">II", data, start + 16)
        else:  # a bitmap, whose height includes its mask
            (head,) = struct.unpack_from("<I", data, start)
            width, height = struct.unpack_from("<HH" if head == _OLD_BITMAP_HEAD else "<ii", data, start + 4)
            size = (width, height // 2)
        if not all(0 < side <= _ICON_SIDE for side in size):
            raise ValueError(f"an image of this icon is not within {_ICON_SIDE} x {_ICON_SIDE}")


def _check_scans(data: bytes) -> None:
    """Check the number of scans of a JPEG, up to its end: some cameras append a film."""
    position, scans, markers = len(_JPEG), 0, 0
    while found := _JPEG_MARKER.search(data, position):
        markers += 1
        if markers > _MOST_READS:
            raise ValueError("it has too many parts")
        position, marker = found.end(), found[0][1]
        if marker == _END:
            return
        if marker == _SCAN:
            scans += 1
        if scans > _MOST_SCANS:
            raise ValueError(f"it has more than {_MOST_SCANS} scans")
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2], "big")


def _loaded(image: Any) -> Any:
    if image.format == "JPEG2000":
        return jpeg_2000.decoded(image.fp.getvalue(), image.size)
    return _upright(_rgb(image))


def _rgb(image: Any) -> Any:
    size = image.size
    image.load()
    if image.width * image.height > size[0] * size[1]:
        raise ValueError("it is larger than its head says")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Any) -> Any:
    """Apply the EXIF orientation, and drop all other metadata."""
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT else image
    except MemoryError:
        raise
    except Exception:  # noqa: S110 - invalid metadata is ignored
        pass
    image.info.clear()
    return image


@contextlib.contextmanager
def _reading_at_most(size: int) -> Iterator[None]:
    """Limit the parts that Pillow reads inside the context to a few times the size of the file.

    In older releases each of the 65,535 tags of a TIFF file, or of EXIF data, may be a copy of the same megabyte.
    """
    _count_parts()
    _reading.left = 4 * size + MEGABYTE
    try:
        yield
    finally:
        _reading.left = None


@functools.cache
def _count_parts() -> None:
    """Wrap the function by which Pillow's decoders read a part of a file."""
    from PIL import ImageFile

    read = ImageFile._safe_read

    def counted(file: Any, size: int) -> bytes:
        left = getattr(_reading, "left", None)
        if left is not None:
            _reading.left = left - max(0, size)
            if left < size:
                raise ValueError("its parts are larger than its file")
        made: bytes = read(file, size)
        return made

    ImageFile._safe_read = counted


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """400 for any error of a decoder, since the file causes it, except a lack of memory."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(MAX_PIXELS) from None
    except UnidentifiedImageError:
        raise _undecodable("it has no known format") from None
    except Exception as error:
        raise _undecodable(error) from None


def _undecodable(problem: object) -> RequestError:
    return RequestError(
        400, "undecodable-image", f"the image cannot be decoded ({shown(str(problem))}): send a PNG or JPEG file"
    )


def _too_large(most: int) -> RequestError:
    return RequestError(
        413,
        "image-too-large",
        f"the images of a request may have {most // 1_000_000} million pixels together: scale them down, "
        "no model looks at so many",
    )
