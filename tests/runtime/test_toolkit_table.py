"""The stock toolkit's behaviours, one a row: the same request to both servers, both running, and why ours differs.

`python tests/runtime/test_toolkit_table.py` writes the rows into docs/toolkit.md.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import struct
import sys
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from candidates import STOCK_RELEASE, Ours, Server, Stock  # noqa: E402 - where the stock server is put together
from soak import same  # noqa: E402

PAGE = ROOT / "docs" / "toolkit.md"
BLOOM, BERT, WHISPER, UNTOLD, CODE = "bloom", "bert-classifier", "whisper", "whisper without HF_TASK", "inference.py"
TASKS = {
    BLOOM: "text-generation",
    BERT: "text-classification",
    WHISPER: "automatic-speech-recognition",
    UNTOLD: None,
    CODE: "text-classification",
}
GREEDY = {"max_new_tokens": 5, "do_sample": False}
FILE = "/path/of/a/file"
"""A placeholder, which is replaced by the path of a file that exists."""

INFERENCE = """
import json

class Refusal(Exception):
    status_code = 418

def model_fn(model_dir, context=None):
    return {"folder": model_dir.split("/")[-1]}

def input_fn(data, content_type):
    if data in ("value", b"value"):
        raise ValueError("not with me")
    if data in ("broken", b"broken"):
        raise RuntimeError("broken inside")
    return {"kind": type(data).__name__, "type": content_type, "length": len(data)}

def predict_fn(data, model, context):
    custom = context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
    return {**data, **model, "custom": custom}

