"""Limits on the images of a prompt: their number of tokens, and their size after the processor has resized them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import RequestError

TASKS = ("any-to-any", "decision", "image-text-to-text")
"""Tasks whose images become tokens of the prompt."""

MOST_IMAGES = 256
"""Maximum number of images in a prompt: processors make some megabytes of each, even of a small one."""

MOST_PIXELS_READ = 2048 * 2048
"""Maximum pixels of an image after a resize that the request sets: the largest square that a request may ask for. A
pixel takes 12 bytes, a float32 for each color, and processors hold it twice."""

_FIXED = ("image_seq_length", "image_seq_len", "num_image_tokens", "num_query_tokens")
"""Attributes of processors with the number of tokens per image, if it is constant."""


def images_in(value: Any) -> Iterator[Any]:
    """Yield each decoded image, at any depth."""
    if hasattr(value, "getpixel"):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from images_in(part)


def tokens_of_images(processor: Any, images: list[Any]) -> int:
    """Return the number of image tokens, if the processor tells it; else one per image, as a lower bound."""
    if not images:
        return 0
    if len(images) > MOST_IMAGES:
        raise RequestError(
            400,
            "inputs-too-long",
            f"'inputs' has {len(images)} images in one prompt, and at most {MOST_IMAGES} may be: send fewer",
        )
    # a private method of newer releases, made for servers, which may change: fall back if it is missing or fails
    with contextlib.suppress(Exception):
        sizes = [[image.height, image.width] for image in images]
        return sum(map(int, processor._get_num_multimodal_tokens(image_sizes=sizes).num_image_tokens))
    for part in (processor, getattr(processor, "image_processor", None)):
        for name in _FIXED:
            number = getattr(part, name, None)
            if isinstance(number, int) and number > 0:
                return number * len(images)
    return len(images)


def lengths_of_prompts(model_inputs: Mapping[str, Any]) -> list[int]:
    """Return the number of tokens of each prompt after the processor, which works for every model."""
    prompts = [inputs for inputs, _ in model_inputs.get("prompts", ())]  # task decision
    found = [inputs.get("input_ids") for inputs in (model_inputs, *prompts)]
    return [int(ids.shape[-1]) for ids in found if ids is not None]


def check_resizing(inputs: Any, options: Mapping[str, Any], processor: Any) -> None:
    """413 for an image that is too large after the resize options of the request."""
    if not options.keys() & {"do_resize", "size"}:
        return
    default = getattr(processor, "size", None)
    size = options.get("size") or dict(default if isinstance(default, Mapping) else getattr(default, "__dict__", {}))
    for image in images_in(inputs):
        if _pixels_read(image, size, resized=options.get("do_resize", True)) > MOST_PIXELS_READ:
            raise RequestError(
                413,
                "image-too-large",
                f"an image of {image.width} x {image.height} pixels would be read with more than "
                f"{MOST_PIXELS_READ // 1_000_000} million of them: leave 'do_resize' and 'size' out, name a "
                "'longest_edge' in 'size', or send a smaller image",
            )


def _pixels_read(image: Any, size: Mapping[str, Any], *, resized: bool) -> int:
    pixels: int = image.width * image.height
    if not resized:
        return pixels
    if size.get("height") and size.get("width"):
        return int(size["height"]) * int(size["width"])
    shorter, longer = min(image.size), max(image.size)
    side, most = size.get("shortest_edge"), size.get("longest_edge")
    if side is None:
        return pixels if most is None else int(most * most * shorter / longer)
    length = side * longer / shorter
    return int(side * length) if most is None or length <= most else int(most * most * shorter / longer)
