"""Encodes samples as audio files: WAV and raw PCM here, other formats by the image's ffmpeg if it supports them."""

from __future__ import annotations

import functools
import io
import shutil
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import RequestError
from ..machine import children
from ..reading.audio import resample

PCM_RATE = 24_000
"""Sampling rate of raw PCM, which has no header: the same as OpenAI's."""

SECONDS = 60
"""Time limit of ffmpeg for one response."""

CONTENT_TYPES: Mapping[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""Format -> content type."""

_ENCODERS: Mapping[str, tuple[str, str]] = {
    "mp3": ("libmp3lame", "mp3"),
    "opus": ("libopus", "ogg"),
    "aac": ("aac", "adts"),
    "flac": ("flac", "flac"),
}
"""Format -> ffmpeg's encoder and container format."""


@functools.cache
def formats() -> tuple[str, ...]:
    """Return the formats that this image can encode."""
    return tuple(name for name in CONTENT_TYPES if name not in _ENCODERS or _ENCODERS[name][0] in _known_encoders())


def write_sound(samples: Any, rate: int, form: str) -> bytes:
    """Encode a mono file; several channels are averaged."""
    mono = np.asarray(samples, np.float32)
    if mono.ndim > 1:
        mono = mono.reshape(-1, mono.shape[-1]).mean(axis=0)
    if form == "pcm":
        return _pcm(resample(mono, rate, PCM_RATE) if rate != PCM_RATE else mono)
    return _wav(mono, rate) if form == "wav" else _by_ffmpeg(_wav(mono, rate), form)


def _pcm(samples: Any) -> bytes:
    """Encode as 16-bit little-endian samples."""
    tidy = np.nan_to_num(samples).clip(-1, 1)
    made: bytes = (tidy * 32_767).round().astype("<i2").tobytes()
    return made


def _wav(samples: Any, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(rate)
        audio.writeframes(_pcm(samples))
    return file.getvalue()


def _by_ffmpeg(wav: bytes, form: str) -> bytes:
    encoder, container = _ENCODERS[form]
    made = bytearray()
    with children.input_of(wav) as source:
        command = [
            *(shutil.which("ffmpeg") or "ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error"),
            *("-f", "wav", "-i", "pipe:0", "-c:a", encoder, "-f", container, "pipe:1"),
        ]
        try:
            code, _ = children.run(command, seconds=SECONDS, stdin=source, output=made.extend)
        except TimeoutError:
            code = -1
    if code or not made:
        raise RequestError(500, "internal-error", f"the sound could not be written as {form}: ask for 'wav'")
    return bytes(made)


@functools.cache
def _known_encoders() -> frozenset[str]:
    """Return the encoders of the image's ffmpeg; an empty set without ffmpeg."""
    program, said = shutil.which("ffmpeg"), bytearray()
    if program is None:
        return frozenset()
    children.run([program, "-hide_banner", "-encoders"], seconds=SECONDS, output=said.extend)
    rows = (line.split() for line in said.decode("utf-8", "replace").splitlines())
    return frozenset(row[1] for row in rows if len(row) > 1)
