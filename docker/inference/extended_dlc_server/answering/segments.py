"""The segments of a transcript for OpenAI's `verbose_json`, with Whisper's confidence in each.

`pipeline()` returns only times and texts. For the rest, the model runs again: each window of 30 s is encoded, and the
tokens of its segments are scored in one forward pass of the decoder, whether beam search or sampling has found them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FRAMES = 100
"""Frames per second of Whisper's spectrogram, the unit of `seek`."""


@dataclass
class Segment:
    """A part of a transcript with start and end times."""

    start: float
    end: float
    text: str
    seek: int = 0
    """First frame of the window with this segment."""

    tokens: list[int] = field(default_factory=list)
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0

    @property
    def compression_ratio(self) -> float:
        """The ratio by which zlib compresses the text; it is high for a text that repeats itself."""
        data = self.text.encode("utf-8", "replace")
        return len(data) / len(zlib.compress(data)) if data else 0.0

    def written(self, number: int, temperature: float) -> dict[str, Any]:
        """Return the segment in OpenAI's format."""
        return {
            "id": number,
            "seek": self.seek,
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "tokens": self.tokens,
            "temperature": temperature,
            "avg_logprob": self.avg_logprob,
            "compression_ratio": self.compression_ratio,
            "no_speech_prob": self.no_speech_prob,
        }


def segments_of(result: Mapping[str, Any], seconds: float) -> list[Segment]:
    """Return the segments with text of a pipeline's result; missing times and times after the end are corrected."""
    found: list[Segment] = []
    for chunk in result.get("chunks", ()):
        start, end = chunk["timestamp"]
        start = min(found[-1].end if start is None and found else start or 0.0, seconds)
        if not chunk["text"].strip():
            continue
        found.append(Segment(start, max(start, min(seconds if end is None else end, seconds)), chunk["text"]))
    return found


class Scorer:
    """Scores the segments of a transcript with a Whisper model."""

    def __init__(self, pipeline: Any) -> None:
        """Look up the special tokens for the prompt of the decoder."""
        self._model, self._tokenizer = pipeline.model, pipeline.tokenizer
        self._extractor, self._device = pipeline.feature_extractor, pipeline.device
        config = self._model.generation_config
        self._start = int(config.decoder_start_token_id or self._model.config.decoder_start_token_id)
        self._languages: Mapping[str, int] = getattr(config, "lang_to_id", None) or {}
        self._tasks: Mapping[str, int] = getattr(config, "task_to_id", None) or {}
        unspoken = getattr(config, "no_timestamps_token_id", None)
        self._first_time = None if unspoken is None else int(unspoken) + 1
        known = self._tokenizer.convert_tokens_to_ids(["<|nospeech|>", "<|nocaptions|>"])
        unknown = self._tokenizer.unk_token_id
        self._silence = next((token for token in known if token is not None and token != unknown), None)
        self._window = self._extractor.chunk_length
        self._step = self._window / self._model.config.max_source_positions
        self._positions = self._model.config.max_target_positions

    def score(self, audio: Any, segments: Sequence[Segment], language: str | None, task: str) -> str | None:
        """Set the scores of the segments; return the language code, detected in the first window if it is not given."""
        heard: int | None = None
        if language is not None:
            heard = self._languages.get(f"<|{language}|>")
        for start, together in _windows(segments, self._window):
            heard = self._score_window(audio, start, together, heard, task)
        if heard is None and self._languages:  # there are no segments
            heard = self._score_window(audio, 0.0, [], heard, task)
        return next((name.strip("<|>") for name, token in self._languages.items() if token == heard), language)

    def _score_window(
        self, audio: Any, start: float, segments: Sequence[Segment], language: int | None, task: str
    ) -> int | None:
        import torch

        rate = self._extractor.sampling_rate
        samples = audio[int(start * rate) : int((start + self._window) * rate)]
        features = self._extractor(samples, sampling_rate=rate, return_tensors="pt").input_features
        with torch.inference_mode():
            encoded = self._model.get_encoder()(features.to(self._device, self._model.dtype))
            first = self._logits(encoded, [self._start])[0]
            if language is None and self._languages:
                tokens = list(self._languages.values())
                language = tokens[int(first[tokens].argmax())]
            silence = 0.0 if self._silence is None else float(first.softmax(-1)[self._silence])
            asked = [
                self._start,
                *([language, self._tasks[task]] if language is not None and task in self._tasks else []),
            ]
            said = [self._tokens(segment, start) for segment in segments]
            tokens = [*asked, *(token for one in said for token in one)][: self._positions]
            scores = self._logits(encoded, tokens).log_softmax(-1) if segments else None
        position = len(asked)
        for segment, tokens_of_it in zip(segments, said, strict=True):
            positions = range(position, min(position + len(tokens_of_it), len(tokens)))
            likely = [float(scores[index - 1, tokens[index]]) for index in positions] if scores is not None else []
            segment.tokens, segment.seek, segment.no_speech_prob = tokens_of_it, int(start * FRAMES), silence
            segment.avg_logprob = sum(likely) / len(likely) if likely else 0.0
            position += len(tokens_of_it)
        return language

    def _logits(self, encoded: Any, tokens: list[int]) -> Any:
        """Return the logits after each of the tokens."""
        import torch

        ids = torch.tensor([tokens], device=self._device)
        made = self._model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False)
        return made.logits[0].float().cpu()

    def _tokens(self, segment: Segment, start: float) -> list[int]:
        """Return the tokens of a segment: its text between timestamp tokens."""
        text: list[int] = self._tokenizer(segment.text, add_special_tokens=False)["input_ids"]
        if self._first_time is None:
            return text
        begin, end = (
            self._first_time + min(max(0, round((at - start) / self._step)), self._model.config.max_source_positions)
            for at in (segment.start, segment.end)
        )
        return [begin, *text, end]


def _windows(segments: Sequence[Segment], seconds: float) -> Iterator[tuple[float, list[Segment]]]:
    """Yield the start of each window, with its segments."""
    together: list[Segment] = []
    start = 0.0
    for segment in segments:
        if segment.end - start > seconds:
            if together:
                yield start, together
            together, start = [], segment.start
        together.append(segment)
    if together:
        yield start, together
