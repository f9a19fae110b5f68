"""Text that arrives while it is being generated."""

from __future__ import annotations

import http.client
import json
import time

import pytest

GREEDY = {"do_sample": False, "clean_up_tokenization_spaces": False}
CUSTOM = "X-Amzn-SageMaker-Custom-Attributes"


class Stream:
    """A streamed response, read event by event."""

    def __init__(self, server, body, headers=None, timeout=60):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        self.connection.request("POST", "/invocations", data, {"Content-Type": "application/json", **(headers or {})})
        self.response = self.connection.getresponse()

    def __iter__(self):
        name = ""
        while line := self.response.readline():
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            if line.startswith(b"data: "):
                yield name, json.loads(line[6:])
                name = ""
        self.connection.close()

    def close(self):
        self.connection.close()
        self.response.close()


def request(text, tokens, **more):
    return {"inputs": text, "parameters": {**GREEDY, "max_new_tokens": tokens, "min_new_tokens": tokens, **more}}


@pytest.mark.parametrize("text", ["hello", "grüße 🙂"])
def test_a_stream_has_an_event_a_token_the_last_with_the_whole_answer(bloom, text):
    whole = bloom.ask(request(text, 12)).json[0]["generated_text"]
    stream = Stream(bloom, {**request(text, 12), "stream": True})
    assert stream.response.headers["content-type"] == "text/event-stream"
    events = list(stream)
    assert [name for name, _ in events] == [""] * 12
    assert all(set(event) == {"index", "token", "generated_text", "details"} for _, event in events)
    assert all(set(event["token"]) == {"id", "text", "logprob", "special"} for _, event in events)
    assert [event["index"] for _, event in events] == list(range(1, 13))
    assert all(event["generated_text"] is None and event["details"] is None for _, event in events[:-1])
    last = events[-1][1]
    assert last["generated_text"] == whole
    length = last["details"].pop("input_length")
    assert length > 0
    assert last["details"] == {"finish_reason": "length", "generated_tokens": 12, "seed": None}
    assert text + "".join(event["token"]["text"] for _, event in events) == whole


def test_the_first_token_comes_long_before_the_last(bloom):
    started = time.monotonic()
    stream = iter(Stream(bloom, {**request("x", 300), "stream": True}))
    next(stream)
    first = time.monotonic() - started
    rest = list(stream)
    assert len(rest) == 299
    assert first < (time.monotonic() - started) / 3


def test_the_end_token_is_the_reason_to_finish(bloom):
    (_, token), *_ = Stream(bloom, {**request("hello", 1), "stream": True})
    ending = {"eos_token_id": token["token"]["id"], "max_new_tokens": 9, **GREEDY}
    *_, (_, last) = Stream(bloom, {"inputs": "hello", "parameters": ending, "stream": True})
    assert (last["details"]["finish_reason"], last["details"]["generated_tokens"]) == ("eos_token", 1)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Accept": "text/event-stream"}, request("hello", 2)),
        ({"Content-Type": "text/plain", CUSTOM: "stream=true;max_new_tokens=2"}, b"hello"),
        ({"Accept": "application/json"}, {**request("hello", 2), "stream": True}),
    ],
)
def test_a_stream_can_be_asked_for_beside_the_body(bloom, headers, body):
    *_, (_, last) = Stream(bloom, body, headers)
    assert last["details"]["generated_tokens"] <= 2


def test_stream_false_is_no_stream(bloom):
    assert bloom.ask({**request("hello", 2), "stream": False}).json[0]["generated_text"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"stream": "yes"}, "bad-parameters"),
        ({"inputs": ["a", "b"]}, "cannot-stream"),
        ({"parameters": {"num_return_sequences": 2, "do_sample": True}}, "cannot-stream"),
        ({"parameters": {"num_beams": 2, "max_new_tokens": 2}}, "cannot-stream"),
        ({"parameters": {"max_new_toks": 2}}, "unknown-parameter"),
        ({"parameters": {"max_new_tokens": -1}}, "bad-parameters"),
    ],
)
def test_what_is_wrong_before_the_first_token_has_a_status(bloom, change, code):
    assert bloom.ask({"inputs": "hello", "stream": True, **change}).error[:2] == (400, code)


def test_what_has_no_parts_cannot_be_streamed(bert):
    assert bert.ask({"inputs": "fine", "stream": True}).error[:2] == (400, "cannot-stream")
    answer = bert.request("POST", "/invocations", b'{"inputs": "fine"}', {"Accept": "text/event-stream"})
    assert answer.error[:2] == (406, "not-acceptable")


def test_a_failure_in_the_middle_is_the_last_event(misbehaving):
    (name, token), (second, last) = Stream(misbehaving, {**request("x" * 60, 20), "stream": True})
    assert name == ""
    assert "token" in token
    assert second == "error"
    assert last["error"]["code"] == "refused-by-model"
    assert misbehaving.ask(request("xxx", 2)).status == 200


def test_who_leaves_ends_the_generation(bloom):
    stream = Stream(bloom, {**request("x", 5000), "stream": True})
    next(iter(stream))
    stream.close()
    started = time.monotonic()
    assert bloom.ask(request("xxx", 2)).status == 200
    assert time.monotonic() - started < 6  # the 5,000 tokens take more than 10 s
