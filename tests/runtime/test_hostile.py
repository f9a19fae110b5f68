"""Small bodies that expand, clients that do not send or do not read, and a machine under load."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import resource
import socket
import struct
import subprocess
import threading
import time
import tracemalloc
import zlib

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")
pytest.importorskip("uvicorn", reason="pip install -r tests/runtime/requirements.txt")

import uvicorn
from extended_dlc_server import errors
from extended_dlc_server.http import connections, exchange
from extended_dlc_server.machine import memory
from extended_dlc_server.reading import audio, decoding, images, tasks


def png(width, height):
    """A PNG file that states its size, and ends after that."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\5IDAT"


@pytest.mark.parametrize("size", [(50_000, 50_000), (12_000, 12_000), (2**31 - 1, 1)])
def test_an_image_that_would_fill_the_memory_is_413_by_its_head(size):
    pytest.importorskip("PIL", reason="pip install -r tests/runtime/requirements.txt")
    with pytest.raises(errors.RequestError, match="million pixels") as raised:
        images.ImageDecoder().decode(png(*size))
    assert (raised.value.status, raised.value.code) == (413, "image-too-large")


def test_the_images_of_a_request_count_together(monkeypatch):
    image = pytest.importorskip("PIL.Image", reason="pip install -r tests/runtime/requirements.txt")
    monkeypatch.setattr(images, "MAX_PIXELS", 250)
    file = io.BytesIO()
    image.new("RGB", (10, 10)).save(file, "PNG")
    one = base64.b64encode(file.getvalue()).decode()
    expected = decoding.Expected(task="keypoint-matching", kind=tasks.Kind.IMAGE)
    body = '{"inputs": [%s]}'
    pair = decoding.decode((body % ", ".join([f'"{one}"'] * 2)).encode(), None, expected)
    assert [each.size for each in pair.inputs] == [(10, 10)] * 2
    with pytest.raises(errors.RequestError, match="million pixels"):
        decoding.decode((body % ", ".join([f'"{one}"'] * 3)).encode(), None, expected)


@pytest.mark.parametrize(
    ("sizes", "asked", "points"),
    [
        *[([(3900, 3900)], None, 2), ([(3900, 3900)], 256, 2), ([(100, 100)], None, 64), ([(100, 100)], 5, 5)],
        *[([(100, 100), (16_000, 1000)], 64, 2), ([(100_000, 1000)], None, 1)],
    ],
)
def test_the_masks_that_are_made_at_once_are_bounded_by_the_pixels(sizes, asked, points):
    image = pytest.importorskip("PIL.Image", reason="pip install -r tests/runtime/requirements.txt")
    made = [image.new("1", size) for size in sizes]
    assert images.points_at_once(made if len(made) > 1 else made[0], asked) == points


def test_postscript_is_no_image():
    pytest.importorskip("PIL", reason="pip install -r tests/runtime/requirements.txt")
    with pytest.raises(errors.RequestError, match="cannot be decoded"):
        images.ImageDecoder().decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")


@pytest.mark.parametrize(
    "inputs",
    [
        "http://127.0.0.1:1/cat.png",
        ["http://127.0.0.1:1/cat.png"],
        {"text": "a", "videos": "http://127.0.0.1:1/cat.mp4"},
        {"text": "a", "audio": "http://127.0.0.1:1/cat.wav"},
        {"state": "a", "questions": {}, "assets": {"cat": "/etc/hostname"}},
        '{"state": "a", "questions": {}, "assets": {"cat": "/etc/hostname"}}',
    ],
)
@pytest.mark.parametrize("task", ["image-text-to-text", "any-to-any", "decision"])
def test_no_field_beside_the_images_is_fetched(task, inputs):
    expected = decoding.Expected(task=task, kind=tasks.Kind.IMAGE_AND_TEXT)
    with pytest.raises(errors.RequestError) as raised:
        decoding.decode(json.dumps({"inputs": inputs}).encode(), None, expected)
    assert (raised.value.status, raised.value.code) == (400, "bad-inputs")


@pytest.mark.parametrize(
    ("content_type", "start", "repeated"),
    [
        ("application/json", b'{"inputs": [', b"[],"),
        ("application/json", b"[", b'"a",'),
        ("text/csv", b"inputs", b"\na"),
    ],
)
def test_millions_of_values_are_413_before_they_are_objects(content_type, start, repeated):
    expected = decoding.Expected(task="feature-extraction", kind=tasks.Kind.TEXT)
    body = start + repeated * 1_000_001
    tracemalloc.start()
    with pytest.raises(errors.RequestError, match="1,000,000 commas, lines, lists and objects") as raised:
        decoding.decode(body, content_type, expected)
    assert tracemalloc.get_traced_memory()[1] < 2 * len(body)
    tracemalloc.stop()
    assert (raised.value.status, raised.value.code) == (413, "body-too-large")


