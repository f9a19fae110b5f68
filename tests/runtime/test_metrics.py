"""`GET /metrics`, read by Prometheus' own parser: the values follow the requests, and the labels are bounded."""

from __future__ import annotations

import json
import random
import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server.machine import histograms
from extended_dlc_server.reading.tasks import KINDS
from extended_dlc_server.routes import metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.runtime.conftest import IMAGE, NEWEST

P = metrics.PREFIX
HISTOGRAMS = {
    *("e2e_request_latency_seconds", "request_queue_time_seconds", "request_inference_time_seconds"),
    *("request_batch_size", "time_to_first_token_seconds", "inter_token_latency_seconds"),
}
COUNTERS = {
    *("requests", "errors", "prompt_tokens", "generation_tokens", "audio_seconds"),
    *("prefix_cache_queries", "prefix_cache_hits", "num_preemptions"),
}
GAUGES = {
    *(
        "build_info",
        "model_ready",
        "model_copies",
        "num_requests_running",
        "num_requests_waiting",
        "memory_limit_bytes",
    ),
    *("num_sequences_running", "kv_cache_usage_perc", "kv_cache_bytes", "prefix_cache_bytes"),
}


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def read(server):
    """Name and labels -> value."""
    answer = server.request("GET", "/metrics", timeout=2)
    assert answer.status == 200
    samples = [sample for family in families(answer.body.decode()).values() for sample in family.samples]
    found = {(sample.name.removeprefix(P), *sorted(sample.labels.values())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def moved(server, ask):
    """The changes of the metrics by requests, which are counted after their responses."""
    before = read(server)
    ask()
    deadline, after = time.monotonic() + 5, before
    while time.monotonic() < deadline and sum_of(after, "requests_total") == sum_of(before, "requests_total"):
        time.sleep(0.02)
        after = read(server)
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def sum_of(found, name):
    return sum(value for (one, *_), value in found.items() if one == name)


@pytest.fixture(scope="module")
def scraped(start_server):
    """A server, and its metrics before its model was loaded."""
    server = start_server("bloom")
    deadline, first = time.monotonic() + 30, None
    while first is None and time.monotonic() < deadline:
        try:
            first = read(server)
        except OSError:
            time.sleep(0.02)
    return server.wait_until_ready(), first


def test_prometheus_reads_everything_with_its_type_and_a_description(scraped):
    server, _ = scraped
    server.ask({"inputs": "hello", "parameters": {"max_new_tokens": 2}})
    answer = server.request("GET", "/metrics")
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    found = families(answer.body.decode())
    assert all(family.documentation.endswith(".") for family in found.values())
    kinds = {name.removeprefix(P): family.type for name, family in found.items() if name.startswith(P)}
    assert kinds == {
        **dict.fromkeys(HISTOGRAMS, "histogram"),
        **dict.fromkeys(COUNTERS, "counter"),
        **dict.fromkeys(GAUGES, "gauge"),
    }
    others = {name for name in found if not name.startswith(P)}
    assert others == {"process_resident_memory_bytes", "process_cpu_seconds", "process_start_time_seconds"}
    # the cost of a scrape is its size
    assert len(answer.body) < 20_000


def test_it_answers_while_the_model_loads(scraped):
    server, first = scraped
    assert first[("model_ready",)] == 0
    assert first[("model_copies",)] == 0
    after = read(server)
    assert after[("model_ready",)] == after[("model_copies",)] == 1
    (build,) = (name for name in after if name[0] == "build_info")
    assert {"text-generation", "float32", "cpu", NEWEST} <= set(build)


def test_an_answer_is_counted_with_its_tokens_and_times(scraped):
    server, _ = scraped
    changes = moved(server, lambda: server.ask({"inputs": "hello", "parameters": {"max_new_tokens": 5}}))
    assert changes[("requests_total", "2xx", "text-generation")] == 1
    assert changes[("generation_tokens_total",)] == 5
    assert changes[("prompt_tokens_total",)] == 1
    assert changes[("time_to_first_token_seconds_count",)] == 1
    assert changes[("inter_token_latency_seconds_count",)] == 4
    for name in ("e2e_request_latency_seconds", "request_queue_time_seconds", "request_inference_time_seconds"):
        assert changes[(f"{name}_count",)] == changes[(f"{name}_bucket", "+Inf")] == 1
        assert 0 < changes[(f"{name}_sum",)] < 5
    assert changes[("request_batch_size_sum",)] == 1
    assert not any(name == "errors_total" for name, *_ in changes)


def test_each_sequence_of_an_answer_has_its_tokens_and_the_answer_one_first(scraped):
    server, _ = scraped
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 4, "num_return_sequences": 3, "do_sample": True}}
    changes = moved(server, lambda: server.ask(body))
    assert changes[("generation_tokens_total",)] == 12
    assert changes[("time_to_first_token_seconds_count",)] == 1
    assert changes[("inter_token_latency_seconds_count",)] == 9


