"""`POST /v1/chat/completions`: OpenAI's chat completions, with and without streaming."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..answering.openai_writing import DONE, REASONS, check_likelihoods, delta, head, logprobs, message, usage
from ..errors import RequestError
from ..http.prepared import Incoming, Prepared
from ..json_text import encode_json
from ..model.writer import Asked, Writer
from ..reading.constraints import Grammar
from ..reading.inputs import read_inputs
from ..reading.openai_errors import BadFieldError
from ..reading.openai_fields import chat_fields, check_fields, object_of
from ..reading.tokens import Tokens
from ..writing.generating import Generation, OnToken, Row
from ..writing.replies import Piece
from ..writing.streaming import Emit, event
from ..writing.tool_calls import Call
from .forced_calls import ForcedCalls
from .openai_messages import as_messages, read_messages

if TYPE_CHECKING:
    from ..model.model import Model


def prepare_chat(model: Model, incoming: Incoming) -> Prepared:
    writer = writer_of(model)
    document = document_of(incoming, "messages")
    fields = check_fields(document, chat_fields(writer.limits), "messages")
    named = fields.get("model")
    chat = Chat(writer, fields, _messages(writer, document["messages"], incoming), named or model.name)
    writing = writer.joins(chat, chat.generation)
    if fields.get("stream"):
        return Prepared(stream=chat.stream, writing=writing, tokens=chat.tokens, model=named)
    asked = Asked(generation=chat.generation, write=chat.write)
    shared = None if writing else writer.shared(asked, chat.prompt)
    return Prepared(answer=chat.answer, shared=shared, writing=writing, tokens=chat.tokens, model=named)


def writer_of(model: Model) -> Writer:
    """Return the model's text generator; raise 400 if the model's task is not text generation."""
    if model.writer is None:
        raise RequestError(
            400, "wrong-task", f"this endpoint serves {model.task}, which writes no such text: send 'inputs' instead"
        )
    return model.writer


def document_of(incoming: Incoming, main: str) -> dict[str, Any]:
    """Return the JSON object of the body; raise an error if it lacks the required field `main`."""
    document = object_of(incoming)
    if document.get(main) is None:
        raise BadFieldError("missing-inputs", main, f"the body must be a JSON object with '{main}'")
    return document


def _messages(writer: Writer, value: Any, incoming: Incoming) -> list[dict[str, Any]]:
    template = writer.chats.template or ""
    messages = read_messages(value, has_images=writer.has_images, knows_developer="developer" in template)
    try:
        if writer.has_images:
            read: list[dict[str, Any]] = read_inputs(messages, incoming.expected, incoming.share)
            return read
        checked: list[dict[str, Any]] = writer.chats.check(messages)
        return checked
    except RequestError as error:
        raise as_messages(error) from None


class Chat:
    """One chat completion."""

    def __init__(self, writer: Writer, fields: Mapping[str, Any], messages: list[dict[str, Any]], model: str) -> None:
        """Render the prompt and prepare the generation; raise 400 for fields that the model does not support."""
        self._fields, self._tokenizer, self._form = fields, writer.tokenizer, writer.form
        self.tokens = Tokens()
        """Token counts for the log."""
        if fields.get("top_logprobs") and not fields.get("logprobs"):
            raise BadFieldError("bad-parameters", "top_logprobs", "'top_logprobs' needs 'logprobs': true")
        tools = _tools(fields, writer)
        options, variables = self._template_options(writer, tools)
        try:
            self.prompt = writer.chats.render(messages, options, variables)
            if writer.has_images:
                writer.check_chat(messages, options, variables)
        except RequestError as error:
            raise as_messages(error) from None
        schema, field = _schema(fields)
        self._forced = ForcedCalls(writer.form, tools, fields["tool_choice"]) if _must_call(fields) else None
        begun = writer.begins_with_thinking(self.prompt)
        after = writer.thinking.closes if begun and writer.thinking else ""
        opening = ""
        if self._forced:
            schema, field = self._forced.schema, "tool_choice"
            opening = (f"{after}\n\n" if after else "") + self._forced.prefix
            after = ""
        tokens = None if writer.has_images else _tokens(writer, messages, options, variables, self.prompt, opening)
        self.prompt += opening
        grammar = None if schema is None else Grammar(schema, field)
        self.generation: Generation = writer.generation(
            fields,
            grammar=None if grammar is None else lambda: writer.constrained(grammar, self.generation.ends, after),
            tokens=tokens,
            features=(lambda: writer.features(messages, options, variables)) if writer.has_images else None,
            marked=bool(tools) or writer.thinking is not None,
            likely=fields.get("top_logprobs", 0) if fields.get("logprobs") else None,
            tells=bool(fields.get("stream")),
        )
        self._new_reply = self._forced.reply if self._forced else writer.reply(self.prompt, tools)
        self._most_calls = 1 if fields.get("parallel_tool_calls") is False else None
        self._head = head("chatcmpl", model)

    def _template_options(self, writer: Writer, tools: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments and the variables of the chat template besides the messages."""
        fields = self._fields
        goes_on = fields.get("continue_final_message")
        if goes_on is None and fields.get("add_generation_prompt"):
            goes_on = False
        options = {"tools": tools, "documents": fields.get("documents"), "continue_final_message": goes_on}
        variables = dict(fields.get("chat_template_kwargs", {}))
        effort = fields.get("reasoning_effort")
        if effort is not None and "reasoning_effort" in writer.chats.variables:
            variables.setdefault("reasoning_effort", effort)
        elif effort is not None and "enable_thinking" in writer.chats.variables:
            variables.setdefault("enable_thinking", effort != "none")
        elif effort is not None:
            raise BadFieldError(
                "bad-parameters",
                "reasoning_effort",
                "'reasoning_effort' has no effect: the chat template of this model knows none",
            )
        return options, variables

    # not streamed

    def answer(self, copy: Model) -> bytes:
        assert copy.writer is not None  # noqa: S101 - every copy has what the first one has
        (rows,) = copy.writer.write([self.generation])
        return self.write(rows)

    def write(self, rows: list[Row]) -> bytes:
        """Return the response body for the generated sequences."""
        choices: list[dict[str, Any]] = []
        check_likelihoods([rows])
        for row in rows:
            likely = logprobs(row.likely, self._tokenizer) if self.generation.likely is not None else None
            for _ in range(self.generation.copies):
                choices.append(self._choice(row, len(choices), likely))
        self.tokens.prompt, self.tokens.generated = self.generation.prompt_tokens, sum(len(row.tokens) for row in rows)
        return encode_json(
            {**self._head, "object": "chat.completion", "choices": choices, "usage": usage(self.generation, rows)}
        )

    def _choice(self, row: Row, index: int, likely: dict[str, Any] | None) -> dict[str, Any]:
        reply = self._new_reply()
        pieces = [*reply.feed(row.text.whole), *reply.end()]
        called = any(isinstance(piece, Call) for piece in pieces)
        return {
            "index": index,
            "message": message(pieces, self._form, most_calls=self._most_calls),
            "logprobs": likely,
            "finish_reason": "tool_calls" if called else REASONS[row.reason],
        }

    # streamed

    def stream(self, copy: Model, emit: Emit, gone: threading.Event) -> int:
        """Emit chunks with deltas, with the finish_reason and, if asked for, with the usage; then `[DONE]`."""
        assert copy.writer is not None  # noqa: S101 - every copy has what the first one has
        generated: int = self.end(copy.writer.write([self.generation], self.on_token(emit), gone), emit)
        return generated

    @property
    def _chunk(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The members of all chunks, and those of chunks without usage: `"usage": null` if usage is asked for."""
        counted = self._fields.get("stream_options", {}).get("include_usage")
        return {**self._head, "object": "chat.completion.chunk"}, {"usage": None} if counted else {}

    def on_token(self, emit: Emit) -> OnToken:
        """Return the callback that turns each generated token into chunks."""
        heads, counts = self._chunk
        choices: dict[int, _Streamed] = {}

        def on_token(row: Row, text: str) -> None:
            if row.number not in choices:
                choices[row.number] = _Streamed(self, row)
            for choice in choices[row.number].more(text):
                for number in range(self.generation.copies):
                    index = row.number * self.generation.copies + number
                    emit(event({**heads, "choices": [{"index": index, **choice}], **counts}))

        return on_token

    def end(self, made: list[list[Row]], emit: Emit | None) -> Any:
        """Return the response body; for a stream, emit the last chunks and return the number of tokens."""
        (rows,) = made
        if emit is None:
            return self.write(rows)
        heads, counts = self._chunk
        if counts:
            emit(event({**heads, "choices": [], "usage": usage(self.generation, rows)}))
        emit(DONE)
        self.tokens.prompt = self.generation.prompt_tokens
        return sum(len(row.tokens) for row in rows)


class _Streamed:
    """One choice of a stream."""

    def __init__(self, chat: Chat, row: Row) -> None:
        self._chat, self._row = chat, row
        self._reply = chat._new_reply()
        self._calls = self._sent = 0
        self._begun = False

    def more(self, text: str) -> list[dict[str, Any]]:
        """Return the choices of the chunks to send for more generated text."""
        row, chat = self._row, self._chat
        pieces: list[Piece] = self._reply.feed(text)
        if row.reason:
            pieces += self._reply.end()
        deltas = [] if self._begun else [{"role": "assistant", "content": ""}]
        self._begun = True
        for piece in pieces:
            if isinstance(piece, Call):
                if chat._most_calls is not None and self._calls >= chat._most_calls:
                    continue
                self._calls += 1
            deltas.append(delta(piece, chat._form, self._calls - 1))
        choices: list[dict[str, Any]] = [{"delta": one, "logprobs": None, "finish_reason": None} for one in deltas]
        if row.reason:
            reason = "tool_calls" if self._calls else REASONS[row.reason]
            choices.append({"delta": {}, "logprobs": None, "finish_reason": reason})
        if choices and chat.generation.likely is not None:
            choices[-1]["logprobs"] = logprobs(row.likely[self._sent :], chat._tokenizer)
            self._sent = len(row.likely)
        return choices


def _tokens(writer: Writer, *chat: Any) -> list[int]:
    try:
        return writer.chat_tokens(*chat)
    except RequestError as error:
        raise as_messages(error) from None


def _must_call(fields: Mapping[str, Any]) -> bool:
    return bool(fields.get("tools")) and fields.get("tool_choice") not in (None, "none", "auto")


def _schema(fields: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the JSON schema that constrains the response, and the name of the field that sets it."""
    wanted = fields.get("response_format", {})
    kind = wanted.get("type", "text")
    if kind == "text":
        return None, ""
    for name in ("tools", "ignore_eos"):
        if fields.get(name):
            raise BadFieldError("bad-parameters", "response_format", f"'response_format' takes no '{name}' beside it")
    if kind == "json_object":
        return wanted.get("value", {"type": "object"}), "response_format"
    schema = wanted.get("json_schema", {}).get("schema")
    if schema is None:
        raise BadFieldError("bad-parameters", "response_format", "'response_format' lacks 'json_schema.schema'")
    return schema, "response_format"


def _tools(fields: Mapping[str, Any], writer: Writer) -> list[Any]:
    """Return the tools to pass to the chat template; raise 400 if the model cannot call them."""
    tools: list[Any] = fields.get("tools") or []
    choice = fields.get("tool_choice")
    if choice == "none" or not tools:
        if choice not in (None, "none", "auto"):
            raise BadFieldError("bad-parameters", "tool_choice", "'tool_choice' needs 'tools'")
        return []
    if not writer.takes_tools:
        raise BadFieldError(
            "unsupported-tools",
            "tools",
            "'tools' are not taken: the chat template of this model teaches none of the forms of calls that this "
            "server reads (Hermes, Qwen, GLM, Llama, Mistral), and its tokenizer has no 'response_template' that the "
            "transformers release of this image reads",
        )
    if choice not in (None, "auto") and (writer.has_images or writer.form is None or not writer.form.is_json):
        raise BadFieldError(
            "bad-parameters",
            "tool_choice",
            "'tool_choice' must be 'auto' or 'none': the calls of this model are no JSON that one could ask for",
        )
    names = [tool.get("function", {}).get("name") for tool in tools]
    if None in names or len(set(names)) < len(names):
        raise BadFieldError("bad-parameters", "tools", "'tools' must have a function with a 'name' of its own each")
    return tools
