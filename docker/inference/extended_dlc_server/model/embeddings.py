"""Text embeddings: the model's token features, pooled as its repository or the request says.

A text is truncated at the length that the model's repository sets, as in sentence-transformers. The texts of one call
are sorted by length and run in padded batches; `batching.py` tests at the start whether padding changes the vectors.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError, StartError, shown
from ..files.complete import Incomplete
from ..files.sentence_modules import MODULES, Module, Recipe, build, dimensions_of, pooled_by, read_recipe
from ..files.weights import Weights
from ..machine.ending import check
from ..machine.padding import MOST_TOGETHER, batches, tensors, worth_a_call
from ..reading.positions import text_config
from ..reading.tasks import EMBEDDING_TASKS
from .one_pass import cheapest, threads_for, truncated_at
from .similarity import similarities

log = logging.getLogger(__name__)

MOST_TEXTS = 2048
"""Maximum texts per request, as at OpenAI: with 1,000 numbers each, about the 25 MB that SageMaker passes on."""

MODEL = "model"
"""Value of `pooling` for the modules of the model's repository: its pooling and all modules after it."""

Text = str | list[int]
"""A text, or its token ids."""


@dataclass(frozen=True)
class Vectors:
    """The embeddings of one request."""

    rows: Any
    """A float32 array with one row per text."""

    tokens: int
    """Number of input tokens of all texts."""

    def tolist(self) -> list[list[float]]:
        made: list[list[float]] = self.rows.tolist()
        return made


def recipe_for(weights: Weights, task: str, incomplete: Incomplete) -> Recipe | None:
    """Return how to pool: as the repository says, by the mean if it says nothing; None for tasks without embeddings.

    Modules that this server does not support stop the start for sentence-embeddings, but not for feature-extraction.
    """
    if task not in EMBEDDING_TASKS:
        return None
    folder = weights.modules_folder
    if not (folder / MODULES).is_file():
        return pooled_by("mean")
    if task == "sentence-embeddings":
        return read_recipe(folder, weights.name, incomplete)
    try:
        return read_recipe(folder, weights.name, Incomplete(allowed=False))
    except StartError as error:
        log.info("vectors of texts are made where a request says how they are pooled: %s", error)
        return pooled_by(None)


def most_tokens(said: int | None, tokenizer: Any, positions: int, setting: int | None) -> int:
    """Return the length at which texts are truncated: the repository's, or its tokenizer's, at most `positions`.

    `setting` is what the operator asks for, which `positions` already includes.
    """
    if setting is not None:
        return positions
    usual = said or tokenizer.model_max_length
    return int(min(usual, positions))


