"""What was made of the files: the weights that transformers had to invent, and whether the answer depends on them.

`pipeline()` loads the model and keeps transformers' own report to itself, so the report is taken where it is made.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import StartError
from ..files.complete import Incomplete, some
from ..files.weights import Weights, why_not_loaded
from ..json_text import encode_json

log = logging.getLogger(__name__)

MOST_PROBES = 8
"""Modules that are tried one by one; where more were invented, all of them count as needed."""


@dataclass
class Reports:
    """What transformers said about the models that it loaded."""

    loaded: list[tuple[Any, Mapping[str, Any]]] = field(default_factory=list)
    """Each model, with what its checkpoint lacked and what did not fit."""

    errors: list[Exception] = field(default_factory=list)
    """Why classes could not be loaded: `pipeline()` tries several, and the first is the one that was meant."""

    def of(self, model: Any) -> Mapping[str, Any]:
        """The report about this model."""
        return next((report for made, report in self.loaded if made is model), {})


@contextmanager
def loading_reports() -> Iterator[Reports]:
    """Ask every `from_pretrained` of a model for its report, also where shapes do not fit."""
    from transformers import PreTrainedModel

    original = vars(PreTrainedModel)["from_pretrained"]
    reports = Reports()

    def from_pretrained(kind: Any, /, *arguments: Any, output_loading_info: bool = False, **options: Any) -> Any:
        options.setdefault("ignore_mismatched_sizes", True)
        try:
            model, report = original.__func__(kind, *arguments, output_loading_info=True, **options)
        except Exception as error:
            reports.errors.append(error)
            raise
        reports.loaded.append((model, report))
        return (model, report) if output_loading_info else model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield reports
    finally:
        PreTrainedModel.from_pretrained = original


def invented(model: Any, report: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> tensor of the weights that the checkpoint lacks or has in another shape.

    Not those that another name has brought (tied weights), nor what a model computes for itself (position numbers).
    """
    names = [*report.get("missing_keys", ()), *(row[0] for row in report.get("mismatched_keys", ()))]
    if not names:
        return {}
    # statistics are learned too, though no optimizer changes them
    buffers = {name: value for name, value in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    weights = {**buffers, **dict(model.named_parameters(remove_duplicate=False))}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    found = {}
    for name in names:  # older releases name the parts of a bare model as if it had a head
        for spelt in (name, name.removeprefix(prefix), prefix + name):
            if spelt in weights:
                found[spelt] = weights[spelt]
                break
    brought = {_place(value) for name, value in weights.items() if name not in found}
    return {name: value for name, value in found.items() if _place(value) is None or _place(value) not in brought}


def tie_heads(model: Any, lacking: Mapping[str, Any]) -> bool:
    """Whether a head and the table of its input, of which one was lacking, are now one, as the configuration says.

    Releases before 5 tie the head of the whole model alone as they load it, and later ones save only one of the two:
    the decoder inside BLIP would have a random head.
    """
    import torch

    tied = False
    for part in model.modules():
        if not hasattr(part, "get_output_embeddings"):
            continue
        with suppress(AttributeError, NotImplementedError):  # models without texts
            table, head = part.get_input_embeddings().weight, part.get_output_embeddings().weight
            lacks = [any(weight is one for one in lacking.values()) for weight in (table, head)]
            if table is head or lacks not in ([True, False], [False, True]):
                continue
            delivered = (head if lacks[0] else table).detach().clone()
            part.tie_weights()
            if part.get_output_embeddings().weight is part.get_input_embeddings().weight:
                with torch.no_grad():
                    part.get_output_embeddings().weight.copy_(delivered)
                tied = True
    return tied


def misfits(report: Mapping[str, Any]) -> list[str]:
    """What has another shape in the checkpoint than in the model, with both."""
    rows = sorted(report.get("mismatched_keys", ()), key=lambda row: str(row[0]))
    return [f"{row[0]} ({_shape(row[1])} in the checkpoint, {_shape(row[2])} by config.json)" for row in rows]


def _shape(size: Any) -> str:
    return "x".join(map(str, size)) or "1"


def _place(tensor: Any) -> int | None:
    """What two names of one tensor have in common; nothing is known of one that is on no device."""
    return None if tensor.device.type == "meta" else tensor.data_ptr() or None


@dataclass
class Numbers:
    """Whether there was a tensor of numbers, and whether any was finite."""

    seen: bool = False
    finite: bool = False
    broken: bool = False
    """Whether scores before the answer was made of them held one that is none."""

    @property
    def are_none(self) -> bool:
        """Whether all of them are NaN or infinite."""
        return self.seen and not self.finite

    def add(self, value: Any) -> None:
        """Look at a tensor, or at those in a sequence."""
        if isinstance(value, (list, tuple)):
            for part in value:
                self.add(part)
        elif hasattr(value, "is_floating_point") and value.is_floating_point() and value.numel():
            self.seen, self.finite = True, self.finite or bool(value.isfinite().any())


@contextmanager
def numbers_of(model: Any) -> Iterator[Numbers]:
    """Watch what the model gives meanwhile: a text made of NaN looks like any other."""
    numbers = Numbers()

    def look(module: Any, arguments: Any, output: Any) -> None:
        parts = output if isinstance(output, Mapping) else {"": output}
        scores = [part for name, part in parts.items() if "logits" in name]
        for part in scores or parts.values():
            numbers.add(part)
        numbers.broken = numbers.broken or any(hasattr(part, "isnan") and bool(part.isnan().any()) for part in scores)

    handle = model.register_forward_hook(look)
    try:
        yield numbers
    finally:
        handle.remove()


def read_by_the_answer(weights: Mapping[str, Any], model: Any, ask: Callable[[], Any]) -> list[str]:
    """Which of these weights the answer is computed from: they are set to NaN, module by module, and it is asked again.

    A pooler that the task leaves aside changes nothing. What only some inputs reach (experts) counts as read.
    """
    modules: dict[str, list[str]] = {}
    for name in weights:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    if len(modules) > MOST_PROBES:
        return sorted(weights)
    before, read = encode_json(ask()), []
    for names in modules.values():
        if any("expert" in name for name in names) or _changes([weights[name] for name in names], model, before, ask):
            read += names
    return sorted(read)


def _changes(weights: Collection[Any], model: Any, before: bytes, ask: Callable[[], Any]) -> bool:
    import torch

    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:
                weight.fill_(math.nan)
        with numbers_of(model) as numbers:
            return encode_json(ask()) != before or numbers.broken
    except Exception:  # a model of NaN may fail in any way, and only because of them
        return True
    finally:
        with suppress(NotImplementedError), torch.no_grad():  # no device, no value
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)


