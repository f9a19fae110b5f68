"""`code/inference.py` and `code/requirements.txt`, as the stock toolkit treats them."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors, settings
from extended_dlc_server.model import user_code

STEPS = """
import json

def model_fn(model_dir):
    return lambda inputs, **parameters: {"inputs": inputs, "parameters": parameters, "model_dir": model_dir}

def input_fn(data, content_type):
    kind = type(data).__name__
    if content_type == "application/x-raise":
        raise {"value": ValueError, "key": KeyError, "type": TypeError, "os": OSError}[data.decode()]("as asked")
    if content_type == "application/json":
        data = json.loads(data)
    return {"inputs": [kind, content_type, str(data)], "parameters": {"top": 1}}

def output_fn(prediction, accept):
    return json.dumps({**prediction, "accept": accept})
"""

WITH_CONTEXT = """
import os

class PredictionException(Exception):
    def __init__(self, message, error_code):
        self.message, self.error_code = message, error_code

def model_fn(model_dir, context):
    assert context.system_properties["model_dir"] == model_dir
    return model_dir

def transform_fn(model, data, content_type, accept, context):
    custom = context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
    if data == b"teapot":
        raise PredictionException("I am a teapot", 418)
    if data == b"no memory":
        raise MemoryError
    if data == b"broken":
        raise RuntimeError("with a secret")
    if data == b"created":
        context.set_response_status(201, "made")
        context.set_response_content_type(0, "text/x-made")
        return b"\\x00\\xff"
    if data == b"pair":
        return "a,b", "text/csv"
    everything = context.get_all_request_header(0)
    return {"custom": custom, "accept": accept, "size": len(data), "all": "Content-Type" in everything}
"""

AROUND_THE_PIPELINE = """
def output_fn(prediction, accept):
    return {"wrapped": prediction, "accept": accept}
"""


PRINTS = """
import logging, os, sys

def model_fn(model_dir):
    print("MARK loading")
    return 1

def predict_fn(data, model):
    print("MARK", data["word"])
    print("no line yet", end="", file=sys.stderr)
    print("; now one", file=sys.stderr)
    logging.getLogger("mine").info("MARK logged\\n%s", data)
    os.system("echo MARK of a child")
    if data["word"] == "bad":
        raise RuntimeError("MARK\\n" + data["word"])
    return 1
"""


RESULTS = """
import asyncio, collections, datetime, decimal, enum, pathlib, uuid

class Colour(enum.Enum):
    RED = "red"

class Model:  # as of pydantic
    def model_dump(self):
        return {"made": decimal.Decimal(2)}

async def numbers():
    for number in range(3):
        await asyncio.sleep(0)
        yield number

async def model_fn(model_dir):
    return asyncio.get_running_loop()

async def predict_fn(data, model):
    await asyncio.sleep(0.01)
    assert asyncio.get_running_loop() is model
    return {
        "decimal": lambda: list(map(decimal.Decimal, ("1.50", "7", "NaN", 10**30))),
        "path": lambda: {"path": pathlib.Path("/opt/ml"), "pure": pathlib.PurePosixPath("a/b")},
        "generator": lambda: (number * 2 for number in range(3)),
        "several": lambda: {
            "map": map(str, range(2)), "range": range(2), "deque": collections.deque([1]), "keys": {"a": 1}.keys()
        },
        "async": numbers,
        "others": lambda: [Colour.RED, datetime.date(2026, 1, 2), uuid.UUID(int=1), Model(), {1: {2}}],
        "object": object,
        "endless": lambda: iter(int, 1),
        "deep": lambda: __import__("functools").reduce(lambda made, _: [made], range(5000), []),
    }[data]()
"""

STREAMS = """
def transform_fn(model, data, content_type, accept):
    return (part for part in ("grü", b"n", " und rot")), "text/plain"
