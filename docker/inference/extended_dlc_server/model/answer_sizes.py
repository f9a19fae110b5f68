"""Limits on the size of a response: results are measured item by item, and inference stops at the limit.

A small request can have a large response: Python takes 40 bytes for each number of a feature vector, and the labels of
thousands of images can take more memory than the images.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..machine.ending import check, made_so_far
from ..machine.memory import ANSWER_SHARE, container_bytes
from ..settings import MEGABYTE

_NUMBER, _PLAIN, _ENTRY, _DIGITS = 50, 14, 200, 12
"""Estimated bytes: a number in a list, a boolean or None, a dictionary or other object, and the digits of a number."""

_MOST_LOOKED_AT = 64
"""Up to about this many items of a list are measured; a longer list is estimated from an even sample of that size."""


def most_bytes() -> int:
    return container_bytes() // ANSWER_SHARE


def weight(value: Any) -> int:
    """Estimate the bytes that a result takes as Python objects and as JSON."""
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
        return int(value.numel()) * _NUMBER  # it is converted to a list to be written as JSON
    if hasattr(value, "nbytes"):
        return weight_of_numbers(int(value.size), int(value.itemsize))
    if hasattr(value, "getpixel"):
        return int(value.width * value.height) * 2 * len(value.getbands())
    return _ENTRY


def weight_of_numbers(count: int, size: int = 4) -> int:
    """Estimate the bytes of an array of so many numbers of a size, by default float32, and of its JSON."""
    return count * (size + _DIGITS)


def _weight_of_items(items: Sequence[Any]) -> int:
    if not items:
        return 0
    step = max(1, len(items) // _MOST_LOOKED_AT)
    some = items[::step]
    return sum(map(weight, some)) * len(items) // len(some)


def too_large(most: int) -> RequestError:
    """Make the error for a request whose response would exceed `most` bytes."""
    return RequestError(
        413,
        "answer-too-large",
        f"the answer to this request would take more than the {most // MEGABYTE} MB that one may have here: send fewer "
        "inputs at once or shorter ones, a smaller 'top_k' or a smaller image, or choose an instance with more memory",
    )


def weigh_answers(pipeline: Any, task: str) -> None:
    """Wrap `postprocess`: measure each item of a result, and stop when the limit is reached or the client has gone."""
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
    if task == "fill-mask":  # it may decode thousands of texts for one mask, without a model layer that would check
        pipeline.tokenizer.decode = _while_wanted(pipeline.tokenizer.decode)
    if task == "mask-generation":
        _weigh_masks(pipeline.image_processor, most)
        _upscale_few_masks(pipeline, most * ANSWER_SHARE // 2)
    if task == "image-segmentation":
        _weigh_segment_masks(importlib.import_module(type(pipeline).__module__), most)


def _while_wanted(work: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*arguments: Any, **options: Any) -> Any:
        check()
        return work(*arguments, **options)

    return checked


def _weigh_filled(pipeline: Any, made: Mapping[str, Any], most: int, options: Mapping[str, Any]) -> None:
    """fill-mask returns `top_k` candidates for each mask, each with the whole text."""
    ids, targets = made["input_ids"], options.get("target_ids")
    masks = int((ids == pipeline.tokenizer.mask_token_id).sum())
    tokens = options.get("top_k") or 5
    tokens = min(tokens, len(targets)) if targets is not None else tokens
    if masks * tokens * (4 * _ENTRY + 10 * int(ids.shape[-1])) > most:
        raise too_large(most)


def _weigh_segments(pipeline: Any, made: Mapping[str, Any], most: int, options: Mapping[str, Any]) -> None:
    """Segmentation scales the scores of each class or query to the size of the image, as float32."""
    config = pipeline.model.config
    layers = max(getattr(config, name, None) or 1 for name in ("num_labels", "num_queries"))
    pixels = sum(int(height) * int(width) for height, width in made.get("target_size", ()))
    if 4 * layers * pixels > most * ANSWER_SHARE // 2:
        raise too_large(most * ANSWER_SHARE // 2)


def _weigh_features(pipeline: Any, made: Any, most: int, options: Mapping[str, Any]) -> None:
    """Features become nested lists, unless the request asks for the pooled ones alone."""
    features = made["pooler_output"] if options.get("pool") and "pooler_output" in made else made[0]
    if made_so_far(0) + weight(features) > most:
        raise too_large(most)


def _weigh_depth(pipeline: Any, made: Any, most: int, options: Mapping[str, Any]) -> None:
    """A depth is scaled to the size of its image, and answered as numbers and as an image."""
    height, width = made["target_size"]
    if made_so_far(0) + int(height) * int(width) * (_NUMBER + 2) > most:
        raise too_large(most)


def _weigh_image(pipeline: Any, made: Any, most: int, options: Mapping[str, Any]) -> None:
    """The image of a model that enlarges images, which a pipeline copies as floating-point numbers."""
    if "reconstruction" in made and made_so_far(0) + 2 * int(made["reconstruction"].numel()) > most:
        raise too_large(most)


_BEFORE: Mapping[str, Callable[[Any, Any, int, Mapping[str, Any]], None]] = {
    "depth-estimation": _weigh_depth,
    "feature-extraction": _weigh_features,
    "fill-mask": _weigh_filled,
    "image-feature-extraction": _weigh_features,
    "image-segmentation": _weigh_segments,
    "image-to-image": _weigh_image,
}


def _weigh_segment_masks(module: Any, most: int) -> None:
    """A mask of each segment is made, as large as the image, before the answer is complete."""
    images: Any = getattr(module, "Image", None)
    if images is None or hasattr(images, "weighed"):
        return

    class Weighed:
        """The module of images, of which a pipeline of segments uses `fromarray` alone."""

        weighed = True

        def __getattr__(self, name: str) -> Any:
            return getattr(images, name)

        def fromarray(self, array: Any, *arguments: Any, **options: Any) -> Any:
            check()
            if made_so_far(int(array.size)) > most:
                raise too_large(most)
            return images.fromarray(array, *arguments, **options)

    module.Image = Weighed()


_MASK_BYTES = 8
"""Bytes of a pixel while a mask is scaled to the size of its image and filtered: two copies in float32."""


def _upscale_few_masks(pipeline: Any, most: int) -> None:
    """Read so few points at a time that their masks, which are scaled to the size of the image, take `most` bytes."""
    preprocess = pipeline.preprocess
    config = getattr(pipeline.model.config, "mask_decoder_config", None)
    masks_of_a_point = getattr(config, "num_multimask_outputs", 3)

    def few(image: Any, points_per_batch: int | None = 64, **options: Any) -> Any:
        fitting = most // (_MASK_BYTES * masks_of_a_point * image.width * image.height)
        if fitting < 1:
            raise too_large(most)
        return preprocess(image, points_per_batch=min(points_per_batch or fitting, fitting), **options)

    pipeline.preprocess = few


def _weigh_masks(processor: Any, most: int) -> None:
    """Masks are kept run-length encoded until the last step, which expands each to the size of the image."""
    module = importlib.import_module(type(processor).__module__)
    with contextlib.suppress(AttributeError):  # a private name of transformers, which may change
        unpack = module._rle_to_mask

        def weighed(runs: Mapping[str, Any]) -> Any:
            check()
            height, width = runs["size"]
            if made_so_far(int(height) * int(width) * 7) > most:  # one byte in memory, and "false," in JSON
                raise too_large(most)
            return unpack(runs)

        if not hasattr(unpack, "weighed"):
            weighed.weighed = True  # type: ignore[attr-defined]
            module._rle_to_mask = weighed  # type: ignore[attr-defined]
