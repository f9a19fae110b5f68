"""How large an answer may become: what a pipeline makes is weighed item by item, and given up where it is too much.

A small request can have a large answer: features are 40 bytes a number as Python holds them, and a list of labels for
each of thousands of images more than the images.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..machine.ending import check, made_so_far
from ..machine.memory import container_bytes
from ..settings import MEGABYTE

ANSWER_SHARE = 8
"""The part of the container's memory that one answer may take, in Python and written, is one in so many."""

_NUMBER, _PLAIN, _ENTRY, _DIGITS = 50, 14, 200, 12
"""Bytes of a number in a list, of a truth value, of an object's table, and of a number's digits as they are written."""

_MOST_LOOKED_AT = 64
"""Items of a list that are all looked at; of a longer one so many are, evenly, and stand for the others."""


def most_bytes() -> int:
    """What one answer may take."""
    return container_bytes() // ANSWER_SHARE


def weight(value: Any) -> int:
    """About how many bytes a result takes as Python's objects and as the JSON that is made of them."""
    if isinstance(value, str):
        return 50 + 2 * len(value)
    if isinstance(value, bool) or value is None:
        return _PLAIN
    if isinstance(value, (int, float)):
        return _NUMBER
    if isinstance(value, Mapping):
        return _ENTRY + sum(weight(name) + weight(item) for name, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return 60 + _weight_of_items(value if isinstance(value, (list, tuple)) else list(value))
    if hasattr(value, "numel"):  # a tensor
        return int(value.numel()) * _NUMBER  # which is written by way of a list
    if hasattr(value, "nbytes"):
        return int(value.nbytes) + int(value.size) * _DIGITS
    if hasattr(value, "getpixel"):
        return int(value.width * value.height) * 2 * len(value.getbands())
    return _ENTRY


def _weight_of_items(items: Sequence[Any]) -> int:
    if not items:
        return 0
    step = max(1, len(items) // _MOST_LOOKED_AT)
    some = items[::step]
    return sum(map(weight, some)) * len(items) // len(some)


def too_large(most: int) -> RequestError:
    """The answer to a request whose own answer would not fit."""
    return RequestError(
        413,
        "answer-too-large",
        f"the answer to this request would take more than the {most // MEGABYTE} MB that one may have here: send fewer "
        "inputs at once or shorter ones, a smaller 'top_k' or a smaller image, or choose an instance with more memory",
    )


def weigh_answers(pipeline: Any, task: str) -> None:
    """Let each item of an answer be weighed as it is made, and with it whether anybody still waits for it."""
    most = most_bytes()
    postprocess = pipeline.postprocess
    before = _BEFORE.get(task)

    def weighed(made: Any, *arguments: Any, **options: Any) -> Any:
        check()
        if before is not None:
            before(pipeline, made, most, options)
        result = postprocess(made, *arguments, **options)
        if made_so_far(weight(result)) > most:
            raise too_large(most)
        return result

    pipeline.postprocess = weighed
    if task == "fill-mask":  # which reads thousands of texts for one mask, and no layer of the model meanwhile
        pipeline.tokenizer.decode = _while_wanted(pipeline.tokenizer.decode)
    if task == "mask-generation":
        _weigh_masks(pipeline.image_processor, most)


def _while_wanted(work: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*arguments: Any, **options: Any) -> Any:
        check()
        return work(*arguments, **options)

    return checked


def _weigh_filled(pipeline: Any, made: Mapping[str, Any], most: int, options: Mapping[str, Any]) -> None:
    """Of each mask as many texts are made as tokens are asked for, each with the whole text in it."""
    ids, targets = made["input_ids"], options.get("target_ids")
    masks = int((ids == pipeline.tokenizer.mask_token_id).sum())
    tokens = options.get("top_k") or 5
    tokens = min(tokens, len(targets)) if targets is not None else tokens
    if masks * tokens * (4 * _ENTRY + 10 * int(ids.shape[-1])) > most:
        raise too_large(most)


def _weigh_segments(pipeline: Any, made: Mapping[str, Any], most: int, options: Mapping[str, Any]) -> None:
    """The scores of each class, or of each query, are made as large as the image, in numbers of four bytes."""
    config = pipeline.model.config
    layers = max(getattr(config, name, None) or 1 for name in ("num_labels", "num_queries"))
    pixels = sum(int(height) * int(width) for height, width in made.get("target_size", ()))
    if 4 * layers * pixels > most * ANSWER_SHARE // 2:
        raise too_large(most * ANSWER_SHARE // 2)


_BEFORE: Mapping[str, Callable[[Any, Mapping[str, Any], int, Mapping[str, Any]], None]] = {
    "fill-mask": _weigh_filled,
    "image-segmentation": _weigh_segments,
}


def _weigh_masks(processor: Any, most: int) -> None:
    """Masks are kept as runs until the last step, which makes an image of each."""
    module = importlib.import_module(type(processor).__module__)
    with contextlib.suppress(AttributeError):  # a name of the library's own, which may change
        unpack = module._rle_to_mask

        def weighed(runs: Mapping[str, Any]) -> Any:
            check()
            height, width = runs["size"]
            if made_so_far(int(height) * int(width) * 7) > most:  # a byte, and "false," as JSON
                raise too_large(most)
            return unpack(runs)

        if not hasattr(unpack, "weighed"):
            weighed.weighed = True  # type: ignore[attr-defined]
            module._rle_to_mask = weighed  # type: ignore[attr-defined]
