"""Arbitrary requests: none causes an undocumented 5xx, hangs, or prevents the next one's response."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="pip install hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECONDS = 4  # for each of three models and two releases

CONTENT_TYPES = st.one_of(
    st.sampled_from(
        [
            *(
                "application/json",
                "application/json; charset=utf-16",
                "text/plain",
                "text/csv",
                "audio/wav",
                "audio/mpeg",
            ),
            *("multipart/form-data; boundary=b", "multipart/form-data", "application/octet-stream", "image/png", ""),
            *("application/json;;;charset==", "a/b/c", "text/plain; charset=idna"),
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
)
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["top_k", "return_full_text", "prefix", "language", "truncation", "temperature", "stream"])
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.text(max_size=30) | ANY_JSON},
    optional={"parameters": st.dictionaries(NAMES, ANY_JSON, max_size=2) | ANY_JSON, "stream": ANY_JSON},
)
FORMS = st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=30)), max_size=4).map(
    lambda parts: (
        b"".join(
            b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode("utf-8", "replace"), value)
            for name, value in parts
        )
        + b"--b--\r\n"
    )
)
BODIES = st.one_of(
    st.binary(max_size=200),
    REQUESTS.map(lambda value: json.dumps(value).encode("utf-8", "replace")),
    ANY_JSON.map(lambda value: json.dumps(value).encode("utf-8", "replace")),
    FORMS,
    st.binary(max_size=60).map(lambda tail: b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x08\0\0\0\x08\x08\2\0\0\0" + tail),
    st.binary(max_size=60).map(lambda tail: b"RIFF\x24\x00\x00\x00WAVEfmt " + tail),
)


@pytest.fixture(scope="session")
def vision(models):
    """The folder of a model that looks at images."""
    pytest.importorskip("PIL", reason="pip install -r tests/runtime/requirements.txt")
    program = Path(__file__).parent / "tiny_tasks.py"
    subprocess.run([sys.executable, program, "image-classification", models / "vision"], check=True)


@pytest.mark.parametrize("model", ["bert-classifier", "whisper", "vision"])
def test_whatever_comes_in_is_answered_honestly(start_server, vision, release, model):
    server = start_server(model, release).wait_until_ready()
    deadline = time.monotonic() + SECONDS

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=BODIES, content_type=CONTENT_TYPES, accept=HEADER, custom=HEADER)
    def ask(body, content_type, accept, custom):
        if time.monotonic() > deadline:
            return
        headers = {"Content-Type": content_type, "Accept": accept, "X-Amzn-SageMaker-Custom-Attributes": custom}
        headers = {name: value for name, value in headers.items() if value}
        answer = server.request("POST", "/invocations", body, headers, timeout=20)
        assert answer.status < 500 or answer.status in (503, 507), (answer.status, answer.body)
        if answer.status >= 400:
            assert answer.error[2]

    ask()
    assert server.ping() == 200
    assert "Traceback" not in server.log
    assert server.stop() == 0
