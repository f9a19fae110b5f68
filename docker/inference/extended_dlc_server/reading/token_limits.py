"""How many tokens a model reads and writes: its positions, its configuration and the settings decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RequestError
from ..settings import Settings
from .positions import positions_of

UNKNOWN_POSITIONS = 8192
"""Maximum input tokens of a model whose configuration does not say its number of positions."""

_WRITES = ("any-to-any", "image-text-to-text", "image-to-text", "text-generation")
"""Tasks whose new tokens follow the prompt, in a model that is not an encoder-decoder."""


class TokenLimits:
    """The limits on the tokens of a prompt, on new tokens, and on both together."""

    def __init__(self, pipeline: Any, task: str, settings: Settings) -> None:
        """Read the limits from the model's embeddings, its configuration and the settings."""
        model = pipeline.model
        both = bool(getattr(model.config, "is_encoder_decoder", False))
        table, named = positions_of(model, "encoder" if both else "")
        known = min([number for number in (table, named) if number], default=UNKNOWN_POSITIONS)
        asked = settings.max_input_tokens
        self.input_tokens = known if asked is None else min(asked, table or asked)
        written = [number for number in positions_of(model, "decoder") if number] if both else []
        self.new_tokens = min([settings.max_new_tokens, *written])
        self.all_tokens = self.new_tokens if both else self.input_tokens + self.new_tokens
        """Maximum of `max_length`, which includes the prompt for a decoder-only model."""
        self.positions = None if both else table or (known if named else None)
        """Positions for prompt and new tokens together, for a model that is not an encoder-decoder."""
        self.continues = task in _WRITES and not both and getattr(pipeline, "tokenizer", None) is not None
        """Whether new tokens follow the prompt."""
        self._in_a_group = task != "text-generation"
        self._default_new, self._default_length = _default_new_tokens(pipeline) if self.continues else (None, 0)
        """Default number of new tokens, or of prompt and new tokens together."""

    def new_tokens_after(self, tokens: int, asked: int | None) -> int:
        """Return the maximum of new tokens after a prompt: `asked`, or as many as fit. 400 if there is no room."""
        left = self.new_tokens if self.positions is None else min(self.new_tokens, self.positions - tokens)
        if left < (asked or 1):
            raise RequestError(
                400,
                "inputs-too-long",
                f"the prompt has {tokens} tokens and the answer may have {asked or 1}, and the model has "
                f"{self.positions} positions for both: send less, or a smaller 'max_tokens'",
            )
        return asked or left

    def fit_together(self, tokens: int, new: int) -> bool:
        """Whether the model has positions for a prompt and its new tokens."""
        return self.positions is None or tokens + new <= self.positions

    def surely_fits(self, most: int, arguments: Mapping[str, Any]) -> bool:
        """Whether a prompt of at most `most` tokens fits with all new tokens, so that it need not be counted."""
        if not self.continues or self.positions is None:
            return True
        asked = arguments.get("max_new_tokens") or arguments.get("generate_kwargs", {}).get("max_new_tokens")
        return "max_length" not in arguments and most + (asked or self._default_new_tokens(0)) <= self.positions

    def check_continuation(self, tokens: int, arguments: dict[str, Any]) -> None:
        """400 if the positions do not suffice for prompt and new tokens; a default number of new tokens is reduced."""
        given = {**arguments, **arguments.get("generate_kwargs", {})}
        asked = given.get("max_new_tokens")
        if asked is None and "max_length" not in given:
            if self._reduce_default(tokens, arguments):
                return
            asked = 1
        total = given.get("max_length", 0) if asked is None else tokens + asked
        if self.positions is not None and total > self.positions:
            raise RequestError(
                400,
                "inputs-too-long",
                f"'inputs' has {tokens} tokens and the answer may have {asked or total - tokens}, and the model has "
                f"{self.positions} positions for both: send a shorter text, or a smaller 'max_new_tokens'",
            )
        if total - tokens > self.new_tokens:
            raise RequestError(
                400,
                "bad-parameters",
                f"'max_length' ({total}) asks for more than the {self.new_tokens} new tokens that a request may have: "
                "send a smaller one, or raise EXTENDED_DLC_MAX_NEW_TOKENS",
            )

    def _reduce_default(self, tokens: int, arguments: dict[str, Any]) -> bool:
        """Set `max_new_tokens` if the default number has no positions; return whether a new token has one."""
        default = self._default_new_tokens(tokens)
        left = default if self.positions is None else min(default, self.positions - tokens)
        left = min(left, self.new_tokens)
        if 1 <= left < default:
            target = arguments.setdefault("generate_kwargs", {}) if self._in_a_group else arguments
            target["max_new_tokens"] = left
        return left >= 1

    def _default_new_tokens(self, tokens: int) -> int:
        """Return the default number of new tokens, by the pipeline or the model's configuration."""
        return self._default_new or max(1, self._default_length - tokens)


def _default_new_tokens(pipeline: Any) -> tuple[int | None, int]:
    """Return the default `max_new_tokens` if the configuration has one, and the default `max_length`."""
    model = pipeline.model.generation_config
    config = getattr(pipeline, "generation_config", None) or model
    length = int(getattr(config, "max_length", None) or 20)
    if getattr(config, "max_new_tokens", None):
        return int(config.max_new_tokens), length
    # newer releases have pipeline defaults for a model whose generation_config.json sets neither
    defaults = getattr(pipeline, "_generation_defaults", {})
    if "max_new_tokens" in defaults and "max_length" not in model.to_diff_dict():
        return int(defaults["max_new_tokens"]), length
    return None, length
