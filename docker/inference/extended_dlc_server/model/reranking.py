"""Reranking: scores of texts for a query by a cross-encoder, a model that reads both together and has one label.

Scores are those of sentence-transformers: they use the activation that the model's configuration names, or a sigmoid.
A pair that is too long is truncated in the longer of the two texts, as in that package.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StartError, panics_are_errors
from ..files.sentence_modules import activation_named, config_of, transformer_config
from ..files.weights import Weights
from ..machine.ending import check
from ..machine.padding import MOST_TOGETHER, Tokens, batches, tensors, worth_a_call
from .one_pass import cheapest, threads_for, truncated_at

_SIGMOID = "torch.nn.modules.activation.Sigmoid"


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """The settings of a cross-encoder, from its repository."""

    activation: str = _SIGMOID
    """Class of the activation that converts the logit to a score."""

    prompt: str = ""
    """Text to put before each query."""

    max_tokens: int | None = None
    """Length at which a pair is truncated. Default: the tokenizer's."""


def scoring_for(weights: Weights, task: str, config: Mapping[str, Any]) -> Scoring | None:
    """Read `config.json` and the files of sentence-transformers beside it; None if the model is no cross-encoder."""
    labels = config.get("num_labels") or len(config.get("id2label") or ("", ""))
    if task != "text-classification" or labels != 1:
        return None
    beside, settings = config_of(weights.modules_folder), config.get("sentence_transformers") or {}
    named = (
        settings.get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
        or beside.get("activation_fn")
    )
    prompt = (beside.get("prompts") or {}).get(beside.get("default_prompt_name") or "") or ""
    length = transformer_config(weights.modules_folder).get("max_seq_length")
    scoring = Scoring(activation=named or _SIGMOID, prompt=prompt, max_tokens=length)
    try:
        activation_named(scoring.activation)
    except ValueError as error:
        raise StartError(f"{weights.name} makes its scores by the activation {error}") from error
    return scoring


class Reranker:
    """Scores texts with the model of a pipeline."""

    def __init__(
        self, pipeline: Any, scoring: Scoring, most_tokens: int, explained: Callable[[Exception], Exception]
    ) -> None:
        """`explained` converts an error to the one that the client gets."""
        self.pipeline, self.scoring, self.most_tokens, self._explained = pipeline, scoring, most_tokens, explained
        self.together = MOST_TOGETHER
        self._takes = frozenset(inspect.signature(pipeline.model.forward).parameters)
        self._options = cheapest(self._takes)
        self._weights = pipeline.model.num_parameters(exclude_embeddings=True)
        self._activation = activation_named(scoring.activation)

    def scores(self, query: str, texts: Sequence[str], *, raw: bool, side: str) -> tuple[list[float], int]:
        """Return the score of each text, with `raw` before the activation, and the number of input tokens."""
        try:
            with panics_are_errors():
                return self._scores(f"{self.scoring.prompt}{query}", texts, raw, side)
        except Exception as error:
            raise self._explained(error) from error

    def _scores(self, query: str, texts: Sequence[str], raw: bool, side: str) -> tuple[list[float], int]:
        import torch

        pairs = self._tokens(query, texts, side)
        lengths = [len(one["input_ids"]) for one in pairs]
        logits = torch.zeros(len(pairs))
        with threads_for(self.pipeline, sum(lengths), self._weights):
            for chosen in batches(lengths, self.together, worth_a_call(self.pipeline.device)):
                logits[chosen] = self._batch([pairs[index] for index in chosen])
        made = logits if raw else self._activation(logits)
        scores: list[float] = made.tolist()
        return scores, sum(lengths)

    def _tokens(self, query: str, texts: Sequence[str], side: str) -> list[Tokens]:
        """Tokenize each pair of query and text."""
        tokenizer = self.pipeline.tokenizer
        read: list[Tokens] = []
        with truncated_at(tokenizer, side):
            for start in range(0, len(texts), MOST_TOGETHER):
                check()
                part = list(texts[start : start + MOST_TOGETHER])
                made = tokenizer([query] * len(part), part, truncation=True, max_length=self.most_tokens)
                names = [name for name in made if name in self._takes]
                read += [{name: made[name][index] for name in names} for index in range(len(part))]
        return read

    def _batch(self, pairs: Sequence[Tokens]) -> Any:
        import torch

        pipeline = self.pipeline
        made = tensors(pipeline.tokenizer, pairs, pipeline.device)
        taken = {name: value for name, value in made.items() if name in self._takes}
        with pipeline.device_placement(), torch.inference_mode():
            return pipeline.model(**taken, **self._options)[0][:, 0].float().cpu()
