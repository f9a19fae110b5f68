"""How well texts answer a query, by a cross-encoder: a model that reads both together and has one label.

The score is what sentence-transformers makes of it: the activation that the model's configuration names, a sigmoid
where it names none. A pair that is too long is cut at the longer of the two, as that package does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StartError, panics_are_errors
from ..files.sentence_modules import activation_named, config_of, transformer_config
from ..files.weights import Weights
from ..machine.padding import MOST_TOGETHER, Tokens, batches, tensors, worth_a_call
from .one_pass import threads_for

_SIGMOID = "torch.nn.modules.activation.Sigmoid"


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What a repository says of a cross-encoder's scores."""

    activation: str = _SIGMOID
    """Makes a score of what the model says of its one label."""

    prompt: str = ""
    """Stands in front of each query."""

    max_tokens: int | None = None
    """Tokens after which a pair is cut. Default: what the tokenizer says."""


def scoring_for(weights: Weights, task: str, config: Mapping[str, Any]) -> Scoring | None:
    """Of `config.json` and the files of sentence-transformers beside it; None for what scores no texts for a query."""
    labels = config.get("num_labels") or len(config.get("id2label") or ("", ""))
    if task != "text-classification" or labels != 1:
        return None
    beside, own = config_of(weights.modules_folder), config.get("sentence_transformers") or {}
    named = (
        own.get("activation_fn") or config.get("sbert_ce_default_activation_function") or beside.get("activation_fn")
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
        """`explained` makes of an error the one that its sender is told."""
        self.pipeline, self.scoring, self.most_tokens, self._explained = pipeline, scoring, most_tokens, explained
        self.together = MOST_TOGETHER
        self._takes = frozenset(inspect.signature(pipeline.model.forward).parameters)
        self._options = {name: False for name in ("use_cache", "return_dict") if name in self._takes}
        self._weights = pipeline.model.num_parameters(exclude_embeddings=True)
        self._activation = activation_named(scoring.activation)

    def scores(self, query: str, texts: Sequence[str], *, raw: bool, side: str) -> tuple[list[float], int]:
        """A score for each text, before the activation where they are to be raw; and how many tokens were read."""
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
        """What the model reads of each pair."""
        tokenizer = self.pipeline.tokenizer
        usual = tokenizer.truncation_side
        read: list[Tokens] = []
        tokenizer.truncation_side = side or usual
        try:
            for start in range(0, len(texts), MOST_TOGETHER):
                part = list(texts[start : start + MOST_TOGETHER])
                made = tokenizer([query] * len(part), part, truncation=True, max_length=self.most_tokens)
                names = [name for name in made if name in self._takes]
                read += [{name: made[name][index] for name in names} for index in range(len(part))]
        finally:
            tokenizer.truncation_side = usual
        return read

    def _batch(self, pairs: Sequence[Tokens]) -> Any:
        import torch

        pipeline = self.pipeline
        made = tensors(pipeline.tokenizer, pairs, pipeline.device)
        taken = {name: value for name, value in made.items() if name in self._takes}
        with pipeline.device_placement(), torch.inference_mode():
            return pipeline.model(**taken, **self._options)[0][:, 0].float().cpu()
