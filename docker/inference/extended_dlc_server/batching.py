"""Which requests may run as one batch, and the same answer for each as if it had run alone.

Nothing waits for a batch to fill: what has queued while the model was busy runs together next.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

# Task -> parameters that mean the same for a padded batch as for one text. Others count positions or repeated tokens
# with the padding in it (max_length, repetition_penalty), or end all of a batch together (max_time).
_PARAMETERS: Mapping[str, frozenset[str]] = {
    "feature-extraction": frozenset(),
    "fill-mask": frozenset({"top_k"}),
    "text-classification": frozenset({"function_to_apply", "top_k"}),
    "text-generation": frozenset(
        {
            *("do_sample", "max_new_tokens", "min_new_tokens", "min_p", "num_return_sequences", "return_full_text"),
            *("temperature", "top_k", "top_p", "typical_p"),
        }
    ),
    "token-classification": frozenset({"aggregation_strategy"}),
}

# The same for what a model's own generation_config.json may ask of every request: name -> values that ask for nothing.
_NO_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "bad_words_ids": (None,),
    "exponential_decay_length_penalty": (None,),
    "forced_bos_token_id": (None,),
    "max_time": (None,),
    "min_length": (None, 0),
    "no_repeat_ngram_size": (None, 0),
    "num_beams": (None, 1),
    "penalty_alpha": (None, 0),
    "prompt_lookup_num_tokens": (None,),
    "repetition_penalty": (None, 1, 1.0),
    "sequence_bias": (None,),
    "stop_strings": (None,),
}

_SHORT = 32
"""Characters below which all texts count as equally long."""


class Batching:
    """How the loaded pipeline takes several inputs at once, once it is proved to answer as for each alone."""

    def __init__(self, pipeline: Any, task: str, size: int) -> None:
        """Off until `prove` has been called; `size` is the most inputs of a batch."""
        self._pipeline, self._task = pipeline, task
        self.size = size if task in _PARAMETERS else 1
        if task == "text-generation" and self.size > 1:
            _pad_for_generation(pipeline.tokenizer)

    def prove(self) -> None:
        """Compare two texts alone with the same two together: not every model minds its padding."""
        if self.size == 1:
            return
        mask = f" {self._pipeline.tokenizer.mask_token}" if self._task == "fill-mask" else ""
        texts = [f"warm up{mask}", f"warm up with a text that is longer than the other{mask}"]
        answers = self._likely_next if self._task == "text-generation" else self._results
        try:
            alone = [answer for text in texts for answer in answers([text])]
            same = _same(alone, answers(texts))
        except Exception as error:
            log.info("requests run one by one: this model takes no batch (%s: %s)", type(error).__name__, error)
            same = False
        else:
            if not same:
                log.info("requests run one by one: in a batch this model answers differently")
        if not same:
            self.size = 1

    def key(self, inputs: Any, arguments: Mapping[str, Any]) -> str | None:
        """Equal for requests that may run together; None for one that runs alone."""
        chat = self._task == "text-generation" and isinstance(inputs, list) and isinstance(inputs[0], dict)
        if self.size == 1 or not (isinstance(inputs, str) or chat) or arguments.keys() - _PARAMETERS[self._task]:
            return None
        if self._task == "text-generation" and not self._generates_alike(arguments):
            return None
        length = len(inputs) if isinstance(inputs, str) else len(json.dumps(inputs))
        # texts within a factor of two (of four where the prompt is the smaller part of the work): padding is work too
        bucket = max(length, _SHORT).bit_length() // (2 if self._task == "text-generation" else 1)
        return json.dumps([chat, bucket, arguments], sort_keys=True)

    def call(self, inputs: Sequence[Any], arguments: Mapping[str, Any]) -> list[Any]:
        """The pipeline's results, each as the pipeline returns it for one input."""
        results = self._pipeline(list(inputs), batch_size=len(inputs), **arguments)
        if self._task == "feature-extraction":
            return [self._without_padding(result, text) for result, text in zip(results, inputs, strict=True)]
        if self._task == "text-classification":
            return [[result] if isinstance(result, dict) else result for result in results]
        return list(results)

    def _results(self, texts: list[str]) -> list[Any]:
        return self.call(texts, {}) if len(texts) > 1 else [self._pipeline(texts[0])]

    def _likely_next(self, texts: list[str]) -> list[Any]:
        """How likely each token comes next: equal texts would hide a difference."""
        tokenizer, model = self._pipeline.tokenizer, self._pipeline.model
        tokens = tokenizer(texts, return_tensors="pt", padding=len(texts) > 1).to(model.device)
        made = model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            max_new_tokens=1,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        likely: list[Any] = made.scores[0].float().softmax(-1).tolist()
        return likely

    def _generates_alike(self, arguments: Mapping[str, Any]) -> bool:
        config = getattr(self._pipeline, "generation_config", None) or self._pipeline.model.generation_config
        if "max_new_tokens" not in arguments and getattr(config, "max_new_tokens", None) is None:
            return False  # the default is a length with the prompt in it
        return all(getattr(config, name, None) in none for name, none in _NO_EFFECT.items())

    def _without_padding(self, result: list[Any], text: str) -> list[Any]:
        tokenizer = self._pipeline.tokenizer
        length = len(tokenizer(text)["input_ids"])
        (rows,) = result
        return [rows[-length:] if tokenizer.padding_side == "left" else rows[:length]]


def _pad_for_generation(tokenizer: Any) -> None:
    """On the left, where a continuation cannot see it; with the end token where a model has no other."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token


def _same(one: Any, other: Any) -> bool:
    """Equal but for what sums in another order differ by, in half precision too."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if hasattr(one, "item") and hasattr(other, "item"):  # numpy's numbers
        one, other = one.item(), other.item()
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=0.02, abs_tol=0.02)
    return bool(one == other)
