"""Forced tool calls (`tool_choice`): the prompt ends with the start of a call; a JSON schema constrains the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..reading.openai_errors import BadFieldError
from ..writing.replies import Piece
from ..writing.tool_calls import CallForm, schemas_of


class ForcedCalls:
    """One forced call, of a named tool or of any tool."""

    def __init__(self, form: CallForm | None, tools: Sequence[Mapping[str, Any]], choice: Any) -> None:
        """`choice` is `required` or names a function; raises 400 for a function that is not in `tools`."""
        assert form is not None  # noqa: S101 - only models whose format of calls is known get here
        self._form, self._schemas = form, schemas_of(tools)
        names = list(self._schemas)
        if isinstance(choice, dict):
            name = choice.get("function", {}).get("name")
            if name not in self._schemas:
                raise BadFieldError(
                    "bad-parameters", "tool_choice", f"'tool_choice' must name one of the tools: {', '.join(names)}"
                )
            names = [name]
        self.prefix = f"{form.opens}\n" if form.closes else form.opens
        """The start of a call, which is appended to the prompt."""
        self.schema = self._schema(names)
        """The JSON schema of the text that the model generates after it."""

    def _schema(self, names: Sequence[str]) -> dict[str, Any]:
        one = {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "name": {"const": name},
                        self._form.arguments: {"type": "object", **self._schemas[name]},
                    },
                    "required": ["name", self._form.arguments],
                    "additionalProperties": False,
                }
                for name in names
            ]
        }
        return {"type": "array", "items": one, "minItems": 1, "maxItems": 1} if self._form.wrapped else one

    def reply(self) -> _Reply:
        return _Reply(self._form, self._schemas)


class _Reply:
    """Collects the generated text of a call."""

    def __init__(self, form: CallForm, schemas: Mapping[str, Any]) -> None:
        self._form, self._schemas, self._text = form, schemas, ""

    def feed(self, text: str) -> list[Piece]:
        """Add text; return no pieces, because a call can be parsed only when it is complete."""
        self._text += text
        return []

    def end(self) -> list[Piece]:
        """Return the call; none if `max_tokens` cut it short."""
        try:
            return list(self._form.read(self._text, self._schemas))
        except ValueError:
            return []
