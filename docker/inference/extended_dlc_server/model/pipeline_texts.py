"""Requests of the pipeline's own shape, whose texts join the steps in which others are written.

The pipeline makes tokens of the prompt before, and its answer of the tokens afterwards; only the model's part is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..machine.ending import check
from ..reading.chats import is_chat
from ..reading.decoding import Decoded
from ..reading.tgi import Told, described
from ..writing.choosing import Plan, Plans, plan_of
from ..writing.generating import Generation, Row
from ..writing.streaming import Emit, TokenEvents

_REASONS = {"end": "eos_token", "stop": "stop_sequence", "length": "length"}
"""Why a sequence ended, in the words of Hugging Face's text-generation servers."""


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    """One text or chat, and what the pipeline needs to make an answer for it."""

    inputs: Any
    """What its `preprocess` gave."""

    after: Mapping[str, Any]
    """Arguments of its `postprocess`."""

    asked: Generation


class PipelineTexts:
    """A text-generation pipeline, taken apart."""

    def __init__(self, pipeline: Any, written: Callable[[Any, Decoded], bytes]) -> None:
        """`written` makes the answer of what the pipeline would have returned."""
        self._pipeline, self._written = pipeline, written
        self._plans = Plans(self._plan)

    def request(self, request: Decoded) -> TextsRequest | None:
        """The request, where all of it can be written step by step."""
        arguments = request.arguments or {}
        before, options, after = self._pipeline._sanitize_parameters(**arguments)
        plan = self._plans.of(options)
        if plan is None:
            return None
        inputs = request.inputs
        is_one = isinstance(inputs, str) or is_chat(inputs)
        before = {**self._pipeline._preprocess_params, **before}
        after = {**self._pipeline._postprocess_params, **after}
        prompts = []
        for one in [inputs] if is_one else inputs:
            check()
            prompt = self._prompt(one, request, plan, before, after)
            if prompt is None:
                return None
            prompts.append(prompt)
        return TextsRequest(self._pipeline, request, prompts, is_one=is_one, written=self._written)

    def _plan(self, options: Mapping[str, Any]) -> Plan | None:
        """What `generate` would do, with the pipeline's own defaults and those of the model."""
        prepare = getattr(self._pipeline, "_prepare_generate_kwargs", dict)
        given = prepare(dict(options))
        own = self._pipeline.model.generation_config
        config = given.pop("generation_config", None) or getattr(self._pipeline, "generation_config", None) or own
        told = {name: value for name, value in config.to_dict().items() if value is not None}
        return plan_of(own, {**told, **given})

    def _prompt(
        self, one: Any, request: Decoded, plan: Plan, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> _Prompt | None:
        from transformers.pipelines import text_generation

        wishes = request.wishes
        inputs = self._pipeline.preprocess(one if isinstance(one, str) else text_generation.Chat(one), **before)
        mask = inputs.get("attention_mask")
        if not inputs["input_ids"].shape[1] or (mask is not None and not bool(mask.all())):
            return None
        tokens: list[int] = inputs["input_ids"][0].tolist()
        most = plan.most if plan.most is not None else (plan.longest or 0) - len(tokens)
        if most < 1:
            return None
        grammar = wishes.grammar
        return _Prompt(
            inputs=inputs,
            after=after,
            asked=Generation(
                tokens=tokens,
                plan=plan,
                most=most,
                count=plan.count,
                ends=plan.ends,
                stops=wishes.stops,
                keep=None,
                seed=wishes.seed,
                frequency_penalty=wishes.frequency_penalty,
                presence_penalty=wishes.presence_penalty,
                likely=wishes.top if wishes.details else None,
                grammar=(lambda: grammar.processor(self._pipeline.tokenizer, plan.ends, "")) if grammar else None,
                tells=False,
                tells_end=True,
            ),
        )


class TextsRequest:
    """One request, of one prompt or several."""

    def __init__(
        self,
        pipeline: Any,
        request: Decoded,
        prompts: Sequence[_Prompt],
        *,
        is_one: bool,
        written: Callable[[Any, Decoded], bytes],
    ) -> None:
        """`is_one`: the answer is that of one prompt, and no list of such."""
        self._pipeline, self._request, self._prompts = pipeline, request, prompts
        self._is_one, self._written = is_one, written
        self._events: TokenEvents | None = None

    @property
    def asked(self) -> list[Generation]:
        """What is asked of the model, prompt by prompt."""
        return [prompt.asked for prompt in self._prompts]

    def told(self, emit: Emit) -> Callable[[Row, str], None]:
        """An event for each token; the last one waits for the answer."""
        events = self._events = TokenEvents(self._pipeline.tokenizer, emit)
        events.prompt_tokens = len(self.asked[0].tokens or ())

        def told(row: Row, _: str) -> None:
            events.likely = row.likely
            events.add(row.tokens[-1])
            if not row.reason:
                events.flush()

        return told

    def end(self, made: list[list[Row]], emit: Emit | None) -> Any:
        """The answer of its sequences; or the last event, and how many tokens there were."""
        tokens, generated = self._request.tokens, sum(len(row.tokens) for rows in made for row in rows)
        tokens.prompt, tokens.generated = sum(one.prompt_tokens for one in self.asked), generated
        results = [self._records(prompt, rows) for prompt, rows in zip(self._prompts, made, strict=True)]
        wishes, row = self._request.wishes, made[0][0]
        if emit is None:
            if wishes.details:
                told = Told(tokens=row.tokens, likely=row.likely)
                about = described(told, wishes, self._pipeline.tokenizer, _REASONS[row.reason])
                results[0][0]["details"] = about
            return self._written(results[0] if self._is_one else results, self._request)
        assert self._events is not None  # noqa: S101 - made before the first token
        about = {"finish_reason": _REASONS[row.reason], "generated_tokens": generated}
        seen = {"input_length": self._events.prompt_tokens, "seed": wishes.seed}
        self._events.finish(**results[0][0], details={**about, **seen})
        return generated

    def _records(self, prompt: _Prompt, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """What the pipeline makes of the tokens."""
        import torch

        read = prompt.inputs["input_ids"]
        found: list[dict[str, Any]] = []
        for row in rows:
            whole = torch.tensor([[[*(prompt.asked.tokens or ()), *row.tokens]]])
            made = {"generated_sequence": whole, "input_ids": read, "prompt_text": prompt.inputs["prompt_text"]}
            found += self._pipeline.postprocess(made, **prompt.after)
        return found
