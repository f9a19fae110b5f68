"""The bytes of image files into what a pipeline takes."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown

if TYPE_CHECKING:
    from ..machine.memory import Share

MAX_PIXELS = 90_000_000
"""Of all images of a request together: a file of a few kilobytes can decode to gigabytes."""

MOST_PIXELS_OF_TASK = {
    **dict.fromkeys(("depth-estimation", "image-to-image"), 4_000_000),
    **dict.fromkeys(("image-segmentation", "mask-generation"), 16_000_000),
}
"""The same where the answer, or a part of it for each class, is as large as the image: a number of ten letters for each
pixel, or masks that take 5 s of the model's time for 10 million."""

MOST_TIMES = 100
"""How many times its shorter side an image may be long: processors scale that one up to the model's size, and of an
image of 1 x 300,000 pixels, which is a file of 100 bytes, make gigabytes."""

_DECODING_BYTES = 8
"""A pixel while it is decoded: what the file has (a byte of grey, four of red, green, blue and alpha) and the RGB."""

_MORE_BYTES = {"JPEG": 10, "MPO": 10, "AVIF": 16, "WEBP": 20, "JPEG2000": 28}
"""The same where a decoder has buffers of whole images: progressive JPEG, two frames of a WebP, OpenJPEG's integers."""

_DECODED_BYTES = 4
"""A pixel of an RGB image in Pillow."""

_LEAST_PIXELS = 2048
"""What an image takes at least: thousands of tiny ones are objects in memory too."""

# Formats that hold their own pixels: EPS would run Ghostscript, and the rarer decoders are the less tested ones.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO", "PPM", "ICO", "HEIF")
_TIFF_ROWS_PER_STRIP, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 278, 322, 323
_ICON, _ICON_SIDE, _OLD_BITMAP_HEAD = b"\0\0\1\0", 256, 12
_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION, _UPRIGHT = 0x0112, 1


@dataclass
class Opened:
    """An image of a request: its head is read, its pixels come when all of the request are known to fit."""

    image: Any


class ImageDecoder:
    """Decodes the images of one request: first all are opened, then all are loaded."""

    def __init__(self, share: Share | None = None, task: str = "") -> None:
        """Nothing is opened yet; the share is what the request has of the memory for pixels."""
        self._share, self._most = share, MOST_PIXELS_OF_TASK.get(task, MAX_PIXELS)
        self._opened: list[Opened] = []
        self._pixels = self._decoding = self._decoded = 0

    def open(self, data: bytes) -> Opened:
        """Its head; 400 for what is no image, 413 for too many pixels."""
        from PIL import Image  # an image task loads it anyway, other tasks never pay for it

        Image.init()
        with _refusing():
            if data.startswith(_ICON):
                _check_icon(data)  # Pillow loads one at once, whatever its size
            image = Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN])
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
        self._opened.append(Opened(image))
        return self._opened[-1]

    def load(self) -> None:
        """The pixels of all, upright and in RGB; 429 where those of other requests fill the memory for them."""
        before = self._share.held if self._share else 0
        if self._share and self._opened:
            self._share.take(self._decoding, "image-too-large")
        for opened in self._opened:
            with _refusing():
                opened.image = _upright(_rgb(opened.image))
        if self._share:
            self._share.keep(before + self._decoded)

    def decode(self, data: bytes) -> Any:
        """One image, opened and loaded."""
        opened = self.open(data)
        self.load()
        return opened.image


def _pixels(image: Any) -> int:
    """How many pixels are decoded at a time, which is more than the image has where its file says so."""
    width, height = image.size
    count: int = width * height
    if image.format == "TIFF":
        tags = image.tag_v2
        rows = min(tags.get(_TIFF_ROWS_PER_STRIP, 1), height)
        count = max(count, rows * width, tags.get(_TIFF_TILE_WIDTH, 1) * tags.get(_TIFF_TILE_HEIGHT, 1))
    return count


def _check_icon(data: bytes) -> None:
    """Every image of an icon is as small as its directory can say: what lies behind it need not be."""
    for entry in range(int.from_bytes(data[4:6], "little")):
        (start,) = struct.unpack_from("<I", data, 6 + 16 * entry + 12)
        if data.startswith(_PNG, start):
            size = struct.unpack_from(">II", data, start + 16)
        else:  # of a bitmap, whose height counts its mask too
            (head,) = struct.unpack_from("<I", data, start)
            width, height = struct.unpack_from("<HH" if head == _OLD_BITMAP_HEAD else "<ii", data, start + 4)
            size = (width, height // 2)
        if not all(0 < side <= _ICON_SIDE for side in size):
            raise ValueError(f"an image of this icon is not within {_ICON_SIDE} x {_ICON_SIDE}")


def _rgb(image: Any) -> Any:
    size = image.size
    image.load()
    if image.width * image.height > size[0] * size[1]:
        raise ValueError("it is larger than its head says")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Any) -> Any:
    """As a camera was held. Nothing else of what stands beside the pixels goes on to the model's thread."""
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT else image
    except MemoryError:
        raise
    except Exception:  # noqa: S110 - metadata that cannot be read says nothing
        pass
    image.info.clear()
    return image


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """400 for whatever a decoder raises, which is what a broken file makes of it; no memory is no fault of the file."""
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
