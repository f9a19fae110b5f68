"""The bytes of image files into what a pipeline takes."""

from __future__ import annotations

import io
from typing import Any

from .errors import RequestError

MAX_PIXELS = 90_000_000
"""Of all images of a request together: a file of a few kilobytes can decode to gigabytes."""

# Formats that hold their own pixels: EPS would run Ghostscript, and the rarer decoders are the less tested ones.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO", "PPM", "ICO", "HEIF")


class ImageDecoder:
    """Decodes the images of one request."""

    def __init__(self) -> None:
        """Nothing of its pixels is used."""
        self._left = MAX_PIXELS

    def decode(self, data: bytes) -> Any:
        """An RGB image; 400 for what is none, 413 for too many pixels, which its head tells."""
        from PIL import Image  # an image task loads it anyway, other tasks never pay for it

        Image.init()
        try:
            image = Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN])
            self._left -= image.width * image.height
            if self._left < 0:
                raise _too_large()
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
        except Image.DecompressionBombError:
            raise _too_large() from None
        except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
            raise RequestError(
                400, "undecodable-image", f"the image cannot be decoded ({error}): send a PNG or JPEG file"
            ) from None


def _too_large() -> RequestError:
    return RequestError(
        413,
        "image-too-large",
        f"the images of a request may have {MAX_PIXELS // 1_000_000} million pixels together: scale them down, "
        "no model looks at so many",
    )
