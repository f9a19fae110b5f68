"""Every inference ends at its deadline or when its client disconnects; the model's health is checked afterwards."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time

import pytest

pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server.errors import ModelFailedError
from extended_dlc_server.machine import ending, operations, points, worker
from extended_dlc_server.machine.worker import State, Worker
from extended_dlc_server.model import health

LONG = {"inputs": "hello", "parameters": {"max_new_tokens": 8000, "min_new_tokens": 8000, "do_sample": False}}


@pytest.fixture(scope="module")
def hasty(start_server, release):
    """A server with a deadline of two seconds for a response, and three for a stream."""
    limits = {"EXTENDED_DLC_ANSWER_SECONDS": "2", "EXTENDED_DLC_STREAM_SECONDS": "3"}
    return start_server("bloom", release, **limits).wait_until_ready()


def test_an_answer_past_its_deadline_is_408_and_the_next_one_is_there(hasty):
    started = time.monotonic()
    status, code, message = hasty.ask(LONG).error
    assert (status, code) == (408, "took-too-long")
    assert "EXTENDED_DLC_ANSWER_SECONDS" in message
    assert time.monotonic() - started < 9
    assert hasty.ask({"inputs": "hello", "parameters": {"max_new_tokens": 2}}).status == 200
    assert hasty.ping() == 200


def test_a_batch_past_its_deadline_ends_as_one(hasty):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(hasty.ask(LONG).status)) for _ in range(6)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # a request that waits behind the others until its deadline gets a 429
    assert set(answers) <= {408, 429}
    assert time.monotonic() - started < 12


def test_a_stream_past_its_deadline_ends_with_an_error(hasty):
    body = json.dumps({**LONG, "stream": True}).encode()
    answer = hasty.request("POST", "/invocations", body, {"Content-Type": "application/json"}, timeout=30)
    last = answer.body.strip().split(b"\n\n")[-1]
    assert last.startswith(b"event: error")
    assert b"took-too-long" in last


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_model(bloom, stream):
    body = json.dumps({**LONG, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", bloom.port)) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        time.sleep(1)
    started = time.monotonic()
    assert bloom.ask({"inputs": "hello", "parameters": {"max_new_tokens": 2}}).status == 200
    assert time.monotonic() - started < 5  # the whole generation takes more than ten seconds
    assert bloom.tells('"code":"client-gone"')


def test_a_forward_pass_ends_between_two_layers():
    import torch

    class Layer(torch.nn.Module):
        def forward(self, x):
            passed.append(x)
            return x

    class Deep(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Module()
            self.inner.layers = torch.nn.ModuleList(Layer() for _ in range(5))

        def forward(self, x):
            for layer in self.inner.layers:
                x = layer(x)
            return x

    passed, model = [], Deep()
    points.end_at_layers(model)
    with pytest.raises(ending.EndedError), ending.running(lambda: len(passed) == 3):
        model(1)
    assert len(passed) == 3
    assert model(1) == 1  # outside of a request nothing is checked


AT_ONCE = {"softmax over rows", "attention to the past, by place", "convolution, same"}
"""Rare forms, which torch computes as a whole."""


def operations_that_take_long():
    """Name -> an operation as models call it; computed in parts, its result must be the same."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    sound, image, rows = torch.randn(2, 4, 50), torch.randn(2, 4, 37, 9), torch.randn(3, 15, 8)
    query, key, value = (torch.randn(2, 4, length, 8) for length in (33, 40, 40))
    attend = functional.scaled_dot_product_attention
    few = key[:, :2], value[:, :2]
    masks = {"for all": (1, 1, 1, 40), "by row": (2, 1, 33, 40), "by head": (2, 4, 33, 40), "flat": (33, 40)}
    linear = nn.Linear(8, 9)
    same, mirrored = nn.Conv1d(4, 6, 3, padding="same"), nn.Conv1d(4, 6, 3, padding=1, padding_mode="reflect")
    yield "linear", lambda: linear(rows)
    yield "linear of one row", lambda: linear(rows[0, 0])
    yield "gelu", lambda: functional.gelu(rows, approximate="tanh")
    yield "softmax", lambda: functional.softmax(rows, dim=-1, dtype=torch.float64)
    yield "softmax over rows", lambda: functional.softmax(rows, dim=1)
    yield "product", lambda: query @ key.transpose(-1, -2)
    yield "product with one matrix", lambda: torch.matmul(query, torch.ones(8, 3))
    yield "product by batch", lambda: torch.bmm(query[0], key[0].transpose(-1, -2))
    for name, shape in masks.items():
        yield f"attention, masked {name}", lambda shape=shape: attend(query, key, value, attn_mask=torch.ones(shape))
    yield "attention to the past", lambda: attend(query, key, value, is_causal=True)
    yield "attention to the past, by place", lambda: attend(query, key, value, None, 0.0, True)
    yield "attention of few heads", lambda: attend(query, *few, scale=0.3, enable_gqa=True)
    yield "convolution, same", lambda: same(sound)
    yield "convolution, mirrored", lambda: mirrored(sound)
    for shape in ((1, 1, 0, 1, 1), (3, 2, 1, 2, 2), (10, 5, 7, 1, 1), (3, 1, 7, 2, 1), (1, 5, 1, 1, 2)):
        size, stride, padding, dilation, groups = shape
        wide = nn.Conv1d(4, 6, *shape)
        high = nn.Conv2d(4, 6, (size, 2), (stride, 1), (padding, 1), dilation, groups)
        yield f"convolution {shape}", lambda module=wide: module(sound)
        yield f"convolution of images {shape}", lambda module=high: module(image)


