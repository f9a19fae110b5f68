"""A sound to transcribe."""

from __future__ import annotations

import io
import math
import struct
import wave


def tone_wav(*, seconds: float, hertz: float = 440, rate: int = 16000) -> bytes:
    """A mono 16-bit WAV file of one tone."""
    samples = [int(8000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(int(seconds * rate))]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return buffer.getvalue()
