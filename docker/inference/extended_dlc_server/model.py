"""The model: a transformers pipeline that is loaded, warmed up and asked. All of it runs on the worker's thread.

torch and transformers are imported inside the functions: the server answers `/ping` while they load.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .banner import banner
from .batching import Batching
from .cpu import multiplies_bfloat16
from .decoding import Decoded, Expected
from .device_errors import explain_device, free_memory
from .devices import AUTO, Placement, place, seen_gpus
from .encoding import encode
from .errors import CannotAnswerError, RequestError, StartError
from .negotiation import Form
from .parameters import legal_parameters
from .requirements import install_requirements
from .secret import read_token
from .settings import Settings
from .speech import is_whisper, share_what_is_heard, transcribe
from .streaming import Emit, StreamEndedError, TokenEvents, event, finish_reason
from .tasks import Kind, check_task, infer_task, kind_of
from .tokens import TokenCounter
from .user_code import Context, UserModel, load_hooks
from .weights import Weights, find_weights, why_not_loaded
from .worker import Shared

log = logging.getLogger(__name__)


class Model:
    """One loaded pipeline and what it takes."""

    def __init__(self, pipeline: Any, task: str, settings: Settings) -> None:
        """Read from the pipeline what its callers may send."""
        self.pipeline = pipeline
        if task == "automatic-speech-recognition" and is_whisper(pipeline):
            share_what_is_heard(pipeline.model)
        self._parameters = legal_parameters(pipeline, task)
        self._batching = Batching(pipeline, task, settings.batch_size)
        self._counter = TokenCounter(pipeline.model)
        self.task = task
        extractor = getattr(pipeline, "feature_extractor", None)
        self.expected = Expected(
            task=task,
            kind=kind_of(task),
            sampling_rate=getattr(extractor, "sampling_rate", None) or 16_000,
            max_audio_seconds=settings.max_audio_seconds,
        )

    @property
    def batch_size(self) -> int:
        """Most requests that run together."""
        return self._batching.size

    def answer(self, request: Decoded) -> bytes:
        """The pipeline's result in its form; what goes wrong comes as a `RequestError`, or as a `FatalError`."""
        with self._counter.count([request.tokens]):
            result = self.predict(request)
        return self._written(result, request)

    def shared(self, request: Decoded) -> Shared | None:
        """How this request may run together with others; 400 for parameters that it may not have at all."""
        key = self._batching.key(request.inputs, self._parameters.check(request.parameters))
        if key is None:
            return None
        return Shared(key=key, item=request, most=self._batching.most(request.inputs), run=Model.answer_together)

    def predict(self, request: Decoded) -> Any:
        """The pipeline's result as it is."""
        arguments = self._parameters.check(request.parameters)
        try:
            return self._call(request.inputs, arguments)
        except Exception as error:
            raise self._explained(error, request.inputs) from error

    def answer_together(self, requests: Sequence[Decoded]) -> list[bytes | Exception]:
        """Answers of requests with equal parameters; whatever goes wrong is for each of them alone to explain."""
        arguments = self._parameters.check(requests[0].parameters)
        try:
            with self._counter.count([request.tokens for request in requests]):
                results = self._batching.call([request.inputs for request in requests], arguments)
        except Exception as error:
            raise explain_device(error) or error from error
        answers: list[bytes | Exception] = []
        for result, request in zip(results, requests, strict=True):
            try:
                answers.append(self._written(result, request))
            except RequestError as error:
                answers.append(error)
        return answers

    def _written(self, result: Any, request: Decoded) -> bytes:
        result = _verbose(result, request) if request.form is Form.VERBOSE else result
        return encode(result, request.form, self.expected.task)

    def stream(self, request: Decoded, emit: Emit, gone: threading.Event) -> int:
        """Generate with an event for each token, and a last one with what `answer` would have; returns how many."""
        arguments = self._parameters.check(request.parameters)
        chat = isinstance(request.inputs, list) and isinstance(request.inputs[0], dict)
        several = any(arguments.get(name) not in (None, 1) for name in ("num_return_sequences", "num_beams"))
        if several or not (isinstance(request.inputs, str) or chat):
            raise RequestError(400, "cannot-stream", "a stream has one answer: send one text or one chat, and no beams")
        events = TokenEvents(self.pipeline.tokenizer, emit, gone)
        try:
            (result,) = self.pipeline(request.inputs, streamer=events, **arguments)
        except StreamEndedError:
            raise
        except Exception as error:
            raise self._explained(error, request.inputs) from error
        config = self.pipeline.model.generation_config
        reason = finish_reason(
            events.tokens,
            arguments.get("eos_token_id", config.eos_token_id),
            stopped_by_text=bool(arguments.get("stop_strings") or arguments.get("stop_sequence"))
            and len(events.tokens) != arguments.get("max_new_tokens"),
        )
        emit(event({**result, "details": {"finish_reason": reason, "generated_tokens": len(events.tokens)}}))
        return len(events.tokens)

    def warm_up(self) -> None:
        """One small inference, so that the first request finds everything imported, compiled and allocated."""
        try:
            inputs, arguments = _warm_up_request(self.expected, self.pipeline)
            self._call(inputs, arguments)
        except Exception as error:
            reason = f"the model is loaded but cannot answer: {type(error).__name__}: {error}"
            raise (StartError if explain_device(error) else CannotAnswerError)(reason) from error
        self._batching.prove()

    def _call(self, inputs: Any, arguments: dict[str, Any]) -> Any:
        if self._batching.knows_better(inputs, arguments):
            return self._batching.call([inputs], arguments)[0]
        if self.expected.task == "automatic-speech-recognition":
            return transcribe(self.pipeline, inputs, arguments)
        if self.expected.task == "zero-shot-audio-classification":
            inputs = inputs["raw"]  # it knows no rates, and the audio has the model's already
        if self.expected.task == "image-text-to-text" and isinstance(inputs, dict):
            return self.pipeline(**inputs, **arguments)
        return self.pipeline(inputs, **arguments)

    def _explained(self, error: Exception, inputs: Any) -> Exception:
        """The same error for the one who can put it right."""
        device = explain_device(error)
        if device:
            return device
        too_long = self._too_long(inputs)
        if too_long:
            return too_long
        # The model has answered the warm-up request, so a refusal now is about this request's inputs or parameters.
        if isinstance(error, (ValueError, TypeError)) or (isinstance(error, KeyError) and isinstance(inputs, dict)):
            return RequestError(400, "refused-by-model", f"the model refuses this request: {error}")
        return error

    def _too_long(self, inputs: Any) -> RequestError | None:
        """Whether a text is longer than the model's positions, which fails deep inside with an index error."""
        limit = getattr(self.pipeline.model.config, "max_position_embeddings", None)
        tokenizer = getattr(self.pipeline, "tokenizer", None)
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not limit or tokenizer is None or not isinstance(texts, list):
            return None
        longest = max((len(tokenizer(text)["input_ids"]) for text in texts if isinstance(text, str)), default=0)
        if longest <= limit:
            return None
        return RequestError(
            400, "inputs-too-long", f"'inputs' has {longest} tokens and the model takes {limit}: send a shorter text"
        )


