"""Text generation for the OpenAI-compatible routes: the part that chat and plain completions share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import panics_are_errors
from ..machine.worker import Shared
from ..reading.chats import Chats
from ..reading.openai_fields import sampling_of, stops_of
from ..reading.parameter_table import Limits
from ..writing.choosing import Plan, Plans, plan_of
from ..writing.generating import Generation, OnToken, Row, generate
from ..writing.replies import MarkedReply, Reply, SchemaReply, TemplateReply, Thinking, thinking_of
from ..writing.scheduler import Scheduler
from ..writing.streaming import Emit, StreamEndedError
from ..writing.texts import Writing
from ..writing.tool_calls import CallForm, form_of, schemas_of

if TYPE_CHECKING:
    from ..reading.constraints import Grammar
    from ..reading.lengths import Lengths
    from .adapters import AdapterSteps
    from .batching import Batching

TASKS = ("text-generation", "image-text-to-text", "any-to-any")
"""Tasks whose models continue a prompt."""


@dataclass(kw_only=True, eq=False)
class Asked:
    """A validated request, ready for the model."""

    generation: Generation

    write: Callable[[list[Row]], bytes]
    """Makes the response body from the generated sequences."""


class Joining(Protocol):
    """A request that may join the scheduler."""

    def on_token(self, emit: Emit) -> OnToken:
        """Return a callback that makes an event of each token."""

    def end(self, made: list[list[Row]], emit: Emit | None) -> Any:
        """Return the response body, or with `emit` send the last events and return the number of tokens."""


class Writer:
    """Text generation with one copy of a model."""

    def __init__(
        self,
        pipeline: Any,
        chats: Chats | None,
        lengths: Lengths,
        batching: Batching,
        explained: Callable[[Exception], Exception],
    ) -> None:
        """Read from the pipeline what requests may hold, and how its answers are marked up.

        `chats` is None for a model that takes images.
        """
        self.pipeline, self._lengths, self._batching, self._explained = pipeline, lengths, batching, explained
        self.has_images = chats is None
        self.chats = chats or Chats(pipeline.processor)
        self.limits = Limits(
            input_tokens=lengths.limits.input_tokens,
            new_tokens=lengths.limits.new_tokens,
            vocabulary=lengths.ids.vocabulary,
            template_variables=self.chats.variables,
        )
        self.form: CallForm | None = form_of(self.chats.template or "")
        self.thinking: Thinking | None = thinking_of(self.chats.template or "")
        self.steps: Scheduler | AdapterSteps | None = None
        """The scheduler for continuous batching, once a test at the start has shown that the model supports it."""

        self._plans = Plans(lambda arguments: plan_of(pipeline.model.generation_config, arguments))
        self._ends = frozenset(_ends(pipeline))
        self._special = _special_tokens(pipeline.tokenizer)

    @property
    def tokenizer(self) -> Any:
        return self.pipeline.tokenizer

    @property
    def takes_tools(self) -> bool:
        """Whether the model's tool calls can be parsed."""
        return self._own_parser or self.form is not None

    @property
    def _own_parser(self) -> bool:
        """Whether the tokenizer describes the format of answers and this transformers release can parse it."""
        named = any(getattr(self.tokenizer, name, None) for name in ("response_template", "response_schema"))
        return bool(named) and hasattr(self.tokenizer, "parse_response")

    def begins_with_thinking(self, prompt: str) -> bool:
        """Whether the prompt ends with an open reasoning block."""
        return self.thinking is not None and self.thinking.is_begun(prompt)

    def constrained(self, grammar: Grammar, ends: frozenset[int], after: str) -> Any:
        """Return a logits processor that enforces a grammar, from the text after the mark `after` on."""
        return grammar.processor(self.tokenizer, ends, after)

    def reply(self, prompt: str, tools: Sequence[Mapping[str, Any]]) -> Callable[[], Reply]:
        """Return a factory for parsers of the answers to this prompt."""
        if getattr(self.tokenizer, "response_template", None) and hasattr(self.tokenizer, "get_response_parser"):
            return lambda: TemplateReply(self.tokenizer.get_response_parser(prefix=prompt, tools=list(tools) or None))
        if getattr(self.tokenizer, "response_schema", None) and hasattr(self.tokenizer, "parse_response"):
            return lambda: SchemaReply(self.tokenizer)
        thinking, begun = self.thinking, self.begins_with_thinking(prompt)
        form = self.form if tools else None
        return lambda: MarkedReply(form, thinking, schemas_of(tools), begun=begun)

    def generation(
        self,
        fields: Mapping[str, Any],
        *,
        tokens: list[int] | None,
        features: Callable[[], Mapping[str, Any]] | None = None,
        marked: bool = False,
        **more: Any,
    ) -> Generation:
        """Build the generation of a request; with `marked`, special tokens that mark up an answer keep their text."""
        asked = fields.get("max_completion_tokens", fields.get("max_tokens"))
        most = self.limits.new_tokens if tokens is None else self._lengths.limits.new_tokens_after(len(tokens), asked)
        stops, ends = stops_of(fields), set(fields.get("stop_token_ids", ()))
        if not fields.get("ignore_eos"):
            ends |= self._ends
        # a stop string that is a special token stops by its id: special tokens are left out of the text
        ends |= {self._special[stop] for stop in stops if stop in self._special}
        arguments = sampling_of(fields, self.pipeline.model.generation_config)
        wanted = fields.get("n", 1)
        made = Generation(
            tokens=tokens,
            features=None,
            arguments=arguments,
            plan=self.plan(arguments) if self.steps is not None and tokens else None,
            most=most,
            count=wanted if arguments["do_sample"] else 1,
            copies=1 if arguments["do_sample"] else wanted,
            ends=frozenset(ends),
            stops=tuple(stop for stop in stops if stop not in self._special),
            keep=self._kept() if marked else frozenset(),
            seed=fields.get("seed") if arguments["do_sample"] else None,
            frequency_penalty=fields.get("frequency_penalty", 0.0),
            presence_penalty=fields.get("presence_penalty", 0.0),
            **more,
        )
        if features is not None:
            made.features = lambda: self._fitting(made, features(), asked)
        return made

    def plan(self, arguments: Mapping[str, Any]) -> Plan | None:
        """Return the plan for these arguments of `generate`, or None if the scheduler does not support them."""
        return self._plans.of(arguments)

    def joins(self, request: Joining, *asked: Generation) -> Callable[[Emit | None], Writing] | None:
        """Return how a request joins the scheduler, or None if it cannot."""
        if self.steps is None or any(one.plan is None or not one.tokens for one in asked):
            return None
        return lambda emit: Writing(
            asked=asked, finish=lambda made: request.end(made, emit), on_token=request.on_token(emit) if emit else None
        )

    def prompt(self, text: str, *, special: bool) -> list[int]:
        """Tokenize a prompt; 400 if it is too long."""
        return self._lengths.prompt(text, special=special)

    def chat_tokens(
        self,
        messages: list[dict[str, Any]],
        options: Mapping[str, Any],
        variables: Mapping[str, Any],
        prompt: str,
        begun: str,
    ) -> list[int]:
        """Tokenize a rendered chat, and the beginning of its answer; 400 if they are too long."""
        if not self.chats.quotes_control_tokens(messages, options, variables):
            return self.prompt(prompt + begun, special=False)
        self.prompt(self.chats.render_to_count(messages, options, variables) + begun, special=False)
        found = self.chats.tokens(messages, options, variables)
        return found + self._lengths.counter.encode(begun, special=False)

    def check_chat(
        self, messages: list[dict[str, Any]], options: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> None:
        """400 for a chat with images that is too long, before the processor reads it."""
        self._lengths.check_chat(messages, self.chats.render_to_count(messages, options, variables))

    def features(
        self, messages: list[dict[str, Any]], options: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the model's inputs for messages with images."""
        model, goes_on = self.pipeline.model, self.chats.goes_on(messages, options)
        given = {name: value for name, value in options.items() if value and name in ("tools", "documents")}
        inputs = self.pipeline.processor.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            **given,
            **variables,
        )
        made: Mapping[str, Any] = inputs.to(device=model.device, dtype=model.dtype)
        return made

    def _fitting(self, made: Generation, inputs: Mapping[str, Any], asked: int | None) -> Mapping[str, Any]:
        """Set the maximum of new tokens, now that the number of image tokens is known."""
        made.most = self._lengths.limits.new_tokens_after(int(inputs["input_ids"].shape[1]), asked)
        return inputs

    def _kept(self) -> frozenset[int] | None:
        """Return the special tokens that mark parts of an answer; None for all special tokens."""
        if self._own_parser:
            return None
        marks = [self.thinking.opens, self.thinking.closes] if self.thinking else []
        marks += ["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<tool_call>", "</tool_call>"]
        return frozenset(self._special[mark] for mark in marks if mark in self._special)

    def shared(self, asked: Asked, prompt: str) -> Shared | None:
        """Return how the request may be batched, or None if it runs alone."""
        made = asked.generation
        if not made.is_plain:
            return None
        # requests share a batch only if their maxima of new tokens are within about a factor of four
        arguments = {**made.arguments, "max_new_tokens": made.most.bit_length() // 2}
        key = self._batching.key(prompt, arguments)
        if key is None:
            return None
        most = max(1, self._batching.most(prompt) // made.count)
        return Shared(
            key=("writes", key, made.ends, made.count),
            item=asked,
            most=most,
            run=_answer_together,
            length=self._batching.length(prompt),
            spare=self._batching.spare,
        )

    def write(
        self,
        asked: Sequence[Generation],
        on_token: OnToken = lambda row, text: None,
        gone: threading.Event | None = None,
    ) -> list[list[Row]]:
        """Generate the sequences of each request; errors are raised as `RequestError` or `FatalError`."""
        try:
            with panics_are_errors():
                return generate(self.pipeline, asked, on_token, gone)
        except StreamEndedError:
            raise
        except Exception as error:
            raise self._explained(error) from error

    def write_together(self, asked: Sequence[Generation]) -> list[list[Row]]:
        """Generate as one batch; requests that lack the positions for its largest maximum of new tokens run alone."""
        steps = max(one.most for one in asked)
        fitting = [one for one in asked if self._lengths.limits.fit_together(len(one.tokens or ()), steps)]
        made = dict(zip(map(id, fitting), generate(self.pipeline, fitting) if fitting else (), strict=True))
        return [made[id(one)] if id(one) in made else generate(self.pipeline, [one])[0] for one in asked]


def _answer_together(model: Any, items: Sequence[Asked]) -> list[bytes]:
    rows = model.writer.write_together([item.generation for item in items])
    return [item.write(found) for item, found in zip(items, rows, strict=True)]


def _ends(pipeline: Any) -> set[int]:
    """Return the EOS tokens of the model's configuration and of its tokenizer."""
    named = getattr(pipeline.model.generation_config, "eos_token_id", None)
    ends = set(named if isinstance(named, (list, tuple)) else [named])
    return {int(one) for one in {*ends, pipeline.tokenizer.eos_token_id} if one is not None}


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """Return text -> id of the tokenizer's special tokens."""
    return dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=False))