"""


def archive(folder, code, requirements=None, model=None, name="inference.py"):
    (folder / "code").mkdir(parents=True)
    (folder / "code" / name).write_text(code)
    if requirements:
        (folder / "code" / "requirements.txt").write_text(requirements)
    for file in model.iterdir() if model else ():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def steps(start_server, models, tmp_path_factory):
    return start_server(archive(tmp_path_factory.mktemp("steps") / "model", STEPS)).wait_until_ready()


@pytest.fixture(scope="module")
def with_context(start_server, models, tmp_path_factory):
    folder = archive(tmp_path_factory.mktemp("context") / "model", WITH_CONTEXT, name="entry.py")
    return start_server(folder, SAGEMAKER_PROGRAM="entry.py").wait_until_ready()


def raw(server, body, content_type="application/x-any", **headers):
    return server.request("POST", "/invocations", body, {"Content-Type": content_type, **headers})


def test_each_function_gets_what_the_toolkit_gives_it(steps):
    answer = raw(steps, b'{"a": 1}', "application/json; charset=utf-8")
    assert answer.status == 200, answer.body
    assert answer.content_type == "application/json"
    assert answer.json["inputs"] == ["str", "application/json", "{'a': 1}"]
    assert answer.json["parameters"] == {"top": 1}
    assert answer.json["model_dir"].endswith("/model")
    assert answer.json["accept"] == "application/json"
    assert raw(steps, b"a,b", "text/csv", Accept="text/csv").json["inputs"][:2] == ["str", "text/csv"]
    other = raw(steps, b"\x00", "application/x-npy", Accept="application/x-mine")
    assert other.json["inputs"][:2] == ["bytes", "application/x-npy"]
    assert (other.json["accept"], other.content_type) == ("application/x-mine", "application/x-mine")


@pytest.mark.parametrize(("raised", "status"), [(b"value", 400), (b"key", 400), (b"type", 400), (b"os", 500)])
def test_what_input_fn_refuses_is_400_and_what_breaks_is_500(steps, raised, status):
    got, code, message = raw(steps, raised, "application/x-raise").error
    assert got == status
    assert code == ("user-code" if status == 400 else "internal-error")
    assert ("as asked" in message) == (status == 400)
    assert raw(steps, b"{}", "application/json").status == 200


def test_transform_fn_and_context_work_under_another_file_name(with_context):
    answer = raw(with_context, b"12345", **{"X-Amzn-SageMaker-Custom-Attributes": "any text at all"})
    assert answer.json == {"custom": "any text at all", "accept": "application/json", "size": 5, "all": True}


def test_the_context_sets_status_and_content_type(with_context):
    answer = raw(with_context, b"created")
    assert (answer.status, answer.content_type, answer.body) == (201, "text/x-made", b"\x00\xff")
    answer = raw(with_context, b"pair")
    assert (answer.content_type, answer.body) == ("text/csv", b"a,b")


def test_errors_of_user_code_keep_their_status(with_context):
    assert raw(with_context, b"teapot").error == (418, "user-code", "I am a teapot")
    assert raw(with_context, b"no memory").error[:2] == (507, "out-of-memory")
    status, code, message = raw(with_context, b"broken").error
    assert (status, code) == (500, "internal-error")
    assert "secret" not in message
    assert with_context.tells("with a secret")
    assert raw(with_context, b"1").status == 200


@pytest.fixture(scope="module")
def results(start_server, models, tmp_path_factory):
    return start_server(archive(tmp_path_factory.mktemp("results") / "model", RESULTS)).wait_until_ready()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decimal", [1.5, 7, None, 1e30]),
        ("path", {"path": "/opt/ml", "pure": "a/b"}),
        ("generator", [0, 2, 4]),
        ("several", {"map": ["0", "1"], "range": [0, 1], "deque": [1], "keys": ["a"]}),
        ("async", [0, 1, 2]),
        ("others", ["red", "2026-01-02", "00000000-0000-0000-0000-000000000001", {"made": 2}, {"1": [2]}]),
    ],
)
def test_results_of_python_that_json_lacks_are_written_in_what_it_has(results, name, expected):
    answer = raw(results, f'"{name}"'.encode(), "application/json")
    assert (answer.status, answer.json) == (200, expected)


@pytest.mark.parametrize(
    ("name", "words"), [("object", "an object"), ("endless", "more than 1,000,000 values"), ("deep", "recursion")]
)
def test_a_result_that_cannot_be_sent_is_500_with_the_reason(results, name, words):
    status, code, message = raw(results, f'"{name}"'.encode(), "application/json").error
    assert (status, code) == (500, "user-code")
    assert words in message.lower().replace("a object", "an object")
    assert raw(results, b'"generator"', "application/json").status == 200


def test_parts_of_a_text_are_joined(start_server, models, tmp_path):
    server = start_server(archive(tmp_path / "model", STREAMS, model=models / "bert-classifier")).wait_until_ready()
    answer = raw(server, b'{"inputs": "x"}', "application/json")
    assert (answer.status, answer.body.decode(), answer.content_type) == (200, "grün und rot", "text/plain")
    chat = server.request("POST", "/v1/chat/completions", b'{"messages": []}', {"Content-Type": "application/json"})
    assert chat.body == answer.body  # requests to this path go to the user's code, too


def test_what_user_code_prints_and_logs_is_in_the_log_at_once(start_server, tmp_path):
    server = start_server(archive(tmp_path / "model", PRINTS)).wait_until_ready()
    assert "stdout: MARK loading" in server.log
    forged = '\n{"event": "request"}'
    assert server.ask({"word": forged}).status == 200
    printed = (
        "stdout: MARK",
        'stdout: {"event": "request"}',
        "stderr: no line yet; now one",
        "stdout: MARK of a child",
    )
    assert [line for line in printed if not server.tells(f"{line}\n")] == []
    assert "INFO mine: MARK logged\\n{'word'" in server.log
    assert server.ask({"word": "bad"}).status == 500
    assert server.tells("ERROR a request failed")
    (line,) = [line for line in server.log.splitlines() if "ERROR a request failed" in line]
    assert "RuntimeError: MARK\\nbad (at " in line
    assert "/code/inference.py:15 in predict_fn" in line
    assert server.stop() == 0
    assert len([line for line in server.log.splitlines() if line.startswith("{")]) == 2


def test_what_the_code_leaves_out_is_the_pipelines(start_server, models, tmp_path, release):
    folder = archive(tmp_path / "model", AROUND_THE_PIPELINE, model=models / "bert-classifier")
    server = start_server(folder, release).wait_until_ready()
    answer = server.ask({"inputs": "fine", "parameters": {"top_k": 2}})
    assert answer.status == 200, answer.body
    assert len(answer.json["wrapped"]) == 2
    assert server.ask({"inputs": "fine", "parameters": {"nonsense": 2}}).error[:2] == (400, "unknown-parameter")
    assert server.ask({"inputs": "fine", "stream": True}).error[0] == 400
    assert server.ask(b"{").error[:2] == (400, "malformed-json")
    assert server.stop() == 0


def test_predict_fn_gets_any_json_and_the_pipeline(start_server, models, tmp_path):
    code = "def predict_fn(data, model):\n    return {'pipeline': type(model).__name__, 'got': data}\n"
    folder = archive(tmp_path / "model", code, model=models / "bert-classifier")
    server = start_server(folder).wait_until_ready()
    wanted = {"pipeline": "TextClassificationPipeline", "got": {"any": ["thing"]}}
    assert server.ask({"any": ["thing"]}).json == wanted
    assert server.ask(b"inputs\na\nb\n", "text/csv").json["got"] == {"inputs": ["a", "b"]}
    assert server.ask(b"{").error[:2] == (400, "malformed-json")
    assert raw(server, b"x", "application/x-any").error[:2] == (415, "unsupported-content-type")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def model_fn():\n    pass\n", "must take 1 arguments, or 2 with context, not 0"),
        ("def output_fn(a, b, c, d):\n    pass\n", "must take 2 arguments, or 3 with context, not 4"),
        ("import nothing_like_it\n", "belongs into code/requirements.txt"),
        ("def transform_fn(a, b, c, d): pass\ndef input_fn(a, b): pass\n", "keep either"),
        ("this is no Python", "cannot be imported"),
    ],
)
def test_code_that_cannot_be_called_stops_the_start(tmp_path, monkeypatch, code, says):
    name = f"user_{abs(hash(code))}.py"
    archive(tmp_path / "model", code, name=name)
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(errors.StartError, match=says):
        user_code.load_hooks(tmp_path / "model" / "code" / name)


@pytest.mark.parametrize("value", ["missing.py", "../evil.py", "a/b.py", "inference.sh"])
def test_a_program_that_is_not_there_is_named(tmp_path, value):
    archive(tmp_path / "model", "")
    with pytest.raises(errors.StartError, match="SAGEMAKER_PROGRAM"):
        settings.read_settings({"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_PROGRAM": value})
    read = settings.read_settings({"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_PROGRAM": "inference"})
    assert read.program_file == tmp_path / "model" / "code" / "inference.py"


def wheel(folder, name="only_here"):
    """Write a wheel, so that the test needs no package index."""
    file = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "WORD = 'installed at start'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return file


def test_requirements_are_installed_before_the_code_is_imported(start_server, models, tmp_path):
    code = (
        "import only_here\ndef model_fn(model_dir): return only_here.WORD\ndef predict_fn(data, model): return model\n"
    )
    folder = archive(tmp_path / "model", code, requirements="./only_here-1.0-py3-none-any.whl\n")
    wheel(folder / "code")
    site = tmp_path / "site"
    image = Path(user_code.__file__).parents[2]
    path = {"PIP_TARGET": str(site), "PIP_NO_INDEX": "1", "PYTHONPATH": f"{image}:{site}"}
    server = start_server(folder, **path).wait_until_ready()
    assert server.ask({}).json == "installed at start"
    assert server.stop() == 0
    without = start_server(folder, EXTENDED_DLC_INSTALL_REQUIREMENTS="false")
    assert without.wait_for_status(500) == 500
    assert "No module named 'only_here'" in without.request("GET", "/ping").error[2]


def test_credentials_of_the_index_are_in_no_line_of_pip(start_server, tmp_path):
    unreachable = {"PIP_INDEX_URL": "http://me:s3cret@127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    requirements = "--extra-index-url https://other:s3cret@127.0.0.1:9/simple\nnothing-like-it==1\n"
    folder = archive(tmp_path / "model", "def model_fn(model_dir): pass\n", requirements=requirements)
    server = start_server(folder, PIP_CONFIG_FILE="/dev/null", **unreachable)
    assert server.wait_for_status(500) == 500
    assert "s3cret" not in server.request("GET", "/ping").body.decode()
    assert "INFO pip: Looking in indexes: http://***@127.0.0.1:9/simple" in server.log
    assert "s3cret" not in server.log


def test_requirements_that_cannot_be_installed_say_what_to_do(start_server, models, tmp_path):
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null"}
    folder = archive(tmp_path / "model", "def model_fn(model_dir): pass\n", requirements="nothing-like-it==1\n")
    server = start_server(folder, **unreachable)
    assert server.wait_for_status(500) == 500
    message = server.request("GET", "/ping").error[2]
    assert "requirements.txt cannot be installed" in message
    assert "EXTENDED_DLC_INSTALL_REQUIREMENTS" in message
