"""Answers in the shapes of OpenAI's chat completions, as their clients validate them."""

from __future__ import annotations

import functools
import importlib.metadata
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..writing.generating import Generation, Likely, Row
from ..writing.replies import Content, Piece, Reasoning
from ..writing.tool_calls import Call, CallForm, call_id

DONE = b"data: [DONE]\n\n"
"""The end of a stream."""

REASONS = {"end": "stop", "stop": "stop", "length": "length"}
"""Why a sequence ended, in OpenAI's words."""

_LEAST = -9999.0
"""What stands for the logarithm of zero, which JSON lacks."""


def head(kind: str, model: str) -> dict[str, Any]:
    """What all parts of one answer have in common."""
    return {
        "id": f"{kind}-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": _fingerprint(),
    }


@functools.cache
def _fingerprint() -> str:
    """What a seed's answers depend on besides it; Hugging Face's client wants a text where OpenAI's takes null."""
    return f"transformers-{importlib.metadata.version('transformers')}"


def usage(generation: Generation, rows: Sequence[Row]) -> dict[str, int]:
    """The tokens of a request of one prompt."""
    return usage_of([generation], [rows])


def usage_of(asked: Sequence[Generation], made: Sequence[Sequence[Row]]) -> dict[str, int]:
    """The tokens of a request of several; each copy of an answer counts."""
    read = sum(one.prompt_tokens for one in asked)
    written = sum(one.copies * len(row.tokens) for one, rows in zip(asked, made, strict=True) for row in rows)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def message(pieces: Sequence[Piece], form: CallForm | None, *, most_calls: int | None) -> dict[str, Any]:
    content = "".join(piece.text for piece in pieces if isinstance(piece, Content))
    reasoning = "".join(piece.text for piece in pieces if isinstance(piece, Reasoning))
    calls = [piece for piece in pieces if isinstance(piece, Call)][:most_calls]
    made: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None, "refusal": None}
    if reasoning:
        made["reasoning_content"] = reasoning
    if calls:
        made["tool_calls"] = [call(one, form) for one in calls]
    return made


def call(one: Call, form: CallForm | None) -> dict[str, Any]:
    """A call of a tool, with an id of its own."""
    return {
        "id": call_id(form, secrets.token_hex(16)),
        "type": "function",
        "function": {"name": one.name, "arguments": one.arguments},
    }


def delta(piece: Piece, form: CallForm | None, number: int) -> dict[str, Any]:
    """What a piece adds to a message; `number` is that of a call."""
    if isinstance(piece, Call):
        return {"tool_calls": [{"index": number, **call(piece, form)}]}
    return {"reasoning_content" if isinstance(piece, Reasoning) else "content": piece.text}


def logprobs(likely: Sequence[Likely], tokenizer: Any) -> dict[str, Any]:
    """How likely tokens were, and which would have been in their places."""
    return {
        "content": [
            {
                **_token(one.token, one.logprob, tokenizer),
                "top_logprobs": [_token(token, score, tokenizer) for token, score in one.others],
            }
            for one in likely
        ],
        "refusal": None,
    }


def _token(token: int, score: float, tokenizer: Any) -> Mapping[str, Any]:
    text = token_text(token, tokenizer)
    return {"token": text, "logprob": max(score, _LEAST), "bytes": list(text.encode("utf-8", "replace"))}


def token_text(token: int, tokenizer: Any) -> str:
    """The text of one token."""
    return str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def bounded(score: float) -> float:
    """A logarithm that JSON can hold."""
    return max(score, _LEAST)