def test_a_stream_is_counted_like_an_answer(scraped):
    server, _ = scraped
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 6}, "stream": True}
    changes = moved(server, lambda: server.ask(body))
    assert changes[("requests_total", "2xx", "text-generation")] == 1
    assert changes[("generation_tokens_total",)] == 6
    assert changes[("time_to_first_token_seconds_count",)] == 1
    assert changes[("inter_token_latency_seconds_count",)] == 5


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/invocations", b'{"inputs": "a", "parameters": {"no_such": 1}}', "4xx", "unknown-parameter"),
        ("POST", "/invocations", b"{", "4xx", "malformed-json"),
        ("GET", "/nothing/here", None, "4xx", "no-such-path"),
        ("POST", "/v1/embeddings", b'{"input": "a"}', "4xx", "wrong-task"),
    ],
)
def test_a_refusal_is_counted_with_its_code(scraped, method, path, body, status, code):
    server, _ = scraped
    headers = {"Content-Type": "application/json"}
    changes = moved(server, lambda: server.request(method, path, body, headers))
    assert changes[("requests_total", status, "text-generation")] == 1
    assert changes[("errors_total", code)] == 1
    assert ("e2e_request_latency_seconds_count",) not in changes


def test_seconds_of_sound_are_counted(whisper, tone):
    changes = moved(whisper, lambda: whisper.ask(tone(2), "audio/wav"))
    assert changes[("requests_total", "2xx", "automatic-speech-recognition")] == 1
    assert changes[("audio_seconds_total",)] == 2


def test_a_busy_model_is_seen_while_it_is_busy(misbehaving):
    """One request makes the model sleep for three seconds, another waits behind it, and metrics are read meanwhile."""
    bodies = [{"inputs": "a" * letters, "parameters": {"max_new_tokens": 1}} for letters in (70, 10)]
    threads = [threading.Thread(target=misbehaving.ask, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
        time.sleep(0.5)
    found = read(misbehaving)
    for thread in threads:
        thread.join()
    assert found[("num_requests_running",)] == 1
    assert found[("num_requests_waiting",)] == 1
    idle = read(misbehaving)
    assert idle[("num_requests_running",)] == idle[("num_requests_waiting",)] == 0


def test_a_stream_that_fails_in_the_middle_counts_as_failed(misbehaving):
    """Its status was 200; this model runs alone, so that its tokens are counted as they are sent."""
    body = {"inputs": "a" * 60, "parameters": {"max_new_tokens": 4}, "stream": True}
    changes = moved(misbehaving, lambda: misbehaving.ask(body))
    assert changes[("requests_total", "4xx", "text-generation")] == 1
    assert changes[("errors_total", "refused-by-model")] == 1
    assert changes[("time_to_first_token_seconds_count",)] == 1


def test_a_stream_without_shared_steps_has_its_tokens_counted_once(misbehaving):
    body = {"inputs": "a" * 10, "parameters": {"max_new_tokens": 6}, "stream": True}
    changes = moved(misbehaving, lambda: misbehaving.ask(body))
    assert changes[("generation_tokens_total",)] == 6
    assert changes[("time_to_first_token_seconds_count",)] == 1


def test_texts_that_are_being_written_take_their_part_of_the_cache(scraped):
    server, _ = scraped
    seen = []
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 400}}
    asking = threading.Thread(target=server.ask, args=(body,))
    asking.start()
    while asking.is_alive():
        seen.append(read(server))
    busy = [one for one in seen if one[("kv_cache_bytes",)]]
    assert busy, "the answer was over before any scrape"
    assert all(0 < one[("kv_cache_usage_perc",)] < 1 for one in busy)
    assert any(one[("num_sequences_running",)] == one[("num_requests_running",)] == 1 for one in busy)


