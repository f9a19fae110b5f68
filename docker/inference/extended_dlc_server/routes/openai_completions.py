"""`POST /v1/completions`: OpenAI's completions of a prompt, with and without streaming."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..answering.openai_writing import DONE, REASONS, bounded, check_likelihoods, head, token_text, usage_of
from ..errors import RequestError, shown
from ..http.prepared import Incoming, Prepared
from ..json_text import encode_json
from ..model.writer import Asked, Writer
from ..reading.openai_errors import BadFieldError
from ..reading.openai_fields import check_fields, completion_fields
from ..reading.parameter_types import List, Whole
from ..reading.tokens import Tokens
from ..writing.generating import Generation, OnToken, Row
from ..writing.streaming import Emit, event
from .openai_chat import document_of, writer_of

if TYPE_CHECKING:
    from ..model.model import Model

MOST_PROMPTS = 64
"""Most prompts of one request."""


def prepare_completion(model: Model, incoming: Incoming) -> Prepared:
    writer = writer_of(model)
    if writer.has_images:
        raise RequestError(400, "wrong-task", "this model takes messages only: send them to /v1/chat/completions")
    document = document_of(incoming, "prompt")
    fields = check_fields(document, completion_fields(writer.limits), "prompt")
    if fields.get("best_of", 1) not in (1, fields.get("n", 1)):
        raise BadFieldError("bad-parameters", "best_of", "'best_of' must be as large as 'n': all answers are given")
    named = fields.get("model")
    completion = Completion(writer, fields, document["prompt"], named or model.name)
    if fields.get("stream"):
        completion.check_stream()
        writing = writer.joins(completion, *completion.asked)
        return Prepared(stream=completion.stream, writing=writing, tokens=completion.tokens, model=named)
    shared, writing = None, writer.joins(completion, *completion.asked)
    if len(completion.asked) == 1 and not writing:
        (generation,) = completion.asked
        asked = Asked(generation=generation, write=lambda rows: completion.write([rows]))
        shared = writer.shared(asked, completion.prompts[0])
    return Prepared(answer=completion.answer, shared=shared, writing=writing, tokens=completion.tokens, model=named)


class Completion:
    """One completion request, with one or several prompts."""

    def __init__(self, writer: Writer, fields: Mapping[str, Any], prompt: Any, model: str) -> None:
        """Tokenize the prompts and prepare the generations; raise 400 for fields that the model does not support."""
        self._fields, self._tokenizer = fields, writer.tokenizer
        self.tokens = Tokens()
        """Token counts for the log."""
        read = _prompts(prompt, writer)
        self.prompts = [text for text, _ in read]
        """The prompts' texts, by whose length batches are formed; for tokens, a text of about that length."""
        self.asked: list[Generation] = [
            writer.generation(
                fields,
                tokens=tokens,
                likely=fields.get("logprobs"),
                with_context=True,
                tells=bool(fields.get("stream")),
            )
            for _, tokens in read
        ]
        """One generation per prompt."""
        self._head = {**head("cmpl", model), "object": "text_completion"}

    def check_stream(self) -> None:
        if len(self.asked) > 1:
            raise BadFieldError("cannot-stream", "prompt", "a stream has one prompt: send the others after it")

    def answer(self, copy: Model) -> bytes:
        assert copy.writer is not None  # noqa: S101 - every copy has what the first one has
        return self.write([copy.writer.write([one])[0] for one in self.asked])

    def write(self, made: list[list[Row]]) -> bytes:
        """Return the response body for the generated sequences of each prompt."""
        choices: list[dict[str, Any]] = []
        check_likelihoods(made)
        for asked, rows in zip(self.asked, made, strict=True):
            for row in rows:
                likely = self._logprobs(row, 0, 0) if row.asked.likely is not None else None
                for _ in range(asked.copies):
                    choices.append(self._choice(row, len(choices), likely))
        used = usage_of(self.asked, made)
        self.tokens.prompt, self.tokens.generated = (
            used["prompt_tokens"],
            sum(len(r.tokens) for one in made for r in one),
        )
        return encode_json({**self._head, "choices": choices, "usage": used})

    def _choice(self, row: Row, index: int, likely: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "index": index,
            "text": row.text.whole,
            "logprobs": likely,
            "finish_reason": REASONS[row.reason],
        }

    def _logprobs(self, row: Row, start: int, offset: int) -> dict[str, Any]:
        """Return `logprobs` of the tokens from index `start`, whose text begins at `offset`."""
        texts = [token_text(one.token, self._tokenizer) for one in row.likely[start:]]
        return {
            "tokens": texts,
            "token_logprobs": [bounded(one.logprob) for one in row.likely[start:]],
            "top_logprobs": [
                {token_text(token, self._tokenizer): bounded(score) for token, score in one.others}
                for one in row.likely[start:]
            ],
            "text_offset": list(itertools.accumulate(map(len, texts[:-1]), initial=offset)) if texts else [],
        }

    def stream(self, copy: Model, emit: Emit, gone: threading.Event) -> int:
        """Emit a chunk for each piece of text, one with the usage if asked for, and `[DONE]`."""
        assert copy.writer is not None  # noqa: S101 - every copy has what the first one has
        generated: int = self.end(copy.writer.write(self.asked, self.on_token(emit), gone), emit)
        return generated

    @property
    def _counts(self) -> dict[str, Any]:
        """The members of chunks without usage: `"usage": null` if usage is asked for."""
        return {"usage": None} if self._fields.get("stream_options", {}).get("include_usage") else {}

    def on_token(self, emit: Emit) -> OnToken:
        """Return the callback that turns each generated token into a chunk."""
        (asked,) = self.asked
        counts = self._counts
        sent_of: dict[int, tuple[int, int]] = {}

        def on_token(row: Row, text: str) -> None:
            if not text and not row.reason:
                return
            start, offset = sent_of.get(row.number, (0, 0))
            choice = {
                "text": text,
                "logprobs": self._logprobs(row, start, offset) if asked.likely is not None else None,
                "finish_reason": REASONS[row.reason] if row.reason else None,
            }
            sent_of[row.number] = (len(row.likely), offset + len(text))
            for number in range(asked.copies):
                index = row.number * asked.copies + number
                emit(event({**self._head, "choices": [{"index": index, **choice}], **counts}))

        return on_token

    def end(self, made: list[list[Row]], emit: Emit | None) -> Any:
        """Return the response body; for a stream, emit the last chunks and return the number of tokens."""
        if emit is None:
            return self.write(made)
        if self._counts:
            emit(event({**self._head, "choices": [], "usage": usage_of(self.asked, made)}))
        emit(DONE)
        self.tokens.prompt = self.asked[0].prompt_tokens
        return sum(len(row.tokens) for row in made[0])


