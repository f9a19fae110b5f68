"""Replaces the pipeline for some text tasks: one call of the tokenizer and one of the model for all texts.

A pipeline tokenizes, collates and postprocesses text by text, which takes several times as long as a small model.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from ..machine.cpu import one_thread
from ..machine.ending import made_so_far
from ..reading.positions import text_config
from .answer_sizes import most_bytes, too_large, weight_of_numbers

_SMALL = 20_000_000
"""Characters times weights below which one thread is as fast as two, which must synchronize after each step.

Measured on two cores with 18,000 weights: 16 texts of 8 tokens (12 million) take 1.6 ms either way, but two threads
sometimes 5 ms, when they share a core with the event loop; 16 texts of 16 tokens (26 million) take 8 % longer.
"""


def threads_for(pipeline: Any, characters: int, weights: int) -> contextlib.AbstractContextManager[None]:
    """Use one thread for work that is too small for synchronization to pay off."""
    small = pipeline.device.type == "cpu" and characters * weights < _SMALL
    return one_thread() if small else contextlib.nullcontext()


def cheapest(takes: Container[str]) -> dict[str, bool]:
    """Return the options of a forward pass that takes these names: no cache, as the pipeline has classifiers on
    decoders do, and a tuple, which costs less than an object.
    """
    return {name: False for name in ("use_cache", "return_dict") if name in takes}


@contextlib.contextmanager
def truncated_at(tokenizer: Any, side: str) -> Iterator[None]:
    """Have the tokenizer cut texts at this side; without one, at its own."""
    usual = tokenizer.truncation_side
    tokenizer.truncation_side = side or usual
    try:
        yield
    finally:
        tokenizer.truncation_side = usual


class OnePass:
    """The part that the tasks share; a subclass converts the model's output to results."""

    def __init__(self, pipeline: Any) -> None:
        """Its results must still be compared with the pipeline's (`Batching.prove`)."""
        self.pipeline = pipeline
        self._options = cheapest(inspect.signature(pipeline.model.forward).parameters)
        self._weights = pipeline.model.num_parameters(exclude_embeddings=True)

    def __call__(self, texts: Sequence[str], arguments: Mapping[str, Any]) -> list[Any]:
        """Return for each text the result that the pipeline gives for that text alone."""
        with threads_for(self.pipeline, sum(map(len, texts)), self._weights):
            return self._answer(texts, arguments)

    def _answer(self, texts: Sequence[str], arguments: Mapping[str, Any]) -> list[Any]:
        import numpy as np
        import torch

        tokens = self.pipeline.tokenizer(list(texts), padding=len(texts) > 1)
        self.weigh(tokens)
        # numpy converts a list of lists in a third of the time that torch takes
        tensors = {
            name: torch.from_numpy(np.array(rows, np.int64)).to(self.pipeline.device) for name, rows in tokens.items()
        }
        with self.pipeline.device_placement(), torch.inference_mode():
            outputs = self.pipeline.model(**tensors, **self._options)
        return self.answers(outputs[0].float().cpu().numpy(), tokens, arguments)

    def weigh(self, tokens: Any) -> None:
        """413 for texts whose answer would be too large, before the model is called."""

    def answers(self, made: Any, tokens: Any, arguments: Mapping[str, Any]) -> list[Any]:
        """Convert the model's output, an array with a row for each text, to a result for each text."""
        raise NotImplementedError


class Features(OnePass):
    """Token features: an array for each text, without the padding."""

    def weigh(self, tokens: Any) -> None:
        """Count the numbers of all tokens, with those of the padding."""
        size = getattr(text_config(self.pipeline.model.config), "hidden_size", None) or 0
        numbers = sum(map(len, tokens["input_ids"])) * size
        if made_so_far(weight_of_numbers(numbers)) > most_bytes():
            raise too_large(most_bytes())

    def answers(self, made: Any, tokens: Any, arguments: Mapping[str, Any]) -> list[Any]:
        """Cut off the padding rows."""
        left = self.pipeline.tokenizer.padding_side == "left"
        pairs = zip(made, map(sum, tokens["attention_mask"]), strict=True)
        return [rows[None, -length:] if left else rows[None, :length] for rows, length in pairs]


class Labels(OnePass):
    """Text classification: the most likely label of each text, or the `top_k` labels."""

    def __init__(self, pipeline: Any) -> None:
        """Read the model's configuration once: each access takes longer than computing a label."""
        super().__init__(pipeline)
        from transformers.pipelines import text_classification

        self._functions = text_classification.ClassificationFunction
        self._sigmoid, self._softmax = text_classification.sigmoid, text_classification.softmax
        config = pipeline.model.config
        self._names, kind = config.id2label, config.problem_type
        if kind == "regression":
            self._usual = self._functions.NONE
        elif kind == "multi_label_classification" or config.num_labels == 1:
            self._usual = self._functions.SIGMOID
        else:
            self._usual = self._functions.SOFTMAX

    def answers(self, made: Any, tokens: Any, arguments: Mapping[str, Any]) -> list[Any]:
        """Return the pipeline's labels and scores, in the same nested lists."""
        _, _, options = self.pipeline._sanitize_parameters(**arguments)
        function, scores = options.get("function_to_apply", self._usual), made
        if function == self._functions.SIGMOID:
            scores = self._sigmoid(made)
        elif function == self._functions.SOFTMAX:
            scores = self._softmax(made)
        most = options.get("top_k", 1)
        likeliest_only = most == 1 and "top_k" not in arguments
        return [self._likeliest(row) if likeliest_only else self._ranked(row, most) for row in scores.tolist()]

    def _likeliest(self, scores: list[float]) -> list[dict[str, Any]]:
        score = max(scores)
        return [{"label": self._names[scores.index(score)], "score": score}]

    def _ranked(self, scores: list[float], most: int | None) -> list[dict[str, Any]]:
        ranking = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:most]
        return [{"label": self._names[index], "score": scores[index]} for index in ranking]


def one_pass(pipeline: Any, task: str) -> OnePass | None:
    """Return None where only the pipeline can do it: for other tasks, and for a pipeline class of the model's own."""
    kinds = {"feature-extraction": Features, "text-classification": Labels}
    ours = task in kinds and type(pipeline).__module__.startswith("transformers.pipelines.")
    return kinds[task](pipeline) if ours else None
