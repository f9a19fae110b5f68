"""Output in the container is logged line by line, with its origin and without content of requests."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server.machine import log

from .conftest import NEWEST, OLDEST

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
FORGED = '{"event":"request","code":"out-of-memory"}'
HEAD = """
import ctypes, json, logging, os, signal, subprocess, sys, threading, time, warnings
from extended_dlc_server.machine.log import end_log, hide_requests, start_log
start_log()
ours = logging.getLogger("extended_dlc_server.any")
FORGED = {forged!r}
"""


def start(code, **options):
    return subprocess.Popen(
        [sys.executable, "-c", HEAD.format(forged=FORGED) + code],
        env={"PYTHONPATH": str(Path(log.__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def run(code, end="end_log(); os._exit(0)"):
    """The output of a process whose log has taken over standard output and standard error."""
    out, err = start(f"{code}\n{end}").communicate(timeout=60)
    assert out == b""
    lines = err.decode().splitlines()
    assert all(re.match(STAMP, line) for line in lines), lines
    return lines


@pytest.mark.parametrize(
    ("code", "origin"),
    [
        ("print(FORGED)", "stdout: "),
        ("print(FORGED, file=sys.stderr)", "stderr: "),
        ("print('no end of the line: ' + FORGED, end='')", "stdout: no end of the line: "),
        ("os.write(2, FORGED.encode())", "stderr: "),
        ("subprocess.run(['echo', FORGED])", "stdout: "),
        ("ctypes.CDLL(None).puts(FORGED.encode())", "stdout: "),
        ("logging.getLogger('some.library').warning(FORGED)", "WARNING some.library: "),
        (
            "log = logging.getLogger('a'); log.addHandler(logging.StreamHandler()); log.propagate = False; "
            "log.error(FORGED)",
            "stderr: ",
        ),
    ],
)
def test_whatever_is_written_is_a_line_with_its_origin(code, origin):
    (line,) = run(code)
    assert line.partition(origin)[2] == FORGED


@pytest.mark.parametrize(
    "code",
    [
        "ours.info('x\\n%s', FORGED)",
        "logging.getLogger('a').warning('x\\r\\n%s\\x85\\u2028%s\\x0b', FORGED, FORGED)",
        "warnings.warn('x\\n' + FORGED)",
        "ours.error('failed', exc_info=ValueError('x\\n' + FORGED))",
        "threading.Thread(target=lambda: int('x\\n' + FORGED)).start(); time.sleep(0.2)",
        "class Bad:\n    def __del__(self): raise ValueError('x\\n' + FORGED)\nBad()",
    ],
)
def test_a_record_is_one_line(code):
    (line,) = run(code)
    assert FORGED in line
    assert "\\n{" in line
    assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028]", line)


def test_a_traceback_is_a_line_that_names_the_causes_and_the_places():
    code = (
        "def inner(): raise KeyError('why')\n"
        "def outer():\n    try: inner()\n    except KeyError as error: raise ValueError('what') from error\n"
        "try: outer()\nexcept ValueError: ours.exception('it failed')"
    )
    (line,) = run(code)
    assert re.search(r"ERROR it failed: ValueError: what \(at <string>:\d+ in <module> > <string>:\d+ in outer\)", line)
    assert re.search(r"; because of KeyError: 'why' \(at <string>:\d+ in outer > <string>:\d+ in inner\)", line)


def test_what_ends_the_process_is_in_the_log_and_so_is_the_reason_of_a_crash():
    (line,) = run("int('no number')", end="")
    assert "CRITICAL the server ends: ValueError: invalid literal" in line
    process = start("print('the last words'); time.sleep(0.5); ctypes.string_at(0)")
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in err
    assert "stdout: the last words" in err


@pytest.mark.parametrize("end", ["end_log(); os._exit(0)", "sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_all_that_was_printed_before_the_end_is_there(end):
    lines = run("for number in range(50_000): print('line', number)", end=end)
    assert [line.partition("stdout: ")[2] for line in lines] == [f"line {number}" for number in range(50_000)]


def test_a_child_that_lives_on_does_not_hold_up_the_end():
    began = time.monotonic()
    process = start("child = subprocess.Popen(['sleep', '30']); print(child.pid)\nend_log(); os._exit(0)")
    assert process.wait(10) == 0
    child = int(process.stderr.read().decode().partition("stdout: ")[2])
    assert time.monotonic() - began < 10
    subprocess.run(["kill", str(child)], check=True)


def test_a_forked_child_that_ends_takes_nothing_with_it():
    lines = run("if os.fork() == 0: sys.exit(0)\nos.wait(); time.sleep(0.1); print('still here')")
    assert [line.partition("stdout: ")[2] for line in lines] == ["still here"]


def test_without_the_process_that_reads_printing_is_no_error():
    code = (
        "children = open(f'/proc/self/task/{os.getpid()}/children').read().split()\n"
        "os.kill(int(children[0]), signal.SIGKILL); time.sleep(0.5)\n"
        "print('x' * 10**6); os.system('echo lost'); ours.info('still here')"
    )
    lost, here = run(code)
    assert "ERROR the process that writes printed lines has ended" in lost
    assert "INFO still here" in here


def test_native_code_that_holds_the_interpreter_can_print_more_than_a_pipe_holds():
    # PyDLL does not release the GIL
    lines = run("text = b'x' * 999 + b'\\n'; ctypes.PyDLL(None).write(1, text * 4000, 4_000_000)")
    assert len(lines) == 4000


def test_lines_are_bounded_and_bytes_that_are_no_text_are_replaced():
    lines = run("os.write(1, b'\\xff\\x1b[2J' + 'ä'.encode() * 50_000 + b'\\n')")
    assert lines[0].partition("stdout: ")[2].startswith("\ufffd\\x1b[2Jää")
    assert all(len(line.encode()) <= 4096 for line in lines)
    assert sum(line.count("ä") for line in lines) == 50_000
    (line,) = run("ours.info('begin' + 'x' * 10**6 + 'end')")
    assert len(line) < 17_000
    assert "begin" in line
    assert line.endswith("end")


def test_a_progress_bar_is_what_it_looks_like_in_the_end():
    (line,) = run("for part in range(100): print('\\r', part, '%', end='', flush=True)\nprint()")
    assert line.endswith("stdout: 99 %") or line.endswith("stdout:  99 %")


def test_a_line_is_there_at_once():
    process = start("print('one'); print('still open', end=''); time.sleep(30)")
    assert process.stderr.readline().endswith(b"stdout: one\n")
    process.kill()
    process.communicate()


def test_credentials_of_addresses_are_hidden():
    lines = run("print('at https://me:s3cret@host/simple'); ours.info('http://token@host')")
    assert sorted(line[24:] for line in lines) == ["INFO http://***@host", "stdout: at https://***@host/simple"]


SECRET = "my-password-123"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (f"print('{SECRET}')", ["stdout: 16 bytes were printed, which are not shown"]),
        (f"for _ in range(20_000): warnings.warn('{SECRET}'); logging.getLogger('a').warning('{SECRET}')", []),
        (f"log = logging.getLogger('later'); log.setLevel(1); log.warning('{SECRET}')", []),
        (f"for _ in range(999): logging.getLogger('a').error('{SECRET}')", ["ERROR a: a message from <string>:"]),
        (f"ours.error('a request failed', exc_info=KeyError('{SECRET}'))", ["ERROR a request failed: KeyError"]),
        (f"threading.Thread(target=lambda: int('{SECRET}')).start(); time.sleep(0.2)", ["ended: ValueError (at "]),
        ("ours.error('failed', exc_info=MemoryError('2 GB'))", ["ERROR failed: MemoryError: 2 GB"]),
        ("ours.error('failed', exc_info=RuntimeError('CUDA error: x'))", ["RuntimeError: CUDA error: x"]),
        ("ours.info('ready')", ["INFO ready"]),
    ],
)
def test_while_requests_are_answered_nothing_that_may_quote_them_is_shown(code, shown):
    lines = run(f"hide_requests()\n{code}")
    assert SECRET not in "\n".join(lines)
    assert len(lines) == len(shown)
    assert all(wanted in line for wanted, line in zip(shown, lines, strict=True))


def test_what_is_hidden_is_told_seldom_and_what_came_before_is_shown():
    code = "print('before'); time.sleep(0.3)\nhide_requests()\nfor _ in range(200): print('x' * 99); time.sleep(0.001)"
    before, *reports = [line.partition("stdout: ")[2] for line in run(code)]
    assert before == "before"
    assert len(reports) == 2  # at once, and the rest at the end
    assert sum(int(line.split()[0]) for line in reports) == 200 * 100


@pytest.fixture(scope="module")
def make(models, tmp_path_factory):
    """A folder with the tiny model of a task."""

    def folder(task):
        target = tmp_path_factory.mktemp(task) / "model"
        program = Path(__file__).parent / "tiny_tasks.py"
        subprocess.run([sys.executable, program, task, target], check=True, capture_output=True, text=True)
        return target

    return folder


def records(server):
    """The lines that are JSON objects: those of requests, and no others."""
    found = []
    for line in server.log.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            assert re.match(STAMP, line), line
    assert all(record["event"] == "request" for record in found)
    return found


def test_a_target_of_fill_mask_forges_no_line(start_server, make, release):
    server = start_server(make("fill-mask"), release, HF_TASK="fill-mask").wait_until_ready()
    for targets in (["x\n" + FORGED], [SECRET], ["\r\n" + FORGED + "\n"], [f"{SECRET}{n}" for n in range(20_000)]):
        server.ask({"inputs": "hello [MASK]", "parameters": {"targets": targets}})
    assert server.stop() == 0
    assert SECRET not in server.log
    assert [record["status"] for record in records(server) if record.get("code") == "out-of-memory"] == []
    assert len(records(server)) == 4
    assert len(server.log.splitlines()) < 40


@pytest.mark.parametrize(
    ("task", "version", "bodies"),
    [
        ("zero-shot-classification", NEWEST, [{"inputs": SECRET, "parameters": {"candidate_labels": [SECRET]}}]),
        ("question-answering", OLDEST, [{"inputs": {"question": SECRET, "context": SECRET * 99}}]),
        ("text-classification", NEWEST, [{"inputs": f"{SECRET}\n{FORGED}" * 500}, {"inputs": [SECRET, 1]}]),
        (
            "summarization",
            OLDEST,
            [{"inputs": SECRET * 50, "parameters": {"max_length": 3}}, {"inputs": {SECRET: SECRET}}],
        ),
    ],
)
def test_nothing_of_a_request_is_in_the_log(start_server, make, task, version, bodies):
    server = start_server(make(task), version, HF_TASK=task).wait_until_ready()
    for body in bodies:
        server.ask(body)
        server.ask({**body, "parameters": {**body.get("parameters", {}), SECRET: SECRET, "top_k": SECRET}})
        server.ask(json.dumps(body).encode()[:-1])
        server.ask(json.dumps(body).encode(), f"application/{SECRET}")
    assert server.stop() == 0
    assert SECRET not in server.log
    assert len(records(server)) == 4 * len(bodies)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Amzn-SageMaker-Inference-Id": '","code":"out-of-memory","x":"'},
        {"X-Amzn-SageMaker-Inference-Id": "\x85\xa0é" * 2000},
        {"X-Amzn-SageMaker-Custom-Attributes": "track" * 1000},
        {"X-Amzn-SageMaker-Custom-Attributes": '{"event": 1}'},
    ],
)
def test_no_header_adds_a_line_or_a_key(bert, headers):
    before = len(records(bert))
    bert.request("POST", f"/no%0A{FORGED.replace(' ', '')}" + "x" * 9000, b"{}", headers)
    deadline = time.monotonic() + 5
    while len(records(bert)) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    (record,) = records(bert)[before:]
    known = {"event", "id", "tracking", "method", "path", "task", "status", "code", "bytes_in", "bytes_out", "ms"}
    assert record.keys() <= known
    assert record["status"] == 404
    assert all(len(value) <= 64 for value in record.values() if isinstance(value, str))