def _with_config(folder: Path, config: Mapping[str, Any]) -> Path:
    """The same files with another config.json: what `pipeline()` is given as an object never reaches the model."""
    place = Path(tempfile.mkdtemp(prefix="model-with-config-"))
    for file in folder.iterdir():
        if file.name != "config.json":
            (place / file.name).symlink_to(file.resolve())
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return place


def _encoder(folder: Path, options: dict[str, Any]) -> Any:
    """The folder, or of a model such as T5 its encoder alone: the whole would want a text to decode too.

    Takes from the options what a model that is loaded already needs no more.
    """
    from transformers import AutoConfig, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

    trusted = {"trust_remote_code": options.get("trust_remote_code", False)}
    config = AutoConfig.from_pretrained(folder, **trusted)
    known = type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
    if not known or not MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)].__name__.endswith("EncoderModel"):
        return str(folder)
    options.setdefault("tokenizer", str(folder))
    loading = {name: options.pop(name) for name in ("dtype", "torch_dtype", "device_map") if name in options}
    return AutoModelForTextEncoding.from_pretrained(folder, **loading, **trusted)


def make_pipeline(
    task: str, weights: Weights, config: dict[str, Any] | None, incomplete: Incomplete, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """transformers' pipeline of these weights, and those of its weights that nobody delivered.

    With a `config` that is read instead of the one beside the weights.
    """
    import transformers
    from transformers.pipelines import pipeline

    folder = weights.folder if config is None else _with_config(weights.folder, config)
    with loading_reports() as reports:
        try:
            if weights.tokenizer_folder != weights.folder:
                options["tokenizer"] = str(weights.tokenizer_folder)
            model = _encoder(folder, options) if task == "feature-extraction" else str(folder)
            made = pipeline(task, model=model, **options)
        except Exception as error:
            # that pipeline() could load no class says nothing of why
            cause = reports.errors[0] if reports.errors and "any of the following classes" in str(error) else error
            raise StartError(why_not_loaded(cause, weights, transformers.__version__)) from error
    report = reports.of(made.model)
    lacking = invented(made.model, report)
    if lacking and tie_heads(made.model, lacking):
        lacking = invented(made.model, report)
    if report.get("error_msgs"):
        incomplete.add(f"weights of {weights.name} cannot be loaded: {some(map(str, report['error_msgs']))}")
    if weights.adapter:
        made.model, brought, lacks = weights.adapter.merged(made.model)
        lacking = {name: value for name, value in lacking.items() if name not in brought}
        for lack in lacks:
            incomplete.add(lack)
    if wrong := misfits(
        {**report, "mismatched_keys": [r for r in report.get("mismatched_keys", ()) if r[0] in lacking]}
    ):
        incomplete.add(f"weights of {weights.name} do not fit its config.json: {some(wrong)}. Deliver the two together")
    if (
        made.tokenizer is not None
        and type(made)._load_tokenizer
        and (missing := missing_tokenizer_files(made.tokenizer, weights.tokenizer_folder))
    ):
        incomplete.add(
            f"{weights.name} has not all files of its tokenizer ({type(made.tokenizer).__name__}): "
            f"{', '.join(missing)} is missing, and a tokenizer without knows no words. Deliver the files too that "
            "tokenizer.save_pretrained writes"
        )
    return made, lacking


_OPTIONAL = frozenset({"normalizer_file", "target_vocab_file", "tokenizer_config_file", "tokenizer_file"})
_OTHERS = (".model", ".tiktoken", "tekken.json")
"""How files end that stand for those that a tokenizer asks for by name."""


def missing_tokenizer_files(tokenizer: Any, folder: Path) -> list[str]:
    """What the tokenizer should have been made of: from transformers 5 on an empty one is made without a word."""
    asked = getattr(type(tokenizer), "vocab_files_names", None) or {}
    names = {file.name for file in folder.iterdir()}
    whole = any(name.startswith("tokenizer.") and name.endswith(".json") for name in names)
    if whole or any(name.endswith(_OTHERS) for name in names):
        return []
    needed = [name for role, name in asked.items() if role not in _OPTIONAL]
    missing = [name for name in needed if name not in names]
    if asked and not needed:  # known by the whole file only
        missing = ["tokenizer.json"]
    return missing
