"""From the start to the end of the process: health, load, failure and shutdown."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time

import pytest

GREEDY = {"max_new_tokens": 2, "do_sample": False}


def in_the_background(server, body):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(server.ask(body)))
    thread.start()
    return thread, answers


def letters(count):
    """A prompt of that many tokens: the tiny tokenizers count letters."""
    return {"inputs": "x" * count, "parameters": GREEDY}


def test_ping_is_503_while_loading_and_200_after_the_warm_up(start_server):
    server = start_server("bloom")
    assert server.wait_for_status(503) == 503
    assert server.ask({"inputs": "hello"}).error[:2] == (503, "loading")
    server.wait_until_ready()
    assert server.ask(letters(3)).status == 200
    assert server.stop() == 0


def test_the_log_says_what_each_part_of_the_start_took(bloom):
    (line,) = [line for line in bloom.log.splitlines() if "the start took" in line]
    whole, parts = re.search(r"the start took ([\d.]+) s: (.*)", line).groups()
    seconds = {name: float(took) for name, took in re.findall(r"([a-z-]+) ([\d.]+) s", parts)}
    assert list(seconds) == ["download", "imports", "load", "warm-up", "other"]
    assert sum(seconds.values()) == pytest.approx(float(whole), abs=0.3)
    assert seconds["imports"] > 0.1


def test_ping_answers_while_the_model_computes(bloom):
    long = {"inputs": "x", "parameters": {"max_new_tokens": 600, "min_new_tokens": 600, "do_sample": False}}
    thread, answers = in_the_background(bloom, long)
    waits = []
    while thread.is_alive():
        started = time.monotonic()
        assert bloom.ping(timeout=2) == 200
        waits.append(time.monotonic() - started)
        time.sleep(0.02)
    assert answers[0].status == 200
    assert len(waits) > 3
    assert max(waits) < 1


def test_what_the_model_fails_on_is_400_without_details_and_serving_goes_on(misbehaving):
    status, code, message = misbehaving.ask(letters(50)).error
    assert (status, code) == (400, "refused-by-model")
    assert "RuntimeError" in message
    assert "secretsecret" not in message
    assert misbehaving.ask(letters(3)).status == 200


def test_out_of_memory_is_507_and_serving_goes_on(misbehaving):
    status, code, message = misbehaving.ask(letters(30)).error
    assert (status, code) == (507, "out-of-memory")
    assert "larger instance" in message
    assert misbehaving.ask(letters(3)).status == 200


def test_a_full_queue_is_429_and_those_who_wait_are_answered(start_server):
    server = start_server("misbehaving", HF_TRUST_REMOTE_CODE="true", EXTENDED_DLC_QUEUE_LENGTH="1").wait_until_ready()
    first = in_the_background(server, letters(70))
    time.sleep(0.5)
    second = in_the_background(server, letters(3))
    time.sleep(0.5)
    status, code, message = server.ask(letters(3)).error
    assert (status, code) == (429, "queue-full")
    assert "EXTENDED_DLC_QUEUE_LENGTH" in message
    for thread, answers in (first, second):
        thread.join()
        assert answers[0].status == 200
    assert server.stop() == 0


def test_sigterm_finishes_what_is_in_flight_and_exits_0(start_server):
    server = start_server("misbehaving", HF_TRUST_REMOTE_CODE="true").wait_until_ready()
    thread, answers = in_the_background(server, letters(70))
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    with pytest.raises(ConnectionRefusedError):
        server.ping()
    thread.join()
    assert answers[0].status == 200
    assert server.process.wait(10) == 0


def test_sigterm_finishes_streams_and_batches_too(start_server):
    server = start_server("misbehaving", HF_TRUST_REMOTE_CODE="true").wait_until_ready()
    first = in_the_background(server, letters(70))
    time.sleep(0.5)
    queued = [in_the_background(server, letters(3)) for _ in range(4)]
    stream = in_the_background(server, {**letters(3), "stream": True})
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    for thread, _ in (first, *queued, stream):
        thread.join()
    assert [answers[0].status for _, answers in (first, *queued, stream)] == [200] * 6
    assert b"finish_reason" in stream[1][0].body
    assert server.process.wait(10) == 0


PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_sigterm_answers_who_has_connected_before(start_server):
    """A server that is stopped for a moment (SIGSTOP) finds the signal and the connections at once."""
    server = start_server("bloom").wait_until_ready()
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(connect(server))
        idle.sendall(PING)
        assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGSTOP)
        newcomers = [stack.enter_context(connect(server)) for _ in range(100)]
        for connection in (idle, *newcomers):
            connection.sendall(PING)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        heads = [connection.recv(4096) for connection in (idle, *newcomers)]
    assert all(head.startswith(b"HTTP/1.1 200") for head in heads)
    assert server.process.wait(10) == 0


@pytest.mark.parametrize("end", [b"\r\n", b"Connection: close\r\n\r\n"])
def test_sigterm_under_load_resets_nobody(start_server, end):
    server = start_server("bloom").wait_until_ready()
    answered, failures = [], []

    def ask_until_refused():
        connection = None
        while True:
            try:
                connection = connection or connect(server)
            except ConnectionRefusedError:
                return
            try:
                connection.sendall(PING[:-2] + end)
                head = connection.recv(4096)
            except OSError as error:
                failures.append(error)
                return
            answered.append(head[:12])
            if b"connection: close" in head or not head:
                connection.close()
                connection = None

    clients = [threading.Thread(target=ask_until_refused) for _ in range(20)]
    for client in clients:
        client.start()
    time.sleep(0.5)
    assert server.stop() == 0
    for client in clients:
        client.join()
    assert not failures
    assert len(answered) > 100
    assert set(answered) == {b"HTTP/1.1 200"}


def test_sigterm_does_not_wait_for_who_asks_nothing(start_server):
    server = start_server("bloom").wait_until_ready()
    with connect(server) as asked_before, connect(server), connect(server) as unfinished:
        asked_before.sendall(PING)
        assert asked_before.recv(4096).startswith(b"HTTP/1.1 200")
        unfinished.sendall(PING[:-2])
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5


def test_sigterm_while_loading_exits_0_at_once(start_server):
    server = start_server("bloom")
    assert server.wait_for_status(503) == 503
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 5


def test_a_dead_model_turns_ping_to_500_and_then_the_process_exits(start_server):
    server = start_server("misbehaving", HF_TRUST_REMOTE_CODE="true").wait_until_ready()
    thread, answers = in_the_background(server, letters(70))
    time.sleep(0.3)
    assert server.ask(letters(40)).error[:2] == (500, "model-failed")
    died = time.monotonic()
    assert server.ping() == 500
    assert server.ask(letters(3)).error[:2] == (500, "model-failed")
    assert server.process.wait(15) == 1
    assert 3 < time.monotonic() - died < 9
    thread.join()
    assert answers[0].status == 200


def test_slow_bodies_and_stuck_inferences_are_found_out(start_server):
    limits = {"EXTENDED_DLC_REQUEST_SECONDS": "1", "EXTENDED_DLC_BODY_SECONDS": "1"}
    server = start_server("misbehaving", HF_TRUST_REMOTE_CODE="true", **limits).wait_until_ready()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(5)
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert server.ask(letters(3)).status == 200
        assert b" 408 " in connection.recv(1000).splitlines()[0]
    assert server.ping() == 200
    stuck = in_the_background(server, letters(70))  # the model sleeps for 3 s
    time.sleep(0.3)
    waiting = in_the_background(server, letters(3))
    for thread, answers in (stuck, waiting):
        thread.join(2.5)
        assert answers[0].error[:2] == (500, "model-failed")
    assert "EXTENDED_DLC_REQUEST_SECONDS" in server.request("GET", "/ping").error[2]
    assert server.process.wait(15) == 1


def test_a_client_that_leaves_is_not_computed_for(misbehaving):
    server = misbehaving
    running = in_the_background(server, letters(70))
    time.sleep(0.3)
    for _ in range(4):
        body = b'{"inputs": "%b"}' % (b"x" * 70)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            time.sleep(0.1)
    started = time.monotonic()
    assert server.ask(letters(3)).status == 200
    assert time.monotonic() - started < 5  # the four requests would have taken 12 s
    running[0].join()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"SAGEMAKER_BIND_TO_PORT": "http"}, "SAGEMAKER_BIND_TO_PORT ('http') must be a whole number from 1 to 65535"),
        ({"HF_TRUST_REMOTE_CODE": "maybe"}, "HF_TRUST_REMOTE_CODE ('maybe') must be 'true' or 'false'"),
        ({"HF_MODEL_ID": "../../etc"}, "HF_MODEL_ID ('../../etc') must be a Hub id"),
        ({}, "HF_MODEL_ID is not set"),
    ],
)
def test_a_bad_setting_stops_the_start_and_is_named(start_server, environment, says):
    server = start_server(None, **environment)
    assert server.process.wait(20) == 2
    assert says in server.log
    assert "Traceback" not in server.log


def test_a_start_that_fails_turns_ping_to_500_and_then_the_process_exits(start_server):
    server = start_server("bloom", HF_TASK="text-generatoin")
    assert server.wait_for_status(500) == 500, server.log
    assert "did you mean 'text-generation'?" in server.request("GET", "/ping").error[2]
    assert "did you mean 'text-generation'?" in server.log
    assert server.process.wait(15) == 1


def test_the_log_says_why_a_start_failed(start_server, tmp_path):
    """All at once, because each process stays for five seconds after its failure."""
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text('{"model_type": "from-the-future", "architectures": ["FutureForCausalLM"]}')
    with_code = tmp_path / "own"
    with_code.mkdir()
    (with_code / "config.json").write_text(
        '{"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": {"AutoConfig": "own.OwnConfig"}}'
    )
    for folder in (unknown, with_code):
        (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")  # a file of weights that holds none
    started = [
        (start_server(with_code), "set HF_TRUST_REMOTE_CODE to 'true' if you trust it"),
        (start_server(unknown), "does not know the model type"),
    ]
    for server, says in started:
        assert server.process.wait(60) == 1
        assert says in server.log


def test_threads_follow_the_affinity_unless_told(start_server):
    cores = len(os.sched_getaffinity(0))
    server = start_server("bloom", OMP_NUM_THREADS="").wait_until_ready()
    assert f"devices: {cores} CPU threads" in server.log or cores > 2  # another test has a CPU quota
    assert server.stop() == 0
