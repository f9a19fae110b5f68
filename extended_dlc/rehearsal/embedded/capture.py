"""Data capture: requests and responses of a synchronous endpoint are written to S3 with the endpoint's role.

One file for each captured request, at `DestinationS3Uri/endpoint/variant/yyyy/mm/dd/hh/UUID.jsonl`, in the form of the
SageMaker developer guide ("Capture data from real-time endpoint"). SageMaker collects several requests in a file. Where
the role lacks a right, the endpoint answers without a capture.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from extended_dlc.rehearsal.embedded.as_role import AsRole
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.sagemaker import Endpoint
from extended_dlc.rehearsal.embedded.shapes import Refusal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request and its response."""

    variant: str
    body: bytes
    content_type: str
    answer: bytes
    answer_type: str


def capture(endpoint: Endpoint, exchange: Exchange, iam: Iam) -> None:
    """Write the exchange where the endpoint's configuration captures it."""
    asked: Mapping[str, Any] = endpoint.config_request.get("DataCaptureConfig") or {}
    if not asked or asked.get("EnableCapture") is False:
        return
    if random.random() * 100 >= asked["InitialSamplingPercentage"]:  # noqa: S311 - no secret
        return
    now = datetime.now(timezone.utc)
    folder = f"{asked['DestinationS3Uri'].rstrip('/')}/{endpoint.endpoint_name}/{exchange.variant}/{now:%Y/%m/%d/%H}"
    line = json.dumps(_record(asked, exchange, now)) + "\n"
    try:
        role = AsRole.of(endpoint, iam)
        role.write(f"{folder}/{uuid.uuid4()}.jsonl", line.encode(), "application/json", asked.get("KmsKeyId"))
    except Refusal as refusal:
        _log.warning("no data capture of %s: %s", endpoint.endpoint_name, refusal.message)


def _record(asked: Mapping[str, Any], exchange: Exchange, now: datetime) -> Mapping[str, Any]:
    sides = {
        "Input": ("endpointInput", exchange.body, exchange.content_type),
        "Output": ("endpointOutput", exchange.answer, exchange.answer_type),
    }
    captured = {}
    for option in asked["CaptureOptions"]:
        mode = option["CaptureMode"]
        for each in ("Input", "Output") if mode == "InputAndOutput" else (mode,):
            name, data, kind = sides[each]
            encoding = _encoding(asked.get("CaptureContentTypeHeader") or {}, kind)
            text = base64.b64encode(data).decode() if encoding == "BASE64" else data.decode(errors="replace")
            captured[name] = {
                "observedContentType": kind,
                "mode": each.upper(),
                "data": text,
                "encoding": encoding,
            }
    metadata = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
    return {"captureData": captured, "eventMetadata": metadata, "eventVersion": "0"}


def _encoding(headers: Mapping[str, Any], content_type: str) -> str:
    """JSON and CSV are captured as they are where the configuration names the type; everything else is base64."""
    kind = content_type.partition(";")[0].strip()
    if kind in headers.get("CsvContentTypes", ()):
        return "CSV"
    return "JSON" if kind in headers.get("JsonContentTypes", ()) else "BASE64"
