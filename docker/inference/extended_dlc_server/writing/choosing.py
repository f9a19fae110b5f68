"""Sampling: how a request wants the next token to be chosen, and the choice for many sequences at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CANDIDATES = (256, 4096)
"""Numbers of top tokens that a choice comes from, tried in turn before the whole vocabulary is sorted.

For 16 sequences and a vocabulary of 150,000 on one core, the top 256 take 9 ms, the top 1,024 twice that.
"""

_BLOCK = 512
"""Tokens whose probabilities are summed together where a choice needs no order."""

Processor = Callable[[Any, Any], Any]
"""A logits processor for one sequence: takes all its tokens with the prompt, and the scores, both with one row."""


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Sampling parameters."""

    temperature: float = 1.0
    top_k: int = 0
    """Number of top tokens to sample from; 0 for all."""

    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `generate` would do with a GenerationConfig and arguments."""

    chance: Chance | None
    """None for greedy decoding."""

    processors: Callable[[], list[Processor]]
    """Makes the processors of a sequence."""

    least: int
    """Minimum number of new tokens: before it no EOS token may come."""

    shortest: int
    """`min_length`, which includes the prompt; the larger of the two counts."""

    warpers: Callable[[Any], list[Processor]]
    """Makes the logits warpers for a device; they run after all processors."""

    most: int | None
    """Maximum number of new tokens."""

    longest: int | None
    """`max_length`, which includes the prompt; used if `most` is None."""

    ends: frozenset[int]
    """Tokens that end a sequence."""

    count: int
    """Number of sequences."""


_DEFAULTS: Mapping[str, Any] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "sequence_bias": None,
    "max_new_tokens": None,
    "max_length": 20,
    "eos_token_id": None,
    "num_return_sequences": 1,
}
"""The arguments that this module supports, with the defaults of `generate`."""

_OF_NO_EFFECT = frozenset(
    {
        *("assistant_confidence_threshold", "assistant_lookbehind", "bos_token_id", "cache_config", "compile_config"),
        *("continuous_batching_config", "decoder_start_token_id", "disable_compile", "early_stopping"),
        *("generation_kwargs", "is_assistant", "length_penalty", "low_memory", "max_matching_ngram_size"),
        *("num_assistant_tokens", "num_assistant_tokens_schedule", "output_attentions", "output_hidden_states"),
        *("output_logits", "output_scores", "pad_token_id", "prefill_chunk_size", "return_dict_in_generate"),
        *("return_legacy_cache", "speculation_type", "target_lookbehind", "transformers_version", "use_cache"),
        *("use_mtp", "max_cache_len", "renormalize_logits", "cache_implementation"),
    }
)
"""Arguments that do not change a text without beam search, or only set how transformers computes it."""

_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0, 0.0),
    "encoder_repetition_penalty": (1, 1.0),
    "encoder_no_repeat_ngram_size": (0,),
    "penalty_alpha": (0, 0.0),
    "guidance_scale": (1, 1.0),
    "remove_invalid_values": (False,),
    "token_healing": (False,),
}
"""Other arguments, with the values that have no effect."""


_MOST_PLANS = 256
"""Maximum number of cached plans."""

_LONGEST_KEY = 2000
"""Maximum characters of the arguments of a cached plan: biases of thousands of tokens are hardly sent twice."""

_LEAST_TEMPERATURE = 1e-6
"""Lower temperatures, as a `top_p` of 0, leave the most likely token; scores divided by them would overflow."""


class Plans:
    """A cache of plans by their arguments: most requests use the same few combinations."""

    def __init__(self, make: Callable[[Mapping[str, Any]], Plan | None]) -> None:
        self._make = make
        self._made: dict[str, Plan | None] = {}

    def of(self, arguments: Mapping[str, Any]) -> Plan | None:
        """Return the plan, or None for arguments that are not JSON: stop strings come with a tokenizer object."""
        try:
            key = json.dumps(arguments, sort_keys=True)
        except TypeError:
            return None
        if len(key) > _LONGEST_KEY:
            return self._make(arguments)
        if key not in self._made:
            if len(self._made) >= _MOST_PLANS:
                self._made.clear()
            self._made[key] = self._make(arguments)
        return self._made[key]


def plan_of(config: Any, arguments: Mapping[str, Any]) -> Plan | None:
    """Return the plan for a GenerationConfig and arguments, or None if this module does not support them."""
    asked = {name: value for name, value in config.to_dict().items() if value is not None} | {
        name: value for name, value in arguments.items() if value is not None
    }
    read: dict[str, Any] = dict(_DEFAULTS)
    for name, value in asked.items():
        if name in _DEFAULTS:
            read[name] = value
        elif name.startswith("_") or name in _OF_NO_EFFECT or value in _NOTHING.get(name, ()):
            continue
        else:
            return None
    ends = read["eos_token_id"]
    chance = None
    rare = read["typical_p"] < 1 or read["epsilon_cutoff"] > 0 or read["eta_cutoff"] > 0
    if read["do_sample"] and rare:
        chance = Chance()
    elif read["do_sample"] and read["top_p"] > 0 and read["temperature"] >= _LEAST_TEMPERATURE:
        chance = Chance(
            temperature=float(read["temperature"]),
            top_k=int(read["top_k"]),
            top_p=float(read["top_p"]),
            min_p=float(read["min_p"]),
        )
    return Plan(
        chance=chance,
        processors=lambda: _processors(read),
        least=read["min_new_tokens"],
        shortest=read["min_length"],
        warpers=lambda device: _rare_warpers(read, device) if chance and rare else [],
        most=read["max_new_tokens"],
        longest=read["max_length"],
        ends=frozenset(ends if isinstance(ends, (list, tuple)) else [] if ends is None else [ends]),
        count=read["num_return_sequences"],
    )


def bias_every_token() -> None:
    """Let `generate` take a list of biases with the token 0, which releases up to 4.46 refuse in lists alone."""
    from transformers.generation import utils

    class Biases(utils.SequenceBiasLogitsProcessor):  # type: ignore[misc] # no types
        """Passes the older form on, which each release takes."""

        def __init__(self, sequence_bias: Any) -> None:
            super().__init__(
                sequence_bias=by_tokens(sequence_bias) if isinstance(sequence_bias, list) else sequence_bias
            )

    utils.SequenceBiasLogitsProcessor = Biases


def by_tokens(biases: Sequence[tuple[Sequence[int], float]]) -> dict[tuple[int, ...], float]:
    return {tuple(tokens): float(bias) for tokens, bias in biases}


def _processors(read: Mapping[str, Any]) -> list[Processor]:
    """Return the logits processors that `generate` would use, in its order, but for those of the least length."""
    import transformers as known

    found: list[Processor] = []
    if read["sequence_bias"]:
        found.append(known.SequenceBiasLogitsProcessor(sequence_bias=by_tokens(read["sequence_bias"])))
    if read["repetition_penalty"] != 1:
        found.append(known.RepetitionPenaltyLogitsProcessor(penalty=float(read["repetition_penalty"])))
    if read["no_repeat_ngram_size"] > 0:
        found.append(known.NoRepeatNGramLogitsProcessor(read["no_repeat_ngram_size"]))
    return found


def _rare_warpers(read: Mapping[str, Any], device: Any) -> list[Processor]:
    """Return all logits warpers, for plans with one that `choose` does not implement."""
    import transformers as known

    found: list[Processor] = []
    if read["temperature"] != 1:
        found.append(known.TemperatureLogitsWarper(float(read["temperature"])))
    if read["top_k"]:
        found.append(known.TopKLogitsWarper(int(read["top_k"])))
    if read["top_p"] < 1:
        found.append(known.TopPLogitsWarper(float(read["top_p"])))
    if read["min_p"] > 0:
        found.append(known.MinPLogitsWarper(float(read["min_p"])))
    if read["typical_p"] < 1:
        found.append(known.TypicalLogitsWarper(mass=float(read["typical_p"])))
    if 0 < read["epsilon_cutoff"] < 1:
        found.append(known.EpsilonLogitsWarper(epsilon=read["epsilon_cutoff"]))
    if 0 < read["eta_cutoff"] < 1:
        found.append(known.EtaLogitsWarper(epsilon=read["eta_cutoff"], device=str(device)))
    return found


def choose(scores: Any, chances: Sequence[Chance | None], draws: Sequence[float]) -> list[int | None]:
    """Return the next token of each row of scores: the most likely one, or one sampled by its draw from 0 to 1.

    None for a row whose maximum is not finite.
    """
    best, tokens = scores.max(-1)
    usable = best.isfinite().tolist()
    chosen: list[int] = tokens.tolist()
    by_chance = [row for row, chance in enumerate(chances) if chance is not None and usable[row]]
    if by_chance:
        likely = [chances[row] or Chance() for row in by_chance]
        drawn = _draw(_rows(scores, by_chance), likely, [draws[row] for row in by_chance])
        for row, token in zip(by_chance, drawn, strict=True):
            chosen[row] = token
    return [token if fine else None for token, fine in zip(chosen, usable, strict=True)]


def _draw(scores: Any, chances: Sequence[Chance], draws: Sequence[float]) -> list[int]:
    """Sample a token for each row, in a way that depends on the row alone.

    Without `top_k`, `top_p` and `min_p` the tokens need no order. Otherwise few top tokens suffice for most rows.
    """
    size = scores.shape[-1]
    scores = scores / _column([chance.temperature for chance in chances], scores)
    ranked = [each.top_p < 1 or each.min_p > 0 or 0 < each.top_k < size for each in chances]
    chosen: dict[int, int] = {}
    plain = [row for row, needs_order in enumerate(ranked) if not needs_order]
    if plain:
        chosen.update(zip(plain, _draw_plain(_rows(scores, plain), [draws[row] for row in plain]), strict=True))
    for count in (*(each for each in _CANDIDATES if each < size), size):
        rows = [row for row in range(len(chances)) if row not in chosen]
        if not rows:
            break
        drawn = _draw_ranked(_rows(scores, rows), [chances[row] for row in rows], [draws[row] for row in rows], count)
        chosen.update((row, token) for row, token in zip(rows, drawn, strict=True) if token is not None)
    return [chosen[row] for row in range(len(chances))]


def _draw_plain(scores: Any, draws: Sequence[float]) -> list[int]:
    """Sample from the whole vocabulary in its own order: first the block of tokens, then the token in it."""
    import torch

    rows, size = scores.shape
    blocks = torch.nn.functional.pad(scores.softmax(-1), (0, -size % _BLOCK)).view(rows, -1, _BLOCK)
    each = blocks.sum(-1).double()
    sums = each.cumsum(-1)
    wanted = _below(_column(draws, sums) * sums[:, -1:], sums[:, -1:])
    block = (sums <= wanted).sum(-1, keepdim=True)
    before = sums.gather(-1, block) - each.gather(-1, block)
    inside = blocks[torch.arange(rows, device=scores.device), block.squeeze(-1)].double().cumsum(-1)
    within = (inside <= _below((wanted - before).clamp(min=0), inside[:, -1:])).sum(-1, keepdim=True)
    found: list[int] = (block * _BLOCK + within).squeeze(-1).tolist()
    return found


def _draw_ranked(scores: Any, chances: Sequence[Chance], draws: Sequence[float], count: int) -> list[int | None]:
    """Sample from the `count` top tokens; None for a row for which these may not suffice."""
    import torch

    size = scores.shape[-1]
    limits = [chance.top_k if 0 < chance.top_k < size else size for chance in chances]
    values, tokens = scores.topk(count) if count < size else scores.sort(descending=True)
    inside = torch.arange(count, device=scores.device)[None] < _column(limits, scores)
    values = values.masked_fill(~inside, float("-inf"))
    likely = values.softmax(-1)
    if count < size and size in limits:
        # rows without top_k are normalized over the whole vocabulary
        open_rows = torch.tensor([limit == size for limit in limits], device=scores.device)[:, None]
        likely = torch.where(open_rows, (values - scores.logsumexp(-1, keepdim=True)).exp(), likely)
    likely = likely.double()
    before = likely.cumsum(-1) - likely
    kept = likely * (before < _column([chance.top_p for chance in chances], likely))
    kept = kept * (likely >= _column([chance.min_p for chance in chances], likely) * likely[:, :1])
    sums = kept.cumsum(-1)
    wanted = _below(_column(draws, sums) * sums[:, -1:], sums[:, -1:])
    chosen: list[int | None] = tokens.gather(-1, (sums <= wanted).sum(-1, keepdim=True)).squeeze(-1).tolist()
    if count < size:
        covered, least = likely.sum(-1).tolist(), (likely[:, -1] / likely[:, 0]).tolist()
        for row, chance in enumerate(chances):
            all_kept = covered[row] >= min(chance.top_p, 1 - 1e-6) or least[row] < chance.min_p
            if limits[row] > count and not (limits[row] == size and all_kept):
                chosen[row] = None
    return chosen


def _rows(scores: Any, rows: Sequence[int]) -> Any:
    """Return some rows of scores, and the scores themselves for all: a copy of 16 rows takes a millisecond."""
    return scores if len(rows) == scores.shape[0] else scores[rows]


def _column(values: Sequence[float], like: Any) -> Any:
    """Return the values as a column of a tensor's type, on its device."""
    import torch

    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _below(values: Any, sums: Any) -> Any:
    """Return the values, but below the sums by a step of their type: no token without probability is drawn then."""
    return values.minimum(sums.nextafter(sums.new_zeros(())))
