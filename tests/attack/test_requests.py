"""Malicious requests to a server of each kind of task: none runs code, reads a file or changes the model."""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from extended_dlc_server.reading.parameter_table import REFUSED, Limits, parameters_of
from extended_dlc_server.reading.parameter_types import (
    AnyOf,
    Choice,
    Flag,
    Group,
    Json,
    List,
    Null,
    Number,
    Text,
    Tuple,
    Whole,
)

from tests.attack.conftest import DEADLINE, Attacked, shortened
from tests.attack.targets import TARGETS, places
from tests.runtime.conftest import Answer

CODE = (
    *("custom_generate", "trust_remote_code", "assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens"),
    *("chat_template", "tesseract_config", "processor_kwargs", "decoder_kwargs", "stopping_criteria", "tokenizer"),
    *("logits_processor", "prefix_allowed_tokens_fn", "cache_implementation", "compile_config", "model", "config"),
    *("model_kwargs", "revision", "use_auth_token", "token", "__class__", "self", "generation_config", "streamer"),
    *("penalty_alpha", "dola_layers", "force_words_ids", "num_beam_groups", "pipeline_class", "feature_extractor"),
)
GROUPS = (
    *("generate_kwargs", "forward_params", "preprocess_params", "tokenizer_kwargs", "tokenize_kwargs"),
    *("image_processor_kwargs", "tokenizer_encode_kwargs", "chat_template_kwargs", "processor_kwargs", "mm_kwargs"),
    *("generation_config", "model_kwargs", "postprocess_params", "kwargs", "parameters"),
)
WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**70, -(2**70), 10**400, -(10**400), 0.5, -0.5, 1e308, 5e-324),
    *(math.nan, math.inf, -math.inf, "", "a", "1", "a\nb", "\u0000", "{}", "{:9}", "../../etc/passwd"),
    *("http://127.0.0.1:1/", [], [[]], [1], [None], ["a"], [[1, 2], [3]], {}, {"a": 1}, {"a": {"a": {"a": []}}}),
)
LINE = re.compile(r'\{"event":"request",.*\}|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} .*')
MARK = "FORGED"
FORGED = (
    f'x\n{{"event":"request","code":"out-of-memory","mark":"{MARK}"}}\r{MARK}\u2028{MARK}\x1b[2J hf_secretsecretsecret'
)


def edges(rule: Any) -> Iterator[Any]:
    """Valid values at the bounds of a rule."""
    match rule:
        case Flag():
            yield from (True, False)
        case Whole() | Number():
            yield from (rule.least, rule.most, (rule.least + rule.most) // 2)
        case Choice():
            yield from rule.values
        case Text():
            yield from ("a" * rule.most, "a" * rule.least, "é" * rule.most)
        case List():
            inner = next(edges(rule.of))
            yield from ([inner] * rule.least, [inner] * min(rule.most, 1000))
        case Tuple():
            yield [next(edges(one)) for one in rule.of]
        case AnyOf():
            for one in rule.types:
                yield from edges(one)
        case Group():
            yield {}
            for name, one in rule.table.items():
                yield from ({name: value} for value in edges(one))
        case Json():
            yield from ({"a": [1] * 100}, "a" * 1000)
        case Null():
            yield None


def table_of(kind: str) -> dict[str, Any]:
    limits = Limits(input_tokens=62, new_tokens=440, vocabulary=300, template_variables=frozenset({"enable_thinking"}))
    return parameters_of(TARGETS[kind].task, limits)


def with_parameters(attacked: Attacked, **parameters: Any) -> dict[str, Any]:
    control = attacked.target.control
    return {**control, "parameters": {**control.get("parameters", {}), **parameters}}


def together(attacked: Attacked, bodies: list[Any], timeout: float) -> list[Answer]:
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda one=one: answers.append(attacked.ask(one, timeout))) for one in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_no_parameter_loads_code(attacked, forbidden, tmp_path):
    folder = tmp_path / "custom_generate"
    folder.mkdir()
    (folder / "generate.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\ndef generate(**k): return k['input_ids']\n"
    )
    for value in (str(tmp_path), f"http://127.0.0.1:{forbidden.port}/a", True, 1, {"a": 1}):
        for name in CODE:
            for body in (
                with_parameters(attacked, **{name: value}),
                *(with_parameters(attacked, **{group: {name: value, "trust_remote_code": True}}) for group in GROUPS),
                with_parameters(attacked, generate_kwargs={"generate_kwargs": {name: value}}),
            ):
                answer = attacked.ask(body)
                assert answer.error[:2] == (400, "unknown-parameter"), (shortened(body), answer.body)
    attacked.check()
    assert not (tmp_path / "ran").exists()
    assert forbidden.calls == []


