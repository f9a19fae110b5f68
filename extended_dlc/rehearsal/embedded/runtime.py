"""SageMaker's runtime: `InvokeEndpoint` and `InvokeEndpointWithResponseStream`, in front of the containers."""

from __future__ import annotations

import http.client
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from extended_dlc.facts.names import ENDPOINT_LOGS
from extended_dlc.rehearsal.embedded.capture import Exchange, capture
from extended_dlc.rehearsal.embedded.components import find_serving
from extended_dlc.rehearsal.embedded.hosting import Instance
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.sagemaker import Endpoint, Variant, find_endpoint

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_VARIANT = "x-Amzn-Invoked-Production-Variant"
_PASSED_ON = (
    "Content-Type",
    "Accept",
    CUSTOM_ATTRIBUTES,
    "X-Amzn-SageMaker-Inference-Id",
    "X-Amzn-SageMaker-Target-Model",
)
_PIECE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """SageMaker's limits of one invocation ("Amazon SageMaker AI endpoints and quotas")."""

    body_bytes: int = 25 * 1024 * 1024
    """The largest request body in bytes."""

    seconds: float = 60
    """The time-out of a response in seconds."""

    stream_seconds: float = 480
    """The time-out of a streamed response in seconds."""


class Refused(Exception):
    """An error response in the form that SDKs parse."""

    def __init__(self, status: int, code: str, **members: object) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.members = members

    @property
    def original_status(self) -> int:
        """The status of the container's response; 0 without a response."""
        status = self.members.get("OriginalStatusCode", 0)
        return status if isinstance(status, int) else 0


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """SageMaker's data plane."""

    limits: Limits
    iam: Iam
    """Evaluates the role with which data is captured."""

    def respond(self, request: Request, *, account_id: str, region: str, name: str, stream: bool) -> Response:
        try:
            return self._invoke(request, account_id, region, name, stream=stream)
        except Refused as refused:
            return self.refuse(refused)

    @staticmethod
    def refuse(refused: Refused) -> Response:
        """The error response."""
        headers = {"x-amzn-errortype": refused.code} if refused.code else {}
        return Response(json.dumps(refused.members), refused.status, headers, mimetype="application/json")

    def _invoke(self, request: Request, account_id: str, region: str, name: str, *, stream: bool) -> Response:
        body = self.read_body(request)
        endpoint = find_serving_endpoint(account_id, region, name)
        variant, instance = find_answering(
            endpoint,
            component=request.headers.get("X-Amzn-SageMaker-Inference-Component"),
            wanted=request.headers.get("X-Amzn-SageMaker-Target-Variant"),
        )
        headers = {key: value for key in _PASSED_ON if (value := request.headers.get(key)) is not None}
        if stream and (accept := request.headers.get("X-Amzn-SageMaker-Accept")):
            headers["Accept"] = accept
        seconds = self.limits.stream_seconds if stream else self.limits.seconds
        answer = ask(endpoint, instance, "/invocations", body, headers, seconds=seconds)
        if stream:
            return _streamed(answer, variant.name)
        content, kind = answer.read(), answer.headers.get("Content-Type", "application/octet-stream")
        response = Response(content, 200)
        response.headers["Content-Type"] = kind
        exchange = Exchange(
            variant=variant.name,
            body=body,
            content_type=headers.get("Content-Type", "application/octet-stream"),
            answer=content,
            answer_type=kind,
        )
        capture(endpoint, exchange, self.iam)
        response.headers[_VARIANT] = variant.name
        if custom := answer.headers.get(CUSTOM_ATTRIBUTES):
            response.headers[CUSTOM_ATTRIBUTES] = custom
        return response

    def read_body(self, request: Request) -> bytes:
        """The request's body. Raises `Refused` for one that is too large."""
        limit = self.limits.body_bytes
        too_long = Refused(413, "", Message=f"HTTP content length exceeded {limit} bytes.")
        if (request.content_length or 0) > limit:
            # read the rest of the body, or the client gets a broken connection instead of the error response
            while request.stream.read(_PIECE):
                pass
            raise too_long
        body = bytearray()
        while piece := request.stream.read(_PIECE):
            body += piece
            if len(body) > limit:
                raise too_long
        return bytes(body)


def find_serving_endpoint(account_id: str, region: str, name: str, *, asynchronous: bool = False) -> Endpoint:
    """A synchronous or asynchronous endpoint that has been in service. Raises `Refused` for any other."""
    endpoint = find_endpoint(account_id, region, name)
    if endpoint is None or (endpoint.endpoint_status != "Updating" and not endpoint.variants):
        raise Refused(400, "ValidationError", Message=f"Endpoint {name} of account {account_id} not found.")
    if asynchronous != (endpoint.async_config is not None):
        kind, way = ("a synchronous", "InvokeEndpoint") if asynchronous else ("an asynchronous", "InvokeEndpointAsync")
        message = f"Endpoint {name} of account {account_id} is {kind} endpoint: use {way}."
        raise Refused(400, "ValidationError", Message=message)
    return endpoint


