"""`InvokeEndpointAsync`: requests are queued for an asynchronous endpoint's container, and its responses go to S3.

One container answers for all instances, even where there are zero instances. It gets as many concurrent requests as one
instance may get. The response goes to `S3OutputPath/UUID.out`, and the reason of a failure to
`S3FailurePath/UUID-error.out`. The SNS topics get a message in the form of the SageMaker developer guide ("Check
prediction results"), which leaves out the response (`IncludeInferenceResponseIn`). SageMaker reads, writes and
publishes with the endpoint's role. It refuses a synchronous request to such an endpoint, and an asynchronous request to
any other, with `ValidationError`; the message of that error is not documented.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from threading import Lock
from typing import Any

import botocore.session
from werkzeug.wrappers import Request, Response

from extended_dlc.rehearsal.embedded.as_role import AsRole
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.runtime import (
    CUSTOM_ATTRIBUTES,
    Refused,
    Runtime,
    ask,
    find_answering,
    find_serving_endpoint,
)
from extended_dlc.rehearsal.embedded.sagemaker import find_endpoint
from extended_dlc.rehearsal.embedded.shapes import Refusal

INLINE_BYTES = 128_000
"""The largest inline payload (API reference, InvokeEndpointAsync, Body)."""

_CONCURRENT = 4
"""Concurrent requests to the container where MaxConcurrentInvocationsPerInstance is not set."""

_TTL_SECONDS = 21_600
_TIMEOUT_SECONDS = 900

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A queued request."""

    account_id: str
    region: str
    endpoint: str
    inference_id: str
    input_location: str | None
    body: bytes
    headers: Mapping[str, str]
    """The headers that are passed on to the container."""

    output: str | None
    failure: str | None
    topics: Mapping[str, str]
    key: str | None = None
    """The KMS key of the output."""

    ttl_seconds: int
    timeout_seconds: int
    received: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class Failed(Exception):
    """The request got no response; the message is the reason in the failure file."""


class Queues:
    """The queues of all asynchronous endpoints."""

    def __init__(self, iam: Iam) -> None:
        self._iam = iam
        self._workers: dict[tuple[str, str, str, int], ThreadPoolExecutor] = {}
        self._lock = Lock()

    def respond(self, request: Request, runtime: Runtime, *, account_id: str, region: str, name: str) -> Response:
        """Queue a request, and return the locations of its output and its failure."""
        try:
            job, at_once = _job(request, runtime.read_body(request), account_id, region, name)
        except Refused as refused:
            return runtime.refuse(refused)
        self._queue(job, at_once).submit(_work, job, self._iam)
        response = Response(json.dumps({"InferenceId": job.inference_id}), 202, mimetype="application/json")
        for header, url in (("OutputLocation", job.output), ("FailureLocation", job.failure)):
            if url is not None:
                response.headers[f"X-Amzn-SageMaker-{header}"] = url
        return response

    def close(self) -> None:
        """Drop the queued requests."""
        for each in self._workers.values():
            each.shutdown(wait=False, cancel_futures=True)

    def _queue(self, job: Job, at_once: int) -> ThreadPoolExecutor:
        key = (job.account_id, job.region, job.endpoint, at_once)
        with self._lock:
            if key not in self._workers:
                self._workers[key] = ThreadPoolExecutor(at_once, thread_name_prefix=f"queue of {job.endpoint}")
            return self._workers[key]


def _job(request: Request, body: bytes, account_id: str, region: str, name: str) -> tuple[Job, int]:
    """The checked request, and the number of concurrent requests of its endpoint. Raises `Refused`."""
    given = _parameters(request)
    endpoint = find_serving_endpoint(account_id, region, name, asynchronous=True)
    if bool(body) == ("InputLocation" in given):
        raise _invalid("Provide exactly one of Body and InputLocation.")
    if len(body) > INLINE_BYTES:
        raise _invalid(f"Body has {len(body)} bytes: the inline payload can be up to {INLINE_BYTES} bytes.")
    config = endpoint.async_config or {}
    output = config["OutputConfig"]
    identifier = str(uuid.uuid4())
    folder = "/".join((output.get("S3OutputPath", "").rstrip("/"), *_extension(given)))
    topics = output.get("NotificationConfig", {})
    headers = {
        "Content-Type": given.get("ContentType"),
        "Accept": given.get("Accept"),
        CUSTOM_ATTRIBUTES: given.get("CustomAttributes"),
        "X-Amzn-SageMaker-Inference-Id": given.get("InferenceId", identifier),
    }
    job = Job(
        account_id=account_id,
        region=region,
        endpoint=name,
        inference_id=given.get("InferenceId", identifier),
        input_location=given.get("InputLocation"),
        body=body,
        headers={key: value for key, value in headers.items() if value is not None},
        output=f"{folder}/{given.get('Filename', f'{identifier}.out')}" if "S3OutputPath" in output else None,
        failure=f"{output['S3FailurePath'].rstrip('/')}/{identifier}-error.out" if "S3FailurePath" in output else None,
        topics={key: topics[key] for key in ("SuccessTopic", "ErrorTopic") if topics.get(key)},
        key=output.get("KmsKeyId"),
        ttl_seconds=int(given.get("RequestTTLSeconds", _TTL_SECONDS)),
        timeout_seconds=int(given.get("InvocationTimeoutSeconds", _TIMEOUT_SECONDS)),
    )
    return job, config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", _CONCURRENT)


