"""Counts the tokens of a request in `generate`, since they cannot be derived from the text."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Run = tuple[list[int], list[int]]
"""Numbers of tokens of each prompt, and of each generated sequence."""


@dataclass
class Tokens:
    """Token counts of one request; None if unknown."""

    prompt: int | None = None
    generated: int | None = None


class TokenCounter:
    """Counts tokens in the `generate` of a decoder-only model."""

    def __init__(self, model: Any) -> None:
        """Wrap `model.generate`, with the same signature."""
        self._runs: list[Run] | None = None
        generate = getattr(model, "generate", None)
        if generate is None or getattr(model.config, "is_encoder_decoder", False):
            return

        @functools.wraps(generate)
        def counted(*arguments: Any, **options: Any) -> Any:
            made = generate(*arguments, **options)
            if self._runs is not None and options.get("input_ids") is not None:
                self._runs.append(_lengths(model, options, getattr(made, "sequences", made)))
            return made

        model.generate = counted

    @contextmanager
    def count(self, requests: list[Tokens]) -> Iterator[None]:
        """Set the counts of the requests that run inside the context: one, or a batch in this order."""
        runs: list[Run] = []
        self._runs = runs
        try:
            yield
        finally:
            self._runs = None
        prompts = [length for run, _ in runs for length in run]
        generated = [length for _, run in runs for length in run]
        if len(requests) == 1 and prompts:
            requests[0].prompt, requests[0].generated = sum(prompts), sum(generated)
        elif requests and len(prompts) == len(requests):
            each = len(generated) // len(requests)
            for index, tokens in enumerate(requests):
                tokens.prompt = prompts[index]
                tokens.generated = sum(generated[index * each : (index + 1) * each])


def _lengths(model: Any, options: dict[str, Any], sequences: Any) -> Run:
    """Count the tokens of each prompt without padding, and of each generated sequence up to its end."""
    prompts, mask = options["input_ids"], options.get("attention_mask")
    read = [prompts.shape[1]] * prompts.shape[0] if mask is None else mask.sum(1).tolist()
    config = options.get("generation_config") or model.generation_config
    ends = options.get("eos_token_id", config.eos_token_id)
    ends = set(ends if isinstance(ends, (list, tuple)) else [ends])
    padding = options.get("pad_token_id", config.pad_token_id)
    written = []
    for row in sequences[:, prompts.shape[1] :].tolist():
        length = next((index + 1 for index, token in enumerate(row) if token in ends), len(row))
        while padding not in ends and length and row[length - 1] == padding:
            length -= 1
        written.append(length)
    return read, written
