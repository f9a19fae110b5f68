"""Sends the request with the API that the endpoint's hosting needs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from extended_dlc.asking.content import Body
from extended_dlc.asking.errors import (
    NO_COPY,
    AskError,
    ModelRefused,
    Stopped,
    code_of,
    explained,
    is_denied,
    message_of,
    unreachable,
)
from extended_dlc.asking.reading import Events
from extended_dlc.asking.target import Target

INLINE_BYTES = 128_000
"""Largest inline body of an asynchronous request (API reference, InvokeEndpointAsync, Body)."""

_COMES = ("ModelNotReadyException",)
T = TypeVar("T")


@dataclass
class Answer:
    """The response, with its timing."""

    content_type: str = "application/octet-stream"
    data: bytes = b""
    """The body, if it was not a stream of text."""

    text: str | None = None
    """The text of a stream."""

    first: float | None = None
    """Seconds to the first part of a stream; None without a stream."""

    whole: float = 0.0
    """Seconds to the end."""

    waited: float = 0.0
    """Seconds of waiting for a copy before the successful request."""

    variant: str | None = None
    location: str | None = None
    """S3 URI of an asynchronous response."""


@dataclass(kw_only=True)
class Asker:
    """Sends requests to one endpoint."""

    session: Any
    target: Target
    timeout: float
    """Seconds to wait for a copy, or for an asynchronous response."""

    progress: Callable[[str], None]
    """Called with what the request waits for."""

    say: Callable[[str], None]
    """Called with each text of a stream."""

    between: float = 3.0
    """Seconds between two attempts."""

    _clients: dict[str, Any] = field(default_factory=dict)

    def ask(self, body: Body) -> Answer:
        if self.target.hosting == "async":
            return self._later(body)
        if body.streams and self.target.streams:
            return self._streamed(body)
        return self._whole(body)

    def _client(self, service: str, seconds: float) -> Any:
        from botocore.config import Config

        if service not in self._clients:
            config = Config(connect_timeout=10, read_timeout=seconds, retries={"total_max_attempts": 1})
            self._clients[service] = self.session.client(service, config=config)
        return self._clients[service]

    def _given(self, body: Body) -> dict[str, Any]:
        found = {
            "EndpointName": self.target.endpoint,
            "ContentType": body.content_type,
            "Accept": body.accept,
            "CustomAttributes": body.attributes,
        }
        if self.target.hosting != "async":
            found |= {"InferenceComponentName": self.target.component, "TargetVariant": self.target.variant}
        return {key: value for key, value in found.items() if value is not None}

    # Real-time and serverless.

    def _whole(self, body: Body) -> Answer:
        runtime = self._client("sagemaker-runtime", 490)

        def call() -> Answer:
            began = time.monotonic()
            got = runtime.invoke_endpoint(Body=body.data, **self._given(body))
            data = got["Body"].read()
            return Answer(
                content_type=got.get("ContentType") or "application/octet-stream",
                data=data,
                whole=time.monotonic() - began,
                variant=got.get("InvokedProductionVariant"),
            )

        return self._retried(call)

    def _streamed(self, body: Body) -> Answer:
        runtime = self._client("sagemaker-runtime", 490)

        def call() -> tuple[float, Any]:
            began = time.monotonic()
            return began, runtime.invoke_endpoint_with_response_stream(Body=body.data, **self._given(body))

        def begin() -> Answer:
            began, got = call()
            kind = got.get("ContentType") or "application/octet-stream"
            answer = Answer(content_type=kind, variant=got.get("InvokedProductionVariant"))
            pieces = self._pieces(got["Body"], answer, began)
            if kind.startswith("text/event-stream"):
                parsed, texts = Events(), []
                for text in parsed.texts(pieces):
                    texts.append(text)
                    self.say(text)
                if not parsed.ended:
                    raise ModelRefused(200, "the stream ended before its last event: what came is cut off", "ask again")
                answer.text = "".join(texts)
            else:
                answer.data = b"".join(pieces)
                answer.first = None
            answer.whole = time.monotonic() - began
            return answer

        return self._retried(begin)

    def _pieces(self, events: Any, answer: Answer, began: float) -> Iterator[bytes]:
        for event in _unbroken(events):
            if "PayloadPart" not in event:
                said: Any = next(iter(event.values()), None)
                message = said.get("Message") if isinstance(said, dict) else None
                raise ModelRefused(200, f"the stream ended early: {message or said}")
            if answer.first is None:
                answer.first = time.monotonic() - began
            yield event["PayloadPart"]["Bytes"]

    def _retried(self, call: Callable[[], T]) -> T:
        """Send the request; repeat it while a component has no copy or the model starts. A request starts a copy."""
        from botocore.exceptions import ClientError, EventStreamError, HTTPClientError

        began, waited = time.monotonic(), 0.0
        while True:
            try:
                found = call()
                if isinstance(found, Answer):
                    found.waited = waited
                return found
            except EventStreamError as error:
                raise ModelRefused(200, f"the stream ended early: {message_of(error)}") from None
            except ClientError as error:
                comes = NO_COPY in message_of(error) or code_of(error) in _COMES
                if not comes:
                    raise self._explained(error) from None
                if time.monotonic() - began + self.between > self.timeout:
                    raise AskError(
                        f"there was no copy to answer within {self.timeout:g} s ({message_of(error)})",
                        "ask again later or with a longer --timeout; a copy that never comes has no scaling from zero, "
                        "or no instance that is free",
                    ) from None
            except HTTPClientError as error:
                raise unreachable(error) from None
            self.progress(f"waiting for a copy of {self.target.component or self.target.endpoint} to wake up")
            time.sleep(self.between)
            waited = time.monotonic() - began

    def _explained(self, error: Any) -> AskError:
        return explained(error, endpoint=self.target.endpoint, region=self.target.region)

    # Asynchronous.

    def _later(self, body: Body) -> Answer:
        """Queue the request, and wait for the object of its response or of its failure."""
        from botocore.exceptions import ClientError

        runtime = self._client("sagemaker-runtime", 70)
        began = time.monotonic()
        try:
            members = runtime.meta.service_model.operation_model("InvokeEndpointAsync").input_shape.members
            if len(body.data) <= INLINE_BYTES and "Body" in members:
                where: dict[str, Any] = {"Body": body.data}
            else:
                where = {"InputLocation": self._upload(body)}
            wait = max(1, min(3600, int(self.timeout)))
            queued = runtime.invoke_endpoint_async(**self._given(body), **where, InvocationTimeoutSeconds=wait)
        except ClientError as error:
            raise self._explained(error) from None
        answer = self._fetched(queued)
        answer.whole = time.monotonic() - began
        return answer

    def _upload(self, body: Body) -> str:
        """Upload the request to `input/` beside the endpoint's output prefix; returns its S3 URI."""
        if self.target.output is None:
            raise AskError("the endpoint's configuration names no S3OutputPath", f"send {INLINE_BYTES:,} bytes at most")
        parts = urlsplit(self.target.output)
        folder = parts.path.strip("/")
        folder = folder.removesuffix("output").strip("/") if folder.rpartition("/")[2] == "output" else folder
        key = "/".join(part for part in (folder, "input", f"ask-{uuid.uuid4()}") if part)
        self.progress(f"uploading {len(body.data) / 1024**2:,.1f} MB to s3://{parts.netloc}/{key}")
        self._client("s3", 60).put_object(Bucket=parts.netloc, Key=key, Body=body.data, ContentType=body.content_type)
        return f"s3://{parts.netloc}/{key}"

    def _fetched(self, queued: Any) -> Answer:
        output, failure = queued.get("OutputLocation"), queued.get("FailureLocation")
        if output is None:
            raise AskError("SageMaker does not say where the answer will be", "give the endpoint an S3OutputPath")
        began = time.monotonic()
        try:
            while True:
                if (got := self._object(output)) is not None:
                    return Answer(content_type=got[1], data=got[0], location=output)
                if failure is not None and (got := self._object(failure)) is not None:
                    raise ModelRefused(0, f"the request failed: {got[0].decode(errors='replace')[:1500]}")
                if time.monotonic() - began > self.timeout:
                    raise AskError(f"there is no answer after {self.timeout:g} s", _comes_to(output, failure))
                self.progress(f"waiting for the answer at {output}")
                time.sleep(self.between)
        except KeyboardInterrupt:
            raise Stopped("left; the request goes on", _comes_to(output, failure)) from None

    def _object(self, location: str) -> tuple[bytes, str] | None:
        """An object and its type; None if it does not exist, which S3 reports as denied without s3:ListBucket."""
        from botocore.exceptions import ClientError

        parts = urlsplit(location)
        try:
            got = self._client("s3", 60).get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
        except ClientError as error:
            if code_of(error) in ("NoSuchKey", "404") or is_denied(error):
                return None
            raise self._explained(error) from None
        return got["Body"].read(), got.get("ContentType") or "application/octet-stream"


def _unbroken(events: Any) -> Iterator[Any]:
    """The events of a stream. botocore hands on what urllib3 raises where the connection ends in the middle."""
    from botocore.eventstream import ParserError
    from urllib3.exceptions import HTTPError

    try:
        yield from events
    except (HTTPError, ParserError) as error:
        raise ModelRefused(200, f"the stream ended early: the connection broke ({error})", "ask again") from None


def _comes_to(output: str, failure: str | None) -> str:
    other = f", or its failure to {failure}" if failure else ""
    return f"it comes to {output}{other}: aws s3 cp {output} -"
