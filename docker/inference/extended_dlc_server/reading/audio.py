"""Decodes audio files of any container format to mono float32 samples."""

from __future__ import annotations

import io
import re
import shutil
import struct
import wave
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RequestError, shown
from ..machine import children

if TYPE_CHECKING:
    from ..machine.memory import Share

Samples = np.ndarray[Any, np.dtype[np.float32]]

FFMPEG_SECONDS = 120
"""How long ffmpeg may take for one request; an hour of audio takes it a few seconds."""

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
"""Accepted sampling rates: a small file with a lower rate would become hours of audio when resampled."""

_LOUDEST = 2.0**31
"""Largest sample: full scale is 1, and a file of floats may hold unscaled 32-bit integers. Squares of much larger ones
overflow, and a model answers with NaN."""

_SAMPLE_BYTES = 4
_PIECE = 4 * 1024 * 1024
"""Memory for samples is reserved in steps of this many bytes while ffmpeg runs."""

_RESAMPLING_BYTES = 32
"""Bytes of a sample during resampling: spectrum and result, which numpy computes in double precision."""

_MOST_CHUNKS = 1000
"""Maximum number of chunks of a WAV file to search for its format."""

# Formats that contain their samples. Playlists (hls, concat, dash ...) are left out on purpose: they refer to other
# files and URLs, which a request must not do.
_FORMATS = "aac,ac3,aiff,amr,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav"
_RATE = re.compile(rb"^\[info\] +Stream #0:.* Audio: .*?, (\d+) Hz", re.MULTILINE)
_ERROR = re.compile(rb"^(?:\[[^]\n]* @ [^]\n]*\] )?\[(?:error|fatal)\] ?(.+)$", re.MULTILINE)


def decode_audio(data: bytes, *, rate: int, max_seconds: int, share: Share | None = None) -> Samples:
    """Decode to samples at `rate`; 400 if the file is invalid, 413 if it is too long, 429 if memory is short.

    `share` is the request's share of the memory for samples.
    """
    if not data:
        raise _undecodable("it is empty", "send the bytes of an audio file")
    before = share.held if share else 0
    samples = None
    ffmpeg = shutil.which("ffmpeg")
    if data[:4] == b"RIFF":
        _check_rate(_wav_rate(data))
        # PCM WAV does not need ffmpeg, but ffmpeg is better at resampling
        samples = _decode_wav(data, rate=rate, max_seconds=max_seconds, may_resample=ffmpeg is None, share=share)
    if samples is None:
        if ffmpeg is None:
            raise RequestError(
                400,
                "undecodable-audio",
                "this image has no ffmpeg program and can only read PCM WAV: send a WAV file, "
                "or build the image from a base with ffmpeg",
            )
        samples = _decode_with_ffmpeg(ffmpeg, data, rate=rate, max_seconds=max_seconds, share=share)
    if samples.size > rate * max_seconds:
        raise _too_long(max_seconds)
    if samples.size == 0:
        raise _undecodable("it holds no samples", "send at least a few milliseconds")
    if not -_LOUDEST <= samples.min() <= samples.max() <= _LOUDEST:  # false for NaN too, which both pass on
        raise _undecodable("it holds samples that are no numbers, or far too large", "scale its samples to -1 to 1")
    if share:
        share.keep(before + samples.nbytes)
    return samples


