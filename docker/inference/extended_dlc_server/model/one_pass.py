"""Texts through a pipeline's tokenizer and model in one call of each.

A pipeline tokenizes, collates and labels each text by itself, which takes several times as long as a small model does.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..machine.cpu import one_thread

_SMALL = 20_000_000
"""Characters times weights below which one thread takes as long as two, which have to meet after each step.

Measured on two cores with 18,000 weights: 16 texts of 8 tokens (12 million) take 1.6 ms either way, but two threads now
and then 5 ms, where they have to share a core with the event loop; 16 texts of 16 tokens (26 million) take 8 % longer.
"""


def threads_for(pipeline: Any, characters: int, weights: int) -> contextlib.AbstractContextManager[None]:
    """One thread for what is done before two have met."""
    small = pipeline.device.type == "cpu" and characters * weights < _SMALL
    return one_thread() if small else contextlib.nullcontext()


class OnePass:
    """What the tasks have in common; a subclass makes answers of what the model returns."""

    def __init__(self, pipeline: Any) -> None:
        """Not proved yet to answer as the pipeline does."""
        self.pipeline = pipeline
        names = inspect.signature(pipeline.model.forward).parameters
        # what a pipeline tells models that could continue a text when they are only to judge it; and a tuple is enough
        self._options = {name: False for name in ("use_cache", "return_dict") if name in names}
        self._weights = pipeline.model.num_parameters(exclude_embeddings=True)

    def __call__(self, texts: Sequence[str], arguments: Mapping[str, Any]) -> list[Any]:
        """An answer for each text, as the pipeline gives it for that text alone."""
        with threads_for(self.pipeline, sum(map(len, texts)), self._weights):
            return self._answer(texts, arguments)

    def _answer(self, texts: Sequence[str], arguments: Mapping[str, Any]) -> list[Any]:
        import numpy as np
        import torch

        tokens = self.pipeline.tokenizer(list(texts), padding=len(texts) > 1)
        # of a list of lists numpy makes an array in a third of the time that torch takes
        tensors = {
            name: torch.from_numpy(np.array(rows, np.int64)).to(self.pipeline.device) for name, rows in tokens.items()
        }
        with self.pipeline.device_placement(), torch.inference_mode():
            outputs = self.pipeline.model(**tensors, **self._options)
        return self.answers(outputs[0].float().cpu().numpy(), tokens, arguments)

    def answers(self, made: Any, tokens: Any, arguments: Mapping[str, Any]) -> list[Any]:
        """What the model made, an array with a row for each text, text by text."""
        raise NotImplementedError


class Features(OnePass):
    """An array for each text, without the padding."""

    def answers(self, made: Any, tokens: Any, arguments: Mapping[str, Any]) -> list[Any]:
        """As many rows as the text has tokens."""
        left = self.pipeline.tokenizer.padding_side == "left"
        pairs = zip(made, map(sum, tokens["attention_mask"]), strict=True)
        return [rows[None, -length:] if left else rows[None, :length] for rows, length in pairs]


class Labels(OnePass):
    """The likeliest label of each text, or those that were asked for."""

    def __init__(self, pipeline: Any) -> None:
        """Looks once at what the model's configuration says: each look takes longer than a label."""
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
        """The same labels and scores, and as many lists around them."""
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
    """None where only the pipeline itself knows how: for other tasks, and for a model's own pipeline."""
    kinds = {"feature-extraction": Features, "text-classification": Labels}
    ours = task in kinds and type(pipeline).__module__.startswith("transformers.pipelines.")
    return kinds[task](pipeline) if ours else None