def find_answering(
    endpoint: Endpoint, *, component: str | None = None, wanted: str | None = None
) -> tuple[Variant, Instance]:
    """The variant or component that serves the request, and its instance. Raises `Refused`."""
    name, account_id = endpoint.endpoint_name, endpoint.account_id
    variant = _component(endpoint, component) if component else endpoint.pick(wanted)
    if variant is None:
        message = f"Variant {wanted} not found for endpoint {name} of account {account_id}."
        raise Refused(400, "ValidationError", Message=message)
    if variant.instance is None:
        message = (
            f"Endpoint {name} of account {account_id} has no container: the embedded AWS runs without a container "
            "engine. Start it with --engine."
        )
        raise Refused(400, "ValidationError", Message=message)
    return variant, variant.instance


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A successful response of a container whose headers have been received."""

    connection: http.client.HTTPConnection
    response: http.client.HTTPResponse
    failed: Callable[[Exception], Refused]

    @property
    def headers(self) -> Message:
        return self.response.headers

    def read(self) -> bytes:
        """The whole body. Raises `Refused` where the container closes the connection early."""
        try:
            return self.response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self.failed(error) from None
        finally:
            self.connection.close()

    def pieces(self) -> Iterator[bytes]:
        """The body in pieces as they arrive. Raises the connection's errors."""
        try:
            while piece := self.response.read1(_PIECE):
                yield piece
        finally:
            self.connection.close()


def ask(
    endpoint: Endpoint, instance: Instance, path: str, body: bytes, headers: Mapping[str, str], *, seconds: float
) -> Answer:
    """Send one request to a container. Raises `Refused` unless the response's status is a success."""

    def failed(error: Exception) -> Refused:
        connection.close()
        if isinstance(error, TimeoutError):
            message = (
                "Your invocation timed out while waiting for a response from container primary. Review the latency "
                "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
            )
            return _model_error(endpoint, instance, 0, message)
        code = _exit_code(instance)
        fate = f"it exited with code {code}" if code is not None else f"{error!r}"
        message = f"Amazon SageMaker could not get a response from the primary container: {fate}."
        return _model_error(endpoint, instance, 0, message)

    connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=seconds)
    try:
        connection.request("POST", path, body=body, headers=dict(headers))
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise failed(error) from None
    answer = Answer(connection=connection, response=response, failed=failed)
    if not 200 <= response.status < 400:
        raise _model_error(endpoint, instance, response.status, answer.read().decode(errors="replace"))
    return answer


def _component(endpoint: Endpoint, name: str) -> Variant:
    """The variant that serves a component. Raises `Refused` where the component is unknown or has no copy."""
    variant, copies = find_serving(endpoint.account_id, endpoint.region_name, endpoint.endpoint_name, name)
    if variant is None:
        message = f"Inference Component {name} not found for endpoint {endpoint.endpoint_name}."
        raise Refused(400, "ValidationError", Message=message)
    if copies == 0:
        message = (
            "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress "
            "(if configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
        )
        raise Refused(400, "ValidationError", Message=message)
    return variant


def _exit_code(instance: Instance) -> int | None:
    """The exit code of an instance that broke a connection; its end may be visible only a moment later."""
    deadline = time.monotonic() + 1
    while (code := instance.exit_code()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return code


def _model_error(endpoint: Endpoint, instance: Instance, status: int, message: str) -> Refused:
    group = f"{ENDPOINT_LOGS}/{endpoint.endpoint_name}"
    kind = "client" if 400 <= status < 500 else "server"
    return Refused(
        424,
        "ModelError",
        Message=f'Received {kind} error ({status}) from primary with message "{message}". '
        f"See {instance.log} (group {quote(group)} in account {endpoint.account_id}) for more information.",
        OriginalStatusCode=status,
        OriginalMessage=message,
        LogStreamArn=f"arn:aws:logs:{endpoint.region_name}:{endpoint.account_id}:log-group:{group}",
    )


def _streamed(answer: Answer, variant: str) -> Response:
    def parts() -> Iterator[bytes]:
        try:
            for piece in answer.pieces():
                yield event({":message-type": "event", ":event-type": "PayloadPart"}, piece)
        except (OSError, http.client.HTTPException) as error:
            code = "StreamBroken" if not isinstance(error, TimeoutError) else "ModelInvocationTimeExceeded"
            body = json.dumps({"Message": f"The model's stream ended early: {error!r}", "ErrorCode": code})
            yield event({":message-type": "exception", ":exception-type": "ModelStreamError"}, body.encode())

    response = Response(parts(), 200, mimetype="application/vnd.amazon.eventstream", direct_passthrough=True)
    response.headers["X-Amzn-SageMaker-Content-Type"] = answer.headers.get("Content-Type", "application/octet-stream")
    response.headers[_VARIANT] = variant
    if custom := answer.headers.get(CUSTOM_ATTRIBUTES):
        response.headers[CUSTOM_ATTRIBUTES] = custom
    return response


def event(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of AWS's event stream encoding: lengths, their checksum, headers, payload, checksum of the whole."""
    encoded = b"".join(
        struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", 7, len(value.encode())) + value.encode()
        for key, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack("!I", zlib.crc32(message))
