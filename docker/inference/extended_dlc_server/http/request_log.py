"""Logs one line of JSON per request, without its content; with CloudWatch metrics if they are configured."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

import orjson

from ..machine.log import write_line
from ..reading.attributes import HEADER as CUSTOM_ATTRIBUTES
from ..reading.attributes import TRACKING_ID
from .exchange import Exchange

_NOT_ASCII = re.compile("[^ -~]")

_UNITS = {
    **dict.fromkeys(("Latency", "QueueTime", "ComputeTime"), "Milliseconds"),
    **dict.fromkeys(("BatchSize", "QueueFull", "OutOfMemory", "PromptTokens", "GeneratedTokens"), "Count"),
    "AudioSeconds": "Seconds",
}


def write(exchange: Exchange, task: str, namespace: str | None) -> None:
    """Log a finished request, without a prefix: CloudWatch finds embedded metrics only in lines that are pure JSON."""
    line = describe(exchange, task)
    if namespace:
        line.update(_metrics(line, task, namespace))
    write_line(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def describe(exchange: Exchange, task: str) -> dict[str, Any]:
    """Return the fields of a request's log line, none of which holds its content."""
    attributes = exchange.headers.get(CUSTOM_ATTRIBUTES, "").strip()
    line: dict[str, Any] = {
        "event": "request",
        "id": _bounded(exchange.headers.get("x-amzn-sagemaker-inference-id", ""), 64) or secrets.token_hex(16),
        "tracking": _bounded(attributes, 64) if attributes and TRACKING_ID.fullmatch(attributes) else None,
        "method": _bounded(exchange.method, 16),
        "path": _bounded(exchange.path, 64),
        "task": task or None,
        "status": exchange.status or None,
        "code": exchange.code,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "ms": round(exchange.milliseconds, 1),
        "audio_seconds": exchange.audio_seconds,
    }
    job = exchange.job
    if job and job.started:
        line["queue_ms"] = round((job.started - job.queued) * 1000, 1)
        if job.ended:
            line["compute_ms"] = round((job.ended - job.started) * 1000, 1)
        line["batch"] = job.batch
    if exchange.tokens is not None:
        line["prompt_tokens"] = exchange.tokens.prompt
        line["generated_tokens"] = exchange.tokens.generated
    return {name: value for name, value in line.items() if value is not None}


def _bounded(text: str, most: int) -> str:
    """Return client-chosen text, cut and in ASCII: some readers end a line at U+0085 or U+2028, which JSON allows."""
    return _NOT_ASCII.sub("?", text[:most])


def _metrics(line: dict[str, Any], task: str, namespace: str) -> dict[str, Any]:
    """CloudWatch's embedded metric format ("Specification: Embedded metric format")."""
    values = {
        "Latency": line["ms"],
        "QueueTime": line.get("queue_ms"),
        "ComputeTime": line.get("compute_ms"),
        "BatchSize": line.get("batch"),
        "PromptTokens": line.get("prompt_tokens"),
        "GeneratedTokens": line.get("generated_tokens"),
        "AudioSeconds": line.get("audio_seconds"),
        # Always present: an alarm on a metric without data points stays in INSUFFICIENT_DATA.
        "QueueFull": int(line.get("code") == "queue-full"),
        "OutOfMemory": int(line.get("code") == "out-of-memory"),
    }
    known = {name: value for name, value in values.items() if value is not None}
    metrics = [{"Name": name, "Unit": _UNITS[name]} for name in known]
    directive = {"Namespace": namespace, "Dimensions": [["Task"]], "Metrics": metrics}
    about = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    return {"_aws": about, "Task": task or "unknown", **known}