def _verbose(result: dict[str, Any], request: Decoded) -> dict[str, Any]:
    """A transcript in the shape of OpenAI's `verbose_json`, of which we know this much."""
    options = {**request.parameters, **request.parameters.get("generate_kwargs", {})}
    audio = request.inputs
    return {
        "task": options.get("task") or "transcribe",
        "language": options.get("language"),
        "duration": audio["raw"].size / audio["sampling_rate"],
        "text": result["text"],
        "segments": [
            {"id": index, "start": chunk["timestamp"][0], "end": chunk["timestamp"][1], "text": chunk["text"]}
            for index, chunk in enumerate(result.get("chunks", ()))
        ],
    }


def load_model(settings: Settings) -> Sequence[Model | UserModel]:
    """The copies of what answers: the pipeline, warmed up, or the user's own code around it or instead of it."""
    if settings.token_secret_arn and not settings.token:
        settings = replace(settings, token=read_token(settings.token_secret_arn))
        # where huggingface_hub looks, for what is downloaded besides: code of a model, the user's functions
        os.environ["HF_TOKEN"] = settings.token or ""
    program = settings.program_file
    if settings.requirements_file:
        install_requirements(settings.requirements_file)
    if program is None:
        return load_pipelines(settings)
    hooks = load_hooks(program)
    if not hooks.functions:
        return load_pipelines(settings)
    if "model_fn" not in hooks.functions:
        (own,) = load_pipelines(settings, for_own_code=True)
        context = _context(settings, str(settings.model_folder))
        return [UserModel(hooks, context, own.pipeline, own)]
    # without files that we know of, its own business
    known = settings.model_id is not None or settings.model_folder_holds_a_model
    folder = find_weights(settings, every_file=True).folder if known else settings.model_folder
    context = _context(settings, str(folder))
    log.info("%s", banner(settings, str(folder), f"that of model_fn in {program.name}", _devices()))
    try:
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

    For the user's own code one: who wrote it did not think of two threads, nor of a CPU whose tensors numpy refuses.
    """
    weights = find_weights(settings)
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    config = weights.config()
    task = check_task(
        settings.task or infer_task(config, _auto_mappings(), PIPELINE_REGISTRY.supported_tasks.keys()),
        installed=PIPELINE_REGISTRY.supported_tasks.keys(),
        aliases=PIPELINE_REGISTRY.task_aliases,
        version=transformers.__version__,
    )

    def placed(told: str) -> Placement:
        found = place(
            seen_gpus(),
            size=weights.size,
            stored=config.get("dtype") or config.get("torch_dtype"),
            told=told,
            has_accelerate=importlib.util.find_spec("accelerate") is not None,
            cpu_multiplies_bfloat16=multiplies_bfloat16() and not for_own_code,
        )
        return replace(found, devices=found.devices[:1]) if for_own_code else found

    placement = placed(settings.dtype)
    known = f"{task} (HF_TASK)" if settings.task else f"{task} (from config.json; HF_TASK is not set)"
    log.info("%s", banner(settings, weights.described(), known, f"{_devices()}, in {placement.dtype}"))
    try:
        return _load(weights, task, settings, placement)
    except CannotAnswerError as error:
        if settings.dtype != AUTO or placement.dtype == "float32":
            raise
        reason = str(error)  # and not the error, which keeps the model in memory
    # some models and some pipelines, of older releases above all, know no other
    log.warning("in %s %s: once more in float32", placement.dtype, reason)
    free_memory()
    return _load(weights, task, settings, placed("float32"))


def _load(weights: Weights, task: str, settings: Settings, placement: Placement) -> list[Model]:
    """A copy on each device, one after the other: loading sets torch's default precision for all threads."""
    import torch
    import transformers
    from transformers.pipelines import pipeline

    dtype = "dtype" if "dtype" in inspect.signature(pipeline).parameters else "torch_dtype"
    models = []
    for device in placement.devices:
        try:
            loaded = pipeline(
                task,
                model=str(weights.folder),
                token=settings.token,
                trust_remote_code=settings.trust_remote_code,
                **{"device_map" if device == AUTO else "device": device, dtype: getattr(torch, placement.dtype)},
            )
        except Exception as error:
            raise StartError(why_not_loaded(error, weights.name, transformers.__version__)) from error
        models.append(Model(loaded, task, settings))
        models[-1].warm_up()
    log.info(
        "ready to serve %s for %s in %s, in batches of up to %d, copies: %d",
        *(weights.name, task, placement.dtype, models[0].batch_size, len(models)),
    )
    return models


