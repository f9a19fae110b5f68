"""Translates a `config.json` written by a newer release of transformers for the installed release.

A release silently ignores fields that it does not know. Some of them change every result: the frequencies of rotary
position embeddings, or which layers use sliding-window attention.
"""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

Reads = Callable[[str], frozenset[str] | None]
"""Model type -> the fields that the installed release reads; None for an unknown type."""

_ROPE, _LAYERS, _LENGTH = "rope_parameters", "layer_types", "original_max_position_embeddings"
_ALIASES = {"rope_theta": ("rope_theta", "rotary_emb_base"), "partial_rotary_factor": ("rotary_pct",)}
_UNSAID: tuple[Any, ...] = (None, False, [], {})
"""Values that mean the same as a missing field."""


@dataclass
class Translation:
    """A translated configuration."""

    config: dict[str, Any]
    """The configuration, with the fields that the installed release reads."""

    changed: list[str] = field(default_factory=list)
    """The translated fields."""

    lost: list[str] = field(default_factory=list)
    """Fields that change results and that the installed release has no equivalent for."""

    unread: list[str] = field(default_factory=list)
    """Other fields that the installed release ignores; whether they matter is unknown."""


def translate(config: Mapping[str, Any], reads: Reads) -> Translation:
    """Translate a configuration, including nested ones with their own model type."""
    done = Translation(dict(config))
    _translate(done, done.config, reads, "")
    return done


def is_suspicious(config: Mapping[str, Any], installed: str) -> bool:
    """Whether a newer release wrote the configuration, or it has fields of one."""
    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    return written_by_newer(config, installed) or any(name in part for part in parts for name in (_ROPE, _LAYERS))


def written_by_newer(config: Mapping[str, Any], installed: str) -> bool:
    """Whether the configuration was written by a newer major version."""
    wrote = str(config.get("transformers_version") or "").partition(".")[0]
    return wrote.isdecimal() and int(wrote) > int(installed.partition(".")[0])


def fields_read(model_type: str) -> frozenset[str] | None:
    """Return the arguments and attributes of the installed release's configuration class; None for an unknown type."""
    from transformers import PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        kind = CONFIG_MAPPING[model_type]
    except KeyError:
        return None
    taken = set(PretrainedConfig().to_dict()) | set(getattr(kind, "attribute_map", {}))
    for above in kind.__mro__:
        taken |= set(vars(above).get("__annotations__", {}))
        if "__init__" in vars(above):
            taken |= set(inspect.signature(above.__init__).parameters)
    try:
        made = kind()
    except Exception:  # some classes need arguments; their derived attributes stay unknown
        return frozenset(taken)
    return frozenset(taken | set(vars(made)))


def _translate(done: Translation, config: dict[str, Any], reads: Reads, prefix: str) -> None:
    for name, part in config.items():
        if isinstance(part, Mapping) and "model_type" in part:
            config[name] = dict(part)
            _translate(done, config[name], reads, f"{prefix}{name}.")
    known = reads(str(config.get("model_type")))
    if known is None:
        return
    if "dtype" in config and "dtype" not in known:
        config.setdefault("torch_dtype", config.pop("dtype"))
    if _ROPE in config and _ROPE not in known:
        _translate_rope(done, config, known, prefix)
    if _LAYERS in config and _LAYERS not in known:
        _translate_layers(done, config, prefix)
    done.unread += [
        prefix + name
        for name, value in config.items()
        if name not in known and not name.startswith("_") and value not in _UNSAID and not _is_bookkeeping(name)
    ]


def _is_bookkeeping(name: str) -> bool:
    return name in ("auto_map", "model_type", "quantization_config", "torch_dtype", "transformers_version", "use_cache")


def _translate_rope(done: Translation, config: dict[str, Any], known: frozenset[str], prefix: str) -> None:
    rope = config.pop(_ROPE)
    if rope in _UNSAID:
        return
    named = f"{prefix}{_ROPE} ({rope})"
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        done.lost.append(named)
        return
    rest, said = dict(rope), {}
    kind = rest.pop("rope_type", rest.pop("type", "default"))
    for name, others in _ALIASES.items():
        value = rest.pop(name, None)
        if value is None or (name == "partial_rotary_factor" and value == 1 and name not in known):
            continue
        said.update({alias: value for alias in (name, *others) if alias in known})
        if not known & {name, *others}:
            done.lost.append(f"{prefix}{_ROPE}.{name} ({value})")
    if kind != "default":
        if "rope_scaling" not in known or kind not in _rope_types():
            done.lost.append(named)
            return
        scaling = _scaling(config, kind, rest, said, known)
        done.lost += [f"{prefix}{_ROPE}.{name} ({value})" for name, value in rest.items() if name not in scaling]
        # some classes accept the name of before alone
        spelt = [{name: kind, **scaling} for name in ("rope_type", "type")]
        said["rope_scaling"] = next(
            (each for each in spelt if _accepted({**config, **said, "rope_scaling": each})), spelt[0]
        )
    config.update(said)
    done.changed.append(f"{prefix}{_ROPE} as {', '.join(sorted(said))}")


def _scaling(
    config: Mapping[str, Any], kind: str, rest: dict[str, Any], said: dict[str, Any], known: frozenset[str]
) -> dict[str, Any]:
    """Return what the installed release reads of a scaling's fields; the length of the pretraining may go elsewhere.

    That length is taken out of `rest` where it is said by another field.
    """
    source = inspect.getsource(_rope_types()[kind])
    read = set(re.findall(r"""rope_(?:scaling|parameters|parameters_dict)(?:\[|\.get\()\s*["'](\w+)["']""", source))
    if _LENGTH in rest and _LENGTH not in read:
        if _LENGTH in known or f'"{_LENGTH}"' in source:
            said[_LENGTH] = rest.pop(_LENGTH)
        elif rest[_LENGTH] == config.get("max_position_embeddings"):
            rest.pop(_LENGTH)
    return {name: value for name, value in rest.items() if name in read}


def _accepted(config: Mapping[str, Any]) -> bool:
    """Whether the installed release makes a configuration of these fields."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        CONFIG_MAPPING[str(config.get("model_type"))](**copy.deepcopy(dict(config)))  # some change what they are given
    except Exception:
        return False
    return True


def _rope_types() -> Mapping[str, Callable[..., Any]]:
    from transformers import modeling_rope_utils

    return dict(modeling_rope_utils.ROPE_INIT_FUNCTIONS)


def _translate_layers(done: Translation, config: dict[str, Any], prefix: str) -> None:
    """Drop layer_types; it counts as lost unless the installed release treats the layers the same way by default."""
    layers = config.pop(_LAYERS)
    if not isinstance(layers, list):
        return
    windows = [layer != "full_attention" for layer in layers]
    has_window = bool(config.get("sliding_window")) and config.get("use_sliding_window", True) is not False
    if config.get("model_type") == "gemma2":  # every other layer has a window, starting with the first
        same = windows == [not number % 2 for number in range(len(windows))]
    else:
        same = set(windows) == {has_window} and set(layers) <= {"full_attention", "sliding_attention"}
    if not same:
        done.lost.append(f"{prefix}{_LAYERS} ({', '.join(sorted(set(map(str, layers))))})")
