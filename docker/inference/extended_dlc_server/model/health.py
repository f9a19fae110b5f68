"""Whether the model still answers its warm-up request as it did at the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..writing.comparing import same, tolerance_of


class Health:
    """The answer to the warm-up request, to be compared with later answers."""

    def __init__(self, ask: Callable[[], Any], pipeline: Any) -> None:
        """Run the request twice: if the two answers differ, later ones are compared by form only."""
        self._ask, self._model = ask, pipeline.model
        self._first = ask()
        self._by_form = not same(self._first, ask(), tolerance_of(self._model))

    def why_not(self) -> str:
        """Return how the model's answer has changed, or an empty string."""
        try:
            answer = self._ask()
        except Exception as error:
            return f"it fails on the request that it answered at the start ({type(error).__name__})"
        if self._by_form:
            alike = _form(answer) == _form(self._first)
        else:
            alike = same(self._first, answer, tolerance_of(self._model))
        return "" if alike else "it answers the request that it was asked at the start differently"


def _form(value: Any) -> Any:
    """Return the keys and types of a value."""
    if isinstance(value, dict):
        return {key: _form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_form(value[0])] if value else []
    return type(value).__name__