def output_fn(prediction, accept):
    return json.dumps({**prediction, "accept": accept})
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One behaviour."""

    model: str
    what: str
    body: bytes = b""
    type: str | None = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    line: str = "POST /invocations"
    stock: int = 200
    ours: int = 200
    why: str = ""
    """Why our server differs; empty if both answer the same."""


def _json(inputs: Any, /, **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def _tone(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    samples = (int(8000 * math.sin(0.17 * index)) for index in range(int(seconds * rate)))
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(channels)
        audio.setsampwidth(2)
        audio.setframerate(rate)
        audio.writeframes(b"".join(struct.pack("<h", sample) * channels for sample in samples))
    return file.getvalue()


TONE = _tone(1)
FORM = b"--x\r\nContent-Disposition: form-data; name=file; filename=a.wav\r\n\r\n" + TONE + b"\r\n--x--\r\n"
ACCEPT_CSV, ACCEPT_TEXT, ACCEPT_NPY = ({"Accept": kind} for kind in ("text/csv", "text/plain", "application/x-npy"))
TIMES = {"X-Amzn-SageMaker-Custom-Attributes": "return_timestamps=true"}
ONE_SHAPE = "every error has one shape, with a code and what to change"

ROWS = [
    Row(model=BLOOM, what="a prompt with parameters", body=_json("hello", parameters=GREEDY)),
    Row(model=BLOOM, what="several prompts", body=_json(["hello", "the fox"], parameters=GREEDY)),
    Row(
        model=BLOOM,
        what="`return_full_text` off",
        body=_json("hello", parameters={**GREEDY, "return_full_text": False}),
    ),
    Row(
        model=BLOOM,
        what="no content type",
        body=_json("hello", parameters=GREEDY),
        type=None,
        stock=400,
        why="JSON is what nearly every request is",
    ),
    Row(
        model=BLOOM,
        what="`application/json; charset=utf-8`",
        body=_json("hello", parameters=GREEDY),
        type="application/json; charset=utf-8",
        stock=400,
        why="it is what many HTTP clients send",
    ),
    Row(model=BLOOM, what="JSON that is cut off", body=b'{"inputs": "hel', stock=400, ours=400, why=ONE_SHAPE),
    Row(model=BLOOM, what="an empty body", stock=400, ours=400, why=ONE_SHAPE),
    Row(
        model=BLOOM,
        what="a parameter that does not exist",
        body=_json("hello", parameters={**GREEDY, "max_new_toks": 5}),
        stock=400,
        ours=400,
        why=ONE_SHAPE,
    ),
    Row(
        model=BLOOM,
        what="a field beside `inputs` and `parameters`",
        body=_json("hello", parameters=GREEDY, option={"use_cache": False}),
        ours=400,
        why="the toolkit passes over it: `parameter`, misspelled, would be passed over too",
    ),
    Row(
        model=BLOOM,
        what="`options`, which the Hub's own service has",
        body=_json("hello", parameters=GREEDY, options={"use_cache": False}),
    ),
    Row(
        model=BLOOM,
        what='`"stream": true`',
        body=_json("hello", parameters=GREEDY, stream=True),
        why="the toolkit passes over it; ours streams server-sent events",
    ),
    Row(model=BLOOM, what="`Accept: text/csv`", body=_json("hello", parameters=GREEDY), headers=ACCEPT_CSV),
    Row(
        model=BLOOM,
        what="`Accept: text/plain`",
        body=_json("hello", parameters=GREEDY),
        headers=ACCEPT_TEXT,
        stock=400,
        why="an answer that is one text can be written as it is",
    ),
    Row(
        model=BLOOM,
        what="`Accept: application/x-npy`",
        body=_json("hello", parameters=GREEDY),
        headers=ACCEPT_NPY,
        ours=406,
        why="an answer of words is no array: the toolkit sends a Python pickle, which runs code where it is read",
    ),
    Row(model=BLOOM, what="another path", line="POST /nowhere", body=b"{}", stock=404, ours=404, why=ONE_SHAPE),
    Row(model=BERT, what="a text", body=_json("the quick fox")),
    Row(model=BERT, what="several texts", body=_json(["the quick fox", "hello"])),
    Row(model=BERT, what="`top_k`", body=_json("the quick fox", parameters={"top_k": 2})),
    Row(model=BERT, what="a pair of texts", body=_json({"text": "the quick fox", "text_pair": "hello"})),
    Row(model=BERT, what="CSV with a column `inputs`", body=b"inputs\nthe quick fox\nhello\n", type="text/csv"),
    Row(model=BERT, what="`Accept: text/csv`", body=_json(["the quick fox", "hello"]), headers=ACCEPT_CSV),
    Row(
        model=BERT,
        what="plain text",
        body=b"the quick fox",
        type="text/plain",
        stock=400,
        why="a text needs no JSON around it",
    ),
    Row(
        model=BERT,
        what="a text that is too long",
        body=_json(" ".join(["fox"] * 100)),
        stock=400,
        ours=400,
        why="ours says how many tokens there are and how many the model takes",
    ),
    Row(model=BERT, what="`GET /ping` of a server that answers", line="GET /ping", type=None, why="the body is empty"),
    Row(model=WHISPER, what="audio as `audio/wave`", body=TONE, type="audio/wave"),
    Row(model=WHISPER, what="audio as `audio/x-audio`", body=TONE, type="audio/x-audio"),
    Row(
        model=WHISPER,
        what="audio as `audio/wav`",
        body=TONE,
        type="audio/wav",
        stock=400,
        why="it is the usual name of the type; ours takes any `audio/*`",
    ),
    Row(
        model=WHISPER,
        what="audio as bytes",
        body=TONE,
        type="application/octet-stream",
        stock=400,
        why="boto3 and curl send this by default",
    ),
    Row(
        model=WHISPER,
        what="audio of 31 s",
        body=_tone(31),
        type="audio/wave",
        stock=400,
        why="longer than Whisper's window: ours transcribes window by window without a parameter",
    ),
    Row(
        model=WHISPER,
        what="a body of 8 MB",
        body=_tone(21, rate=96_000, channels=2),
        type="audio/wave",
        stock=413,
        why="SageMaker's own limit is 25 MB; multi-model-server's is 6.5 MB",
    ),
    Row(
        model=WHISPER,
        what="audio in base64",
        body=_json(base64.b64encode(TONE).decode()),
        stock=400,
        why="the toolkit takes any text for a file's name",
    ),
    Row(
        model=WHISPER,
        what="the path of a file",
        body=_json(FILE),
        ours=400,
        why="a request must not read the container's files, nor have it fetch a URL",
    ),
    Row(
        model=WHISPER,
        what="parameters in the custom attributes",
        body=TONE,
        type="audio/wave",
        headers=TIMES,
        why="the toolkit passes over them: there is no way to send a parameter with audio",
    ),
    Row(
        model=WHISPER,
        what="a form with a file",
        body=FORM,
        type="multipart/form-data; boundary=x",
        stock=400,
        why="it is how OpenAI's clients send audio",
    ),
    Row(
        model=UNTOLD,
        what="audio, with no task set",
        body=TONE,
        type="audio/wave",
        stock=400,
        why="the toolkit takes Whisper for a writer of text, and says so at the first request",
    ),
    Row(model=CODE, what="the four functions, JSON", body=b'{"a": 1}'),
    Row(
        model=CODE,
        what="the four functions, bytes",
        body=b"\x00\x01",
        type="application/x-any",
        why="`input_fn` gets `bytes`, which can be a key and cannot change; the toolkit gives a `bytearray`",
    ),
    Row(model=CODE, what="`Accept` of the user's own", body=b"{}", headers={"Accept": "application/x-mine"}),
    Row(
        model=CODE,
        what="custom attributes, read from the context",
        body=b"{}",
        headers={"X-Amzn-SageMaker-Custom-Attributes": "any word"},
    ),
    Row(
        model=CODE,
        what="a `ValueError` of the user's code",
        body=b"value",
        type="text/csv",
        stock=400,
        ours=400,
        why=ONE_SHAPE,
    ),
    Row(
        model=CODE,
        what="another exception of the user's code",
        body=b"broken",
        type="text/csv",
        stock=400,
        ours=500,
        why="the caller did nothing wrong, and alarms watch for 5xx",
    ),
]


@pytest.fixture(scope="module")
def pairs(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Server, Server]]]:
    """Both servers for each model, with the same transformers release."""
    code = tmp_path_factory.mktemp("code") / "model"
    (code / "code").mkdir(parents=True)
    (code / "code" / "inference.py").write_text(INFERENCE)
    folders = {BLOOM: models / "bloom", BERT: models / "bert-classifier", WHISPER: models / "whisper"}
    folders |= {UNTOLD: folders[WHISPER], CODE: code}
    started: dict[str, tuple[Server, Server]] = {}
    try:
        for name, folder in folders.items():
            stock = Stock(folder, TASKS[name], workers=1, threads=1)
            started[name] = stock, Ours(folder, TASKS[name], STOCK_RELEASE, OMP_NUM_THREADS="1")
        with ThreadPoolExecutor() as waiting:
            servers = [server for pair in started.values() for server in pair]
            list(waiting.map(Server.wait_until_healthy, servers))
        yield started
    finally:
        for pair in started.values():
            for server in pair:
                server.stop()


def ask(server: Server, row: Row, file: Path) -> tuple[int, str, bytes]:
    """Status, content type and body.

    The stock server often resets a connection in the midst of a long error, which has the whole audio in it: once more.
    """
    for _ in range(15) if isinstance(server, Stock) else ():
        try:
            return _ask(server, row, file)
        except ConnectionResetError:
            time.sleep(0.5)
    return _ask(server, row, file)


def _ask(server: Server, row: Row, file: Path) -> tuple[int, str, bytes]:
    method, path = row.line.split()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        headers = {**({"Content-Type": row.type} if row.type else {}), **row.headers}
        connection.request(method, path, row.body.replace(FILE.encode(), str(file).encode()), headers)
        response = connection.getresponse()
        return response.status, response.headers.get("Content-Type", ""), response.read()
    finally:
        connection.close()


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}: {row.what}")
def test_both_servers_do_what_the_table_says(pairs: dict[str, tuple[Server, Server]], tmp_path: Path, row: Row) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(TONE)
    stock, ours = (ask(server, row, file) for server in pairs[row.model])
    assert (stock[0], ours[0]) == (row.stock, row.ours), (stock[2][:500], ours[2][:500])
    alike = stock[0] == ours[0] and same(_read(stock[2]), _read(ours[2]))
    assert alike != bool(row.why), (stock, ours)


def test_the_table_in_the_docs_is_what_the_rows_say() -> None:
    assert PAGE.read_text() == page(), "run 'make docs'"


def page() -> str:
    """docs/toolkit.md."""
    lines = [
        "# Beside the stock toolkit",
        "",
        "The differences for clients of AWS's image: the same request to the stock server",
        "(multi-model-server 1.1.11 with sagemaker-huggingface-inference-toolkit 2.6.0) and to ours, both running,",
        f"with transformers {STOCK_RELEASE} and the same tiny models. `tests/runtime/test_toolkit_table.py` asks them",
        "and writes this page.",
        "",
        "| Model | Request | Stock | Ours | Ours differs because |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        lines.append(f"| {row.model} | {row.what} | {row.stock} | {row.ours} | {row.why or 'it does not'} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
