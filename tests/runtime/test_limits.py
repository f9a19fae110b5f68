"""Each environment variable with an invalid value, and large bodies."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors, settings

SOURCE = Path(settings.__file__).read_text()
MEGABYTE = 1024 * 1024


def whole(least, most):
    return f"must be a whole number from {least} to {most}"


BAD = {
    "SAGEMAKER_BIND_TO_PORT": ("0", whole(1, 65535)),
    "HF_MODEL_ID": ("a/b/c", "must be a Hub id such as 'bigscience/bloom-560m'"),
    "HF_TRUST_REMOTE_CODE": ("maybe", "must be 'true' or 'false'"),
    "HF_TOKEN_SECRET_ARN": ("arn:aws:s3:::bucket", "must be the ARN of a secret"),
    "EXTENDED_DLC_MAX_BODY_MB": ("1025", whole(1, 1024)),
    "EXTENDED_DLC_MAX_AUDIO_SECONDS": ("1e3", whole(1, 86400)),
    "EXTENDED_DLC_BATCH_SIZE": ("0", whole(1, 1024)),
    "EXTENDED_DLC_DTYPE": ("int8", "must be one of: auto, float32, bfloat16, float16"),
    "EXTENDED_DLC_METRICS_NAMESPACE": ("AWS/Mine", "must be a CloudWatch namespace"),
    "EXTENDED_DLC_MAX_INPUT_TOKENS": ("0", whole(1, 10_000_000)),
    "EXTENDED_DLC_MAX_NEW_TOKENS": ("-1", whole(1, 10_000_000)),
    "EXTENDED_DLC_ANSWER_SECONDS": ("0", whole(1, 86400)),
    "EXTENDED_DLC_STREAM_SECONDS": ("1m", whole(1, 86400)),
    "EXTENDED_DLC_REQUEST_SECONDS": ("-5", whole(1, 86400)),
    "EXTENDED_DLC_BODY_SECONDS": ("3601", whole(1, 3600)),
    "EXTENDED_DLC_ALLOW_INCOMPLETE": ("2", "must be 'true' or 'false'"),
    "SAGEMAKER_PROGRAM": ("../app.py", "must be the name of a Python file"),
    "EXTENDED_DLC_INSTALL_REQUIREMENTS": ("2", "must be 'true' or 'false'"),
    "EXTENDED_DLC_QUEUE_LENGTH": ("many", whole(1, 10000)),
    "EXTENDED_DLC_ADAPTERS": ("sql=a/b/c", "must be at most 32 adapters of different names"),
}
ANY_TEXT = {"HF_MODEL_REVISION", "HF_TASK", "HF_TOKEN", "HF_API_TOKEN", "SAGEMAKER_BASE_DIR"}
"""Variables without a check of ours: the Hub and transformers check them at the start."""


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_by_name_and_rule(name):
    value, rule = BAD[name]
    with pytest.raises(errors.StartError) as raised:
        settings.read_settings({name: value})
    (line,) = str(raised.value).splitlines()[1:]
    assert line.strip().startswith(name)
    assert rule in line
    assert name == "HF_TOKEN_SECRET_ARN" or f"('{value}')" in line


@pytest.mark.parametrize("name", sorted(BAD))
def test_an_empty_value_counts_as_unset(name):
    assert settings.read_settings({name: " "}) == settings.Settings()


def test_the_table_has_every_variable_and_the_readme_too():
    read = set(re.findall(r'"((?:EXTENDED_DLC|HF|SAGEMAKER)_[A-Z_]+)"', SOURCE))
    documented = (Path(settings.__file__).parents[1] / "README.md").read_text()
    assert read == set(BAD) | ANY_TEXT
    assert [name for name in sorted(read) if f"`{name}`" not in documented] == []


def peak(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def test_a_body_of_300_mb_is_held_once(start_server):
    server = start_server("whisper", EXTENDED_DLC_MAX_BODY_MB="1024").wait_until_ready()
    before = peak(server)
    assert server.ask(bytes(300 * MEGABYTE), "audio/wav").error[:2] == (400, "undecodable-audio")
    assert 200 < peak(server) - before < 450
    connection = socket.create_connection(("127.0.0.1", server.port))
    with connection:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {1025 * MEGABYTE}\r\n\r\n"
        began = time.monotonic()
        connection.sendall(head.encode() + b"x" * 1000)
        assert b" 413 " in connection.recv(1000).splitlines()[0]
    assert time.monotonic() - began < 10
    assert server.stop() == 0


def test_a_hundred_large_bodies_at_once_have_the_memory_of_sixteen(start_server):
    """All bodies arrive but for their last byte, before any is complete; small requests are served meanwhile."""
    server = start_server("bloom", EXTENDED_DLC_MAX_BODY_MB="5").wait_until_ready()
    before = peak(server)
    size = 5 * MEGABYTE
    sent = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size - 1)
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(100)]
        for connection in connections:
            connection.sendall(sent)
        assert server.ping(timeout=2) == 200
        assert server.ask({"inputs": "x", "parameters": {"max_new_tokens": 2}}).status == 200
        assert server.ask(bytes(100_000)).error[:2] == (429, "queue-full")
        assert peak(server) - before < 16 * 5 * 1.5
        for connection in connections:
            connection.sendall(b"x")
        statuses = [int(connection.recv(1000).split()[1]) for connection in connections]
    assert (statuses.count(400), statuses.count(429)) == (16, 84)
    assert peak(server) - before < 16 * 5 * 4  # each body as bytes, as text and in the parser's error
    assert server.ask(bytes(100_000)).error[:2] == (400, "malformed-json")  # the memory is free again
    assert server.stop() == 0
