"""Constrained decoding by a JSON schema or a regular expression, with llguidance if the image has it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Collection
from typing import Any

from ..errors import RequestError, TakesLongError, shown_text
from .grammar_check import is_known, problem_of
from .openai_errors import BadFieldError

_SPACE = r"[ \n\t]{0,40}"
"""White space between the parts of JSON: enough for any indentation, but limited, so that an answer comes to an end."""

_LONGEST = 1_000_000
"""Most characters of a grammar."""

_MOST_TOKENIZERS = 4
"""Most forms of a tokenizer to cache: a model has one."""


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
        """400 for a schema that is invalid or has features that llguidance does not support.

        Raises `TakesLongError` for a new one, which another process compiles first.
        """
        require(field)
        matcher = importlib.import_module("llguidance").LLMatcher
        try:
            if is_regex:
                self._grammar = matcher.grammar_from_regex(schema)
            else:
                self._grammar = matcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": _SPACE})
        except (TypeError, ValueError) as error:
            raise _bad(field, shown_text(error)) from None
        if len(self._grammar) > _LONGEST:
            raise _bad(field, f"it has more than {_LONGEST:,} characters")
        if not is_known(self._grammar):
            raise TakesLongError(functools.partial(problem_of, self._grammar))
        problem = problem_of(self._grammar)
        if problem:
            raise _bad(field, " ".join(problem.split())[:300])
        self._matcher: Any = None

    def matcher(self, tokenizer: Any) -> Any:
        """Return a new matcher for llguidance's form of a tokenizer; only the first one compiles the grammar."""
        if self._matcher is None:
            self._matcher = importlib.import_module("llguidance").LLMatcher(tokenizer, self._grammar, log_level=0)
        return self._matcher.deep_copy()

    def processor(self, tokenizer: Any, ends: Collection[int], after: str) -> Any:
        """Make a logits processor that only allows the grammar's tokens; with a mark, from the text after it on.

        `ends` are the tokens that end a text, which are allowed where the grammar may end.
        """
        from transformers import LogitsProcessor

        grammar = self

        class Allowed(LogitsProcessor):  # type: ignore[misc] # no types
            """For one call of `generate`."""

            def __init__(self) -> None:
                self._rows: list[_Row] = []

            def __call__(self, input_ids: Any, scores: Any) -> Any:
                import numpy as np
                import torch

                if not self._rows:
                    known = _tokenizer_of(tokenizer, scores.shape[-1], ends)
                    rows = range(input_ids.shape[0])
                    self._rows = [_Row(grammar.matcher(known), tokenizer, after, ends) for _ in rows]
                else:
                    for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
                        row.add(token)
                allowed = np.stack([row.allowed(scores.shape[-1]) for row in self._rows])
                return scores.masked_fill(torch.from_numpy(allowed == 0).to(scores.device), float("-inf"))

        return Allowed()


class _Row:
    """The state of one sequence."""

    def __init__(self, matcher: Any, tokenizer: Any, after: str, ends: Collection[int]) -> None:
        self._matcher, self._tokenizer, self._after = matcher, tokenizer, after
        self._ends, self._is_over = list(ends), False
        self._waits: list[int] | None = [] if after else None

    def add(self, token: int) -> None:
        if token in self._ends:
            self._is_over = True
        elif self._waits is not None:
            self._waits.append(token)
            text = self._tokenizer.decode(self._waits[-len(self._after) - 1 :], skip_special_tokens=False)
            if self._after in text:
                self._waits = None
        elif not self._matcher.is_stopped():
            self._matcher.consume_token(token)

    def allowed(self, size: int) -> Any:
        """Return 1 for each allowed token id and 0 for the others."""
        import numpy as np

        if self._waits is not None or self._is_over:
            return np.ones(size, np.uint8)
        if self._matcher.is_error():
            raise _bad("response_format", " ".join(self._matcher.get_error().split())[:300])
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = np.pad(bits, (0, max(0, size - bits.size)))[:size]
        eos = self._tokenizer.eos_token_id
        if self._ends and eos is not None and eos < size:
            allowed[eos] = 0
        allowed[[end for end in self._ends if end < size]] = self._matcher.is_accepting()
        return allowed


def _tokenizer_of(tokenizer: Any, size: int, ends: Collection[int]) -> Any:
    """Make llguidance's form of a tokenizer, which takes a second, and cache it on the tokenizer.

    It knows the tokenizer's own EOS token: the tokens at which a request ends its text are added for each row.
    """
    from_tokenizer = importlib.import_module("llguidance.hf").from_tokenizer
    made: dict[Any, Any] = tokenizer.__dict__.setdefault("_of_llguidance", {})
    eos = tokenizer.eos_token_id
    end = eos if eos is not None else min(ends, default=None)
    key = (size, end)
    if key not in made:
        while len(made) >= _MOST_TOKENIZERS:
            del made[next(iter(made))]
        try:
            made[key] = from_tokenizer(tokenizer, n_vocab=max(size, len(tokenizer)), eos_token=end)
        except ValueError as error:
            raise _bad("response_format", f"of this model's tokenizer: {shown_text(error)}") from None
    return made[key]


def _bad(field: str, problem: str) -> RequestError:
    return BadFieldError("bad-parameters", field, f"'{field}' cannot be kept to ({problem}): send a simpler schema")
