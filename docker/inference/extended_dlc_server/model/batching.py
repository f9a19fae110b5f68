"""Dynamic batching: which requests may run as one batch, with the same answer for each as if it had run alone.

Requests that queued while the model was busy form the next batch; the worker decides how long to wait for more.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ..machine.padding import worth_a_call
from ..reading.tasks import Kind, kind_of
from ..writing.comparing import same, tolerance_of
from .embeddings import Embeddings
from .one_pass import one_pass
from .speech import hears_alike, is_whisper, most_together, transcribe_together, windows

log = logging.getLogger(__name__)

# Task -> parameters with the same effect in a padded batch as for one text. Other parameters include the padding when
# they count positions or repeated tokens (max_length, repetition_penalty), or end the whole batch at once (max_time).
_LABELS = frozenset({"function_to_apply", "top_k"})
_ZERO_SHOT = frozenset({"candidate_labels", "hypothesis_template"})
_VECTORS = frozenset({"dimensions", "normalize", "truncation_direction"})
# Parameters of Whisper's `generate`. `temperature` is absent: a list of temperatures is retried until the worst item of
# the batch is good enough.
_OF_SPEECH = frozenset({"do_sample", "language", "max_new_tokens", "num_beams", "task"})
_PARAMETERS: Mapping[str, frozenset[str]] = {
    "audio-classification": _LABELS,
    # from transformers 5.0 on, the pipeline takes the arguments of `generate` at the top level too
    "automatic-speech-recognition": _OF_SPEECH | {"generate_kwargs", "return_timestamps"},
    "depth-estimation": frozenset(),
    "feature-extraction": _VECTORS | {"pooling"},
    "fill-mask": frozenset({"top_k"}),
    "image-classification": _LABELS,
    "image-feature-extraction": frozenset({"pool"}),
    "image-segmentation": frozenset({"mask_threshold", "overlap_mask_area_threshold", "subtask", "threshold"}),
    "object-detection": frozenset({"threshold"}),
    "sentence-embeddings": _VECTORS | {"pooling", "prompt"},
    "question-answering": frozenset({"handle_impossible_answer", "max_answer_len", "top_k"}),
    "text-classification": _LABELS,
    "text-generation": frozenset(
        {
            *("do_sample", "max_new_tokens", "min_new_tokens", "min_p", "num_return_sequences", "return_full_text"),
            *("temperature", "top_k", "top_p", "typical_p"),
        }
    ),
    "token-classification": frozenset({"aggregation_strategy"}),
    "zero-shot-classification": _ZERO_SHOT | {"multi_label"},
    "zero-shot-image-classification": _ZERO_SHOT,
}

# The same for generation_config.json, which applies to every request: name -> values that have no effect.
_NO_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "bad_words_ids": (None,),
    "condition_on_prev_tokens": (None, False),
    "exponential_decay_length_penalty": (None,),
    "forced_bos_token_id": (None,),
    "logprob_threshold": (None,),
    "max_time": (None,),
    "min_length": (None, 0),
    "no_repeat_ngram_size": (None, 0),
    "no_speech_threshold": (None,),
    "num_beams": (None, 1),
    "penalty_alpha": (None, 0),
    "prompt_lookup_num_tokens": (None,),
    "repetition_penalty": (None, 1, 1.0),
    "sequence_bias": (None,),
    "stop_strings": (None,),
}

_MOST_TEXTS = 8
"""Requests with more texts than this are not batched with other requests."""

_WRITING = 8
"""Factor on the allowed padding of a generating batch: its model is called once for each new token."""

_A_SECOND = 50
"""Tokens per second of audio for models without windows: a frame of wav2vec2 and similar models is 20 ms."""

CHARACTERS = 4
"""Characters per token, roughly."""


class Batching:
    """Runs several inputs through the pipeline as one batch, if a test at the start shows the same answers."""

    def __init__(self, pipeline: Any, task: str, size: int, embeddings: Embeddings | None = None) -> None:
        """`size` is the maximum batch size; `prove` reduces it to 1 where batches change the answers."""
        self._embeddings = embeddings
        self._pipeline, self._task, self._kind = pipeline, task, kind_of(task)
        possible = task in _PARAMETERS and (task != "automatic-speech-recognition" or is_whisper(pipeline))
        self.size = size if possible else 1
        self._equal_sizes = False
        self._one_pass = one_pass(pipeline, task)
        if task == "text-generation" and self.size > 1:
            _pad_for_generation(pipeline.tokenizer)

    def run_alone(self) -> None:
        """Turn batching off: the scheduler batches the texts instead."""
        self.size, self._one_pass = 1, None

    def prove(self) -> None:
        """Compare the answers of two inputs alone and as a batch: some models do not mask their padding."""
        if self.size == 1:
            self._one_pass = None
            self._embed_one_by_one()
            return
        samples, arguments = self._samples(equal=False)
        reason = self._difference(samples, arguments)
        if self._one_pass and (reason or self._difference(samples, {})):
            self._one_pass = None
            reason = self._difference(samples, arguments)
        if reason and self._kind is not Kind.TEXT:
            # images or audio of equal size need no padding, and many clients send only one size
            self._equal_sizes = True
            reason = self._difference(*self._samples(equal=True))
        if reason:
            log.info("requests run one by one: %s", reason)
            self.size, self._one_pass = 1, None
            self._embed_one_by_one()

    def _embed_one_by_one(self) -> None:
        """Embed the texts of one request one by one too."""
        if self._embeddings:
            self._embeddings.together = 1

    def _difference(self, samples: list[Any], arguments: Mapping[str, Any]) -> str:
        """Return why these inputs cannot run as a batch, or an empty string."""
        try:
            if self._task == "text-generation":
                alone = [answer for text in samples for answer in self._likely_next([text])]
                together: list[Any] = self._likely_next(samples)
            elif self._task == "sentence-embeddings":
                alone = [self._embeddings(sample, {}) for sample in samples] if self._embeddings else []
                together = self.call(samples, arguments)
            else:
                alone = [self._pipeline(copied(sample), **arguments) for sample in samples]
                together = self.call(samples, arguments)
        except Exception as error:
            return f"this model takes no batch ({type(error).__name__}: {error})"
        tolerance = tolerance_of(self._pipeline.model)
        alike = len(alone) == len(together) and all(
            same(one, other, tolerance) for one, other in zip(alone, together, strict=True)
        )
        return "" if alike else "in a batch this model answers differently"

    def _samples(self, *, equal: bool) -> tuple[list[Any], dict[str, Any]]:
        """Return two inputs of the task, with required parameters and those that make a difference visible."""
        labels: dict[str, Any] = {"candidate_labels": ["a", "b"]} if self._task.startswith("zero-shot") else {}
        if "function_to_apply" in inspect.signature(self._pipeline._sanitize_parameters).parameters:
            labels = {"function_to_apply": "none"}  # logits, because probabilities near 0 and 1 would hide a difference
        if self._kind is Kind.AUDIO:
            import numpy as np

            rate = self._pipeline.feature_extractor.sampling_rate
            shapes = ((rate, 5), (rate if equal else rate * 3 // 4, 9))
            sounds = [np.sin(np.arange(length, dtype=np.float32) / pace) for length, pace in shapes]
            speech = {"generate_kwargs": {"max_new_tokens": 4}}
            some = speech if self._task == "automatic-speech-recognition" else labels
            return [{"raw": sound, "sampling_rate": rate} for sound in sounds], some
        if self._kind is Kind.IMAGE:
            from PIL import Image

            one, other = Image.linear_gradient("L").resize((64, 64)), Image.radial_gradient("L")
            return [image.convert("RGB") for image in (one, other.resize((64, 64) if equal else (96, 48)))], labels
        mask = f" {self._pipeline.tokenizer.mask_token}" if self._task == "fill-mask" else ""
        texts = [f"warm up{mask}", f"warm up with a text that is longer than the other{mask}"]
        if self._task == "question-answering":
            return [{"question": text, "context": text} for text in texts], {}
        return texts, labels

    def key(self, inputs: Any, arguments: Mapping[str, Any]) -> Hashable | None:
        """Return a key that is equal for requests that may share a batch, or None for a request that runs alone."""
        if self.size == 1 or arguments.keys() - _PARAMETERS[self._task]:
            return None
        if self._task == "text-generation" and not self._generates_alike(arguments):
            return None
        if self._task == "automatic-speech-recognition" and not self._transcribes_alike(inputs, arguments):
            return None
        if self._embeddings and self._embeddings.is_asked(inputs, arguments):
            like = _few_texts(inputs)
        else:
            like = self._like(inputs)
        return None if like is None else (like, json.dumps(arguments, sort_keys=True) if arguments else "")

    def most(self, inputs: Any) -> int:
        """Return the maximum batch size for a batch with this request."""
        if self._task == "automatic-speech-recognition":
            return most_together(self._pipeline, inputs, self.size)
        return self.size

    def length(self, inputs: Any) -> int:
        """Estimate the tokens of a request; 0 where a batch has no padding or the key already limits it."""
        if self._kind is Kind.AUDIO and self._task != "automatic-speech-recognition":
            return int(len(inputs["raw"]) / self._pipeline.feature_extractor.sampling_rate * _A_SECOND)
        if self._kind is not Kind.TEXT:
            return 0
        if isinstance(inputs, list) and self._embeddings:
            return max(map(len, inputs)) // CHARACTERS
        return len(inputs if isinstance(inputs, str) else json.dumps(inputs)) // CHARACTERS

    @property
    def spare(self) -> int:
        """How many tokens of padding a batch may have: more for generation, which calls the model for each token."""
        often = _WRITING if self._task == "text-generation" else 1
        return often * worth_a_call(self._pipeline.device)

    def _like(self, inputs: Any) -> Hashable | None:
        """Return a key that is equal for inputs that may share a batch, or None for a list of several inputs."""
        if self._kind is Kind.AUDIO and self._equal_sizes:
            return len(inputs["raw"])
        if self._task == "automatic-speech-recognition":
            return (windows(self._pipeline, inputs) - 1).bit_length()  # lengths of long clips within a factor of two
        if self._kind is Kind.AUDIO:
            return ""
        if self._kind is Kind.IMAGE:
            if isinstance(inputs, list):
                return None
            return inputs.size if self._equal_sizes else ""
        chat = self._task == "text-generation" and isinstance(inputs, list) and isinstance(inputs[0], dict)
        question = self._task == "question-answering" and isinstance(inputs, dict)
        if not (isinstance(inputs, str) or chat or question):
            return None
        return chat

    def knows_better(self, inputs: Any, arguments: Mapping[str, Any]) -> bool:
        """Whether `call` is faster than the pipeline even for one input."""
        return self._one_pass is not None and isinstance(inputs, str) and not arguments.keys() - _PARAMETERS[self._task]

    def call(self, inputs: Sequence[Any], arguments: Mapping[str, Any]) -> list[Any]:
        """Run a batch; each result has the form that the pipeline returns for one input."""
        if self._task == "automatic-speech-recognition":
            return transcribe_together(self._pipeline, inputs, arguments)
        if self._embeddings and self._embeddings.is_asked(inputs[0], arguments):
            return list(self._embeddings.embed(inputs, arguments))
        if self._one_pass:
            return self._one_pass(inputs, arguments)
        results = self._pipeline([copied(one) for one in inputs], batch_size=len(inputs), **arguments)
        if self._task == "feature-extraction":
            return self._without_padding(results, inputs)
        if self._task == "text-classification":
            return [[result] if isinstance(result, dict) else result for result in results]
        return list(results)

    def _likely_next(self, texts: list[str]) -> list[Any]:
        """Return the log probabilities of the next token: equal texts could hide a difference."""
        tokenizer, model = self._pipeline.tokenizer, self._pipeline.model
        tokens = tokenizer(texts, return_tensors="pt", padding=len(texts) > 1).to(model.device)
        made = model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            max_new_tokens=1,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        likely: list[Any] = made.scores[0].float().log_softmax(-1).tolist()
        return likely

    def _generates_alike(self, arguments: Mapping[str, Any]) -> bool:
        if "max_new_tokens" not in arguments and getattr(self._generation_config, "max_new_tokens", None) is None:
            return False  # the default, max_length, includes the prompt
        return self._config_asks_for_nothing()

    def _transcribes_alike(self, audio: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
        """Whether the clip may be transcribed in a batch.

        Word timestamps are excluded, since their search looks at the whole batch, and so is a list of languages. Beams
        are allowed, since each clip has its own without padding between them: up to 4.57 the pipeline asks for five.
        """
        generate = {**arguments, **arguments.get("generate_kwargs", {})}
        generate = {
            name: value for name, value in generate.items() if name not in ("generate_kwargs", "return_timestamps")
        }
        return (
            arguments.get("return_timestamps", False) in (True, False)
            and not generate.keys() - _OF_SPEECH
            and not isinstance(generate.get("language"), list)
            and hears_alike(self._pipeline, audio, arguments)
            and self._config_asks_for_nothing(but="num_beams")
        )

    def _config_asks_for_nothing(self, but: str = "") -> bool:
        config = self._generation_config
        return all(name == but or getattr(config, name, None) in none for name, none in _NO_EFFECT.items())

    @property
    def _generation_config(self) -> Any:
        return getattr(self._pipeline, "generation_config", None) or self._pipeline.model.generation_config

    def _without_padding(self, results: Sequence[Any], texts: Sequence[str]) -> list[Any]:
        tokenizer = self._pipeline.tokenizer
        left = tokenizer.padding_side == "left"
        lengths = map(len, tokenizer(list(texts))["input_ids"])
        return [[rows[-length:] if left else rows[:length]] for (rows,), length in zip(results, lengths, strict=True)]


def _few_texts(inputs: Any) -> Hashable | None:
    """Return a key for requests with one text or a few, whose embeddings may share a batch."""
    texts = [inputs] if isinstance(inputs, str) else inputs
    few = isinstance(texts, list) and len(texts) <= _MOST_TEXTS and all(isinstance(text, str) for text in texts)
    return "texts" if few else None


def copied(one: Any) -> Any:
    """Copy a dictionary: pipelines pop the values out of their input."""
    return dict(one) if isinstance(one, dict) else one


def _pad_for_generation(tokenizer: Any) -> None:
    """Pad on the left, as generation needs, and with the EOS token if there is no padding token."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