def _decode_with_ffmpeg(ffmpeg: str, data: bytes, *, rate: int, max_seconds: int, share: Share | None) -> Samples:
    made = bytearray()
    room = 0
    rate_is_known = False

    def hear(said: bytes) -> None:
        """Refuse a rate as soon as ffmpeg tells it: resampling from one of 1 GHz takes minutes."""
        nonlocal rate_is_known
        if not rate_is_known and (found := _RATE.search(said)):
            _check_rate(int(found[1]))
            rate_is_known = True

    def add(piece: bytes) -> None:
        nonlocal room
        size = len(made) + len(piece)
        if size > _SAMPLE_BYTES * rate * (max_seconds + 1):
            raise _too_long(max_seconds)
        while share and size > room:
            share.take(_PIECE, "audio-too-long")
            room += _PIECE
        made.extend(piece)

    if share:  # reserve before ffmpeg starts, since it must not wait for memory
        share.take(_PIECE, "audio-too-long")
        room = _PIECE
    # A file on standard input, not a pipe: MP4 and M4A often keep their index at the end, and ffmpeg must seek to it.
    with children.input_of(data) as source:
        command = [
            *(ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"),
            *("-protocol_whitelist", "file", "-format_whitelist", _FORMATS, "-i", "/dev/stdin"),
            *("-map", "0:a:0", "-t", str(max_seconds + 1), "-ac", "1", "-ar", str(rate), "-f", "f32le", "pipe:1"),
        ]
        try:
            _, said = children.run(command, seconds=FFMPEG_SECONDS, stdin=source, output=add, errors=hear)
        except children.NoisyError:
            raise _undecodable("ffmpeg finds too many errors in it", "send a file that other programs play") from None
        except TimeoutError:
            raise _undecodable(f"it took more than {FFMPEG_SECONDS} s", "send shorter or simpler audio") from None
    # the exit code is not checked: it is an error for a truncated file too, whose beginning can be used
    if not made:
        errors = _ERROR.findall(said)
        reason = shown(errors[-1].decode("utf-8", "replace")) if errors else "no audio in it"
        raise _undecodable(f"ffmpeg says {reason}", "send a wav, mp3, flac, ogg, m4a, mp4 or webm file")
    return np.frombuffer(made, dtype="<f4", count=len(made) // _SAMPLE_BYTES)


def _wav_rate(data: bytes) -> int | None:
    """Read the sampling rate from the header of a WAV file of any sample format."""
    position = 12
    for _ in range(_MOST_CHUNKS):
        if position + 16 > len(data):
            break
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"fmt ":
            (rate,) = struct.unpack_from("<I", data, position + 12)
            return int(rate)
        position += 8 + size + size % 2
    return None


def _check_rate(rate: int | None) -> None:
    if rate is not None and not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise _undecodable(
            f"it has {rate} samples a second", f"send a rate from {LOWEST_RATE} to {HIGHEST_RATE}, such as 16000"
        )


def _decode_wav(data: bytes, *, rate: int, max_seconds: int, may_resample: bool, share: Share | None) -> Samples | None:
    """Decode a PCM WAV file; None if the standard library cannot read it, or `may_resample` would be needed."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, source_rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if source_rate != rate and not may_resample:
                return None
            if source_rate < 1 or channels < 1 or width not in (1, 2, 3, 4):
                return None
            count = min(file.getnframes(), len(data) // (width * channels), source_rate * (max_seconds + 1))
            if share:
                each = channels * (width + _SAMPLE_BYTES) + _SAMPLE_BYTES
                resampled = _RESAMPLING_BYTES * (count + count * rate // source_rate) if source_rate != rate else 0
                share.take(count * each + resampled, "audio-too-long")
            frames = file.readframes(count)
    except (wave.Error, EOFError, RuntimeError):
        return None
    frames = frames[: len(frames) // (width * channels) * (width * channels)]
    if width == 1:  # 8-bit WAV is unsigned, wider ones are signed little-endian
        scaled = np.frombuffer(frames, dtype=np.uint8).astype(np.float32)
        scaled -= 128
        scaled /= 128
    elif width == 3:
        padded = np.zeros((len(frames) // 3, 4), dtype=np.uint8)
        padded[:, 1:] = np.frombuffer(frames, dtype=np.uint8).reshape(-1, 3)
        scaled = padded.view("<i4").reshape(-1).astype(np.float32)
        scaled /= 2**31
    else:
        scaled = np.frombuffer(frames, dtype=f"<i{width}").astype(np.float32)
        scaled /= 2 ** (8 * width - 1)
    del frames
    mono = scaled if channels == 1 else scaled.reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return mono if source_rate == rate else resample(mono, source_rate, rate)


def resample(samples: Samples, source_rate: int, rate: int) -> Samples:
    """Resample by truncating or zero-padding the spectrum."""
    length = round(samples.size * rate / source_rate)
    if samples.size == 0 or length == 0:
        return np.zeros(0, dtype=np.float32)
    spectrum = np.fft.rfft(samples)
    return (np.fft.irfft(spectrum[: length // 2 + 1], n=length) * (length / samples.size)).astype(np.float32)


def _undecodable(problem: str, remedy: str) -> RequestError:
    return RequestError(400, "undecodable-audio", f"the audio cannot be decoded ({problem}): {remedy}")


def _too_long(max_seconds: int) -> RequestError:
    return RequestError(
        413,
        "audio-too-long",
        f"the audio is longer than {max_seconds} s: send it in parts, or raise EXTENDED_DLC_MAX_AUDIO_SECONDS",
    )