def test_hours_of_silence_in_a_small_file_stay_small(ffmpeg_folder, monkeypatch):
    program = ffmpeg_folder / "ffmpeg"
    silence = ("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "7200", "-f", "flac", "pipe:1")
    flac = subprocess.run([program, "-loglevel", "error", *silence], capture_output=True, check=True).stdout
    assert len(flac) < 2_000_000  # which decodes to 460 MB of samples
    monkeypatch.setenv("PATH", str(ffmpeg_folder))
    tracemalloc.start()
    with pytest.raises(errors.RequestError, match="longer than 20 s") as raised:
        audio.decode_audio(flac, rate=16_000, max_seconds=20)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert raised.value.status == 413


def test_a_compressed_body_is_415(bloom):
    answer = bloom.request("POST", "/invocations", b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert answer.error[:2] == (415, "unsupported-content-encoding")


# connections, with shorter times than those of `connections.py`


@pytest.fixture
def port(monkeypatch):
    """The port of an application that reads bodies, is slow or answers with megabytes, behind our connections."""
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(connections, "MOST_WAITING", 3)

    async def app(scope, receive, send):
        if scope["path"] == "/answer":
            answering = exchange.Exchange(scope, receive, send)
            try:
                await answering.respond(200, bytes(1 << 24))
            except errors.RequestError as error:
                await answering.respond(error.status, error.message.encode())
            return
        if scope["path"] == "/slow":
            await asyncio.sleep(0.3)
        if scope["path"] == "/read":
            while (message := await receive()).get("more_body"):
                pass
            if message["type"] == "http.disconnect":
                return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        large = bytes(1 << 24) if scope["path"] == "/large" else b""
        await send({"type": "http.response.body", "body": large, "more_body": True})
        await send({"type": "http.response.body", "body": b"%d headers" % len(scope["headers"])})

    config = uvicorn.Config(app, port=0, http=connections.Connection, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(5)
    return connection


def is_closed(connection):
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def answer(connection, path="/"):
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection.recv(12)


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_head_that_drips_in_is_not_waited_for(port, asked_before):
    with connect(port) as connection:
        if asked_before:
            assert answer(connection) == b"HTTP/1.1 200"
            time.sleep(0.05)
            connection.recv(1000)
        connection.settimeout(0.05)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        started = time.monotonic()
        while not is_closed(connection):
            connection.sendall(b"X")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100])
def test_a_head_without_end_is_400(port, start, monkeypatch):
    monkeypatch.setattr(connections, "WAIT_SECONDS", 60)
    with connect(port) as connection:
        connection.sendall(start)
        # the unfinished name of the last header counts as well, because the parser holds it
        connection.sendall(b"x" * connections.MOST_OF_A_HEAD)
        assert connection.recv(12) == b"HTTP/1.1 400"
        while connection.recv(1000):  # until it is closed
            pass


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_to_http_1_0_has_no_chunks_and_ends_with_its_connection(port, version):
    with connect(port) as connection:
        connection.sendall(f"GET / HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    assert (b"transfer-encoding: chunked" in head) == (version == "1.1")
    assert body == (b"2 headers" if version == "1.0" else b"9\r\n2 headers\r\n0\r\n\r\n")


def test_a_large_body_is_no_head(port):
    with connect(port) as connection:
        body = b"x" * 3 * connections.MOST_OF_A_HEAD
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(12) == b"HTTP/1.1 200"


CHUNKED = b"POST /read HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
UNFINISHED = b"POST /read HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"


def read_answers(connection, count):
    """Read until so many responses have arrived; each ends with an empty chunk."""
    received = b""
    while received.count(b"\r\n0\r\n\r\n") < count:
        chunk = connection.recv(4096)
        assert chunk, received
        received += chunk
    return received


@pytest.mark.parametrize(
    ("start", "repeated"),
    [
        (b"1\r\nx\r\n0\r\n", b"X: y\r\n"),
        (b"1\r\nx\r\n0\r\nX: ", b"y"),
        (b"0\r\n", b"X"),
        (b"1;", b"x"),
        (b'1;x="', b"x"),
        (b"", b"0"),
        (b"", b"1;" + b"x" * 100 + b"\r\nx\r\n"),
        (b"", b"0" * 100 + b"1\r\nx\r\n"),
        (b"0\r\n\r\n", b"\r\n"),  # empty lines before the next request
    ],
)
def test_what_stands_beside_the_data_of_chunks_is_bounded_as_a_head_is(port, start, repeated, monkeypatch):
    monkeypatch.setattr(connections, "WAIT_SECONDS", 60)
    with connect(port) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(CHUNKED + start)
        time.sleep(0.05)
        connection.sendall(repeated * (2 * connections.MOST_OF_A_HEAD // len(repeated)))
        received = b""
        while chunk := connection.recv(4096):  # until it is closed
            received += chunk
        assert b"HTTP/1.1 400" in received


@pytest.mark.parametrize("start", [b"GET /read HTTP/1.1\r\n", CHUNKED + b"0\r\n"])
def test_headers_and_trailers_that_come_whole_are_bounded_too(port, start):
    with connect(port) as connection:
        connection.sendall(start + b"X: y\r\n" * (connections.MOST_OF_A_HEAD // 2) + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 400"


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"00000001\r\nx\r\n", b"a;x=y\r\n0123456789\r\n"])
def test_a_body_in_tiny_chunks_is_read_and_so_is_the_request_behind_it(port, chunk):
    with connect(port) as connection:
        connection.sendall(CHUNKED + chunk * 50_000 + b"0\r\n\r\n" + CHUNKED + b"0\r\nX: y\r\n\r\n")
        assert read_answers(connection, 2).count(b"HTTP/1.1 200") == 2


def test_trailers_are_no_headers(port):
    with connect(port) as connection:
        connection.sendall(CHUNKED + b"0\r\nX-Amzn-SageMaker-Custom-Attributes: top_k=1\r\n\r\n")
        assert b"1 headers" in read_answers(connection, 1)


def test_a_connection_that_says_nothing_is_closed(port):
    with connect(port) as connection:
        assert is_closed(connection)


def test_an_answer_that_nobody_reads_is_given_up(port):
    with connect(port) as connection:
        answer(connection, "/large")
        time.sleep(1.5)
        received = 0
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(1 << 20):
                received += len(chunk)
        assert received < 1 << 24


def test_answers_that_nobody_reads_have_one_room(port, monkeypatch):
    room = memory.Room(40_000_000, "answers")
    monkeypatch.setattr(exchange, "unread_answers", lambda: room)
    with contextlib.ExitStack() as stack:
        unread = [stack.enter_context(connect(port)) for _ in range(2)]
        assert [answer(connection, "/answer") for connection in unread] == [b"HTTP/1.1 200"] * 2
        assert room.left == 40_000_000 - 2 * (1 << 24)
        with connect(port) as refused:
            assert answer(refused, "/answer") == b"HTTP/1.1 429"
            assert b"the answers of other requests fill the" in refused.recv(1 << 16)
        received = 0
        while received < 1 << 24:  # a client that reads frees the space of its response
            received += len(unread[0].recv(1 << 20))
        assert answer(unread[0], "/answer") == b"HTTP/1.1 200"
    deadline = time.monotonic() + 5
    while room.left < room.size and time.monotonic() < deadline:
        time.sleep(0.01)
    assert room.left == room.size  # as does one that disconnects


@pytest.mark.parametrize("sent", [b"", b"GET / HT", UNFINISHED, CHUNKED + b"5\r\nx", CHUNKED + b"0\r\nX: "])
def test_the_connection_that_waits_longest_makes_room(port, sent, monkeypatch):
    monkeypatch.setattr(connections, "WAIT_SECONDS", 60)
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(4):
            held.append(stack.enter_context(connect(port)))
            held[-1].sendall(sent)
            time.sleep(0.02)
        with connect(port) as connection:
            assert answer(connection) == b"HTTP/1.1 200"
        assert [is_closed(each) for each in held[:2]] == [True, True]
        held[3].settimeout(0.2)
        assert not is_closed(held[3])


def test_a_body_that_moves_keeps_its_connection(port):
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(connect(port))
        sender.sendall(UNFINISHED)
        for _ in range(9):
            stack.enter_context(connect(port)).sendall(UNFINISHED)
            time.sleep(0.02)
            sender.sendall(b"x")
            time.sleep(0.02)
        assert sender.recv(12) == b"HTTP/1.1 200"


def test_who_is_being_answered_keeps_its_connection_whatever_follows(port):
    with contextlib.ExitStack() as stack:
        asker = stack.enter_context(connect(port))
        asker.sendall(b"GET /slow HTTP/1.1\r\n\r\n" + UNFINISHED)
        time.sleep(0.05)
        for _ in range(5):
            stack.enter_context(connect(port))
        assert b"0 headers" in read_answers(asker, 1)


# the whole server


@pytest.mark.parametrize(
    ("request_line", "headers", "has_body", "stays_open"),
    [
        ("GET /ping HTTP/1.1", "", True, True),
        ("HEAD /ping HTTP/1.1", "", False, True),
        ("HEAD /nothing HTTP/1.1", "", False, True),
        ("GET /ping HTTP/1.1", "Connection: close\r\n", True, False),
        ("GET /ping HTTP/1.0", "", True, False),
        ("GET /nothing HTTP/1.0", "", True, False),
    ],
)
def test_a_response_has_the_body_and_the_end_that_http_gives_it(bloom, request_line, headers, has_body, stays_open):
    with connect(bloom.port) as connection:
        connection.sendall(f"{request_line}\r\nHost: x\r\n{headers}\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        assert length > 0
        assert len(body) == (length if has_body else 0)
        assert (b"connection: close" in head) == (not stays_open)
        connection.settimeout(1)
        assert is_closed(connection) == (not stays_open)


@pytest.mark.parametrize(
    ("request_line", "length", "refusal", "stays_open"),
    [
        ("POST /invocations HTTP/1.1", 10**9, b"HTTP/1.1 413", False),
        ("POST /nothing HTTP/1.1", 10, b"HTTP/1.1 404", False),
        ("POST /nothing HTTP/1.1", 0, b"HTTP/1.1 404", True),
        ("POST /nothing HTTP/1.0", 10, b"HTTP/1.1 404", False),
    ],
)
def test_who_waits_to_send_a_body_is_refused_and_nothing_else_is_taken_for_it(
    bloom, request_line, length, refusal, stays_open
):
    with connect(bloom.port) as connection:
        head = f"{request_line}\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(refusal)
        connection.settimeout(1)
        assert is_closed(connection) == (not stays_open)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/" + "x" * 60_000, {}),
        ("/invocations", {"Accept": "x" * 60_000}),
        ("/invocations", {"X-Amzn-SageMaker-Custom-Attributes": "max_new_tokens=" + "x y" * 20_000}),
        ("/invocations", {"X-Amzn-SageMaker-Custom-Attributes": "temperature=" + "x" * 60_000}),
    ],
)
def test_an_error_repeats_little_of_what_it_is_about(bloom, path, headers):
    answer = bloom.request("POST", path, b'{"inputs": "a"}', headers)
    assert 400 <= answer.status < 500
    assert len(answer.error[2]) < 500


def test_a_thousand_unfinished_bodies_leave_files_for_ping(bloom):
    needed, (_, hard) = 1500, resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        pytest.skip(f"needs {needed} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(needed, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))
    resource.prlimit(bloom.process.pid, resource.RLIMIT_NOFILE, (1024, hard))
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(connect(bloom.port)).sendall(head)
        started = time.monotonic()
        assert [bloom.ping() for _ in range(10)] == [200] * 10
        assert time.monotonic() - started < 5


def test_who_leaves_in_the_middle_harms_nobody(bloom):
    """Clients disconnect in a head, in a body, pipelined, half-closed, and after bytes that are no HTTP."""
    body = b'{"inputs": "a", "parameters": {"max_new_tokens": 2}}'
    whole = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for sent in (whole[:30], whole[:-5], whole * 3, whole + whole[:30], b"\x16\x03\x01" + bytes(200)):
        for shut in (False, True):
            with connect(bloom.port) as connection:
                connection.sendall(sent)
                if shut:
                    connection.shutdown(socket.SHUT_WR)
    with connect(bloom.port) as connection:  # two requests at once get two answers
        connection.sendall(whole * 2)
        received = b""
        while received.count(b"generated_text") < 2:
            chunk = connection.recv(4096)
            assert chunk
            received += chunk
    assert bloom.ping() == 200
    assert bloom.ask(body).status == 200


def log_after_leaving(server, before):
    """The log since `before`, a moment after it says that a client has disconnected."""
    server.tells('"client-gone"', since=before)
    time.sleep(0.2)
    return server.log[before:]


def test_who_leaves_with_several_requests_on_one_connection_frees_the_model(bloom):
    """A connection is not read while requests wait on it, so nothing else shows that the client has disconnected."""
    body = b'{"inputs": "a", "parameters": {"max_new_tokens": 2000, "min_new_tokens": 2000}}'
    whole = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    before = len(bloom.log)
    with connect(bloom.port) as connection:
        connection.sendall(whole * 3)
        time.sleep(0.3)
    started = time.monotonic()
    assert bloom.ask(b'{"inputs": "a", "parameters": {"max_new_tokens": 1}}').status == 200
    assert time.monotonic() - started < 5
    logged = log_after_leaving(bloom, before)
    assert logged.count('"client-gone"') == 1  # the two requests behind it were never started
    assert "ERROR" not in logged


def test_a_client_that_is_reset_after_its_first_of_several_answers_leaves_no_error(bloom):
    short = b'{"inputs": "a", "parameters": {"max_new_tokens": 1}}'
    long = b'{"inputs": "a", "parameters": {"max_new_tokens": 2000, "min_new_tokens": 2000}}'
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
    before = len(bloom.log)
    connection = connect(bloom.port)
    connection.sendall(b"".join(head % (len(body), body) for body in (short, long, long)))
    assert connection.recv(12) == b"HTTP/1.1 200"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    started = time.monotonic()
    assert bloom.ask(short).status == 200
    assert time.monotonic() - started < 5
    assert "ERROR" not in log_after_leaving(bloom, before)
