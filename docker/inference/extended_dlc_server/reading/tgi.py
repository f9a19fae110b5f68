"""Parameters of Hugging Face's text-generation-inference (TGI) beside those of pipelines, and its `details`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ..writing.detokenizing import Detokenizer, special_ids
from ..writing.generating import Likely, likelihoods, likely_token, penalties, seeded
from .constraints import Grammar
from .parameter_types import AnyOf, Choice, Flag, Group, Json, List, Null, Number, Text, Type, Whole

MOST_LIKELY = 20
"""Maximum of `top_n_tokens`."""

STOPS = ("stop_strings", "stop_sequence", "stop", "stop_sequences")
"""Parameter names for stop strings."""

_STOP = AnyOf((Text(200, 1), List(Text(200, 1), 16, 0)))

PARAMETERS: Mapping[str, Type] = {
    "stop": _STOP,
    "stop_sequences": _STOP,
    "seed": Whole(0, 2**63 - 1),
    "frequency_penalty": Number(-2, 2),
    "presence_penalty": Number(-2, 2),
    "grammar": Group({"type": Choice(("json", "regex")), "value": Json()}),
    "details": Flag(),
    "top_n_tokens": Whole(0, MOST_LIKELY),
    # only the default value is supported; `model/adapters.py` puts the names of adapters into the table
    "adapter_id": Null(),
    "best_of": Choice((1,)),
    "decoder_input_details": Choice((False,)),
    "watermark": Choice((False,)),
}
"""Name -> type, for text-generation."""

_NAMES = frozenset({*STOPS, *PARAMETERS})

OF_EVERY_TEXT = ("stop", "stop_sequences", "seed")
"""Those of them for the other tasks that generate text."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """Parameters of a request that this server implements, not the pipeline."""

    stops: tuple[str, ...] = ()
    """Stop strings."""

    seed: int | None = None

    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    grammar: Grammar | None = None
    """Grammar that constrains the answer."""

    details: bool = False
    """Whether to return details of each token of the answer."""

    top: int = 0
    """Number of top tokens to return for each position."""

    def processors(self, tokenizer: Any, ends: Any) -> list[Any]:
        """Make the logits processors; `ends` are the EOS tokens."""
        found = []
        if self.frequency_penalty or self.presence_penalty:
            found.append(penalties(self.frequency_penalty, self.presence_penalty))
        if self.grammar is not None:
            named = ends if isinstance(ends, (list, tuple)) else [ends]
            found.append(self.grammar.processor(tokenizer, [one for one in named if one is not None], ""))
        return found

    adapter: str | None = None
    """The adapter that the request picks."""

    @property
    def changes_nothing(self) -> bool:
        """Whether no such parameter is set, so that the request may be batched with others of its adapter."""
        return self is _NONE or replace(self, adapter=None) == _NONE


_NONE = Wishes()
"""The object of most requests, which set no such parameter: comparing it with itself takes no time."""


def take_wishes(arguments: dict[str, Any]) -> Wishes:
    """Move the parameters that this server implements from the arguments, and from `generate_kwargs`, to `Wishes`."""
    written = arguments.get("generate_kwargs", {})
    if _NAMES.isdisjoint(arguments) and _NAMES.isdisjoint(written):
        return _NONE
    stops: list[str] = []
    for options in (arguments, written):
        for name in STOPS:
            texts = options.pop(name, [])
            stops += [texts] if isinstance(texts, str) else texts
    top = arguments.pop("top_n_tokens", 0)
    wishes = Wishes(
        stops=tuple(stops),
        seed=arguments.pop("seed", None),
        frequency_penalty=arguments.pop("frequency_penalty", 0.0),
        presence_penalty=arguments.pop("presence_penalty", 0.0),
        grammar=_grammar(arguments.pop("grammar", None)),
        details=arguments.pop("details", False) or bool(top),
        top=top,
        adapter=arguments.pop("adapter_id", None),
    )
    for name in ("best_of", "decoder_input_details", "watermark"):
        arguments.pop(name, None)
    return wishes


def _grammar(asked: Mapping[str, Any] | None) -> Grammar | None:
    if asked is None:
        return None
    return Grammar(asked.get("value"), "grammar", is_regex=asked.get("type") == "regex")


@dataclass
class Recorded:
    """The tokens of one sequence, with their log probabilities if recorded."""

    tokens: list[int] = field(default_factory=list)
    likely: list[Likely] = field(default_factory=list)


@contextmanager
def watched(wishes: Wishes, pipeline: Any) -> Iterator[tuple[dict[str, Any], Recorded]]:
    """Yield arguments of `generate` that implement the wishes, and an object that is filled with tokens meanwhile."""
    from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

    from ..writing.stopping import stop_at

    recorded = Recorded()
    arguments: dict[str, Any] = {}
    if wishes.changes_nothing:
        yield arguments, recorded
        return
    criteria: list[Any] = list(stop_at(wishes.stops, pipeline.tokenizer)) if wishes.stops else []
    with ExitStack() as stack:
        if wishes.seed is not None:
            stack.enter_context(seeded(pipeline.model.device, wishes.seed))
        if wishes.details:
            steps = stack.enter_context(likelihoods(pipeline.model, wishes.top))

            class Look(StoppingCriteria):  # type: ignore[misc] # no types
                """Records the newest token."""

                def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                    import torch

                    token = int(input_ids[0, -1])
                    recorded.tokens.append(token)
                    recorded.likely.append(likely_token(steps.popleft(), 0, token, wishes.top))
                    return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

            criteria.append(Look())
        if criteria:
            arguments["stopping_criteria"] = StoppingCriteriaList(criteria)
        processors = wishes.processors(pipeline.tokenizer, pipeline.model.generation_config.eos_token_id)
        if processors:
            arguments["logits_processor"] = LogitsProcessorList(processors)
        yield arguments, recorded


def described(recorded: Recorded, wishes: Wishes, tokenizer: Any, reason: str) -> dict[str, Any]:
    """Make the `details` of an answer."""
    text = Detokenizer(tokenizer)
    special = special_ids(tokenizer)
    tokens = [
        {"id": one.token, "text": text.add(one.token), "logprob": one.logprob, "special": one.token in special}
        for one in recorded.likely
    ]
    details: dict[str, Any] = {
        "finish_reason": reason,
        "generated_tokens": len(recorded.tokens),
        "seed": wishes.seed,
        "prefill": [],
        "tokens": tokens,
    }
    if wishes.top:
        details["top_tokens"] = [top_tokens(one, tokenizer, special) for one in recorded.likely]
    return details


def top_tokens(likely: Likely, tokenizer: Any, special: frozenset[int]) -> list[dict[str, Any]]:
    """Format the top tokens of one position."""
    return [
        {"id": token, "text": str(tokenizer.decode([token])), "logprob": score, "special": token in special}
        for token, score in likely.others
    ]
