"""The model: a transformers pipeline that is loaded, warmed up and asked. All of it runs on the worker's thread.

torch and transformers are imported inside the functions: the server answers `/ping` while they load.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from .batching import Batching
from .decoding import Decoded, Expected
from .device_errors import explain_device
from .encoding import encode
from .errors import CannotAnswerError, RequestError, StartError
from .negotiation import Form
from .parameters import legal_parameters
from .settings import Settings
from .speech import is_whisper, share_what_is_heard, transcribe
from .streaming import Emit, StreamEndedError, TokenEvents, event, finish_reason
from .tasks import kind_of
from .tokens import TokenCounter
from .warm_up import warm_up_request
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
            inputs, arguments = warm_up_request(self.expected, self.pipeline)
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
