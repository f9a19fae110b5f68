"""The log of requests: its fields, and what it leaves out."""

from __future__ import annotations

import json
import platform
import threading
import time
from pathlib import Path

import pytest
from extended_dlc_server import __version__, errors, settings

from .conftest import NEWEST

SECRET = "confidential"


def line_of(server, ask):
    (line,) = server.lines_of(ask)
    return line


@pytest.fixture(scope="module")
def metered(start_server):
    server = start_server("bloom", EXTENDED_DLC_METRICS_NAMESPACE="ExtendedDlc/bloom").wait_until_ready()
    yield server
    assert server.stop() == 0


def test_each_request_is_a_line_of_json_without_its_content(metered):
    body = {"inputs": SECRET, "parameters": {"max_new_tokens": 2}}
    headers = {"X-Amzn-SageMaker-Inference-Id": "mine-1", "X-Amzn-SageMaker-Custom-Attributes": "track-2"}
    before, answers = len(metered.log.splitlines()), []
    data = json.dumps(body).encode()
    line = line_of(metered, lambda: answers.append(metered.request("POST", "/invocations", data, headers)))
    wanted = {"event": "request", "id": "mine-1", "tracking": "track-2", "task": "text-generation", "status": 200}
    assert (
        line.items()
        >= {**wanted, "bytes_in": len(json.dumps(body)), "bytes_out": len(answers[0].body), "batch": 1}.items()
    )
    assert 0 < line["compute_ms"] <= line["ms"]
    assert line["queue_ms"] >= 0
    assert len(metered.log.splitlines()) == before + 1
    assert SECRET not in metered.log


def test_metrics_are_in_cloudwatchs_embedded_format(metered):
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 2}, "stream": True}
    line = line_of(metered, lambda: metered.ask(body))
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "ExtendedDlc/bloom"
    assert directive["Dimensions"] == [["Task"]]
    assert line["Task"] == "text-generation"
    assert abs(line["_aws"]["Timestamp"] / 1000 - time.time()) < 60
    names = {metric["Name"] for metric in directive["Metrics"]}
    assert {"Latency", "QueueTime", "ComputeTime", "BatchSize", "QueueFull", "OutOfMemory"} < names
    assert all(isinstance(line[name], (int, float)) for name in names)
    assert line["GeneratedTokens"] == 2


def test_a_refused_request_has_its_code_and_none_of_its_words(metered):
    line = line_of(metered, lambda: metered.ask({"inputs": "a", "parameters": {"langage": SECRET}}))
    assert (line["status"], line["code"]) == (400, "unknown-parameter")
    assert line["OutOfMemory"] == 0
    assert SECRET not in metered.log


def test_out_of_memory_is_counted_and_no_metrics_without_a_namespace(misbehaving):
    body = {"inputs": "x" * 30, "parameters": {"max_new_tokens": 2}}
    line = line_of(misbehaving, lambda: misbehaving.ask(body))
    assert (line["status"], line["code"]) == (507, "out-of-memory")
    assert "_aws" not in line


def test_audio_is_counted_in_seconds(whisper, tone):
    assert line_of(whisper, lambda: whisper.ask(tone(2), "audio/wav"))["audio_seconds"] == 2


def test_pings_are_not_logged_and_the_banner_tells_what_runs(metered):
    metered.ping()
    assert "/ping" not in metered.log
    assert "in float32, in batches of up to 32" in metered.log


def block(server):
    """The banner's lines by their names."""
    lines = [line.partition(" INFO ")[2] for line in server.log.splitlines()]
    (first,) = [number for number, line in enumerate(lines) if line.startswith("extended-dlc server ")]
    return lines[first], dict(line.strip().partition(": ")[::2] for line in lines[first + 1 : first + 6])


def test_the_banner_names_the_versions_what_is_loaded_and_the_limits(start_server, models, release):
    environment = {"EXTENDED_DLC_QUEUE_LENGTH": "7", "HF_TASK": "text-classification", "HF_TOKEN": SECRET}
    server = start_server("bert-classifier", release, **environment).wait_until_ready()
    head, lines = block(server)
    hub = "huggingface_hub 2." if release == NEWEST else "huggingface_hub 0.36.2"
    for part in (f"{__version__} with transformers {release}, torch ", hub, f"and Python {platform.python_version()}"):
        assert part in head
    assert lines["model"].endswith("/model, 0.1 MB of weights")
    assert lines["task"] == "text-classification (HF_TASK)"
    assert lines["devices"] == "1 CPU threads, in float32"
    assert lines["limits"] == (
        "bodies of 25 MB within 120 s, audio of 3600 s, 7 waiting requests, batches of 16, "
        "60 s an answer, 480 s a stream"
    )
    assert lines["options"] == "a token for the Hub"
    assert SECRET not in server.log
    assert server.stop() == 0


def test_the_banner_says_where_the_task_is_from(metered):
    assert block(metered)[1]["task"] == "text-generation (from config.json; HF_TASK is not set)"


def test_the_servers_version_is_the_packages():
    (line,) = [
        line
        for line in (Path(__file__).parents[2] / "pyproject.toml").read_text().splitlines()
        if line.startswith("version = ")
    ]
    assert line == f'version = "{__version__}"'


def test_tokens_are_counted_for_answers_that_are_not_streams(metered):
    several = {"max_new_tokens": 3, "min_new_tokens": 3, "num_return_sequences": 2, "do_sample": True}
    line = line_of(metered, lambda: metered.ask({"inputs": "xxxxx", "parameters": several}))
    assert (line["prompt_tokens"], line["generated_tokens"]) == (5, 6)  # one letter is one token
    assert (line["PromptTokens"], line["GeneratedTokens"]) == (5, 6)


def test_each_of_a_batch_has_its_own_tokens(metered):
    # Each is so long that the others join it, however busy the machine is.
    asked = {1: 400, 2: 401, 5: 402, 9: 403}
    bodies = [
        {"inputs": "y" * length, "parameters": {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}}
        for length, count in asked.items()
    ]

    def ask_all():
        threads = [threading.Thread(target=metered.ask, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    lines = metered.lines_of(ask_all, 4)
    assert {line["prompt_tokens"]: line["generated_tokens"] for line in lines} == asked
    assert max(line["batch"] for line in lines) > 1


@pytest.mark.parametrize("value", ["AWS/SageMaker", "with space", "x" * 256])
def test_a_namespace_that_cloudwatch_refuses_stops_the_start(value):
    with pytest.raises(errors.StartError, match="EXTENDED_DLC_METRICS_NAMESPACE"):
        settings.read_settings({"EXTENDED_DLC_METRICS_NAMESPACE": value})
