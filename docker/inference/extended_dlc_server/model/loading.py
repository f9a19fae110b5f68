"""Loads what the settings name: a pipeline on each device, or the user's code. Runs on the worker's thread.

torch and transformers are imported inside the functions: the server answers `/ping` while they load.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CannotAnswerError, StartError
from ..files.adapters import Adapter
from ..files.cache import place_cache
from ..files.complete import SERVED, Incomplete, some
from ..files.configuration import fields_read, is_suspicious, translate, written_by_newer
from ..files.sentence_modules import Recipe, task_of
from ..files.trained import log_training
from ..files.weights import Weights, find_adapters, find_weights
from ..machine.banner import log_banner
from ..machine.cpu import multiplies_bfloat16
from ..machine.device_errors import free_memory
from ..machine.devices import AUTO, Placement, choose_devices, seen_gpus
from ..machine.requirements import install_requirements
from ..machine.secret import read_token
from ..machine.start_time import part_of_start
from ..reading.loaders import refuse_strings
from ..reading.tasks import PIPELINES, check_task, infer_task
from ..settings import Settings
from ..writing.choosing import bias_every_token
from .adapters import serve_adapters
from .embeddings import recipe_for
from .loaded import Numbers, make_pipeline, numbers_of, read_by_the_answer
from .model import Model
from .reranking import Scoring, scoring_for
from .user_code import Context, UserModel, load_hooks
from .warm_up import warm_up_request

log = logging.getLogger(__name__)


def load_model(settings: Settings) -> Sequence[Model | UserModel]:
    """Return the model copies: warmed-up pipelines, or the user's code, which may use a pipeline or its own model."""
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - only looked at
    wanted = None if settings.model_folder_holds_a_model else settings.model_id
    downloaded = [*([wanted] if wanted else []), *(adapter.model_id for adapter in settings.adapters)]
    place_cache(os.environ, next(iter(downloaded), None), [temporary, settings.model_folder.parent])
    if settings.token_secret_arn and not settings.token:
        settings = replace(settings, token=read_token(settings.token_secret_arn))
        # huggingface_hub reads it for other downloads: a model's own code, and what the user's functions download
        os.environ["HF_TOKEN"] = settings.token or ""
    program = settings.program_file
    if settings.requirements_file:
        with part_of_start("requirements"):
            install_requirements(settings.requirements_file)
    if program is None:
        return load_pipelines(settings)
    hooks = load_hooks(program)
    if not hooks.functions:
        return load_pipelines(settings)
    if settings.adapters or (settings.model_folder / SERVED).is_dir():
        log.warning("%s answers, and adapters are not served beside own code: load them in its model_fn", program.name)
    if "model_fn" not in hooks.functions:
        (model,) = load_pipelines(settings, for_own_code=True)
        context = _context(settings, str(settings.model_folder))
        return [UserModel(hooks, context, model.pipeline, model)]
    # Without known weights, the user's model_fn finds its own.
    known = settings.model_id is not None or settings.model_folder_holds_a_model
    with part_of_start("download"):
        folder = find_weights(settings, every_file=True).folder if known else settings.model_folder
    context = _context(settings, str(folder))
    log_banner(settings, str(folder), f"that of model_fn in {program.name}", _devices())
    try:
        with part_of_start("load"):
            model = hooks.call("model_fn", context, context.system_properties["model_dir"])
    except Exception as error:
        log.exception("model_fn failed")
        raise StartError(f"model_fn of {hooks.module} failed: {type(error).__name__}: {error}") from error
    log.info("ready: model_fn returned a %s", type(model).__name__)
    return [UserModel(hooks, context, model, None)]


def _context(settings: Settings, folder: str) -> Context:
    import torch

    return Context(folder, 0 if torch.cuda.is_available() else None)


def _devices() -> str:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return f"{torch.get_num_threads()} CPU threads"


def load_pipelines(settings: Settings, *, for_own_code: bool = False) -> list[Model]:
    """Import transformers, find the task, load a pipeline on each device and warm it up.

    For user code there is only one copy, and no bfloat16 on CPU: such code may not be thread-safe, and numpy does not
    accept bfloat16 tensors.
    """
    incomplete = Incomplete(allowed=settings.allow_incomplete)
    with part_of_start("download"):
        weights = find_weights(settings, incomplete)
        adapters = [] if for_own_code else find_adapters(settings, incomplete)
    with part_of_start("imports"):
        import torch  # noqa: F401 - most of the time of the next imports
        import transformers
        import transformers.pipelines
    bias_every_token()  # once: each further call would wrap the processor of the call before

    config = weights.config()
    task = _task(settings, weights, config)

    def placed(dtype: str) -> Placement:
        found = choose_devices(
            seen_gpus(),
            size=weights.size,
            stored=config.get("dtype") or config.get("torch_dtype"),
            configured=dtype,
            has_accelerate=importlib.util.find_spec("accelerate") is not None,
            cpu_multiplies_bfloat16=multiplies_bfloat16() and not for_own_code,
        )
        return replace(found, devices=found.devices[:1]) if for_own_code else found

    placement = placed(settings.dtype)
    known = f"{task} (HF_TASK)" if settings.task else f"{task} (from config.json; HF_TASK is not set)"
    log_banner(settings, weights.described(), known, f"{_devices()}, in {placement.dtype}")
    log_training(weights.adapter.folder if weights.adapter else weights.folder, transformers.__version__)
    read = _read_config(config, weights, incomplete)
    sentences = recipe_for(weights, task, incomplete) or scoring_for(weights, task, config)
    try:
        return _load(weights, task, settings, placement, read, sentences, adapters, incomplete)
    except CannotAnswerError as error:
        if settings.dtype != AUTO or placement.dtype == "float32":
            raise
        reason = str(error)  # the exception itself would keep the model in memory
    # some models and some pipelines, mainly of older releases, work in float32 only
    log.warning("in %s %s: once more in float32", placement.dtype, reason)
    free_memory()
    return _load(weights, task, settings, placed("float32"), read, sentences, adapters, incomplete)


