"""`Proof`: the request that an endpoint must answer before its deployment succeeds."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extended_dlc.facts.limits import most
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, require_known, within

_TEXT = "Hello"


_JSON: Mapping[str, Any] = {
    "feature-extraction": {"inputs": _TEXT},
    "question-answering": {"inputs": {"question": "Who is it?", "context": "It is Ada."}},
    "sentence-embeddings": {"inputs": _TEXT},
    "sentence-ranking": {"inputs": _TEXT},
    "sentence-similarity": {"inputs": _TEXT},
    "text-classification": {"inputs": _TEXT},
    "text-generation": {"inputs": _TEXT, "parameters": {"max_new_tokens": 8}},
    "text-ranking": {"inputs": _TEXT},
    "token-classification": {"inputs": _TEXT},
    "zero-shot-classification": {"inputs": _TEXT, "parameters": {"candidate_labels": ["greeting", "farewell"]}},
}


_SAMPLES: Mapping[str, tuple[str, str]] = {
    "audio-classification": ("audio", "audio/wav"),
    "automatic-speech-recognition": ("audio", "audio/wav"),
    "depth-estimation": ("image", "image/png"),
    "image-classification": ("image", "image/png"),
    "image-feature-extraction": ("image", "image/png"),
    "image-segmentation": ("image", "image/png"),
    "object-detection": ("image", "image/png"),
}


_LARGEST = most("lambda.event_bytes") // 3
"""Of request and expected answer, in bytes: the event of an update has both twice, the request in base64."""


@check_types
@dataclass(frozen=True, kw_only=True)
class Proof:
    """The request that the endpoint must answer before its deployment succeeds.

    Without a right answer CloudFormation rolls the deployment back, with the last lines of the container's log as the
    reason. The image and the endpoint configuration in service are checked too.
    """

    request: Any = None
    """The request: bytes as they are, anything else as JSON; each of `Components` gets it. Default: the smallest of the
    model's task, as a prompt, a second of silence or a small picture; ValueError for a task that has none, or that
    nobody knows at synth, for what is no JSON, and for more than 87,381 bytes together with `expected`."""

    content_type: str | None = None
    """The request's content type. Default: `application/json`; with bytes it has to be said."""

    accept: str = "application/json"
    """The content type to ask for. Default: `application/json`."""

    expect: str | None = None
    """Text that the answer must contain. Default: any answer is right."""

    expected: Any = None
    """The answer, as JSON: texts are equal, numbers within `tolerance`, lists of the same length; an object may have
    more keys. ValueError for what is no JSON. Default: any answer will do."""

    tolerance: float = 0.01
    """How far a number of `expected` may be off, 0 to 1, and where it is above 1, which part of it. Default: 0.01,
    which covers another precision or device."""

    optional: bool = False
    """Whether a model is not asked, and an annotation says so, where no request is known for it at synth; image and
    configuration are still checked. ValueError with `expect` or `expected`. Default: that is refused."""

    timeout_minutes: int = 30
    """How long SageMaker and the endpoint may take together, 1 to 59 min (a custom resource waits an hour at most).
    Default: 30 min."""

    def __post_init__(self) -> None:
        """Refuse requests that cannot be sent and answers that cannot be compared."""
        within("timeout_minutes", self.timeout_minutes, 1, 59, "CloudFormation waits an hour at most")
        if isinstance(self.request, bytes) and self.content_type is None:
            raise OptionError("content_type", "not given", "must say what the bytes of 'request' are, as audio/wav")
        require_known("request", self.request, "it is encoded at synth")
        within("tolerance", self.tolerance, 0, 1, "it is the part of a number that it may be off")
        expected = _as_json("expected", self.expected, "as the answer is")
        request = self.request if isinstance(self.request, bytes) else _as_json("request", self.request, "or bytes")
        if len(request) + len(expected) > _LARGEST:
            raise OptionError(
                "request",
                f"{len(request) + len(expected)} bytes with 'expected'",
                f"travels to the function in one event, which has room for {_LARGEST} bytes: take a shorter one",
            )
        if self.optional and (self.expect is not None or self.expected is not None):
            raise OptionError(
                "optional",
                "True",
                "does not go with 'expect' and 'expected', because who is not asked meets neither: leave it out",
            )

    def knows(self, task: str | None) -> bool:
        """Whether there is a request for a model of this task."""
        return self.request is not None or task in _SAMPLES or task in _JSON

    def properties_for(self, task: str | None) -> dict[str, Any]:
        """The properties of the request, for `functions/proof.py`."""
        if self.request is None and task is not None and task in _SAMPLES:
            sample, content_type = _SAMPLES[task]
            return self._properties(content_type, Sample=sample)
        if self.request is None and task not in _JSON:
            known = f"no request is known for '{task}'" if task else "the model's task is not known at synth"
            raise OptionError("verify", rule=f"needs a request, because {known}: say the task, or Proof's request")
        body = _JSON[task or ""] if self.request is None else self.request
        content = body if isinstance(body, bytes) else _as_json("request", body, "or bytes")
        return self._properties("application/json", Body=base64.b64encode(content).decode())

    def _properties(self, content_type: str, **what: str) -> dict[str, Any]:
        properties = {"ContentType": self.content_type or content_type, "Accept": self.accept, **what}
        if self.expect:
            properties["Expect"] = self.expect
        if self.expected is not None:
            # JSON as a string, because CloudFormation would turn each number in it into a string.
            properties |= {"Expected": json.dumps(self.expected), "Tolerance": str(self.tolerance)}
        return properties


def _as_json(option: str, value: Any, words: str) -> bytes:
    """The value as JSON; `OptionError` for what is none."""
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(
            option,
            repr(value)[:100],
            f"must be JSON, {words}: use texts, finite numbers, lists and objects ({error})",
        ) from None
