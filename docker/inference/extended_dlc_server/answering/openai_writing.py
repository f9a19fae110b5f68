"""Responses in the format of OpenAI's completions, as their clients validate them."""

from __future__ import annotations

import functools
import importlib.metadata
import secrets
import time
from collections.abc import Sequence
from typing import Any

from ..errors import RequestError
from ..json_text import Encoded
from ..machine.memory import ANSWER_SHARE, container_bytes
from ..settings import MEGABYTE
from ..writing.generating import Generation, Likely, Row
from ..writing.replies import Content, Piece, Reasoning
from ..writing.streaming import LastEvent
from ..writing.tool_calls import Call, CallForm, call_id

DONE = LastEvent(b"data: [DONE]\n\n")
"""The last event of a stream."""

REASONS = {"end": "stop", "stop": "stop", "length": "length"}
"""Our reasons for the end of a sequence -> OpenAI's `finish_reason`."""

_BYTES_OF_A_NUMBER = 600
"""About the bytes of a log probability: its token with text and bytes, as Python objects and as JSON."""

_LEAST = -9999.0
"""Replaces minus infinity, the logarithm of zero, which JSON cannot represent."""


def head(kind: str, model: str) -> dict[str, Any]:
    """Return the fields that all events of a response share."""
    return {
        "id": f"{kind}-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": _fingerprint(),
    }


@functools.cache
def _fingerprint() -> str:
    """Return the transformers release, on which seeded answers depend; Hugging Face's client does not accept null."""
    return f"transformers-{importlib.metadata.version('transformers')}"


def usage(generation: Generation, rows: Sequence[Row]) -> dict[str, int]:
    """Return the `usage` of a request with one prompt."""
    return usage_of([generation], [rows])


def usage_of(asked: Sequence[Generation], made: Sequence[Sequence[Row]]) -> dict[str, int]:
    """Return the `usage` of a request with several prompts; each copy of an answer counts."""
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
    """Return a tool call with a new id."""
    return {
        "id": call_id(form, secrets.token_hex(16)),
        "type": "function",
        "function": {"name": one.name, "arguments": one.arguments},
    }


def delta(piece: Piece, form: CallForm | None, number: int) -> dict[str, Any]:
    """Return the `delta` for a piece; `number` is the index of a tool call."""
    if isinstance(piece, Call):
        return {"tool_calls": [{"index": number, **call(piece, form)}]}
    return {"reasoning_content" if isinstance(piece, Reasoning) else "content": piece.text}


def check_likelihoods(made: Sequence[Sequence[Row]]) -> None:
    """413 for log probabilities that would take too much memory to be written."""
    numbers = sum((1 + (row.asked.likely or 0)) * len(row.likely) for rows in made for row in rows)
    most = container_bytes() // ANSWER_SHARE
    if numbers * _BYTES_OF_A_NUMBER > most:
        raise RequestError(
            413,
            "answer-too-large",
            f"the {numbers:,} log probabilities of this answer take more than the {most // MEGABYTE} MB that one may "
            "have here: ask for fewer of them at each token, for fewer answers or for fewer tokens",
        )


def logprobs(likely: Sequence[Likely], tokenizer: Any) -> dict[str, Any]:
    """Return the `logprobs` of tokens, with the top tokens of each position.

    Each position is encoded at once: millions of objects would be looked at by Python's garbage collector, which holds
    up all threads for a second.
    """
    return {"content": [Encoded(_position(one, tokenizer)) for one in likely], "refusal": None}


def _position(one: Likely, tokenizer: Any) -> dict[str, Any]:
    top = [_token(token, score, tokenizer) for token, score in one.others]
    return {**_token(one.token, one.logprob, tokenizer), "top_logprobs": top}


def _token(token: int, score: float, tokenizer: Any) -> dict[str, Any]:
    text = token_text(token, tokenizer)
    return {"token": text, "logprob": bounded(score), "bytes": list(text.encode("utf-8", "replace"))}


@functools.lru_cache(maxsize=50_000)
def token_text(token: int, tokenizer: Any) -> str:
    """Return the text of a token: an answer can report twenty likely ones for each of its own."""
    return str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def bounded(score: float) -> float:
    """Limit a log probability to a value that JSON can represent."""
    return max(score, _LEAST)