def _auto_mappings() -> dict[str, Any]:
    from transformers.models.auto import modeling_auto

    return {name: value for name, value in vars(modeling_auto).items() if name.endswith("_MAPPING_NAMES")}


def _warm_up_request(expected: Expected, pipeline: Any) -> tuple[Any, dict[str, Any]]:
    """The smallest request of the task."""
    text = "warm up"
    if expected.kind is Kind.AUDIO:
        import numpy as np

        audio = {"raw": np.zeros(expected.sampling_rate, np.float32), "sampling_rate": expected.sampling_rate}
        labels = {"candidate_labels": ["a", "b"]} if expected.task.startswith("zero-shot") else {}
        return audio, labels
    if expected.kind in (Kind.IMAGE, Kind.IMAGE_AND_TEXT):
        from PIL import Image

        image = Image.new("RGB", (64, 64))
        if expected.task == "decision":
            return {"state": text, "questions": {"a": {"type": "noul", "instructions": text}}}, {}
        if expected.task == "keypoint-matching":
            return [image, image], {}
        if expected.task in ("any-to-any", "image-text-to-text"):
            token = getattr(pipeline.processor, "image_token", "")
            return {"images": image, "text": f"{token}{text}"}, {"max_new_tokens": 1}
        if expected.kind is Kind.IMAGE_AND_TEXT:
            words = {"word_boxes": [(text, [0, 0, 10, 10])]} if expected.task.startswith("document") else {}
            return {"image": image, "question": text, **words}, {}  # with words no program has to read the image
        return image, ({"candidate_labels": ["a", "b"]} if expected.task.startswith("zero-shot") else {})
    match expected.task:
        case "text-generation" | "text2text-generation" | "summarization" | "translation":
            return text, {"max_new_tokens": 2}
        case "zero-shot-classification":
            return text, {"candidate_labels": ["a", "b"]}
        case "fill-mask":
            return f"{text} {pipeline.tokenizer.mask_token}", {}
        case "question-answering":
            return {"question": text, "context": text}, {}
        case "table-question-answering":
            return {"query": text, "table": {"a": ["1"], "b": ["2"]}}, {}
    return text, {}
