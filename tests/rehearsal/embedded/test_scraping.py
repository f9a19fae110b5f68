"""SageMaker's metrics agent: which containers it scrapes, and how often."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.rehearsal.embedded.scraping import INTERVAL_SECONDS, interval, scrape
from tests.support.embedded import Aws, wait_for
from tests.support.endpoints import ROLE, image, settled

TOLD = b"# HELP a_total A thing.\n# TYPE a_total counter\na_total 1\nb 2\n"


def asked(folder: Path, name: str) -> list[dict[str, Any]]:
    """The scrapes of an endpoint's containers."""
    file = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in lines if line["container"].startswith(f"{name}.")]


def deployed(aws: Aws, name: str, **metrics: Any) -> None:
    sagemaker = aws.client("sagemaker")
    container = {"Image": image(aws, "served")}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    kind = {"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    variant = {"VariantName": "AllTraffic", "ModelName": name, **kind}
    config = {"MetricsConfig": metrics} if metrics else {}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **config)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert settled(aws, name)["EndpointStatus"] == "InService"


def test_containers_are_asked_unless_the_configuration_turns_it_off(aws: Aws) -> None:
    logs = aws.state / "logs"
    deployed(aws, "unasked", EnableDetailedObservability=False)
    deployed(aws, "asked-often", EnableDetailedObservability=True, MetricPublishFrequencyInSeconds=10)
    deployed(aws, "asked-as-ever")
    began = time.monotonic()
    wait_for(lambda: bool(asked(logs, "asked-often")) and bool(asked(logs, "asked-as-ever")))
    assert asked(logs, "asked-often")[0]["status"] == "200"
    # after ten seconds one is scraped again, the other only after a minute
    wait_for(lambda: len(asked(logs, "asked-often")) == 2, seconds=15)
    first, second = (line["time"] for line in asked(logs, "asked-often"))
    assert 9.5 < second - first < 12
    assert time.monotonic() - began < 40
    assert len(asked(logs, "asked-as-ever")) == 1
    assert asked(logs, "unasked") == []
    for name in ("unasked", "asked-often", "asked-as-ever"):
        aws.client("sagemaker").delete_endpoint(EndpointName=name)


def test_an_update_of_the_configuration_turns_it_off(aws: Aws) -> None:
    logs = aws.state / "logs"
    deployed(aws, "turned-off")
    wait_for(lambda: len(asked(logs, "turned-off")) == 1)
    sagemaker = aws.client("sagemaker")
    kind = {"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    variant = {"VariantName": "AllTraffic", "ModelName": "turned-off", **kind}
    off = {"EnableDetailedObservability": False}
    sagemaker.create_endpoint_config(EndpointConfigName="off", ProductionVariants=[variant], MetricsConfig=off)
    sagemaker.update_endpoint(EndpointName="turned-off", EndpointConfigName="off")
    settled(aws, "turned-off")
    time.sleep(0.5)
    assert len(asked(logs, "turned-off")) == 1
    sagemaker.delete_endpoint(EndpointName="turned-off")


@pytest.mark.parametrize(
    ("configuration", "variant", "seconds"),
    [
        ({}, {}, INTERVAL_SECONDS),
        ({"MetricsConfig": {}}, {}, INTERVAL_SECONDS),
        ({"MetricsConfig": {"EnableDetailedObservability": False}}, {}, None),
        ({"MetricsConfig": {"EnableEnhancedMetrics": True, "MetricPublishFrequencyInSeconds": 30}}, {}, 30),
        ({}, {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}, None),
    ],
)
def test_the_interval_is_the_configurations(configuration: Any, variant: Any, seconds: float | None) -> None:
    assert interval(configuration, variant) == seconds


class Container:
    """As much of a container in service as the agent needs."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.paths: list[str] = []
        container = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                container.paths.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(TOLD)))
                self.end_headers()
                self.wfile.write(TOLD)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def container() -> Iterator[Container]:
    made = Container()
    yield made
    made.stopping.set()
    made.server.shutdown()
    made.server.server_close()


def test_what_a_container_told_is_kept_beside_its_log(container: Container, tmp_path: Path) -> None:
    thread = scrape(container, 0.05, name="bloom.AllTraffic", logs=tmp_path)
    assert thread is not None
    wait_for(lambda: len(asked(tmp_path, "bloom")) >= 3)
    container.stopping.set()
    thread.join(5)
    assert not thread.is_alive()
    assert set(container.paths) == {"/metrics"}
    assert (tmp_path / "bloom.AllTraffic.metrics").read_bytes() == TOLD
    assert asked(tmp_path, "bloom")[0].items() >= {"status": "200", "series": 2, "bytes": len(TOLD)}.items()


def test_a_container_that_does_not_answer_is_noted_and_asked_again(container: Container, tmp_path: Path) -> None:
    container.server.shutdown()
    container.server.server_close()
    thread = scrape(container, 0.05, name="bloom.AllTraffic", logs=tmp_path)
    assert thread is not None
    wait_for(lambda: len(asked(tmp_path, "bloom")) >= 2)
    container.stopping.set()
    thread.join(5)
    assert asked(tmp_path, "bloom")[0]["status"].startswith("no answer")
    assert not (tmp_path / "bloom.AllTraffic.metrics").exists()


def test_nothing_is_asked_where_it_is_off(container: Container, tmp_path: Path) -> None:
    assert scrape(container, None, name="bloom.AllTraffic", logs=tmp_path) is None
    assert list(tmp_path.iterdir()) == []
