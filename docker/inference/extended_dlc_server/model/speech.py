"""Whisper: parameters that depend on the length of a clip, and batches of clips.

Whisper processes a window of 30 s at a time; in a longer clip, each window starts at the last timestamp of the text. In
a batch each clip has its own windows, so that the padding and the position of other clips have no effect on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_LONG_BATCH_SECONDS = 3600
"""Limit on the audio in a batch of long clips: 115 to 190 MB of features, and the time of a clip of an hour."""


def is_whisper(pipeline: Any) -> bool:
    """Whether the model is a Whisper: its inputs are whole windows, while padding changes the output of many others."""
    return bool(pipeline.type == "seq2seq_whisper")


def share_what_is_heard(model: Any) -> None:
    """Let a clip's beams share the cross-attention cache, equal for all of them: `generate` copies it for each token.

    Copying took a third of the time of one clip, and two thirds of that of a batch of 8 (four layers of width 384, and
    the 5 beams that pipelines ask for up to 4.57). Older releases, such as 4.46, do not call `_reorder_cache` and copy.
    """
    original = getattr(model, "_reorder_cache", None)

    def reorder(cache: Any, beams: Any) -> Any:
        if original and not hasattr(cache, "self_attention_cache"):
            return original(cache, beams)
        getattr(cache, "self_attention_cache", cache).reorder_cache(beams)
        return cache

    model._reorder_cache = reorder


def windows(pipeline: Any, audio: Mapping[str, Any]) -> int:
    """Number of windows in the clip, including a partial last one."""
    extractor = pipeline.feature_extractor
    frames, window = (samples // extractor.hop_length for samples in (len(audio["raw"]), extractor.n_samples))
    count: int = math.ceil(frames / window)
    return max(1, count)


def most_together(pipeline: Any, audio: Mapping[str, Any], size: int) -> int:
    """Maximum batch size for clips of this length, at most `size`."""
    count = windows(pipeline, audio)
    return size if count == 1 else min(size, max(1, _LONG_BATCH_SECONDS // (count * _window_seconds(pipeline))))


def hears_alike(pipeline: Any, audio: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether a batch handles this clip as it is alone: with one window, or windows that start at a timestamp."""
    parameters = {**_for_its_length(pipeline, audio, arguments), **arguments}
    return windows(pipeline, audio) == 1 or parameters.get("return_timestamps") is True


def transcribe(pipeline: Any, audio: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Transcribe audio of any length: Whisper needs additional parameters for more than one window."""
    more = _for_its_length(pipeline, audio, arguments)
    return _as_asked(pipeline(dict(audio), **more, **arguments), more)


def transcribe_together(pipeline: Any, clips: Sequence[Any], arguments: Mapping[str, Any]) -> list[Any]:
    """Transcribe a batch by the steps of the pipeline, which cannot pad features itself."""
    import torch

    more = _for_its_length(pipeline, clips[0], arguments)
    configured = (pipeline._preprocess_params, pipeline._forward_params, pipeline._postprocess_params)
    asked = pipeline._sanitize_parameters(**more, **arguments)
    prepare, hear, write = ({**defaults, **given} for defaults, given in zip(configured, asked, strict=True))
    # pad the features, not the audio: that would change the last frames
    heard = [one["input_features"] for clip in clips for one in pipeline.preprocess(dict(clip), **prepare)]
    frames = torch.tensor([features.shape[-1] for features in heard])
    padded = heard[0].new_zeros(len(heard), heard[0].shape[1], int(frames.max()))
    for row, features in zip(padded, heard, strict=True):
        row[:, : features.shape[-1]] = features[0]
    del heard, features  # free the memory: the features of an hour are large
    mask = (torch.arange(padded.shape[-1]) < frames[:, None]).long()
    made = pipeline.forward({"is_last": True, "input_features": padded, "attention_mask": mask}, **hear)
    return [_as_asked(pipeline.postprocess([{"tokens": row[None]}], **write), more) for row in made["tokens"]]


def _for_its_length(pipeline: Any, audio: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that Whisper needs for a clip of this length, unless the request has them."""
    told_how = {"chunk_length_s", "return_timestamps"} & arguments.keys()
    if told_how or not is_whisper(pipeline) or windows(pipeline, audio) == 1:
        return {}
    if getattr(pipeline.model.generation_config, "no_timestamps_token_id", None) is None:
        # without timestamp tokens the model cannot tell where the next window starts: use overlapping chunks
        return {"chunk_length_s": _window_seconds(pipeline)}
    return {"return_timestamps": True}


def _as_asked(result: Any, more: Mapping[str, Any]) -> Any:
    if "return_timestamps" in more:
        result.pop("chunks", None)  # the request did not ask for timestamps
    return result


def _window_seconds(pipeline: Any) -> int:
    seconds: int = pipeline.feature_extractor.chunk_length
    return seconds
