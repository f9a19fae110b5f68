"""What SageMaker's agent does beside each container: it asks `GET /metrics`, unless the configuration turns that off.

SageMaker developer guide, "Amazon SageMaker AI detailed observability for inference endpoints", and `MetricsConfig` in
its API reference. What a container told last is a file beside its log, and each time is a line of `metrics.jsonl`.
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
"""Where the agent asks, unless the model names another path (`ContainerMetricsConfig`)."""

INTERVAL_SECONDS = 60
"""How often, unless the configuration says otherwise."""

TIMEOUT_SECONDS = 10.0
"""How long the agent waits here; what AWS's waits is published nowhere. Prometheus' own default."""

_log = logging.getLogger(__name__)
_writing = threading.Lock()


class Scraped(Protocol):
    """A container in service."""

    @property
    def port(self) -> int:
        """Where it listens."""

    @property
    def stopping(self) -> threading.Event:
        """Set when it is being stopped for good."""


def interval(configuration: Mapping[str, Any], variant: Mapping[str, Any]) -> float | None:
    """Seconds between two questions to the containers of a variant; None where nobody asks them.

    The guide is about real-time endpoints: a serverless container has no instance with an agent.
    """
    metrics = configuration.get("MetricsConfig") or {}
    if metrics.get("EnableDetailedObservability") is False or "ServerlessConfig" in variant:
        return None
    return float(metrics.get("MetricPublishFrequencyInSeconds", INTERVAL_SECONDS))


def scrape(container: Scraped, seconds: float | None, *, name: str, logs: Path) -> threading.Thread | None:
    """Ask a container, at once and then every so many seconds, until it is stopped; None asks nothing."""
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
    """The status, or why there is none, and what was told."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", PATH)
        response = connection.getresponse()
        return str(response.status), response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})", b""
    finally:
        connection.close()


def _note(logs: Path, name: str, status: str, told: bytes) -> None:
    series = sum(bool(line) and not line.startswith(b"#") for line in told.splitlines())
    line = {"time": round(time.time(), 3), "container": name, "status": status, "series": series, "bytes": len(told)}
    try:
        with _writing, (logs / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if status == "200":
            (logs / f"{name}.metrics").write_bytes(told)
    except OSError as error:  # the rehearsal's folder is being taken away
        _log.info("what %s tells of itself was not written: %s", name, error)