def _task(settings: Settings, weights: Weights, config: dict[str, Any]) -> str:
    """Return the configured task; otherwise that of the adapter, the sentence-transformers modules or config.json."""
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    if settings.task is None and (weights.folder / "config_setfit.json").is_file():
        raise StartError(
            f"{weights.name} is a classifier of SetFit, whose head (model_head.pkl) transformers does not load: load "
            "it in model_fn of code/inference.py, with setfit in code/requirements.txt, or set HF_TASK to "
            "'feature-extraction' for the vectors of its body"
        )
    of_adapter = weights.adapter.task if weights.adapter else None
    inferred = of_adapter or task_of(weights.modules_folder, weights.name)
    return check_task(
        settings.task or inferred or infer_task(config, _auto_mappings(), PIPELINE_REGISTRY.supported_tasks.keys()),
        installed=PIPELINE_REGISTRY.supported_tasks.keys(),
        aliases=PIPELINE_REGISTRY.task_aliases,
        version=transformers.__version__,
    )


def _read_config(config: dict[str, Any], weights: Weights, incomplete: Incomplete) -> dict[str, Any] | None:
    """Return the configuration for the installed release, or None if it is the one beside the weights."""
    import transformers

    installed, changed = transformers.__version__, weights.config_folder != weights.folder
    if is_suspicious(config, installed):
        done = translate(config, fields_read)
        wrote = f"config.json of {weights.name}, written by transformers {config.get('transformers_version')},"
        if done.lost:
            incomplete.add(
                f"{wrote} says what changes the answer and what transformers {installed} does not read: "
                f"{'; '.join(done.lost)}. Build the image with that release"
            )
        if done.changed:
            log.info("%s was translated for %s: %s", wrote, installed, "; ".join(done.changed))
        if done.unread and written_by_newer(config, installed):
            log.warning("%s has fields that %s does not read: %s", wrote, installed, some(done.unread))
        config, changed = done.config, changed or bool(done.changed)
    return config if changed else None


def _load(
    weights: Weights,
    task: str,
    settings: Settings,
    placement: Placement,
    config: dict[str, Any] | None,
    sentences: Recipe | Scoring | None,
    adapters: list[Adapter],
    incomplete: Incomplete,
) -> list[Model]:
    """Load a copy on each device, one after the other: loading sets torch's default dtype for all threads."""
    import torch
    from transformers.pipelines import pipeline

    dtype = "dtype" if "dtype" in inspect.signature(pipeline).parameters else "torch_dtype"
    models = []
    for device in placement.devices:
        with part_of_start("load"):
            loaded, invented = make_pipeline(
                PIPELINES.get(task, task),
                weights,
                config,
                incomplete,
                token=settings.token,
                trust_remote_code=settings.trust_remote_code,
                **{"device_map" if device == AUTO else "device": device, dtype: getattr(torch, placement.dtype)},
            )
        refuse_strings()
        models.append(Model(loaded, task, settings, sentences))
        broken = f"of the first answer of {weights.name} is NaN in {placement.dtype}"
        with numbers_of(loaded.model) as numbers, part_of_start("warm-up"):
            try:
                models[-1].warm_up()
            except CannotAnswerError as error:
                is_nan = numbers.what_is_nan
                raise CannotAnswerError(f"{is_nan} {broken}: {error}") if is_nan else error from error.__cause__
        if is_nan := _what_is_nan(models[-1], numbers):
            if settings.dtype == AUTO and placement.dtype != "float32":
                raise CannotAnswerError(f"{is_nan} {broken}")
            why = "the training or the conversion broke the weights, deliver those of before"
            if invented:
                why = f"it lacks {some(invented)}, deliver a checkpoint that has them"
            incomplete.add(f"{is_nan} {broken}: {why}")
        _require_what_is_read(models[-1], invented, weights.name, incomplete)
        serve_adapters(models[-1], adapters)
    incomplete.tell(weights.name)
    log.info(
        "ready to serve %s for %s in %s, in batches of up to %d, copies: %d",
        *(weights.name, task, placement.dtype, models[0].batch_size, len(models)),
    )
    return models


def _what_is_nan(model: Model, seen: Numbers) -> str:
    """Return how much of an answer is NaN: padding beside other requests may be, and is not read."""
    if seen.are_none or not seen.has_nan:
        return seen.what_is_nan
    with numbers_of(model.pipeline.model) as alone:
        model._call(*warm_up_request(model.expected, model.pipeline))
    return alone.what_is_nan


def _require_what_is_read(model: Model, invented: dict[str, Any], name: str, incomplete: Incomplete) -> None:
    """Report missing weights that the task uses, such as its head; unused ones do not matter."""
    if not invented:
        return

    def ask() -> Any:
        return model._call(*warm_up_request(model.expected, model.pipeline))

    read = read_by_the_answer(invented, model.pipeline.model, ask)
    if read:
        kind = type(model.pipeline.model).__name__
        incomplete.add(
            f"{name} lacks weights from which {model.task} computes its answer, and {kind} has random ones instead: "
            f"{some(read)}. Choose the HF_TASK that the model was trained for, or a checkpoint that has them"
        )


def _auto_mappings() -> dict[str, Any]:
    from transformers.models.auto import modeling_auto

    return {name: value for name, value in vars(modeling_auto).items() if name.endswith("_MAPPING_NAMES")}
