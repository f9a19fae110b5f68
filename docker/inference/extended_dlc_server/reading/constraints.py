"""Constrained decoding by a JSON schema or a regular expression, with llguidance if the image has it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Sequence
from typing import Any

from ..errors import RequestError, shown_text
from .openai_errors import BadFieldError

_SPACE = r"[ \n\t]{0,40}"
"""White space between the parts of JSON: enough for any indentation, but limited, so that an answer comes to an end."""


def require(field: str) -> None:
    """400 if the image lacks llguidance."""
    if importlib.util.find_spec("llguidance") is None:
        raise BadFieldError(
            "bad-parameters",
            field,
            f"'{field}' needs the Python package llguidance, by which an answer keeps to a schema, and this image has "
            "none: name llguidance in code/requirements.txt of the model, or ask for JSON in a message",
        )


class Grammar:
    """A grammar from a JSON schema or a regular expression."""

    def __init__(self, schema: Any, field: str, *, is_regex: bool = False) -> None:
        """400 for a schema that is invalid or has features that llguidance does not support."""
        require(field)
        matcher = importlib.import_module("llguidance").LLMatcher
        try:
            if is_regex:
                self._grammar = matcher.grammar_from_regex(schema)
            else:
                self._grammar = matcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": _SPACE})
        except (TypeError, ValueError) as error:
            raise _bad(field, shown_text(error)) from None
        problem = matcher.validate_grammar(self._grammar)
        if problem:
            raise _bad(field, " ".join(problem.split())[:300])

    def processor(self, tokenizer: Any, ends: Collection[int], after: str) -> Any:
        """Make a logits processor that only allows the grammar's tokens; with a mark, from the text after it on."""
        from transformers import LogitsProcessor

        grammar = self._grammar

        class Allowed(LogitsProcessor):  # type: ignore[misc] # no types
            """For one call of `generate`."""

            def __init__(self) -> None:
                self._rows: list[_Row] = []

            def __call__(self, input_ids: Any, scores: Any) -> Any:
                import numpy as np
                import torch

                if not self._rows:
                    known = _tokenizer_of(tokenizer, scores.shape[-1], tuple(sorted(ends)))
                    self._rows = [_Row(known, grammar, tokenizer, after) for _ in range(input_ids.shape[0])]
                else:
                    for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
                        row.add(token)
                allowed = np.stack([row.allowed(scores.shape[-1]) for row in self._rows])
                return scores.masked_fill(torch.from_numpy(allowed == 0).to(scores.device), float("-inf"))

        return Allowed()


class _Row:
    """The state of one sequence."""

    def __init__(self, known: Any, grammar: str, tokenizer: Any, after: str) -> None:
        self._matcher = importlib.import_module("llguidance").LLMatcher(known, grammar, log_level=0)
        self._tokenizer, self._after = tokenizer, after
        self._waits: list[int] | None = [] if after else None

    def add(self, token: int) -> None:
        if self._waits is not None:
            self._waits.append(token)
            text = self._tokenizer.decode(self._waits[-len(self._after) - 1 :], skip_special_tokens=False)
            if self._after in text:
                self._waits = None
        elif not self._matcher.is_stopped():
            self._matcher.consume_token(token)

    def allowed(self, size: int) -> Any:
        """Return 1 for each allowed token id and 0 for the others."""
        import numpy as np

        if self._waits is not None:
            return np.ones(size, np.uint8)
        if self._matcher.is_error():
            raise _bad("response_format", " ".join(self._matcher.get_error().split())[:300])
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        return np.pad(bits, (0, max(0, size - bits.size)))[:size]


def _tokenizer_of(tokenizer: Any, size: int, ends: Sequence[int]) -> Any:
    """Make llguidance's form of a tokenizer, which takes a second, and cache it on the tokenizer."""
    from_tokenizer = importlib.import_module("llguidance.hf").from_tokenizer
    made: dict[Any, Any] = tokenizer.__dict__.setdefault("_of_llguidance", {})
    key = (size, tuple(ends))
    if key not in made:
        try:
            made[key] = from_tokenizer(tokenizer, n_vocab=max(size, len(tokenizer)), eos_token=list(ends))
        except ValueError as error:
            raise _bad("response_format", f"of this model's tokenizer: {shown_text(error)}") from None
    return made[key]


def _bad(field: str, problem: str) -> RequestError:
    return BadFieldError("bad-parameters", field, f"'{field}' cannot be kept to ({problem}): send a simpler schema")
