"""`POST /v1/audio/speech`, OpenAI's API: synthesizes a text into an audio file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..answering.sound_files import CONTENT_TYPES, formats, write_sound
from ..errors import RequestError, shown
from ..http.prepared import Incoming, Prepared
from ..reading.decoding import Decoded
from ..reading.openai_errors import BadFieldError
from ..reading.openai_fields import MODEL_NAME, PASSED_OVER, check_field, object_of, unknown_field
from ..reading.parameter_table import VOICE_OF_BARK
from ..reading.parameter_types import Choice, Number, Text, Type

if TYPE_CHECKING:
    from ..model.model import Model

VOICES = frozenset(
    {
        *("alloy", "ash", "ballad", "cedar", "coral", "default", "echo", "fable", "marin", "nova", "onyx", "sage"),
        *("shimmer", "verse"),
    }
)
"""OpenAI's voices, one of which its clients must name: each selects the model's default voice."""

FIELDS: Mapping[str, Type] = {
    "input": Text(100_000, 1),
    "model": MODEL_NAME,
    "voice": Text(60, 1),
    "response_format": Choice(tuple(CONTENT_TYPES)),
    "speed": Number(0.25, 4),
    "stream_format": Choice(("audio",)),
}


def prepare_speech(model: Model, incoming: Incoming) -> Prepared:
    if model.task != "text-to-audio":
        raise RequestError(
            400, "wrong-task", f"this endpoint serves {model.task}, and texts are spoken by a model for text-to-audio"
        )
    fields = _read(object_of(incoming))
    if fields.get("speed", 1) != 1:
        raise BadFieldError(
            "bad-parameters", "speed", "this model speaks at its own speed: leave 'speed' away, or send 1"
        )
    form = fields.get("response_format", "mp3")
    if form not in formats():
        raise BadFieldError(
            "bad-parameters",
            "response_format",
            f"'response_format' ({shown(form)}) cannot be written in this image, whose ffmpeg has no such encoder: "
            f"send one of: {', '.join(formats())}",
        )
    request = Decoded(inputs=fields["input"], parameters=_voice(model, fields.get("voice")), write=_writer(form))
    shared = model.prepare(request)
    return Prepared(
        answer=lambda copy: copy.answer(request),
        shared=shared,
        content_type=CONTENT_TYPES[form],
        tokens=request.tokens,
        model=fields.get("model"),
    )


def _read(document: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in document.items():
        if name in PASSED_OVER or value is None:
            continue
        if name not in FIELDS:
            raise unknown_field(name, FIELDS)
        given = value.get("id") if name == "voice" and isinstance(value, dict) else value
        fields[name] = check_field(name, given, FIELDS[name], sent=value)
    if "input" not in fields:
        raise BadFieldError("bad-inputs", "input", "'input' is missing: send the text that is to be spoken")
    return fields


def _voice(model: Model, voice: str | None) -> dict[str, Any]:
    """Return the pipeline's arguments for a voice; none for OpenAI's names, which mean the model's default."""
    if voice is None or voice in VOICES:
        return {}
    config = model.pipeline.model.config
    if config.model_type == "bark":
        with contextlib.suppress(ValueError):
            return {"preprocess_params": {"voice_preset": VOICE_OF_BARK.check(voice)}}
    speakers = int(getattr(config, "num_speakers", 1) or 1)
    if speakers > 1 and voice.isdecimal() and int(voice) < speakers:
        return {"forward_params": {"speaker_id": int(voice)}}
    others = f", or a number from 0 to {speakers - 1}" if speakers > 1 else ""
    others += ", or one of Bark's such as 'v2/en_speaker_1'" if config.model_type == "bark" else ""
    raise BadFieldError(
        "bad-parameters",
        "voice",
        f"'voice' ({shown(voice)}) is none of this model's: send 'default' or one of OpenAI's names for "
        f"its own{others}",
    )


def _writer(form: str) -> Callable[[Any, Any], bytes]:
    def write(result: Any, model: Any) -> bytes:
        made = result[0] if isinstance(result, list) else result
        return write_sound(made["audio"], int(made["sampling_rate"] or model.pipeline.sampling_rate), form)

    return write