def _extension(given: Mapping[str, str]) -> list[str]:
    extension = given.get("S3OutputPathExtension", "").strip("/")
    return [extension] if extension else []


def _parameters(request: Request) -> dict[str, str]:
    """The parameters in the request's headers; `Door` has checked them."""
    model = botocore.session.get_session().get_service_model("sagemaker-runtime")
    members = model.operation_model("InvokeEndpointAsync").input_shape.members
    headers = {
        name: shape.serialization.get("name", "")
        for name, shape in members.items()
        if shape.serialization.get("location") == "header"
    }
    return {name: request.headers[header] for name, header in headers.items() if header in request.headers}


def _invalid(message: str) -> Refused:
    return Refused(400, "ValidationError", Message=message)


def _work(job: Job, iam: Iam) -> None:
    """Send the request to the container, write its response or the failure to S3, and publish to the topic."""
    endpoint = find_endpoint(job.account_id, job.region, job.endpoint)
    if endpoint is None:
        return  # deleting an endpoint drops its queued requests
    try:
        role = AsRole.of(endpoint, iam)
        try:
            content, kind = answer(job, role)
            if job.output is not None:
                _write(job, role, job.output, content, kind)
        except Failed as failed:
            if job.failure is not None:
                role.write(job.failure, str(failed).encode(), "text/plain", job.key)
            _tell(job, role, "ErrorTopic", {"invocationStatus": "Failed", "failureReason": str(failed)}, None)
        else:
            _tell(job, role, "SuccessTopic", {"invocationStatus": "Completed"}, kind)
    except Refusal as refusal:
        _log.warning("the asynchronous request %s of %s: %s", job.inference_id, job.endpoint, refusal.message)
    except Exception:  # the bucket or the topic is missing, so the failure can only be logged
        _log.exception("the asynchronous request %s of %s", job.inference_id, job.endpoint)


def answer(job: Job, role: AsRole) -> tuple[bytes, str]:
    """The container's response and its content type. Raises `Failed`."""
    waited = (datetime.now(timezone.utc) - job.received).total_seconds()
    if waited > job.ttl_seconds:
        raise Failed(f"ClientError: the request has expired after {job.ttl_seconds} s in the queue.")
    body = job.body if job.input_location is None else _read(role, job.input_location)
    try:
        endpoint = find_serving_endpoint(job.account_id, job.region, job.endpoint, asynchronous=True)
        _, instance = find_answering(endpoint)
        given = ask(endpoint, instance, "/invocations", body, job.headers, seconds=job.timeout_seconds)
        content = given.read()
    except Refused as refused:
        raise Failed(f"{refused.code}: {refused.members['Message']}") from None
    if "Content-Length" not in given.headers:
        raise Failed("The response from container primary did not specify the required Content-Length header")
    return content, given.headers.get("Content-Type", "application/octet-stream")


def _read(role: AsRole, location: str) -> bytes:
    """The object at an S3 URL. Raises `Failed`."""
    try:
        found = role.read(location) if location.startswith("s3://") else None
    except Refusal as refusal:
        raise Failed(f"ClientError: Failed to download input from {location}: {refusal.message}") from None
    if found is None:
        raise Failed(f"ClientError: Failed to download input from {location}: no such object.")
    return found


def _write(job: Job, role: AsRole, location: str, content: bytes, kind: str) -> None:
    """Write the response. Raises `Failed`."""
    try:
        role.write(location, content, kind, job.key)
    except Refusal as refusal:
        raise Failed(f"ClientError: Failed to upload output to {location}: {refusal.message}") from None


def _tell(job: Job, role: AsRole, topic: str, what: Mapping[str, str], kind: str | None) -> None:
    if topic not in job.topics:
        return
    message: dict[str, Any] = {
        "awsRegion": job.region,
        "eventTime": _now(),
        "receivedTime": _written(job.received),
        **what,
        "requestParameters": {"endpointName": job.endpoint},
        "inferenceId": job.inference_id,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    asked = {"contentType": job.headers.get("Content-Type"), "inputLocation": job.input_location}
    message["requestParameters"] |= {key: value for key, value in asked.items() if value is not None}
    if kind is not None:
        message["responseParameters"] = {"contentType": kind, "outputLocation": job.output}
    elif job.failure is not None:
        message["failureLocation"] = job.failure
    role.publish(job.topics[topic], json.dumps(message))


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now() -> str:
    return _written(datetime.now(timezone.utc))
