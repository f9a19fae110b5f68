"""Whisper: what the length of a clip asks for, and several clips at once.

It hears a window of 30 s at a time, in a longer clip each next one from the time that its text has come to. In a batch
each clip has windows of its own, so that none hears the padding or the pace of another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_LONG_BATCH_SECONDS = 3600
"""About the most sound in a batch of long clips: features of 115 to 190 MB, and the time of one clip of an hour."""


def is_whisper(pipeline: Any) -> bool:
    """Whose every input is a whole window: other speech models pad, and many of them mind."""
    return bool(pipeline.type == "seq2seq_whisper")


def share_what_is_heard(model: Any) -> None:
    """Let a clip's beams share what the layers heard, which is the same for all: `generate` copies it for each token.

    That took a third of the time of one clip, and two thirds of a batch of 8 (four layers of 384, and the 5 beams that
    pipelines ask for up to 4.57). Older releases, 4.46 among them, do not ask the model, and copy.
    """
    own = getattr(model, "_reorder_cache", None)

    def reorder(cache: Any, beams: Any) -> Any:
        if own and not hasattr(cache, "self_attention_cache"):
            return own(cache, beams)
        getattr(cache, "self_attention_cache", cache).reorder_cache(beams)
        return cache

    model._reorder_cache = reorder


def windows(pipeline: Any, audio: Mapping[str, Any]) -> int:
    """How many of Whisper's windows the clip fills, the last one in part."""
    extractor = pipeline.feature_extractor
    frames, window = (samples // extractor.hop_length for samples in (len(audio["raw"]), extractor.n_samples))
    count: int = math.ceil(frames / window)
    return max(1, count)


def most_together(pipeline: Any, audio: Mapping[str, Any], size: int) -> int:
    """How many clips like this one a batch of at most `size` may have."""
    count = windows(pipeline, audio)
    return size if count == 1 else min(size, max(1, _LONG_BATCH_SECONDS // (count * _window_seconds(pipeline))))


def hears_alike(pipeline: Any, audio: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether this clip is heard as in a batch: in one window, or in windows that start at a time in the text."""
    told = {**_for_its_length(pipeline, audio, arguments), **arguments}
    return windows(pipeline, audio) == 1 or told.get("return_timestamps") is True


def transcribe(pipeline: Any, audio: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Speech of any length: Whisper takes more than its window only when told how."""
    more = _for_its_length(pipeline, audio, arguments)
    return _as_asked(pipeline(dict(audio), **more, **arguments), more)


def transcribe_together(pipeline: Any, clips: Sequence[Any], arguments: Mapping[str, Any]) -> list[Any]:
    """The same for several clips that are heard alike, in the pipeline's own steps: it cannot pad features itself."""
    import torch

    more = _for_its_length(pipeline, clips[0], arguments)
    own = (pipeline._preprocess_params, pipeline._forward_params, pipeline._postprocess_params)
    asked = pipeline._sanitize_parameters(**more, **arguments)
    prepare, hear, write = ({**defaults, **given} for defaults, given in zip(own, asked, strict=True))
    # the features are padded, not the sound, whose last frames would be others then
    heard = [one["input_features"] for clip in clips for one in pipeline.preprocess(dict(clip), **prepare)]
    frames = torch.tensor([features.shape[-1] for features in heard])
    padded = heard[0].new_zeros(len(heard), heard[0].shape[1], int(frames.max()))
    for row, features in zip(padded, heard, strict=True):
        row[:, : features.shape[-1]] = features[0]
    del heard, features  # an hour of them is large
    mask = (torch.arange(padded.shape[-1]) < frames[:, None]).long()
    made = pipeline.forward({"is_last": True, "input_features": padded, "attention_mask": mask}, **hear)
    return [_as_asked(pipeline.postprocess([{"tokens": row[None]}], **write), more) for row in made["tokens"]]


def _for_its_length(pipeline: Any, audio: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without which Whisper takes no clip of this length, unless they are given."""
    told_how = {"chunk_length_s", "return_timestamps"} & arguments.keys()
    if told_how or not is_whisper(pipeline) or windows(pipeline, audio) == 1:
        return {}
    if getattr(pipeline.model.generation_config, "no_timestamps_token_id", None) is None:
        # without timestamp tokens the model cannot find where the next window starts: overlapping chunks it is
        return {"chunk_length_s": _window_seconds(pipeline)}
    return {"return_timestamps": True}


def _as_asked(result: Any, more: Mapping[str, Any]) -> Any:
    if "return_timestamps" in more:
        result.pop("chunks", None)  # nobody asked for them
    return result


def _window_seconds(pipeline: Any) -> int:
    seconds: int = pipeline.feature_extractor.chunk_length
    return seconds
