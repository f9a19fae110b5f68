"""Segments of a transcript as subtitles, SubRip (.srt) and WebVTT (.vtt), in the same format as OpenAI's Whisper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Timed(Protocol):
    """A part of a transcript."""

    start: float
    end: float
    text: str


def srt(segments: Iterable[Timed]) -> str:
    """Write SubRip: numbered from 1, with a comma before the milliseconds."""
    blocks = []
    for number, segment in enumerate(segments, 1):
        start, end = (_time(at, ",", hours=True) for at in (segment.start, segment.end))
        blocks.append(f"{number}\n{start} --> {end}\n{_line(segment.text)}\n\n")
    return "".join(blocks)


def vtt(segments: Iterable[Timed]) -> str:
    """Write WebVTT: with a header, and a point before the milliseconds."""
    blocks = ["WEBVTT\n\n"]
    for segment in segments:
        start, end = (_time(at, ".", hours=False) for at in (segment.start, segment.end))
        blocks.append(f"{start} --> {end}\n{_line(segment.text)}\n\n")
    return "".join(blocks)


def _line(text: str) -> str:
    """Put a text on one line, without the arrow that would make it a timing line."""
    return " ".join(text.split()).replace("-->", "->")


def _time(seconds: float, mark: str, *, hours: bool) -> str:
    milliseconds = round(max(0.0, seconds) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    above, minutes = divmod(minutes, 60)
    front = f"{above:02d}:" if hours or above else ""
    return f"{front}{minutes:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"