def test_no_string_is_a_file_or_a_url(attacked, forbidden):
    _ = forbidden.opened
    for name in forbidden.names:
        for put in (name, [name], {"url": name}, {"path": name}, {"type": "image", "url": name}, {"bytes": name}):
            chat = [{"role": "user", "content": [put if isinstance(put, dict) else {"type": "image", "image": put}]}]
            for given in (put, chat, [chat], {"text": chat}):
                for inputs in places(attacked.target.control["inputs"], given):
                    attacked.expect_honesty({**attacked.target.control, "inputs": inputs})
        for parameter in table_of(attacked.kind):
            attacked.expect_honesty(with_parameters(attacked, **{parameter: name}))
    for media in ("image/png", "audio/wav", "text/plain", "application/octet-stream", "text/csv"):
        attacked.server.ask(forbidden.names[0].encode(), media)
    attacked.check()
    assert forbidden.calls == []
    assert forbidden.opened == b""


def test_no_parameter_of_a_wrong_type_is_ours_or_poisons(attacked):
    for name in table_of(attacked.kind):
        for value in WRONG:
            body = with_parameters(attacked, **{name: value})
            attacked.expect_honesty(body)
        attacked.check(name)


@pytest.mark.long
def test_no_parameter_of_a_group_of_a_wrong_type_is_ours_or_poisons(attacked):
    for group, rule in table_of(attacked.kind).items():
        for name in rule.table if isinstance(rule, Group) else ():
            for value in WRONG:
                attacked.expect_honesty(with_parameters(attacked, **{group: {name: value}}))
            attacked.check((group, name))


def test_no_parameter_at_its_bounds_is_ours_or_poisons(attacked, seconds_left):
    end = time.monotonic() + seconds_left(300)
    for name, rule in table_of(attacked.kind).items():
        for value in edges(rule):
            attacked.expect_honesty(with_parameters(attacked, **{name: value}))
        attacked.check(name)
        if time.monotonic() > end:
            break


def test_a_mistake_of_the_caller_is_4xx_with_a_sentence(attacked):
    for body in attacked.target.wrong:
        answer = attacked.expect_honesty(body)
        assert 200 <= answer.status < 500, (shortened(body), answer.body)
        attacked.check(body)