def test_a_client_that_leaves_is_told_apart(scraped):
    server, _ = scraped

    def leave():
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        body = json.dumps({"inputs": "hello", "parameters": {"max_new_tokens": 400}, "stream": True})
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        connection.getresponse().read(10)
        connection.close()

    changes = moved(server, leave)
    assert changes[("requests_total", "gone", "text-generation")] == 1


def test_other_methods_are_answered_as_elsewhere(scraped):
    server, _ = scraped
    head = server.request("HEAD", "/metrics")
    assert (head.status, head.body, head.content_type) == (200, b"", metrics.CONTENT_TYPE)
    for method in ("POST", "PUT", "DELETE"):
        status, code, message = server.request(method, "/metrics", b"").error
        assert (status, code) == (405, "method-not-allowed")
        assert "takes GET" in message
    assert server.request("GET", "/metrics/x").status == 404


def test_scrapes_are_in_no_log_and_count_for_nothing(scraped):
    server, _ = scraped
    before = read(server)
    for _ in range(3):
        server.request("GET", "/metrics")
    assert sum_of(read(server), "requests_total") == sum_of(before, "requests_total")
    assert '"path":"/metrics"' not in server.log


def test_whatever_is_sent_the_labels_stay_the_same_few(scraped):
    server, _ = scraped
    chance = random.Random(7)
    known = set(
        re.findall(r'"([a-z][a-z_-]+)"', "".join(p.read_text() for p in IMAGE.glob("extended_dlc_server/**/*.py")))
    )
    letters = 'abc/._-%é"\\{}='
    paths = ["/invocations", "/v1/chat/completions", "/v1/models", "/rerank", "/ping", "/v1/audio/speech"]
    for number in range(300):
        word = "".join(chance.choice(letters) for _ in range(chance.randint(1, 30)))
        path = chance.choice([*paths, "/" + "".join(c for c in word if c.isascii() and c not in '"\\{}')])
        method = chance.choice(["GET", "POST", "POST", "POST", "PUT", "BREW", "HEAD"])
        body = chance.choice([b"", word.encode(), json.dumps({word: word, "inputs": word, "task": word}).encode()])
        kind = chance.choice(["application/json", "text/plain", f"x/{number}", "multipart/form-data; boundary=x"])
        attributes = f"route=/{number};task={number}"
        headers = {"Content-Type": kind, "X-Amzn-SageMaker-Custom-Attributes": attributes, "X-Task": str(number)}
        assert server.request(method, path, body, headers).status < 500
    series = read(server)
    statuses = {*metrics.STATUSES.values(), metrics.GONE}
    for name, *labels in series:
        if name == "requests_total":
            assert set(labels) <= {*statuses, "text-generation", "loading"}
        elif name == "errors_total":
            assert set(labels) <= known
    assert len([one for one in series if one[0] == "errors_total"]) < metrics.MOST_CODES
    assert len(series) < 300


def stand_in(code=None, status=500, failed=0):
    return SimpleNamespace(code=code, status=status, failed=failed, job=None, milliseconds=1.0)


def written(counted):
    samples = [one for family in families(counted.written().decode()).values() for one in family.samples]
    return {(one.name.removeprefix(P), *sorted(one.labels.values())): one.value for one in samples}


