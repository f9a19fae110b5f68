"""SageMaker's runtime: `InvokeEndpoint` and its streaming sibling, in front of the endpoint's containers."""

from __future__ import annotations

import http.client
import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from extended_dlc.facts.names import ENDPOINT_LOGS
from extended_dlc.rehearsal.embedded.components import find_serving
from extended_dlc.rehearsal.embedded.hosting import Instance
from extended_dlc.rehearsal.embedded.sagemaker import Endpoint, Variant, find_endpoint

_CUSTOM = "X-Amzn-SageMaker-Custom-Attributes"
_VARIANT = "x-Amzn-Invoked-Production-Variant"
_PASSED_ON = ("Content-Type", "Accept", _CUSTOM, "X-Amzn-SageMaker-Inference-Id", "X-Amzn-SageMaker-Target-Model")
_PIECE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What SageMaker allows one invocation ("Amazon SageMaker AI endpoints and quotas")."""

    body_bytes: int = 25 * 1024 * 1024
    """Largest request body, in bytes."""

    seconds: float = 60
    """Longest wait for an answer, in seconds."""

    stream_seconds: float = 480
    """Longest streamed answer, in seconds."""


class _Refused(Exception):
    """An error in the form that SDKs read."""

    def __init__(self, status: int, code: str, **members: object) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.members = members


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The data plane."""

    limits: Limits

    def respond(self, request: Request, *, account_id: str, region: str, name: str, stream: bool) -> Response:
        """Answer one invocation."""
        try:
            return self._invoke(request, account_id, region, name, stream=stream)
        except _Refused as refused:
            headers = {"x-amzn-errortype": refused.code} if refused.code else {}
            return Response(json.dumps(refused.members), refused.status, headers, mimetype="application/json")

    def _invoke(self, request: Request, account_id: str, region: str, name: str, *, stream: bool) -> Response:
        body = self._body(request)
        endpoint = find_endpoint(account_id, region, name)
        if endpoint is None or (endpoint.endpoint_status != "Updating" and not endpoint.variants):
            raise _Refused(400, "ValidationError", Message=f"Endpoint {name} of account {account_id} not found.")
        wanted = request.headers.get("X-Amzn-SageMaker-Target-Variant")
        component = request.headers.get("X-Amzn-SageMaker-Inference-Component")
        variant = _component(endpoint, component) if component else endpoint.pick(wanted)
        if variant is None:
            message = f"Variant {wanted} not found for endpoint {name} of account {account_id}."
            raise _Refused(400, "ValidationError", Message=message)
        if variant.instance is None:
            message = (
                f"Endpoint {name} of account {account_id} has no container: the embedded AWS runs without a container "
                "engine. Start it with --engine."
            )
            raise _Refused(400, "ValidationError", Message=message)
        instance = variant.instance
        headers = {key: value for key in _PASSED_ON if (value := request.headers.get(key)) is not None}
        if stream and (accept := request.headers.get("X-Amzn-SageMaker-Accept")):
            headers["Accept"] = accept
        seconds = self.limits.stream_seconds if stream else self.limits.seconds
        connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=seconds)
        try:
            connection.request("POST", "/invocations", body=body, headers=headers)
            answer = connection.getresponse()
            if stream and answer.status < 400:
                return _streamed(connection, answer, variant.name)
            content = answer.read()
        except TimeoutError:
            connection.close()
            message = (
                "Your invocation timed out while waiting for a response from container primary. Review the latency "
                "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
            )
            raise _model_error(endpoint, instance, 0, message) from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            code = _exit_code(instance)
            fate = f"it exited with code {code}" if code is not None else f"{error!r}"
            message = f"Amazon SageMaker could not get a response from the primary container: {fate}."
            raise _model_error(endpoint, instance, 0, message) from None
        connection.close()
        if answer.status >= 400 or answer.status < 200:
            raise _model_error(endpoint, instance, answer.status, content.decode(errors="replace"))
        response = Response(content, 200)
        response.headers["Content-Type"] = answer.headers.get("Content-Type", "application/octet-stream")
        response.headers[_VARIANT] = variant.name
        if custom := answer.headers.get(_CUSTOM):
            response.headers[_CUSTOM] = custom
        return response

    def _body(self, request: Request) -> bytes:
        limit = self.limits.body_bytes
        too_long = _Refused(413, "", Message=f"HTTP content length exceeded {limit} bytes.")
        if (request.content_length or 0) > limit:
            # read what comes, or the client sees a broken connection in place of the answer
            while request.stream.read(_PIECE):
                pass
            raise too_long
        body = bytearray()
        while piece := request.stream.read(_PIECE):
            body += piece
            if len(body) > limit:
                raise too_long
        return bytes(body)


def _component(endpoint: Endpoint, name: str) -> Variant:
    """What answers for a component; _Refused where there is none, or no copy of it."""
    variant, copies = find_serving(endpoint.account_id, endpoint.region_name, endpoint.endpoint_name, name)
    if variant is None:
        message = f"Inference Component {name} not found for endpoint {endpoint.endpoint_name}."
        raise _Refused(400, "ValidationError", Message=message)
    if copies == 0:
        message = (
            "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress "
            "(if configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
        )
        raise _Refused(400, "ValidationError", Message=message)
    return variant


def _exit_code(instance: Instance) -> int | None:
    """The code of an instance that broke a connection, which it may do a moment before it is seen to end."""
    deadline = time.monotonic() + 1
    while (code := instance.exit_code()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return code


def _model_error(endpoint: Endpoint, instance: Instance, status: int, message: str) -> _Refused:
    group = f"{ENDPOINT_LOGS}/{endpoint.endpoint_name}"
    kind = "client" if 400 <= status < 500 else "server"
    return _Refused(
        424,
        "ModelError",
        Message=f'Received {kind} error ({status}) from primary with message "{message}". '
        f"See {instance.log} (group {quote(group)} in account {endpoint.account_id}) for more information.",
        OriginalStatusCode=status,
        OriginalMessage=message,
        LogStreamArn=f"arn:aws:logs:{endpoint.region_name}:{endpoint.account_id}:log-group:{group}",
    )


def _streamed(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, variant: str) -> Response:
    def parts() -> Iterator[bytes]:
        try:
            while piece := answer.read1(_PIECE):
                yield event({":message-type": "event", ":event-type": "PayloadPart"}, piece)
        except (OSError, http.client.HTTPException) as error:
            code = "StreamBroken" if not isinstance(error, TimeoutError) else "ModelInvocationTimeExceeded"
            body = json.dumps({"Message": f"The model's stream ended early: {error!r}", "ErrorCode": code})
            yield event({":message-type": "exception", ":exception-type": "ModelStreamError"}, body.encode())
        finally:
            connection.close()

    response = Response(parts(), 200, mimetype="application/vnd.amazon.eventstream", direct_passthrough=True)
    response.headers["X-Amzn-SageMaker-Content-Type"] = answer.headers.get("Content-Type", "application/octet-stream")
    response.headers[_VARIANT] = variant
    if custom := answer.headers.get(_CUSTOM):
        response.headers[_CUSTOM] = custom
    return response


def event(headers: dict[str, str], payload: bytes) -> bytes:
    """One message in AWS's event-stream framing: lengths, their checksum, headers, payload, checksum of it all."""
    encoded = b"".join(
        struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", 7, len(value.encode())) + value.encode()
        for key, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack("!I", zlib.crc32(message))
