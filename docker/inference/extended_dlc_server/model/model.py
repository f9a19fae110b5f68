"""A loaded transformers pipeline: warm-up, validation of requests, inference. Inference is on the worker's thread.

torch and transformers are imported inside the functions: the server answers `/ping` while they load.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..answering.encoding import encode
from ..errors import CannotAnswerError, ModelFailedError, RequestError, StartError, panics_are_errors, shown_text
from ..files.sentence_modules import Recipe
from ..machine.device_errors import explain_device
from ..machine.log import frames
from ..machine.memory import memory_for_texts
from ..machine.points import end_at_layers
from ..machine.worker import Shared
from ..reading.chats import template_of
from ..reading.decoding import Decoded, Expected
from ..reading.roles import roles_of
from ..reading.tasks import kind_of
from ..reading.tgi import Recorded, described, watched
from ..reading.tokens import TokenCounter
from ..settings import Settings
from ..writing.scheduler import Scheduler
from ..writing.step_proof import CannotShareStepsError
from ..writing.streaming import Emit, StreamEndedError, TokenEvents, finish_reason
from ..writing.texts import Writing
from .adapters import Adapters, AdapterSteps
from .answer_sizes import weigh_answers
from .batching import Batching
from .embeddings import Embeddings, Vectors, most_tokens
from .health import Health
from .pipeline_texts import PipelineTexts
from .preparation import Preparation, is_one
from .reranking import Reranker, Scoring
from .served import Served
from .speech import is_whisper, share_what_is_heard, transcribe
from .warm_up import warm_up_request
from .writer import TASKS, Writer

log = logging.getLogger(__name__)


class Model:
    """One loaded pipeline, with the limits and parameters of its requests."""

    def __init__(self, pipeline: Any, task: str, settings: Settings, sentences: Recipe | Scoring | None = None) -> None:
        """Read from the pipeline what requests may hold; `sentences` says how texts are embedded, or scored."""
        self.pipeline = pipeline
        if task == "automatic-speech-recognition" and is_whisper(pipeline):
            share_what_is_heard(pipeline.model)
        end_at_layers(pipeline.model)
        weigh_answers(pipeline, task)
        self.preparation = Preparation(pipeline, task, settings)
        lengths = self.preparation.lengths
        self.embeddings: Embeddings | None = None
        self.reranker: Reranker | None = None
        if sentences is not None and pipeline.tokenizer is not None:
            setting = settings.max_input_tokens
            most = most_tokens(sentences.max_tokens, pipeline.tokenizer, lengths.limits.input_tokens, setting)
            if isinstance(sentences, Recipe):
                self.embeddings = Embeddings(pipeline, sentences, task, most)
            else:
                self.reranker = Reranker(pipeline, sentences, most, self._explained)
        self._batching = Batching(pipeline, task, settings.batch_size, self.embeddings)
        self._counter = TokenCounter(pipeline.model)
        self.writer: Writer | None = None
        if task in TASKS and not getattr(pipeline.model.config, "is_encoder_decoder", False):
            self.writer = Writer(pipeline, self.preparation.chats, lengths, self._batching, self._explained)
        self.steps: Scheduler | AdapterSteps | None = None
        """The scheduler for continuous batching, once a test at the start has shown that the model supports it."""

        self._texts: PipelineTexts | None = None
        self._scheduler: Scheduler | None = None
        if self.writer is not None and task == "text-generation":
            self._texts = PipelineTexts(pipeline, self._written)
            self._scheduler = Scheduler(
                pipeline,
                most=settings.texts_at_once,
                memory=lambda: memory_for_texts(pipeline.model.device),
                longest=lengths.limits.input_tokens,
                explained=self._explained,
            )
        self.name = settings.served_name
        self.adapters: Adapters | None = None
        """The adapters that requests may pick, once they are loaded."""

        self._health: Health | None = None
        self.task = task
        self.expected = _expected(pipeline, task, settings, self.preparation)

    @property
    def served(self) -> Served:
        return Served(
            task=self.task,
            kind=self.expected.kind,
            parameters=self.preparation.parameters.table,
            limits=self.writer.limits if self.writer is not None else None,
            images_in_chats=self.writer is not None and self.writer.has_images,
            embeds=self.embeddings is not None,
            reranks=self.reranker is not None,
        )

    @property
    def batch_size(self) -> int:
        """Maximum number of requests that run together."""
        return self.steps.most if self.steps else self._batching.size

    def prepare(self, request: Decoded) -> Shared | None:
        """Validate a request, on any thread and without inference; return how it may be batched, or None.

        400 for invalid parameters, for inputs that are too long, and for chats without a chat template.
        """
        if request.arguments is None:
            self.preparation.prepare(request, self.embeddings)
        alone = not request.wishes.changes_nothing
        key = None if alone else self._batching.key(request.inputs, request.arguments or {})
        if key is None:
            return None
        batching = self._batching
        return Shared(
            key=key,
            item=request,
            most=batching.most(request.inputs),
            run=Model.answer_together,
            length=batching.length(request.inputs),
            spare=batching.spare,
        )

    def joins(self, request: Decoded) -> Callable[[Emit | None], Writing] | None:
        """Return how a prepared request joins the scheduler, or None if it cannot."""
        if self.steps is None or self._texts is None or self.writer is None:
            return None
        texts = self._texts.request(request)
        return None if texts is None else self.writer.joins(texts, *texts.asked)

    def answer(self, request: Decoded) -> bytes:
        """Return the response body; errors are raised as `RequestError` or `FatalError`."""
        with self._counter.count([request.tokens]):
            result = self.predict(request)
        return self._written(result, request)

    def predict(self, request: Decoded) -> Any:
        """Return the pipeline's result, not yet encoded."""
        if request.arguments is None:  # the request comes from user code, which decodes on this thread
            self.prepare(request)
        try:
            with panics_are_errors(), watched(request.wishes, self.pipeline) as (more, recorded):
                result = self._call(request.inputs, self._with(more, request.arguments or {}))
        except Exception as error:
            raise self._explained(error) from error
        if request.wishes.details:
            result[0]["details"] = described(
                recorded, request.wishes, self.pipeline.tokenizer, self._reason(recorded, request)
            )
        return result

    def run(self, work: Callable[[], Any]) -> Any:
        """Call `work`, which uses the model; errors are converted as for a request."""
        try:
            with panics_are_errors():
                return work()
        except Exception as error:
            raise self._explained(error) from error

    def _with(self, more: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
        """Add arguments of `generate` to those of the pipeline."""
        if more and self.preparation.parameters.grouped:
            return {**arguments, "generate_kwargs": {**arguments.get("generate_kwargs", {}), **more}}
        return {**arguments, **more}

    def _reason(self, recorded: Recorded, request: Decoded) -> str:
        arguments = request.arguments or {}
        ends = arguments.get("eos_token_id", self.pipeline.model.generation_config.eos_token_id)
        by_text = bool(request.wishes.stops) and len(recorded.tokens) != arguments.get("max_new_tokens")
        return finish_reason(recorded.tokens, ends, stopped_by_text=by_text)

    def answer_together(self, requests: Sequence[Decoded]) -> list[bytes | Exception]:
        """Answer requests with equal parameters as one batch; after an error, the worker runs each of them alone."""
        try:
            with panics_are_errors(), self._counter.count([request.tokens for request in requests]):
                results = self._batching.call([request.inputs for request in requests], requests[0].arguments or {})
        except Exception as error:
            explained = explain_device(error)
            if explained is None:
                raise
            raise explained from error
        answers: list[bytes | Exception] = []
        for result, request in zip(results, requests, strict=True):
            try:
                answers.append(self._written(result, request))
            except RequestError as error:
                answers.append(error)
        return answers

    def _written(self, result: Any, request: Decoded) -> bytes:
        if isinstance(result, Vectors):
            request.tokens.prompt = result.tokens
        if request.write is not None:
            return request.write(result, self)
        result = result.rows if isinstance(result, Vectors) else result
        return encode(result, request.form, self.expected.task)

    def check_stream(self, request: Decoded) -> None:
        """400 for a request that cannot be streamed."""
        if not is_one(request.inputs, request.arguments or {}):
            raise RequestError(400, "cannot-stream", "a stream has one answer: send one text or one chat, and no beams")

    def stream(self, request: Decoded, emit: Emit, gone: threading.Event) -> int:
        """Generate with an event for each token; the last one holds the whole answer. Return the number of tokens."""
        pipeline = self.pipeline
        events = TokenEvents(pipeline.tokenizer, emit, gone)
        try:
            with (
                panics_are_errors(),
                watched(request.wishes, pipeline) as (more, recorded),
                events.flushed_by(pipeline.model),
            ):
                events.likely = recorded.likely
                (result,) = pipeline(request.inputs, streamer=events, **self._with(more, request.arguments or {}))
        except StreamEndedError:
            raise
        except Exception as error:
            events.flush()
            raise self._explained(error) from error
        recorded.tokens = events.tokens
        request.tokens.prompt = events.prompt_tokens
        about = {"finish_reason": self._reason(recorded, request), "generated_tokens": len(events.tokens)}
        seen = {"input_length": events.prompt_tokens, "seed": request.wishes.seed}
        events.finish(**result, details={**about, **seen})
        return len(events.tokens)

    def warm_up(self) -> None:
        """Run a small request twice: it initializes the model, and gives the answer for later health checks."""
        try:
            self._health = Health(lambda: self._call(*warm_up_request(self.expected, self.pipeline)), self.pipeline)
        except Exception as error:
            reason = f"the model is loaded but cannot answer: {type(error).__name__}: {error}"
            raise (StartError if explain_device(error) else CannotAnswerError)(reason) from error
        if not self._may_share_steps():
            self._batching.prove()
        if self.reranker is not None and self._batching.size == 1:
            self.reranker.together = 1

    def _may_share_steps(self) -> bool:
        """Whether the scheduler is used: it must pass a test."""
        if self._scheduler is None or self.writer is None:
            return False
        try:
            self._scheduler.prove(self.pipeline.tokenizer(_SOME_TEXT)["input_ids"])
        except CannotShareStepsError as error:
            log.info("texts do not share the steps of the model: %s", error)
            return False
        self.steps = self.writer.steps = self._scheduler
        self._batching.run_alone()
        return True

    def fit_pairs(self, query: str, texts: Sequence[str], *, cuts: bool) -> int:
        """Estimate how many tokens are truncated from pairs of query and text; 400 if that is not allowed."""
        assert self.reranker is not None  # noqa: S101 - only called for cross-encoders
        return self.preparation.lengths.fit_pairs(query, texts, self.reranker.most_tokens, cuts=cuts)

    def why_not_healthy(self) -> str:
        """Return how the model's answer differs from that at the start, or an empty string."""
        if self.adapters:
            self.adapters.use(None)
        return self._health.why_not() if self._health else ""

    def _call(self, inputs: Any, arguments: dict[str, Any]) -> Any:
        if self.embeddings is not None and self.embeddings.is_asked(inputs, arguments):
            return self.embeddings(inputs, arguments)
        if self._batching.knows_better(inputs, arguments):
            return self._batching.call([inputs], arguments)[0]
        if self.expected.task == "automatic-speech-recognition":
            return transcribe(self.pipeline, inputs, arguments)
        if self.expected.task == "zero-shot-audio-classification":
            inputs = inputs["raw"]  # This pipeline takes no sampling rate; the audio is resampled already.
        if self.expected.task == "image-text-to-text" and isinstance(inputs, dict):
            return self.pipeline(**inputs, **arguments)
        return self.pipeline(inputs, **arguments)

    def _explained(self, error: Exception) -> Exception:
        """Convert an error to one whose status tells who can fix it.

        The model has answered the warm-up request, so an error that is not about memory or the device is caused by the
        inputs or parameters of this request.
        """
        if isinstance(error, RequestError):
            return error
        device = explain_device(error)
        if device or self._health is None:
            return device or error
        log.info("a request does not fit the model: %s", frames(error))
        # messages of these types are written for the caller; those of others may expose internals
        detail = f": {shown_text(error)}" if isinstance(error, (ValueError, TypeError, KeyError)) else ""
        return ModelFailedError(
            400,
            "refused-by-model",
            f"the model refuses this request ({type(error).__name__}{detail}): its inputs or parameters do not fit",
        )


_SOME_TEXT = "A text with some words in it, of which the model makes what it likes."
"""Prompt of the test whether the model supports the scheduler."""


def _expected(pipeline: Any, task: str, settings: Settings, preparation: Preparation) -> Expected:
    """Return what the bodies of requests may hold."""
    extractor = getattr(pipeline, "feature_extractor", None)
    return Expected(
        task=task,
        kind=kind_of(task),
        sampling_rate=getattr(extractor, "sampling_rate", None) or 16_000,
        max_audio_seconds=settings.max_audio_seconds,
        roles=roles_of(template_of(getattr(pipeline, "processor", None) or pipeline.tokenizer)),
        most_characters=preparation.lengths.most_characters,
        parameters=preparation.parameters.names,
    )
