"""Calls of tools that a request wants without fail: the model goes on where a call has begun, and keeps to a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..reading.openai_errors import BadFieldError
from ..writing.replies import Piece
from ..writing.tool_calls import CallForm, schemas_of


class ForcedCalls:
    """One call of a tool that is named, or of any."""

    def __init__(self, form: CallForm | None, tools: Sequence[Mapping[str, Any]], choice: Any) -> None:
        """400 for a tool that is none of those; `choice` is `required`, or names a function."""
        assert form is not None  # noqa: S101 - of models whose calls are known
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
        """What stands in front of a call."""
        self.schema = self._schema(names)
        """What is written then."""

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
    """Waits for the call to be whole."""

    def __init__(self, form: CallForm, schemas: Mapping[str, Any]) -> None:
        self._form, self._schemas, self._text = form, schemas, ""

    def feed(self, text: str) -> list[Piece]:
        """Nothing is certain before the end."""
        self._text += text
        return []

    def end(self) -> list[Piece]:
        """The call; nothing where it was cut short by `max_tokens`."""
        try:
            return list(self._form.read(self._text, self._schemas))
        except ValueError:
            return []