def idle_worker(task):
    model = SimpleNamespace(task=task)
    return SimpleNamespace(
        model=model, schedulers=[], is_ready=True, count=1, running=0, waiting=0, state=SimpleNamespace(value="ready")
    )


def test_codes_of_user_code_cannot_be_more_than_so_many():
    counted = metrics.Metrics(idle_worker("user-code"))
    for number in range(1000):
        counted.count(stand_in(code=f"code-{number}"))
    found = written(counted)
    assert len([one for one in found if one[0] == "errors_total"]) == metrics.MOST_CODES + 1
    assert found[("errors_total", metrics.OTHER)] == 1000 - metrics.MOST_CODES
    assert found[("requests_total", "5xx", "user-code")] == 1000


def test_a_task_and_a_status_outside_the_lists_have_one_name():
    counted = metrics.Metrics(idle_worker("my own task"))
    for status in (299, 600, 999, 101):
        counted.count(stand_in(status=status))
    assert {name: value for name, value in written(counted).items() if name[0] == "requests_total"} == {
        ("requests_total", "2xx", "other"): 1,
        ("requests_total", "other", "other"): 3,
    }
    assert "my own task" not in counted.written().decode()
    assert "text-generation" in KINDS


def test_a_histogram_says_how_often_values_were_at_most_so_large():
    histogram = histograms.Histogram((1, 2.5, 10))
    for value in (0.5, 1, 1.0001, 10, 11, 1e9):
        histogram.add(value)
    found = {(name, labels.get("le")): value for name, labels, value in histogram.samples()}
    assert [found["_bucket", end] for end in ("1", "2.5", "10", "+Inf")] == [2, 3, 4, 6]
    assert found["_count", None] == 6
    assert found["_sum", None] == pytest.approx(0.5 + 1 + 1.0001 + 10 + 11 + 1e9)
    both = histograms.Histogram.together([histogram, histogram], (1, 2.5, 10))
    assert both.count == 12


def test_copies_of_a_model_are_added_up():
    times = [histograms.TokenTimes(), histograms.TokenTimes()]
    for number, each in enumerate(times):
        each.add(10.0, None, 9.5)
        each.add(10.25 + number, 10.0, None)
        each.add(10.25, None, None)
    scheduler = {"asked_tokens": 10, "known_tokens": 4, "preemptions": 1, "used_bytes": 30, "bytes": 100}
    worker = idle_worker("text-generation")
    worker.schedulers = [SimpleNamespace(times=each, rows=2, kept_bytes=5, **scheduler) for each in times]
    found = written(metrics.Metrics(worker))
    assert found[("generation_tokens_total",)] == 6
    assert found[("time_to_first_token_seconds_count",)] == 2
    assert found[("time_to_first_token_seconds_sum",)] == 1
    assert found[("inter_token_latency_seconds_sum",)] == 1.5
    assert found[("kv_cache_usage_perc",)] == 0.3
    assert found[("num_sequences_running",)] == 4
    assert found[("prefix_cache_hits_total",)] == 8


def test_each_gpu_has_its_memory(monkeypatch):
    """torch's answers for two GPUs are simulated, because no test machine has one."""
    properties = SimpleNamespace(total_memory=80)
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_allocated=lambda number: 10 + number,
        memory_reserved=lambda number: 20 + number,
        get_device_properties=lambda number: properties,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    worker = idle_worker("text-generation")
    found = written(metrics.Metrics(worker))
    assert [found[("device_memory_allocated_bytes", number)] for number in "01"] == [10, 11]
    assert found[("device_memory_reserved_bytes", "1")] == 21
    assert found[("device_memory_bytes", "0")] == 80
    # while the model loads, another thread may still be importing torch
    worker.is_ready = False
    assert ("device_memory_bytes", "0") not in written(metrics.Metrics(worker))


def test_what_stands_in_a_label_cannot_end_it():
    line = metrics._family("x", "gauge", "A thing.", [("", {"model": 'a"b\\c\nd'}, 1)])
    (family,) = text_string_to_metric_families(line)
    assert family.samples[0].labels == {"model": 'a"b\\c\nd'}
