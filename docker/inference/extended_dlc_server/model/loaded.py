"""Loads the pipeline, and finds weights that transformers initialized randomly and the answer depends on.

`pipeline()` discards the loading report of `from_pretrained`, so the report is taken in `from_pretrained` itself.
"""

from __future__ import annotations

import json
import logging
import math
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import StartError
from ..files.complete import VOCABULARIES, Incomplete, read_json, some, stored_types
from ..files.stored import some_rows, stored_names
from ..files.weights import Weights, why_not_loaded
from ..json_text import encode_json
from ..reading.positions import text_config

log = logging.getLogger(__name__)

MOST_PROBES = 8
"""Up to this many modules are tested one by one; with more random ones, all of them count as needed."""


@dataclass
class Reports:
    """The loading reports of transformers."""

    loaded: list[tuple[Any, Mapping[str, Any]]] = field(default_factory=list)
    """Each model, with its `loading_info`: missing keys, mismatched keys and error messages."""

    errors: list[Exception] = field(default_factory=list)
    """Why model classes could not be loaded: `pipeline()` tries several, and the first is the intended one."""

    def of(self, model: Any) -> Mapping[str, Any]:
        return next((report for made, report in self.loaded if made is model), {})


@contextmanager
def loading_reports() -> Iterator[Reports]:
    """Patch `PreTrainedModel.from_pretrained` to record its loading report, and to accept mismatched shapes."""
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
    """Return name -> tensor of the weights that the checkpoint lacks or has in another shape.

    Tied weights that were loaded under another name are not among them, nor computed buffers (position ids).
    """
    names = [*report.get("missing_keys", ()), *(row[0] for row in report.get("mismatched_keys", ()))]
    if not names:
        return {}
    # the running statistics of a batch norm are learned too, though they are buffers
    buffers = {name: value for name, value in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    weights = {**buffers, **dict(model.named_parameters(remove_duplicate=False))}
    prefix = _prefix(model)
    found = {}
    for name in names:  # older releases add the base model's prefix even for a model without a head
        for spelt in (name, name.removeprefix(prefix), prefix + name):
            if spelt in weights:
                found[spelt] = weights[spelt]
                break
    brought = {_pointer(value) for name, value in weights.items() if name not in found}
    return {name: value for name, value in found.items() if _pointer(value) is None or _pointer(value) not in brought}


def tie_heads(model: Any, lacking: Mapping[str, Any]) -> bool:
    """Tie output and input embeddings where one of the two is missing; return whether any were tied.

    Releases before 5 tie the head of the outermost model only, and later ones save only one of the two tensors: the
    decoder inside BLIP would have a random head.
    """
    import torch

    tied = False
    for part in model.modules():
        if not hasattr(part, "get_output_embeddings"):
            continue
        with suppress(AttributeError, NotImplementedError):  # models without token embeddings
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
    """Describe each weight whose shape in the checkpoint differs from that in the model."""
    rows = sorted(report.get("mismatched_keys", ()), key=lambda row: str(row[0]))
    return [f"{row[0]} ({_shape(row[1])} in the checkpoint, {_shape(row[2])} by config.json)" for row in rows]


_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A layer's number in the name of a weight."""

_FLOATS = ("F64", "F32", "F16", "BF16")
_QUANTIZATIONS = ("quantization_config", "compression_config")


def left_out(model: Any, report: Mapping[str, Any]) -> list[str]:
    """Return the checkpoint's weights of layers that its configuration leaves out.

    They are named as weights of the model, with other numbers. Layers that predict tokens further ahead, which
    transformers does not run, are not among them.
    """
    if any(getattr(each, "num_nextn_predict_layers", None) for each in (model.config, text_config(model.config))):
        return []
    prefix = _prefix(model)
    known = {
        _NUMBER.sub("#", name.removeprefix(prefix)) for name, _ in model.named_parameters() if _NUMBER.search(name)
    }
    return [name for name in report.get("unexpected_keys", ()) if _NUMBER.sub("#", name.removeprefix(prefix)) in known]


def overruled(model: Any, files: Collection[Path]) -> list[str]:
    """Return the stored weights that differ from those that the model ties them to, beside these.

    Releases from 5 on do not tie two weights that the files have both; the ones before drop one of the two.
    """
    prefix = _prefix(model)
    shared: dict[int, set[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        if value.dim():
            shared.setdefault(id(value), set()).add(name.removeprefix(prefix))
    ties = [names for names in shared.values() if len(names) > 1]
    stored = {name: file for file in files if ties for name in stored_names(file)}
    found = []
    for names in ties:
        first, *others = sorted(name for name in stored if name.removeprefix(prefix) in names) or [""]
        rows = some_rows(stored[first], first) if others else None
        found += [f"{name} beside {first}" for name in others if not _alike([rows], [some_rows(stored[name], name)])]
    return found


def quantized(model: Any, stored: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    """Return the weights that are stored as the numbers of a quantization which is not undone.

    :param stored: Name -> type in the files.
    :param config: config.json beside them, whose `quantization_config` names a quantization; transformers passes over
        the unknown.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    named = [part[key] for part in parts for key in _QUANTIZATIONS if isinstance(part.get(key), Mapping)]
    if any(
        each.get("quant_method") in AUTO_QUANTIZATION_CONFIG_MAPPING or "quant_method" not in each for each in named
    ):
        return []
    prefix = _prefix(model)
    floats = {name.removeprefix(prefix) for name, value in model.named_parameters() if value.is_floating_point()}
    return [
        f"{name} ({kind})"
        for name, kind in stored.items()
        if kind not in _FLOATS and name.removeprefix(prefix) in floats
    ]


def _prefix(model: Any) -> str:
    """Return what the names of weights begin with in a model with a head, and not in one without."""
    return f"{getattr(model, 'base_model_prefix', '')}."


def _shape(size: Any) -> str:
    return "x".join(map(str, size)) or "1"


def _pointer(tensor: Any) -> int | None:
    """Return the tensor's data pointer, equal for tied weights; None for a meta tensor."""
    return None if tensor.device.type == "meta" else tensor.data_ptr() or None


@dataclass
class Numbers:
    """What the model's outputs had: floating-point numbers, finite ones, and those that the answer is computed from."""

    seen: bool = False
    finite: bool = False
    scores: list[Any] = field(default_factory=list)
    """The scores of each output, where they are kept."""

    has_nan: bool = False
    """Whether scores held a NaN, from which softmax makes an answer of nothing else."""

    @property
    def are_none(self) -> bool:
        """Whether all of them are NaN or infinite."""
        return self.seen and not self.finite

    @property
    def what_is_nan(self) -> str:
        """How much of them is NaN, as the subject of a sentence; empty if nothing is."""
        return "every number" if self.are_none else "a number" if self.has_nan else ""

    def add(self, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            for part in value:
                self.add(part)
        elif hasattr(value, "is_floating_point") and value.is_floating_point() and value.numel():
            self.seen, self.finite = True, self.finite or bool(value.isfinite().any())


@contextmanager
def numbers_of(model: Any, *, keep: bool = False) -> Iterator[Numbers]:
    """Watch the model's outputs inside the context: a text generated from NaN looks like any other.

    The scores of models inside it are watched too: BLIP lets its decoder write without a forward of its own.

    :param keep: Whether to keep the scores.
    """
    numbers = Numbers()

    def look(module: Any, arguments: Any, output: Any) -> None:
        parts = output if isinstance(output, Mapping) else {"": output}
        scores = [part for name, part in parts.items() if "logits" in name]
        if module is model and not scores:
            scores = [part for name, part in parts.items() if name == "last_hidden_state"]
        for part in scores or (parts.values() if module is model else ()):
            numbers.add(part)
        tensors = [part for part in scores if hasattr(part, "isnan")]
        numbers.has_nan = numbers.has_nan or any(bool(part.isnan().any()) for part in tensors)
        if keep:
            numbers.scores += [part.detach().clone() for part in tensors]

    watched = [module for module in model.modules() if module is model or hasattr(module, "base_model_prefix")]
    handles = [module.register_forward_hook(look) for module in watched]
    try:
        yield numbers
    finally:
        for handle in handles:
            handle.remove()


def read_by_the_answer(weights: Mapping[str, Any], model: Any, ask: Callable[[], Any]) -> list[str]:
    """Return the weights that the answer depends on: set them to NaN, one module at a time, and compare the answers.

    A pooler that the task does not use changes nothing. Experts, which only some inputs reach, always count as used.
    The scores are compared too: a text may stay the same, and torch's attention makes zeros of a NaN.
    """
    modules: dict[str, list[str]] = {}
    for name in weights:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    if len(modules) > MOST_PROBES:
        return sorted(weights)
    with numbers_of(model, keep=True) as numbers:
        before, read = encode_json(ask()), []
    for names in modules.values():
        changed = [weights[name] for name in names]
        if any("expert" in name for name in names) or _changes(changed, model, before, numbers.scores, ask):
            read += names
    return sorted(read)


def _changes(
    weights: Collection[Any], model: Any, before: bytes, scores: Sequence[Any], ask: Callable[[], Any]
) -> bool:
    import torch

    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:
                weight.fill_(math.nan)
        with numbers_of(model, keep=True) as numbers:
            return encode_json(ask()) != before or numbers.has_nan or not _alike(scores, numbers.scores)
    except Exception:  # NaN weights may fail in any way, which also shows that they are used
        return True
    finally:
        with suppress(NotImplementedError), torch.no_grad():  # meta tensors have no values
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)


def _alike(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether the scores of two answers are equal, but for rounding."""
    import torch

    return len(some) == len(others) and all(
        one.shape == other.shape and torch.allclose(one, other, rtol=0.01, atol=0.01)
        for one, other in zip(some, others, strict=True)
    )


def _with_files(folder: Path, written: Mapping[str, Mapping[str, Any]]) -> Path:
    """Make a folder of links to the files, with other settings: a config passed to `pipeline()` is not used."""
    target = Path(tempfile.mkdtemp(prefix="model-with-settings-"))
    for file in folder.iterdir():
        if file.name not in written:
            (target / file.name).symlink_to(file.resolve())
    for name, content in written.items():
        (target / name).write_text(json.dumps(content), encoding="utf-8")
    return target


def _preprocessor(folder: Path, name: str, installed: str) -> Mapping[str, Any] | None:
    """Return what belongs into preprocessor_config.json: releases from 5 on write it into processor_config.json."""
    whole = folder / "processor_config.json"
    if int(installed.partition(".")[0]) >= 5 or not whole.is_file() or (folder / "preprocessor_config.json").is_file():
        return None
    read = read_json(whole, name)
    parts = [read[part] for part in ("image_processor", "feature_extractor") if isinstance(read.get(part), Mapping)]
    return parts[0] if len(parts) == 1 else None


def _encoder(folder: Path, options: dict[str, Any]) -> Any:
    """Return the folder, or for a model such as T5 its encoder, loaded: the whole model requires decoder input too.

    Loading options are removed from `options` where the model is loaded here.
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


def _with_tokenizer(made: Any, weights: Weights, options: Mapping[str, Any]) -> Any:
    """Return the pipeline with the tokenizer beside the weights, if there is one.

    Releases before 5 load it only for the model types in their table, which lacks Granite and WavLM.
    """
    from transformers import AutoTokenizer
    from transformers.pipelines import pipeline

    if not any((weights.tokenizer_folder / name).is_file() for name in VOCABULARIES):
        return made
    tokenizer = AutoTokenizer.from_pretrained(
        weights.tokenizer_folder, trust_remote_code=options.get("trust_remote_code", False)
    )
    parts = {name: getattr(made, name, None) for name in ("feature_extractor", "image_processor")}
    kept = {name: options[name] for name in ("device", "trust_remote_code") if name in options}
    return pipeline(made.task, model=made.model, tokenizer=tokenizer, **parts, **kept)


def make_pipeline(
    task: str, weights: Weights, config: dict[str, Any] | None, incomplete: Incomplete, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Return the pipeline, and name -> tensor of the weights that are random.

    `config`, if given, replaces the config.json beside the weights.
    """
    import transformers
    from transformers.pipelines import pipeline

    written = {
        "config.json": config,
        "preprocessor_config.json": _preprocessor(weights.folder, weights.name, transformers.__version__),
    }
    changed = {name: content for name, content in written.items() if content is not None}
    folder = _with_files(weights.folder, changed) if changed else weights.folder
    with loading_reports() as reports:
        try:
            if weights.tokenizer_folder != weights.folder:
                options["tokenizer"] = str(weights.tokenizer_folder)
            model = _encoder(folder, options) if task == "feature-extraction" else str(folder)
            made = pipeline(task, model=model, **options)
            if made.tokenizer is None and type(made)._load_tokenizer:
                made = _with_tokenizer(made, weights, options)
        except Exception as error:
            # pipeline()'s message about "any of the following classes" does not give the cause
            cause = reports.errors[0] if reports.errors and "any of the following classes" in str(error) else error
            raise StartError(why_not_loaded(cause, weights, transformers.__version__)) from error
    report = reports.of(made.model)
    lacking = invented(made.model, report)
    if lacking and tie_heads(made.model, lacking):
        lacking = invented(made.model, report)
    _require_the_trained_model(made.model, report, weights, incomplete)
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
    _require_the_tokenizer(made, weights, incomplete)
    return made, lacking


def _require_the_tokenizer(made: Any, weights: Weights, incomplete: Incomplete) -> None:
    """Report files that the pipeline's tokenizer lacks."""
    if made.tokenizer is None or not type(made)._load_tokenizer:
        return
    if missing := missing_tokenizer_files(made.tokenizer, weights.tokenizer_folder):
        incomplete.add(
            f"{weights.name} has not all files of its tokenizer ({type(made.tokenizer).__name__}): "
            f"{', '.join(missing)} is missing, and a tokenizer without knows no words. Deliver the files too that "
            "tokenizer.save_pretrained writes"
        )


def _require_the_trained_model(model: Any, report: Mapping[str, Any], weights: Weights, incomplete: Incomplete) -> None:
    """Report weights that the files have and the model does not use as they are meant."""
    import transformers

    if names := left_out(model, report):
        incomplete.add(
            f"{weights.name} has weights of layers that its config.json leaves out: {some(names)}. Deliver the two "
            "together: the configuration has to say how many layers there are"
        )
    if names := overruled(model, weights.files()):
        incomplete.add(
            f"{weights.name} has two weights where its config.json speaks of one ({some(names)}), and transformers "
            f"{transformers.__version__} drops one of them: set tie_word_embeddings to false in it, or build the image "
            "with transformers 5 or newer"
        )
    config = read_json(weights.folder / "config.json", weights.name)  # an adapter's own says nothing of the base's
    if names := quantized(model, stored_types(weights.files()), config):
        incomplete.add(
            f"{weights.name} is quantized, and its config.json names no quantization that transformers "
            f"{transformers.__version__} knows, so that these numbers would be taken for the weights: {some(names)}. "
            "Deliver the configuration that was written with them, build the image with a newer release, or choose "
            "the weights of before"
        )


_OPTIONAL = frozenset({"normalizer_file", "target_vocab_file", "tokenizer_config_file", "tokenizer_file"})
_OTHERS = (".model", ".tiktoken", "tekken.json")
"""Endings of tokenizer files that replace the files named in `vocab_files_names`."""


def missing_tokenizer_files(tokenizer: Any, folder: Path) -> list[str]:
    """Return missing tokenizer files: without them, transformers 5 creates an empty tokenizer without an error."""
    asked = getattr(type(tokenizer), "vocab_files_names", None) or {}
    names = {file.name for file in folder.iterdir()}
    whole = any(name.startswith("tokenizer.") and name.endswith(".json") for name in names)
    if whole or any(name.endswith(_OTHERS) for name in names):
        return []
    needed = [name for role, name in asked.items() if role not in _OPTIONAL]
    missing = [name for name in needed if name not in names]
    if asked and not needed:  # this tokenizer has no other files than tokenizer.json
        missing = ["tokenizer.json"]
    return missing