class Embeddings:
    """Makes embeddings with the model of a pipeline."""

    def __init__(self, pipeline: Any, recipe: Recipe, task: str, most_tokens: int) -> None:
        """Texts are truncated at `most_tokens`."""
        self.pipeline, self.recipe, self.task, self.most_tokens = pipeline, recipe, task, most_tokens
        self.together = MOST_TOGETHER
        model, tokenizer = pipeline.model, pipeline.tokenizer
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
            tokenizer.pad_token = tokenizer.eos_token
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        self._options = cheapest(self._takes)
        self._weights = model.num_parameters(exclude_embeddings=True)
        self._hidden = int(getattr(text_config(model.config), "hidden_size", 0))
        if recipe.lower_case and task == "sentence-embeddings":  # feature-extraction keeps the tokenizer as it is
            _lower(tokenizer)
        self._modules = build(recipe, pipeline.device) if recipe.from_repository else []

    @property
    def usual(self) -> str | None:
        """The default pooling; None if each request must name one."""
        return MODEL if self.recipe.from_repository else self.recipe.mode

    def is_asked(self, inputs: Any, arguments: Mapping[str, Any]) -> bool:
        """Whether a request asks for one vector per text instead of one per token."""
        return self.task == "sentence-embeddings" or "pooling" in arguments or isinstance(inputs, dict)

    def check(self, arguments: dict[str, Any], inputs: Any) -> bool:
        """Return `is_asked`; 400 for invalid parameters. Replaces `prompt_name` by `prompt` in the arguments."""
        arguments.pop("encoding_format", None)
        truncate = arguments.pop("truncate", None)
        if truncate is not None:
            arguments.setdefault("truncation", truncate)
        if not self.is_asked(inputs, arguments):
            for useless in ("normalize", "dimensions", "truncation_direction"):
                if arguments.pop(useless, None):
                    raise _bad(
                        f"parameter '{useless}' is about the vector of a text, and {self.task} answers those of its "
                        "tokens: send 'pooling' too, such as \"mean\""
                    )
            return False
        texts = len(inputs["sentences"]) + 1 if isinstance(inputs, dict) else len(inputs)
        if not isinstance(inputs, str) and texts > MOST_TEXTS:
            raise RequestError(
                400,
                "bad-inputs",
                f"'inputs' has {texts} texts: send at most {MOST_TEXTS:,} at once, and the others after",
            )
        pooling = arguments.get("pooling", self.usual)
        if pooling is None:
            raise _bad(
                "the parameter 'pooling' is missing, such as \"mean\": this server does not know the model's own"
            )
        if pooling == MODEL and not self.recipe.from_repository:
            raise _bad(
                f"parameter 'pooling' ('{MODEL}') is for models of sentence-transformers: send \"mean\" or another"
            )
        if pooling != MODEL and self.recipe.from_repository and self.task == "sentence-embeddings":
            raise _bad("parameter 'pooling' is not for this model, whose repository says how its texts are pooled")
        arguments["pooling"] = pooling
        dimensions = arguments.get("dimensions")
        recipe = self._recipe(pooling)
        most = dimensions_of(recipe, self._hidden)
        if dimensions is not None and most and dimensions > most:
            raise _bad(f"parameter 'dimensions' ({dimensions}) must be at most {most}, which the model makes")
        name: str | None = arguments.pop("prompt_name", None)
        prompts = recipe.prompts
        if name is not None and name not in prompts:
            known = ", ".join(f"'{one}'" for one in sorted(prompts)) or "and it has none"
            raise _bad(f"parameter 'prompt_name' ({shown(name)}) must be one of the model's prompts: {known}")
        name = name or recipe.default_prompt
        if name is not None:
            arguments.setdefault("prompt", prompts[name])
        return True

    def __call__(self, inputs: Any, arguments: Mapping[str, Any]) -> Any:
        """Return `Vectors`, or for an object the similarities of `source_sentence` to each of `sentences`."""
        if isinstance(inputs, dict):
            vectors = self.embed([[inputs["source_sentence"], *inputs["sentences"]]], arguments)[0]
            return similarities(vectors.rows[0], vectors.rows[1:], self.recipe.similarity)
        return self.embed([inputs], arguments)[0]

    def embed(self, requests: Sequence[Any], arguments: Mapping[str, Any]) -> list[Vectors]:
        """Embed the texts of several requests with equal parameters; return one `Vectors` per request."""
        several = [[one] if isinstance(one, str) else list(one) for one in requests]
        rows, counts = self._rows([text for texts in several for text in texts], arguments)
        made, end = [], 0
        for texts in several:
            start, end = end, end + len(texts)
            made.append(Vectors(rows[start:end], sum(counts[start:end])))
        return made

    def _rows(self, texts: Sequence[Text], arguments: Mapping[str, Any]) -> tuple[Any, list[int]]:
        """Return the vector and the number of tokens of each text."""
        import numpy as np

        prompt = arguments.get("prompt") or ""
        tokens = self._tokens(texts, prompt, arguments.get("truncation_direction", ""))
        lengths = [len(one["input_ids"]) for one in tokens]
        if not min(lengths):
            raise RequestError(400, "bad-inputs", "'inputs' has a text without any token: send words")
        normalize, recipe = arguments.get("normalize"), self._recipe(arguments.get("pooling", self.usual))
        modules = self._chosen_modules(recipe, normalize)
        prompt_length = 0 if recipe.includes_prompt or not prompt else self._prompt_length(prompt)
        rows: list[Any] = [None] * len(tokens)
        with threads_for(self.pipeline, sum(lengths), self._weights):
            for chosen in batches(lengths, self.together, worth_a_call(self.pipeline.device)):
                made = self._batch([tokens[index] for index in chosen], prompt_length, modules)
                for index, row in zip(chosen, made, strict=True):
                    rows[index] = row
        vectors, kept = np.stack(rows), arguments.get("dimensions") or recipe.dimensions
        if kept is not None and kept < vectors.shape[1]:
            vectors = vectors[:, :kept]
            normalize = recipe.normalizes if normalize is None else normalize
        if normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return np.ascontiguousarray(vectors, np.float32), lengths

    def _recipe(self, pooling: str | None) -> Recipe:
        return self.recipe if pooling == MODEL else pooled_by(pooling)

    def _chosen_modules(self, recipe: Recipe, normalize: bool | None) -> list[Module]:
        """Return the modules, without a final normalization if the request sets `normalize` to false."""
        modules = self._modules if recipe.from_repository else build(recipe, self.pipeline.device)
        return modules[:-1] if normalize is False and recipe.normalizes else modules

    def _tokens(self, texts: Sequence[Text], prompt: str, side: str) -> list[dict[str, list[int]]]:
        """Tokenize the texts, truncated at `most_tokens`."""
        tokenizer = self.pipeline.tokenizer
        read: list[dict[str, list[int]]] = [
            {"input_ids": [] if isinstance(text, str) else text[: self.most_tokens]} for text in texts
        ]
        indexes = [index for index, text in enumerate(texts) if isinstance(text, str)]
        if not indexes:
            return read
        with truncated_at(tokenizer, side.lower()):
            for start in range(0, len(indexes), MOST_TOGETHER):
                check()
                chosen = indexes[start : start + MOST_TOGETHER]
                given = [f"{prompt}{texts[index]}" for index in chosen]
                made = tokenizer(given, truncation=True, max_length=self.most_tokens)
                for number, index in enumerate(chosen):
                    read[index] = {name: of[number] for name, of in made.items() if name in self._takes}
        return read

    def _prompt_length(self, prompt: str) -> int:
        """Number of tokens that a prompt takes before the text, without a final special token."""
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(prompt, truncation=True, max_length=self.most_tokens)["input_ids"]
        return len(ids) - (bool(ids) and ids[-1] in tokenizer.all_special_ids)

    def _batch(self, texts: Sequence[Mapping[str, list[int]]], prompt_length: int, modules: Sequence[Module]) -> Any:
        """Return the vectors of one batch."""
        import torch

        pipeline = self.pipeline
        made = tensors(pipeline.tokenizer, texts, pipeline.device)
        taken = {name: value for name, value in made.items() if name in self._takes}
        with pipeline.device_placement(), torch.inference_mode():
            outputs = pipeline.model(**taken, **self._options)
            features = {
                "token_embeddings": outputs[0].to(device=pipeline.device, dtype=torch.float32),
                "attention_mask": made["attention_mask"],
                "prompt_length": prompt_length,
            }
            for module in modules:
                module(features)
            return features["sentence_embedding"].cpu().numpy()


def _lower(tokenizer: Any) -> None:
    """Make a tokenizer convert texts to lower case."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        target = getattr(tokenizer, "basic_tokenizer", tokenizer)
        target.do_lower_case = True
        return
    from tokenizers import normalizers

    usual = backend.normalizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([usual] if usual is not None else [])])


def _bad(problem: str) -> RequestError:
    return RequestError(400, "bad-parameters", problem)
