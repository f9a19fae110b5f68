"""SageMaker's metrics agent: it requests `GET /metrics` of each container, unless the configuration disables it.

SageMaker developer guide, "Amazon SageMaker AI detailed observability for inference endpoints", and `MetricsConfig` in
the API reference. A container's last response is a file beside its log, and each request is a line of `metrics.jsonl`.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

PATH = "/metrics"
"""The path of the request, unless the model sets another (`ContainerMetricsConfig`)."""

INTERVAL_SECONDS = 60
"""The interval, unless the configuration sets another."""

TIMEOUT_SECONDS = 10.0
"""The time-out here, which is Prometheus' default; AWS does not publish its agent's."""

_log = logging.getLogger(__name__)
_writing = threading.Lock()


class Scraped(Protocol):
    """A container in service."""

    @property
    def port(self) -> int:
        """The port on which it listens."""

    @property
    def stopping(self) -> threading.Event:
        """Set when the container is stopped for good."""


def interval(configuration: Mapping[str, Any], variant: Mapping[str, Any]) -> float | None:
    """Seconds between two requests to a variant's containers; None where there are none.

    The guide is about real-time endpoints: a serverless container has no instance with an agent.
    """
    metrics = configuration.get("MetricsConfig") or {}
    if metrics.get("EnableDetailedObservability") is False or "ServerlessConfig" in variant:
        return None
    return float(metrics.get("MetricPublishFrequencyInSeconds", INTERVAL_SECONDS))


def scrape(container: Scraped, seconds: float | None, *, name: str, logs: Path) -> threading.Thread | None:
    """Request a container's metrics at once and then at each interval, until it is stopped. None disables it."""
    if seconds is None:
        return None

    def ask() -> None:
        while True:
            _note(logs, name, *_ask(container.port))
            if container.stopping.wait(seconds):
                return

    thread = threading.Thread(target=ask, name=f"metrics of {name}", daemon=True)
    thread.start()
    return thread


def _ask(port: int) -> tuple[str, bytes]:
    """The HTTP status, or why there is none, and the response's body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", PATH)
        response = connection.getresponse()
        return str(response.status), response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})", b""
    finally:
        connection.close()


def _note(logs: Path, name: str, status: str, metrics: bytes) -> None:
    series = sum(bool(line) and not line.startswith(b"#") for line in metrics.splitlines())
    line = {"time": round(time.time(), 3), "container": name, "status": status, "series": series, "bytes": len(metrics)}
    try:
        with _writing, (logs / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if status == "200":
            (logs / f"{name}.metrics").write_bytes(metrics)
    except OSError as error:  # the rehearsal's folder is being deleted
        _log.info("what %s tells of itself was not written: %s", name, error)
