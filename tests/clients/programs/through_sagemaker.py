"""An httpx transport that sends an unmodified client's requests through InvokeEndpoint.

The route of `http://sagemaker/ENDPOINT/PATH` follows from the body, or from `route=/PATH` in the custom attributes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import httpx2


class ThroughSageMaker(httpx2.BaseTransport):
    """Each request becomes an InvokeEndpoint, or with `stream` an InvokeEndpointWithResponseStream."""

    def __init__(self, aws: str, region: str, *, by_route: bool) -> None:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        self._runtime = boto3.client("sagemaker-runtime", endpoint_url=aws, region_name=region, **keys)
        self._by_route = by_route

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request, and return the container's response."""
        _, endpoint, path = request.url.path.split("/", 2)
        body = request.read()
        asked: dict[str, Any] = {"EndpointName": endpoint, "Body": body}
        if kind := request.headers.get("content-type"):
            asked["ContentType"] = kind
        if (accepted := request.headers.get("accept", "*/*")) != "*/*":
            asked["Accept"] = accepted
        if self._by_route:
            asked["CustomAttributes"] = f"route=/{path}"
        try:
            if _streams(body):
                answer = self._runtime.invoke_endpoint_with_response_stream(**asked)
                headers = {"content-type": answer["ContentType"]}
                return httpx2.Response(200, headers=headers, stream=_Parts(answer["Body"]))
            answer = self._runtime.invoke_endpoint(**asked)
            return httpx2.Response(200, headers={"content-type": answer["ContentType"]}, content=answer["Body"].read())
        except self._runtime.exceptions.ModelError as error:
            message, status = error.response["OriginalMessage"], error.response["OriginalStatusCode"]
            return httpx2.Response(status, headers={"content-type": "application/json"}, content=message.encode())


class _Parts(httpx2.SyncByteStream):
    def __init__(self, events: Any) -> None:
        self._events = events

    def __iter__(self) -> Iterator[bytes]:
        for event in self._events:
            yield event["PayloadPart"]["Bytes"]


def _streams(body: bytes) -> bool:
    try:
        return json.loads(body).get("stream") is True
    except (ValueError, AttributeError):
        return False
