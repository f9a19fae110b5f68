"""Merges a PEFT adapter (such as LoRA) into the weights of its base model, or loads several beside them."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StartError
from ..settings import HUB_ID
from .complete import ADAPTER_CONFIG, ADAPTERS, VOCABULARIES, Incomplete, some

log = logging.getLogger(__name__)

_PREFIX = "base_model.model."
_TASKS = {
    "FEATURE_EXTRACTION": "feature-extraction",
    "QUESTION_ANS": "question-answering",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
}
"""PEFT task type -> pipeline task, where it can differ from the base's config.json; other types keep the task."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A folder with an adapter."""

    folder: Path
    """The folder of `adapter_config.json` and `adapter_model.safetensors`."""

    name: str
    """The name in log and error messages."""

    config: dict[str, Any]
    """The parsed `adapter_config.json`."""

    @property
    def base(self) -> str | None:
        """The base model, if the adapter's configuration names one on the Hub."""
        named = self.config.get("base_model_name_or_path")
        return named if isinstance(named, str) and HUB_ID.fullmatch(named) else None

    @property
    def revision(self) -> str | None:
        """The revision of the base model."""
        named = self.config.get("revision")
        return named if isinstance(named, str) and named else None

    @property
    def task(self) -> str | None:
        """The pipeline task, where it can differ from that of the base model."""
        return _TASKS.get(str(self.config.get("task_type")))

    @property
    def has_tokenizer(self) -> bool:
        """Whether the adapter's folder holds the tokenizer of its training."""
        return any((self.folder / name).is_file() for name in VOCABULARIES)

    def merged(self, model: Any) -> tuple[Any, frozenset[str], list[str]]:
        """Return the model with the adapter merged, the names of the adapter's weights, and what does not fit."""
        wrapped, stored, lacks = self._loaded(model, None, "default")
        if not hasattr(wrapped, "merge_and_unload") or wrapped.active_peft_config.is_prompt_learning:
            raise StartError(
                f"the adapter {self.name} is of the kind {self.config.get('peft_type')}, which cannot be merged into "
                "the weights of its base and is not served: load it in model_fn of code/inference.py"
            )
        return wrapped.merge_and_unload(), frozenset(name.removeprefix(_PREFIX) for name in stored), lacks

    def added(self, model: Any, wrapped: Any, inner: str) -> Any:
        """Load the adapter under an inner name beside those in `wrapped`, which is None for the first; return it.

        Raises `StartError` for an adapter that cannot be switched on and off, or does not fit.
        """
        kind, bias = str(self.config.get("peft_type")), self.config.get("bias", "none")
        if kind != "LORA" or bias != "none":
            why = f"of the kind {kind}" if kind != "LORA" else f"trained with the bias '{bias}'"
            raise StartError(
                f"the adapter {self.name} is {why}, which cannot be switched on and off for each request: serve LoRA "
                "adapters with the bias 'none' beside a model, and others merged into their base"
            )
        wrapped, _, lacks = self._loaded(model, wrapped, inner)
        if lacks:
            raise StartError("; ".join(lacks))
        return wrapped

    def _loaded(self, model: Any, wrapped: Any, inner: str) -> tuple[Any, set[str], list[str]]:
        """Load the adapter into the model; return peft's model, the adapter's weights, and what does not fit."""
        try:
            peft, utils = importlib.import_module("peft"), importlib.import_module("peft.utils")
        except ImportError as error:
            raise StartError(
                f"{self.name} is an adapter, and the peft of this image cannot be imported ({error}): name a version "
                "of peft that fits in code/requirements.txt, or merge the adapter into its base (merge_and_unload)"
            ) from error
        folder = str(self.folder)
        try:
            if wrapped is None:
                wrapped = peft.PeftModel.from_pretrained(model, folder, adapter_name=inner, is_trainable=False)
            else:
                wrapped.load_adapter(folder, adapter_name=inner, is_trainable=False)
            stored = set(utils.load_peft_weights(folder, device="cpu"))
            expected = set(utils.get_peft_model_state_dict(wrapped, adapter_name=inner, save_embedding_layers=False))
        except Exception as error:
            raise StartError(
                f"the adapter {self.name} does not fit its base: {type(error).__name__}: {error}. It was trained on "
                f"{self.config.get('base_model_name_or_path')}; a head of another size wants the config.json of the "
                "training beside the adapter"
            ) from error
        lacks = [
            f"the adapter {self.name} {verb}: {some(names)}"
            for verb, names in {
                "lacks weights": expected - stored,
                "has weights that its base has no place for": stored - expected - set(wrapped.state_dict()),
            }.items()
            if names
        ]
        return wrapped, stored, lacks


def attach(model: Any, adapters: Mapping[str, Adapter]) -> Any:
    """Load adapters, by their inner names, into the layers of a model; return peft's model, which switches them."""
    wrapped = None
    for inner, adapter in adapters.items():
        wrapped = adapter.added(model, wrapped, inner)
    return wrapped


def require_peft(adapter: Adapter, incomplete: Incomplete) -> bool:
    """Return whether peft is installed; without it, report that the base model would be served without its adapter."""
    importlib.invalidate_caches()
    if importlib.util.find_spec("peft") is not None:
        return True
    incomplete.add(
        f"{adapter.name} has an adapter of {adapter.config.get('base_model_name_or_path')}, which peft applies, and "
        "this image has no peft: name peft in code/requirements.txt, extend a base image that has it, or merge the "
        "adapter into its base (merge_and_unload)"
    )
    return False


def without_adapter(folder: Path, target: Path) -> Path:
    """Link all files but the adapter's into another folder: transformers would load an adapter by itself."""
    for file in folder.iterdir():
        if file.name != ADAPTER_CONFIG and file.name not in ADAPTERS:
            (target / file.name).symlink_to(file.resolve())
    return target
