"""Audio bytes of any container format into the mono float32 samples that a model takes."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
import wave
from typing import Any

import numpy as np

from .errors import RequestError

Samples = np.ndarray[Any, np.dtype[np.float32]]

FFMPEG_SECONDS = 120
"""How long ffmpeg may take for one request; an hour of audio takes it a few seconds."""

# Formats that carry their own samples. Playlists (hls, concat, dash ...) are absent on purpose: they name other
# files and URLs, which no request may do.
_FORMATS = "aac,ac3,aiff,amr,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav"


def decode_audio(data: bytes, *, rate: int, max_seconds: int) -> Samples:
    """Samples at `rate`; 400 for what cannot be decoded, 413 for what is too long."""
    if not data:
        raise RequestError(400, "undecodable-audio", "the audio is empty: send the bytes of an audio file")
    samples = None
    ffmpeg = shutil.which("ffmpeg")
    if data[:4] == b"RIFF":
        # plain WAV needs no other program; one that does not fit the model's rate is resampled better by ffmpeg
        samples = _decode_wav(data, rate=rate, max_seconds=max_seconds, may_resample=ffmpeg is None)
    if samples is None:
        if ffmpeg is None:
            raise RequestError(
                400,
                "undecodable-audio",
                "this image has no ffmpeg program and can only read PCM WAV: send a WAV file, "
                "or build the image from a base with ffmpeg",
            )
        samples = _decode_with_ffmpeg(ffmpeg, data, rate=rate, max_seconds=max_seconds)
    if samples.size > rate * max_seconds:
        raise _too_long(max_seconds)
    if samples.size == 0:
        raise RequestError(400, "undecodable-audio", "the audio holds no samples: send at least a few milliseconds")
    return samples


def _decode_with_ffmpeg(ffmpeg: str, data: bytes, *, rate: int, max_seconds: int) -> Samples:
    # A file on standard input, not a pipe: MP4 and M4A often keep their index at the end, and ffmpeg must seek to it.
    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.seek(0)
        command = [
            *(ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error"),
            *("-protocol_whitelist", "file", "-format_whitelist", _FORMATS, "-i", "/dev/stdin"),
            *("-map", "0:a:0", "-t", str(max_seconds + 1), "-ac", "1", "-ar", str(rate), "-f", "f32le", "pipe:1"),
        ]
        try:
            done = subprocess.run(  # noqa: S603 - a list of arguments that no request chooses, no shell
                command, stdin=source, capture_output=True, timeout=FFMPEG_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise RequestError(
                400, "undecodable-audio", f"decoding took more than {FFMPEG_SECONDS} s: send shorter or simpler audio"
            ) from None
    # ffmpeg ends with an error code for a truncated file too, whose beginning is worth an answer
    if not done.stdout:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise RequestError(
            400,
            "undecodable-audio",
            f"ffmpeg cannot decode this audio ({reason[-1] if reason else 'no audio in it'}): "
            "send a wav, mp3, flac, ogg, m4a, mp4 or webm file",
        )
    return np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], dtype=np.dtype("<f4")).astype(np.float32)


def _decode_wav(data: bytes, *, rate: int, max_seconds: int, may_resample: bool) -> Samples | None:
    """Samples of a PCM WAV file, or None for one that the standard library cannot read (or may not resample)."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, source_rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if source_rate != rate and not may_resample:
                return None
            if source_rate < 1 or channels < 1 or width not in (1, 2, 3, 4):
                return None
            frames = file.readframes(source_rate * max_seconds + source_rate)
    except (wave.Error, EOFError, RuntimeError):
        return None
    frames = frames[: len(frames) // (width * channels) * (width * channels)]
    if width == 1:  # 8-bit WAV is unsigned, wider ones are signed little-endian
        scaled = (np.frombuffer(frames, dtype=np.uint8).astype(np.float32) - 128) / 128
    elif width == 3:
        padded = np.zeros((len(frames) // 3, 4), dtype=np.uint8)
        padded[:, 1:] = np.frombuffer(frames, dtype=np.uint8).reshape(-1, 3)
        scaled = padded.view("<i4").reshape(-1).astype(np.float32) / 2**31
    else:
        scaled = np.frombuffer(frames, dtype=f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    mono = scaled.reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return mono if source_rate == rate else resample(mono, source_rate, rate)


def resample(samples: Samples, source_rate: int, rate: int) -> Samples:
    """Band-limited resampling by cutting or padding the spectrum."""
    length = round(samples.size * rate / source_rate)
    if samples.size == 0 or length == 0:
        return np.zeros(0, dtype=np.float32)
    spectrum = np.fft.rfft(samples)
    return (np.fft.irfft(spectrum[: length // 2 + 1], n=length) * (length / samples.size)).astype(np.float32)


def _too_long(max_seconds: int) -> RequestError:
    return RequestError(
        413,
        "audio-too-long",
        f"the audio is longer than {max_seconds} s: send it in parts, or raise EXTENDED_DLC_MAX_AUDIO_SECONDS",
    )
