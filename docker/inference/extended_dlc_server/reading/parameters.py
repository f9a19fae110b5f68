"""Selects the parameters of the table that the loaded pipeline supports, and arranges them for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import RequestError
from .attributes import merge
from .parameter_table import CLIENTS_OWN, NOT_OF_SOUND, OF_THE_HUB, REFUSED, Limits, parameters_of
from .parameter_types import Type, check_all
from .tgi import PARAMETERS as OF_TGI

_HIDDEN_BY_KWARGS = frozenset(
    {
        *("feature-extraction", "image-segmentation", "mask-generation", "object-detection", "sentence-embeddings"),
        *("text-classification", "zero-shot-audio-classification", "zero-shot-classification"),
        *("zero-shot-image-classification", "zero-shot-object-detection"),
    }
)
"""Tasks whose pipelines read parameters from `**kwargs`, so that their signatures do not show which they support."""

_TEXT_GENERATION_KWARGS = ("padding", "add_special_tokens")
"""The same for text-generation, whose signature shows the others."""

OURS = ("truncation", "truncate", "chat_template_kwargs", *OF_TGI)
"""Parameters that this server implements, whether the pipeline supports them or not."""


_LACKING = "this model has no such parameter in the transformers release of this image"
_NO_TOKENS = "this model makes its answer at once and generates no tokens"


class Parameters:
    """The parameters of requests to one pipeline."""

    def __init__(self, pipeline: Any, task: str, limits: Limits) -> None:
        """Find out which names of the task's table the pipeline of the installed release supports."""
        named, takes_more = _named_by(type(pipeline))
        table = parameters_of(task, _of_sound(pipeline, limits) if task == "text-to-audio" else limits)
        refused = NOT_OF_SOUND if task == "text-to-audio" else {}
        generates = bool(getattr(pipeline.model, "can_generate", lambda: False)()) and "generate_kwargs" in table
        # names in the pipeline's signature are for the pipeline, not for `generate`
        self._of_generate = self._generation(pipeline, table) - named if generates else frozenset()
        self._is_greedy_at_0 = task != "automatic-speech-recognition"  # Whisper's `generate` accepts temperature 0
        # whether the pipeline takes the arguments of `generate` in `generate_kwargs`; requests may send them either way
        self.grouped = "generate_kwargs" in named
        known = {*named, *self._of_generate, *OURS}
        if task in _HIDDEN_BY_KWARGS:
            known.update(table)
        elif task == "text-generation":
            known.update(_TEXT_GENERATION_KWARGS)
        if generates and (self.grouped or takes_more or "max_new_tokens" in named):
            known.update(("generate_kwargs", *OF_THE_HUB))
        self.table: Mapping[str, Type] = {name: rule for name, rule in table.items() if name in known}
        self._refused = {**REFUSED, **refused, **dict.fromkeys(table.keys() - known, _LACKING)}
        if not getattr(pipeline.model, "can_generate", lambda: True)():
            self._refused.update(dict.fromkeys(table.keys() & (_of_generation_config() - known), _NO_TOKENS))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.table)

    @staticmethod
    def _generation(pipeline: Any, table: Mapping[str, Type]) -> frozenset[str]:
        """Return the table's names that this release's `generate` or GenerationConfig knows."""
        return frozenset(table.keys() & {*_of_generation_config(), *names_of(pipeline.model.generate)[0]})

    def check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments for the pipeline; 400 for an unknown name or an invalid value."""
        parameters = {name: value for name, value in parameters.items() if name not in CLIENTS_OWN}
        if not parameters:
            return {}
        if "generate_kwargs" in self.table:
            parameters = _renamed(parameters)
        checked = check_all(parameters, self.table, self._refused)
        grouped = checked.pop("generate_kwargs", {})
        for name in grouped.keys() & checked.keys():
            if grouped[name] != checked[name]:
                raise RequestError(
                    400, "bad-parameters", f"parameter '{name}' is given twice, in 'generate_kwargs' and beside it"
                )
        generation = {name: checked.pop(name) for name in checked.keys() & self._of_generate}
        generation.update(grouped)
        if generation.get("temperature") == 0 and self._is_greedy_at_0:
            del generation["temperature"]
            generation["do_sample"] = False
        if generation and self.grouped:
            checked["generate_kwargs"] = generation
        else:
            checked.update(generation)
        return checked


def _of_generation_config() -> set[str]:
    """Return the names of this release's generation_config.json."""
    from transformers import GenerationConfig

    return set(vars(GenerationConfig()))


def _of_sound(pipeline: Any, limits: Limits) -> Limits:
    """Return the limits of a model that generates sound: older releases fail beyond the positions of its decoder."""
    config = pipeline.model.config
    decoder = getattr(config, "decoder", None) or getattr(config, "decoder_config", None)
    positions = getattr(decoder, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 2:
        return limits
    return replace(limits, new_tokens=min(limits.new_tokens, positions - 1), all_tokens=positions)


def _renamed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rename the Hub's names to `generate_kwargs`."""
    for name in OF_THE_HUB:
        if name in parameters:
            rest = {other: value for other, value in parameters.items() if other != name}
            parameters = merge(rest, {"generate_kwargs": parameters[name]})
    return parameters


def _named_by(kind: type) -> tuple[set[str], bool]:
    """Return the parameters that a pipeline class names, and whether it accepts others.

    The names of base classes to which it passes `**kwargs` are included, as for translation.
    """
    functions = [vars(each)["_sanitize_parameters"] for each in kind.__mro__ if "_sanitize_parameters" in vars(each)]
    named: set[str] = set()
    for function in functions:
        found, takes_more = names_of(function)
        named |= found
        if not takes_more:
            break
    return named - {"self"}, names_of(functions[0])[1]


def names_of(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the named parameters of a function, and whether it has `**kwargs`."""
    parameters = inspect.signature(function).parameters.values()
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return (
        {parameter.name for parameter in parameters if parameter.kind not in variadic},
        any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters),
    )
