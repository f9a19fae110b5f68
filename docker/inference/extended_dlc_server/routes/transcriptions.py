"""`POST /v1/audio/transcriptions` and `/translations`, OpenAI's API: transcribes the audio file of a form.

Whisper supports all of it. Other models for speech recognition have no segments and take no prompt: they support the
response formats `json` and `text`, and timestamps of words if the model computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..answering.segments import Scorer, Segment, segments_of
from ..answering.subtitles import srt, vtt
from ..errors import RequestError, shown
from ..http.exchange import JSON
from ..http.prepared import Incoming, Prepared
from ..json_text import encode_json
from ..model.speech import is_whisper
from ..reading.attributes import parse_value
from ..reading.decoding import Decoded, parse_content_type
from ..reading.forms import parse_form
from ..reading.inputs import read_inputs
from ..reading.openai_errors import BadFieldError
from ..reading.openai_fields import MODEL_NAME, PASSED_OVER, check_field, unknown_field
from ..reading.parameter_types import Flag, Number, Text, Type

if TYPE_CHECKING:
    from ..model.model import Model

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")

_CONTENT_TYPES: Mapping[str, str] = {
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
FIELDS: Mapping[str, Type] = {
    "language": Text(40, 1),
    "model": MODEL_NAME,
    "prompt": Text(10_000),
    "temperature": Number(0, 1),
    "stream": Flag(),
}
GRANULARITIES = ("segment", "word")
_PASSED_OVER = PASSED_OVER | {"chunking_strategy"}


_FIELDS_OF_NO_OTHER = tuple(
    f'name="{name}"'.encode() for name in ("response_format", "timestamp_granularities[]", "prompt")
)


@dataclass(frozen=True, kw_only=True)
class _Ask:
    """The parsed fields of a request."""

    task: str
    form: str
    language: str | None
    prompt: str
    temperature: float
    words: bool
    segments: bool


def asks_for_a_transcript(incoming: Incoming) -> bool:
    """Whether a form, sent to any path, has a field that only this API knows."""
    if incoming.expected.task != "automatic-speech-recognition":
        return False
    media, _ = parse_content_type(incoming.content_type)
    return media == "multipart/form-data" and any(field in incoming.body for field in _FIELDS_OF_NO_OTHER)


def prepare_transcription(model: Model, incoming: Incoming) -> Prepared:
    return _prepare(model, incoming, "transcribe")


def prepare_translation(model: Model, incoming: Incoming) -> Prepared:
    return _prepare(model, incoming, "translate")


def _prepare(model: Model, incoming: Incoming, task: str) -> Prepared:
    if model.task != "automatic-speech-recognition":
        raise RequestError(
            400,
            "wrong-task",
            f"this endpoint serves {model.task}, and sounds are transcribed by a model for "
            "automatic-speech-recognition",
        )
    data, fields = _read(incoming)
    ask = _ask(fields, task)
    _check_model(model, ask)
    audio = read_inputs(data, model.expected, incoming.share)
    request = Decoded(inputs=audio, parameters=_parameters(model, ask), write=_writer(audio, ask))
    shared = model.prepare(request)
    prompt = _prompt(model, ask.prompt) if ask.prompt else None

    def answer(copy: Model) -> bytes:
        if prompt is not None and request.arguments is not None:
            before = {"prompt_ids": prompt.to(copy.pipeline.device)}
            request.arguments["generate_kwargs"] = {**request.arguments.get("generate_kwargs", {}), **before}
        return copy.answer(request)

    return Prepared(
        answer=answer,
        shared=None if ask.prompt else shared,
        content_type=_CONTENT_TYPES.get(ask.form, JSON),
        tokens=request.tokens,
        model=fields.get("model"),
        audio_seconds=round(_seconds(audio), 2),
    )


def _read(incoming: Incoming) -> tuple[bytes, dict[str, Any]]:
    """Return the content of the audio file, and the other fields."""
    media, _ = parse_content_type(incoming.content_type)
    if media != "multipart/form-data":
        raise RequestError(
            415,
            "unsupported-content-type",
            f"{incoming.path} takes multipart/form-data with a part 'file', as OpenAI's clients send it",
        )
    data: bytes | None = None
    fields: dict[str, Any] = {}
    for part in parse_form(incoming.body, incoming.content_type or ""):
        name = part.name.removesuffix("[]")
        if part.is_file or name == "file":
            if data is not None:
                raise BadFieldError("malformed-form", name, "the form has more than one file")
            data = part.data
            continue
        try:
            value = part.data.decode()
        except UnicodeDecodeError:
            raise BadFieldError("malformed-text", name, f"the field {shown(name)} is not UTF-8") from None
        if name == "timestamp_granularities":
            fields.setdefault(name, []).append(value)
        elif name in fields:
            raise BadFieldError("malformed-form", name, f"the form has more than one field {shown(name)}")
        else:
            fields[name] = value
    if not data:
        raise BadFieldError("missing-inputs", "file", "the form has no part 'file' with a sound file in it")
    return data, fields


def _ask(fields: Mapping[str, Any], task: str) -> _Ask:
    values: dict[str, Any] = {}
    for name, text in fields.items():
        if name in ("response_format", "timestamp_granularities") or name in _PASSED_OVER:
            continue
        if name not in FIELDS:
            raise unknown_field(name, ("file", "response_format", "timestamp_granularities", *FIELDS))
        rule = FIELDS[name]
        values[name] = check_field(name, text if isinstance(rule, Text) else parse_value(text), rule, sent=text)
    if values.get("stream"):
        raise BadFieldError("cannot-stream", "stream", "a transcript has no answer in parts: leave 'stream' away")
    form = fields.get("response_format") or "json"
    if form not in FORMATS:
        raise BadFieldError(
            "bad-parameters",
            "response_format",
            f"'response_format' ({shown(form)}) must be one of: {', '.join(FORMATS)}",
        )
    wanted = fields.get("timestamp_granularities", [])
    for one in wanted:
        if one not in GRANULARITIES:
            raise BadFieldError(
                "bad-parameters",
                "timestamp_granularities",
                f"'timestamp_granularities' ({shown(one)}) must be one of: {', '.join(GRANULARITIES)}",
            )
    if wanted and form != "verbose_json":
        raise BadFieldError(
            "bad-parameters",
            "timestamp_granularities",
            "'timestamp_granularities' needs 'response_format' verbose_json",
        )
    language = values.get("language")
    return _Ask(
        task=task,
        form=form,
        language=language.lower() if language else None,
        prompt=values.get("prompt", ""),
        temperature=values.get("temperature", 0.0),
        words="word" in wanted,
        segments=form in ("srt", "vtt") or (form == "verbose_json" and (not wanted or "segment" in wanted)),
    )


def _check_model(model: Model, ask: _Ask) -> None:
    """Raise an error that names the first field that the model does not support."""
    if is_whisper(model.pipeline):
        config = model.pipeline.model.generation_config
        if (ask.segments or ask.words) and getattr(config, "no_timestamps_token_id", None) is None:
            raise _cannot("response_format", "this Whisper writes no times: send 'response_format' json or text")
        if ask.words and getattr(config, "alignment_heads", None) is None:
            raise _cannot("timestamp_granularities", "this Whisper's generation_config.json has no alignment_heads")
        if ask.task == "translate" and not _is_multilingual(model):
            raise _cannot("model", "this Whisper knows English only and has nothing to translate")
        if ask.language not in (None, "en", "english") and not _is_multilingual(model):
            raise _cannot("language", "this Whisper knows English only: leave 'language' away")
        known = getattr(config, "lang_to_id", None) or {}
        if ask.language and known and f"<|{_code(ask.language)}|>" not in known:
            codes = ", ".join(sorted(name.strip("<|>") for name in known))
            raise _cannot("language", f"'language' ({shown(ask.language)}) must be one of: {codes}")
        return
    kind = model.pipeline.model.config.model_type
    if ask.task == "translate":
        raise _cannot("model", f"this endpoint's model ({kind}) does not translate: Whisper does")
    if ask.segments:
        raise _cannot(
            "response_format",
            f"this endpoint's model ({kind}) tells no segments: send 'response_format' json or text"
            + (", or verbose_json with 'timestamp_granularities[]' word" if _has_words(model) else ""),
        )
    if ask.words and not _has_words(model):
        raise _cannot("timestamp_granularities", f"this endpoint's model ({kind}) tells no times of words")
    for name, value in (("prompt", ask.prompt), ("language", ask.language), ("temperature", ask.temperature)):
        if value:
            raise _cannot(name, f"this endpoint's model ({kind}) takes no {name}: leave '{name}' away")


def _cannot(param: str, message: str) -> BadFieldError:
    return BadFieldError("bad-parameters", param, message)


def _has_words(model: Model) -> bool:
    return str(model.pipeline.type).startswith(("ctc", "tdt"))


def _is_multilingual(model: Model) -> bool:
    return bool(getattr(model.pipeline.model.generation_config, "is_multilingual", True))


def _parameters(model: Model, ask: _Ask) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if is_whisper(model.pipeline) and _is_multilingual(model):
        parameters["task"] = ask.task
        if ask.language:
            parameters["language"] = ask.language
    if ask.temperature > 0:  # 0 means the most likely text, which the model returns by default
        parameters.update(temperature=float(ask.temperature), do_sample=True)
    if ask.words and not ask.segments:
        parameters["return_timestamps"] = "word"
    elif ask.segments:
        parameters["return_timestamps"] = True
    return parameters


def _prompt(model: Model, text: str) -> Any:
    """Return the prompt's tokens; of a long prompt the last ones, at most half of the model's positions."""
    import torch

    whisper = model.pipeline.model
    positions = min(whisper.config.max_target_positions, whisper.generation_config.max_length or 448)
    try:
        tokens = model.pipeline.tokenizer.get_prompt_ids(text, return_tensors="np").tolist()
    except ValueError as error:  # the prompt holds Whisper's special tokens
        raise BadFieldError("bad-parameters", "prompt", f"'prompt' {error}") from error
    return torch.tensor([tokens[0], *tokens[1:][-(positions // 2 - 1) :]])


def _seconds(audio: Mapping[str, Any]) -> float:
    return float(audio["raw"].size / audio["sampling_rate"])


def _writer(audio: dict[str, Any], ask: _Ask) -> Callable[[Any, Any], bytes]:
    """Return a function that formats the transcript as the requested response_format."""
    seconds = _seconds(audio)

    def write(result: Any, model: Model) -> bytes:
        text = result["text"].strip()
        if ask.form == "text":
            return f"{text}\n".encode("utf-8", "replace")
        if ask.form == "json":
            return encode_json({"text": text, "usage": {"type": "duration", "seconds": round(seconds)}})
        segments = segments_of(result, seconds) if ask.segments else []
        if ask.form in ("srt", "vtt"):
            return (srt if ask.form == "srt" else vtt)(segments).encode("utf-8", "replace")
        return encode_json(_verbose(result, segments, model, audio, ask))

    return write


def _verbose(result: Any, segments: list[Segment], model: Model, audio: dict[str, Any], ask: _Ask) -> dict[str, Any]:
    """Return the response body of `verbose_json`."""
    seconds = _seconds(audio)
    language = _code(ask.language)
    if is_whisper(model.pipeline):
        language = model.run(lambda: Scorer(model.pipeline).score(audio["raw"], segments, language, ask.task))
    answer: dict[str, Any] = {
        "task": ask.task,
        "language": "english" if ask.task == "translate" else _named(language),
        "duration": seconds,
        "text": result["text"].strip(),
        "usage": {"type": "duration", "seconds": round(seconds)},
    }
    if ask.segments:
        answer["segments"] = [one.written(number, ask.temperature) for number, one in enumerate(segments)]
    if ask.words:
        if ask.segments:  # the pipeline returns either segments or words, so run it again for words
            again = Decoded(inputs=audio, parameters={**_parameters(model, ask), "return_timestamps": "word"})
            result = model.predict(again)
        answer["words"] = [
            {"word": one.text.strip(), "start": one.start, "end": one.end} for one in segments_of(result, seconds)
        ]
    return answer


def _code(language: str | None) -> str | None:
    """Return the code of a language, given its name or its code."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    return language if language is None or language in LANGUAGES else TO_LANGUAGE_CODE.get(language, language)


def _named(code: str | None) -> str:
    """Return the name of a language, as in OpenAI's responses; empty if the language is unknown."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return str(LANGUAGES.get(code or "", code or ""))
