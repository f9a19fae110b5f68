"""A second protection behind `decoding.py`: patches transformers' loaders so that they open no file or URL.

These loaders treat strings as paths and URLs. Requests are decoded before a pipeline gets them, so a string that
reaches a loader is one that `decoding.py` should have rejected.
"""

from __future__ import annotations

import functools
import importlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

from ..errors import RequestError, shown
from ..machine import children
from ..settings import DAY
from .audio import decode_audio

TESSERACT_SECONDS = 60
"""Time limit of tesseract for one page."""

_FUNCTIONS = {
    "transformers.image_utils": ("load_image", "load_images", "load_image_as_tensor"),
    "transformers.audio_utils": (
        *("load_audio", "load_audio_as", "load_audio_librosa", "load_audio_torchcodec", "_fetch_audio_bytes"),
    ),
    "transformers.video_utils": ("load_video",),
}
"""Module -> functions whose first argument is the source to load. A release may lack some of them."""

_METHODS = {
    "transformers.image_processing_base": ("ImageProcessingMixin", "fetch_images"),
    "transformers.pipelines.automatic_speech_recognition": ("AutomaticSpeechRecognitionPipeline", "preprocess"),
    "transformers.pipelines.audio_classification": ("AudioClassificationPipeline", "preprocess"),
    "transformers.pipelines.video_classification": ("VideoClassificationPipeline", "preprocess"),
    "transformers.pipelines.zero_shot_audio_classification": ("ZeroShotAudioClassificationPipeline", "preprocess"),
}
"""Module -> class and method that opens or fetches its argument without one of the functions above."""

_GIVEN = ("image", "images", "audio", "video", "url", "inputs", "image_url_or_urls")
"""Names of that first argument, if it is passed by keyword."""


def refuse_strings() -> None:
    """Patch the loaders once per process, under all names by which transformers' modules have imported them."""
    for module_name, names in _FUNCTIONS.items():
        module = _module(module_name)
        for name in names:
            _replace(module, name, _guarded)
    for module_name, (class_name, name) in _METHODS.items():
        owner = getattr(_module(module_name), class_name, None)
        method = getattr(owner, name, None)
        if method is not None and not hasattr(method, "guards"):
            setattr(owner, name, _guarded(method, skip=1))
    _replace(_module("transformers.pipelines.audio_utils"), "ffmpeg_read", _our_ffmpeg)
    limit_tesseract()


def limit_tesseract() -> None:
    """Patch pytesseract, if it is imported: transformers has done so by now for models that use it."""
    _replace(sys.modules.get("pytesseract.pytesseract"), "run_tesseract", _our_tesseract)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:  # the release lacks the module or its dependencies, so nothing can call it
        return None


def _replace(module: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Replace a function in its module, and in all modules of the package and of model code that have imported it.

    The user's code keeps the function that it has imported.
    """
    original = getattr(module, name, None)
    if original is None or hasattr(original, "guards"):
        return
    guard = wrap(original)
    for holder_name, holder in list(sys.modules.items()):
        if holder_name.partition(".")[0] not in (module.__name__.partition(".")[0], "transformers_modules"):
            continue
        names = vars(holder)
        for alias in [alias for alias, value in list(names.items()) if value is original]:
            names[alias] = guard


def _guarded(function: Callable[..., Any], skip: int = 0) -> Callable[..., Any]:
    """Wrap a function to reject strings and paths; `skip` is 1 for a method."""

    @functools.wraps(function)
    def guard(*arguments: Any, **options: Any) -> Any:
        for value in (*arguments[skip : skip + 1], *(options.get(name) for name in _GIVEN)):
            _refuse_strings_in(value)
        return function(*arguments, **options)

    guard.guards = function  # type: ignore[attr-defined]
    return guard


def _refuse_strings_in(value: Any) -> None:
    if isinstance(value, (str, os.PathLike)):
        raise RequestError(
            400, "bad-inputs", "a string stands where an image, sound or video is meant: URLs and paths are not opened"
        )
    if isinstance(value, (list, tuple)):
        for item in value:
            _refuse_strings_in(item)


def _our_ffmpeg(original: Any) -> Callable[..., Any]:
    """Replace `ffmpeg_read`, for audio bytes from user code, by our decoder: no playlists, at most a day of audio."""

    @functools.wraps(original)
    def ffmpeg_read(bpayload: bytes, sampling_rate: int) -> Any:
        return decode_audio(bpayload, rate=sampling_rate, max_seconds=DAY)

    ffmpeg_read.guards = original  # type: ignore[attr-defined]
    return ffmpeg_read


def _our_tesseract(original: Any) -> Callable[..., None]:
    """Replace `run_tesseract` to run the program with the limits of a child process."""

    @functools.wraps(original)
    def run_tesseract(
        input_filename: str,
        output_filename_base: str,
        extension: str,
        lang: str | None = None,
        config: str = "",
        nice: int = 0,
        timeout: float = 0,
    ) -> None:
        pytesseract = sys.modules["pytesseract.pytesseract"]
        formats = [name for name in extension.split() if name not in {"box", "osd", "tsv", "xml"}]
        language = () if lang is None else ("-l", lang)
        program = shutil.which(pytesseract.tesseract_cmd)
        if program is None:
            raise pytesseract.TesseractNotFoundError
        command = [program, input_filename, output_filename_base, *language, *shlex.split(config), *formats]
        try:
            code, said = children.run(command, seconds=TESSERACT_SECONDS, output=lambda _: None)
        except TimeoutError:
            raise RequestError(
                400, "undecodable-image", f"reading the image took more than {TESSERACT_SECONDS} s: scale it down"
            ) from None
        if code and lang is not None and b"loading language" in said:
            raise RequestError(
                400,
                "bad-parameters",
                f"tesseract has none of the languages {shown(lang)} in this image: leave 'lang' out, or install them",
            )
        if code:
            raise pytesseract.TesseractError(code, said.decode("utf-8", "replace"))

    run_tesseract.guards = original  # type: ignore[attr-defined]
    return run_tesseract