def _prompts(value: Any, writer: Writer) -> list[tuple[str, list[int]]]:
    """Parse one or several prompts, each a text or a list of tokens; return the text and the tokens of each."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        value = [value]
    if not isinstance(value, list) or not 0 < len(value) <= MOST_PROMPTS:
        raise BadFieldError(
            "bad-inputs",
            "prompt",
            f"'prompt' ({shown(value)}) must be a text, a list of tokens, or a list of at most {MOST_PROMPTS} of these",
        )
    return [_prompt(one, writer) for one in value]


def _prompt(value: Any, writer: Writer) -> tuple[str, list[int]]:
    if isinstance(value, str):
        try:
            tokens = writer.prompt(value, special=True)
        except RequestError as error:
            raise BadFieldError(error.code, "prompt", error.message.replace("'inputs'", "'prompt'", 1)) from None
    else:
        try:
            rule = List(Whole(0, writer.limits.vocabulary - 1), writer.limits.input_tokens)
            tokens = rule.check(value)
        except ValueError as error:
            raise BadFieldError("bad-inputs", "prompt", f"'prompt' ({shown(value)}) {error}") from None
    if not tokens:
        raise BadFieldError("bad-inputs", "prompt", "'prompt' has no token: send a text")
    return (value if isinstance(value, str) else "x" * 4 * len(tokens)), tokens
