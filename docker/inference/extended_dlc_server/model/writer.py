"""A model that continues a prompt, asked token by token: what the interfaces of OpenAI share."""

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
from ..writing.generating import Generation, Row, Told, generate
from ..writing.replies import MarkedReply, Reply, SchemaReply, TemplateReply, Thinking, thinking_of
from ..writing.scheduler import Scheduler, Writing
from ..writing.streaming import Emit, StreamEndedError
from ..writing.tool_calls import CallForm, form_of, schemas_of

if TYPE_CHECKING:
    from ..reading.constraints import Grammar
    from ..reading.lengths import Lengths
    from .batching import Batching

TASKS = ("text-generation", "image-text-to-text", "any-to-any")
"""Tasks whose models write what follows a prompt."""


@dataclass(kw_only=True, eq=False)
class Asked:
    """A request whose answer waits for nothing but the model."""

    generation: Generation
    """What it asks of the model."""

    write: Callable[[list[Row]], bytes]
    """Makes the answer of its sequences."""


class Joining(Protocol):
    """A request whose texts may share the steps of others."""

    def told(self, emit: Emit) -> Told:
        """Hears of each token, and makes events of them."""

    def end(self, made: list[list[Row]], emit: Emit | None) -> Any:
        """The answer of its sequences, or the last events and how many tokens there were."""


class Writer:
    """What one copy of a model writes."""

    def __init__(
        self,
        pipeline: Any,
        chats: Chats | None,
        lengths: Lengths,
        batching: Batching,
        explained: Callable[[Exception], Exception],
    ) -> None:
        """Read from the pipeline what requests may hold, and how its answers are marked.

        `chats` are those of a model of texts alone.
        """
        self.pipeline, self._lengths, self._batching, self._explained = pipeline, lengths, batching, explained
        self.has_images = chats is None
        self.chats = chats or Chats(pipeline.processor)
        self.limits = Limits(
            input_tokens=lengths.input_tokens,
            new_tokens=lengths.new_tokens,
            vocabulary=lengths.vocabulary,
            template_variables=self.chats.variables,
        )
        self.form: CallForm | None = form_of(self.chats.template or "")
        self.thinking: Thinking | None = thinking_of(self.chats.template or "")
        self.steps: Scheduler | None = None
        """Writes its texts together with those of others, once it is proved that it can."""

        self._plans = Plans(lambda arguments: plan_of(pipeline.model.generation_config, arguments))
        self._ends = frozenset(_ends(pipeline))
        self._special = _special_tokens(pipeline.tokenizer)

    @property
    def tokenizer(self) -> Any:
        return self.pipeline.tokenizer

    @property
    def takes_tools(self) -> bool:
        """Whether the model's calls of tools can be read."""
        return self._own_parser or self.form is not None

    @property
    def _own_parser(self) -> bool:
        """Whether the release reads the tokenizer's own description of its answers."""
        named = any(getattr(self.tokenizer, name, None) for name in ("response_template", "response_schema"))
        return bool(named) and hasattr(self.tokenizer, "parse_response")

    def begins_with_thinking(self, prompt: str) -> bool:
        """Whether the prompt has opened the reasoning."""
        return self.thinking is not None and self.thinking.is_begun(prompt)

    def constrained(self, grammar: Grammar, ends: frozenset[int], after: str) -> Any:
        """A processor of scores that allows what a grammar does, from the text after a mark on."""
        return grammar.processor(self.tokenizer, ends, after)

    def reply(self, prompt: str, tools: Sequence[Mapping[str, Any]]) -> Callable[[], Reply]:
        """What takes an answer to this prompt apart."""
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
        """What a request asks of the model. `marked`: special tokens that mark parts of an answer keep their text."""
        asked = fields.get("max_completion_tokens", fields.get("max_tokens"))
        most = self.limits.new_tokens if tokens is None else self._lengths.new_tokens_after(len(tokens), asked)
        stops, ends = stops_of(fields), set(fields.get("stop_token_ids", ()))
        if not fields.get("ignore_eos"):
            ends |= self._ends
        # a special token has no text in which it could be found
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
        """What `generate` would do with these arguments, as far as the scheduler can do it."""
        return self._plans.of(arguments)

    def joins(self, request: Joining, *asked: Generation) -> Callable[[Emit | None], Writing] | None:
        """How a request joins the steps in which others are written, where it may."""
        if self.steps is None or any(one.plan is None or not one.tokens for one in asked):
            return None
        return lambda emit: Writing(
            asked=asked, finish=lambda made: request.end(made, emit), told=request.told(emit) if emit else None
        )

    def prompt(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a prompt; 400 for one that is too long."""
        return self._lengths.prompt(text, special=special)

    def features(
        self, messages: list[dict[str, Any]], options: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The model's inputs of messages with images."""
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
        """Only now it is known how many tokens the images have."""
        made.most = self._lengths.new_tokens_after(int(inputs["input_ids"].shape[1]), asked)
        return inputs

    def _kept(self) -> frozenset[int] | None:
        """Special tokens that mark parts of an answer."""
        if self._own_parser:
            return None
        marks = [self.thinking.opens, self.thinking.closes] if self.thinking else []
        marks += ["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<tool_call>", "</tool_call>"]
        return frozenset(self._special[mark] for mark in marks if mark in self._special)

    def shared(self, asked: Asked, prompt: str) -> Shared | None:
        """How the request may run together with others."""
        made = asked.generation
        if not made.is_plain:
            return None
        # of another length it is worth waiting for within a factor of four
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
        self, asked: Sequence[Generation], told: Told = lambda row, text: None, gone: threading.Event | None = None
    ) -> list[list[Row]]:
        """The sequences of each request; what goes wrong comes as a `RequestError`, or as a `FatalError`."""
        try:
            with panics_are_errors():
                return generate(self.pipeline, asked, told, gone)
        except StreamEndedError:
            raise
        except Exception as error:
            raise self._explained(error) from error

    def write_together(self, asked: Sequence[Generation]) -> list[list[Row]]:
        """The same as a batch, but for those that have no positions for as many tokens as the longest wants."""
        steps = max(one.most for one in asked)
        fitting = [one for one in asked if self._lengths.fit_together(len(one.tokens or ()), steps)]
        made = dict(zip(map(id, fitting), generate(self.pipeline, fitting) if fitting else (), strict=True))
        return [made[id(one)] if id(one) in made else generate(self.pipeline, [one])[0] for one in asked]


def _answer_together(model: Any, items: Sequence[Asked]) -> list[bytes]:
    rows = model.writer.write_together([item.generation for item in items])
    return [item.write(found) for item, found in zip(items, rows, strict=True)]


def _ends(pipeline: Any) -> set[int]:
    """Tokens that end an answer, by the model's configuration and by its tokenizer."""
    named = getattr(pipeline.model.generation_config, "eos_token_id", None)
    ends = set(named if isinstance(named, (list, tuple)) else [named])
    return {int(one) for one in {*ends, pipeline.tokenizer.eos_token_id} if one is not None}


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """Text -> id of the tokens that are special to the tokenizer."""
    return dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=False))