def test_an_operation_in_parts_makes_what_it_makes_at_once(monkeypatch):
    import torch

    torch.set_num_threads(1)  # such small operations gain nothing from more threads
    for name, operation in operations_that_take_long():
        whole, checks = operation(), []
        monkeypatch.setattr(operations, "MOST_AT_ONCE", 300)
        with ending.running(lambda checks=checks: checks.append(None)), operations.in_parts():
            parts = operation()
        assert len(checks) > 1 or name in AT_ONCE, name
        torch.testing.assert_close(parts, whole, msg=lambda text, name=name: f"{name}: {text}")


def test_attention_over_a_long_sequence_ends_inside_its_layer():
    """With parts of the usual size: 16,000 tokens attend to each other 500 times, which would take minutes."""
    import torch

    torch.set_num_threads(1)

    class Layer(torch.nn.Module):
        def forward(self, tokens):
            for _ in range(500):
                tokens = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
            return tokens

    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([Layer()])
    points.end_at_layers(model)
    started, asked = time.process_time(), []

    def is_over():
        asked.append(None)
        return len(asked) > 3

    with pytest.raises(ending.EndedError), ending.running(is_over), torch.inference_mode():
        model.layers[0](torch.zeros(1, 2, 16_000, 16))
    assert time.process_time() - started < 20
    with ending.running(lambda: False):
        small = torch.zeros(1, 2, 16, 16)
        assert model.layers[0](small).shape == small.shape


# health


class Moody:
    """A model whose requests fail, with a health that the test sets."""

    def __init__(self):
        self.asked, self.reason = 0, ""

    def why_not_healthy(self):
        self.asked += 1
        return self.reason


def ask_badly(served, times):
    import asyncio

    async def ask():
        def fail(_):
            raise ModelFailedError(400, "refused-by-model", "no")

        for _ in range(times):
            with pytest.raises((ModelFailedError, worker.RequestError)):
                await served.submit(fail).future

    asyncio.run(ask())


@pytest.fixture
def moody():
    model = Moody()
    served = Worker(lambda: [model], queue_length=10)
    served.start()
    while served.state is State.LOADING:
        time.sleep(0.01)
    return model, served


def test_failures_in_a_row_ask_the_model_once_in_ten_seconds(moody):
    model, served = moody
    ask_badly(served, worker.FAILURES - 1)
    assert model.asked == 0
    ask_badly(served, 30)
    assert model.asked == 1
    assert served.state is State.READY


def test_a_model_that_answers_otherwise_is_not_healthy(moody):
    model, served = moody
    model.reason = "it answers differently"
    ask_badly(served, worker.FAILURES)
    served.join(5)
    assert served.state is State.FAILED
    assert "differently" in served.failure


@pytest.mark.parametrize(
    ("answers", "later", "healthy"),
    [
        ([[{"label": "a", "score": 0.5}]] * 2, [{"label": "a", "score": 0.5000001}], True),
        ([[{"label": "a", "score": 0.5}]] * 2, [{"label": "a", "score": 0.7}], False),
        ([[{"label": "a", "score": 0.5}]] * 2, [{"label": "b", "score": 0.5}], False),
        (["one", "another"], "a third", True),  # sampled texts: only the form is compared
        (["one", "another"], {"text": "a third"}, False),
    ],
)
def test_an_answer_is_compared_with_the_first_ones(answers, later, healthy):
    class Model:
        dtype = None

    class Pipeline:
        model = Model()

    given = iter([*answers, later])
    found = health.Health(lambda: next(given), Pipeline())
    assert (found.why_not() == "") == healthy


SPOILED = '''
import torch
from transformers import BloomForCausalLM


class Misbehaving(BloomForCausalLM):
    """A prompt of 50 tokens fails, and spoils the weights."""

    def generate(self, *args, input_ids=None, **kwargs):
        if input_ids.shape[1] == 50:
            with torch.no_grad():
                self.transformer.ln_f.weight.normal_()
            raise RuntimeError("spoiled")
        return super().generate(*args, input_ids=input_ids, **kwargs)
'''


def test_a_model_that_a_request_has_spoiled_is_started_again(start_server, models, tmp_path):
    folder = tmp_path / "spoiled"
    shutil.copytree(models / "misbehaving", folder)
    (folder / "misbehaving.py").write_text(SPOILED)
    server = start_server(folder, HF_TRUST_REMOTE_CODE="true").wait_until_ready()
    for _ in range(worker.FAILURES):
        server.ask({"inputs": "x" * 50, "parameters": {"max_new_tokens": 2}})
    assert server.wait_for_status(500, 10) == 500
    assert server.process.wait(20) == 1