def test_every_name_that_is_refused_says_why(attacked):
    for name in REFUSED.keys() - table_of(attacked.kind).keys():
        status, code, message = attacked.ask(with_parameters(attacked, **{name: 1})).error
        assert (status, code) == (400, "unknown-parameter")
        assert REFUSED[name][:20] in message or "no such parameter" in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"a"',
        b'{"inputs": "ok \\ud83d bad"}',
        b'{"inputs": "a", "inputs": {"b": 1}, "\\udfff": 1}',
        b'{"inputs": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"inputs":' * 2000,
        b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"inputs": [' + b"{}," * 900_000 + b"{}]}",
        b'{"inputs": "a", "parameters": {' + b",".join(b'"p%d": 1' % number for number in range(200_000)) + b"}}",
        b'{"inputs": "a", "parameters": {"' + b"n" * 1_000_000 + b'": 1}}',
        b'{"inputs": "a", "parameters": {"top_k": ' + b"9" * 4000 + b"}}",
        b'{"inputs": "a", "parameters": {"top_k": ' + b"9" * 5000 + b"}}",
        b'{"inputs": "a", "parameters": [[]], "stream": {}}',
        b'{"inputs": 1e999, "parameters": {"temperature": -1e999}}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_whatever_the_json_is_the_answer_is_honest(attacked, body):
    attacked.expect_honesty(body)
    attacked.check(body)


@pytest.mark.long
def test_no_request_takes_more_memory_than_there_is(attacked):
    """Each costly request, sixteen times at once: all are answered, and their memory is freed."""
    before = attacked.resident
    for body in attacked.target.costly:
        answers = together(attacked, [body] * 16, timeout=120)
        assert len(answers) == 16, (shortened(body), len(answers))
        assert {answer.status for answer in answers} <= {200, 400, 408, 413, 429, 507}, (shortened(body), answers)
        attacked.check(body)
    deadline = time.monotonic() + 10
    while attacked.resident > before + 500 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert attacked.resident <= before + 500


def test_a_costly_request_is_over_at_its_deadline(attacked, seconds_left):
    end = time.monotonic() + seconds_left(600)
    for body in attacked.target.costly:
        if time.monotonic() > end:
            break
        started = time.monotonic()
        attacked.expect_honesty(body, timeout=60)
        assert time.monotonic() - started < DEADLINE + 6, shortened(body)


@pytest.mark.long
def test_who_leaves_frees_the_model_for_the_next(attacked):
    for body in attacked.target.costly:
        data = json.dumps(body).encode()
        if len(data) > 1_000_000:
            continue  # decoding such a body may go on for a second or two
        with socket.create_connection(("127.0.0.1", attacked.server.port)) as connection:
            head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data)
            connection.sendall(head + data)
            time.sleep(0.5)
        started = time.monotonic()
        attacked.check(body)
        assert time.monotonic() - started < DEADLINE + 2, shortened(body)


def test_the_log_cannot_be_forged_and_holds_nothing_of_a_request(attacked):
    for inputs in places(attacked.target.control["inputs"], FORGED):
        attacked.ask({**attacked.target.control, "inputs": inputs})
    for name in table_of(attacked.kind):
        for value in (FORGED, [FORGED], {FORGED: FORGED}):
            attacked.ask(with_parameters(attacked, **{name: value}))
    for name in (FORGED, f"generate_kwargs{FORGED}"):
        attacked.ask(with_parameters(attacked, **{name: 1}))
        attacked.ask({**attacked.target.control, name: 1})
    headers = {
        "X-Amzn-SageMaker-Custom-Attributes": f'trace"}}{{"mark":"{MARK}"',
        "X-Amzn-SageMaker-Inference-Id": f'{{"mark":"{MARK}hf_secretsecretsecret\xe9',
        "Accept": f"{MARK}/x",
    }
    for name, value in headers.items():
        attacked.ask(attacked.target.control, **{name: value})
    attacked.server.request("POST", f"/{MARK}%0A%0D{{", b"x", {"Content-Type": f"{MARK}; charset={MARK}"})
    named = f'form-data; name="file{MARK}\u2028{{"; filename="{MARK}\u2028{{.wav"'.encode()
    form = b"--B\r\nContent-Disposition: %s\r\nContent-Type: %s/x\r\n\r\nx\r\n--B--\r\n" % (named, MARK.encode())
    attacked.server.request("POST", "/invocations", form, {"Content-Type": "multipart/form-data; boundary=B"})
    attacked.check()
    time.sleep(0.3)
    lines = attacked.server.log.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    for line in lines:
        if line.startswith("{"):
            assert json.loads(line).get("mark") is None
        else:
            assert MARK not in line
    assert attacked.server.log.count("hf_secretsecretsecret") <= 1  # the inference id, which the caller chooses


def test_a_stream_of_bad_requests_does_not_make_the_model_unhealthy(attacked):
    before = attacked.server.log.count("answers its first one as ever")
    started = time.monotonic()
    while time.monotonic() - started < 3:
        for body in attacked.target.wrong:
            attacked.ask(body)
    asked_again = attacked.server.log.count("answers its first one as ever") - before
    assert asked_again <= 1 + (time.monotonic() - started) // 10
    assert attacked.server.ping() == 200
    attacked.check()
