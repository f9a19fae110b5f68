"""Malicious connections: invalid requests take no memory, no connections and no time from valid ones."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.attack.conftest import Attacked

POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: bbbbbbbbbbbbbbbbbbbb\r\n"),
    "a trailer without end": (CHUNKED + b"1\r\nx\r\n0\r\na: ", b"bbbbbbb"),
    "an extension without end": (CHUNKED + b"1;", b"bbbbbbb"),
    "extensions": (CHUNKED, b"1;" + b"a" * 400 + b"\r\nx\r\n"),
    "zeros before a size": (CHUNKED, b"0" * 1000 + b"1\r\nx\r\n"),
    "headers": (POST, b"a: bbbbbbbbbbbbbbbbbbbb\r\n"),
    "a header without end": (POST + b"a: ", b"bbbbbbb"),
    "a path without end": (b"GET /", b"bbbbbbb"),
    "line breaks": (b"", b"\r\n"),
}
UNFINISHED = {
    "bodies": POST + b"Content-Length: 10\r\n\r\n{",
    "chunks": CHUNKED + b"1\r\n{\r\n",
    "expectations": POST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    "pings with bodies": b"GET /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
    "heads": b"GET / HT",
    "nothing": b"",
}
CONFUSED = {
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    "a length and chunks": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /ping HTTP/1.1\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a bad chunk": CHUNKED + b"zz\r\nx\r\n",
    "an odd encoding": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a folded header": POST + b"a: b\r\n c: d\r\nContent-Length: 0\r\n\r\n",
    "a zero byte": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "an upgrade": b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a proxied path": b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.fixture
def server(serve) -> Attacked:
    return serve("fill-mask")


def connect(server: Attacked) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server.port), timeout=5)


@pytest.fixture
def held(server) -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.long
@pytest.mark.parametrize("flood", FLOODS)
def test_what_stands_beside_a_body_is_bounded(server, flood):
    start, piece = FLOODS[flood]
    before, sent = server.resident, 0
    block = piece * (65_536 // len(piece))
    with connect(server) as connection, contextlib.suppress(OSError):
        connection.sendall(start)
        while sent < 30_000_000:
            connection.sendall(block)
            sent += len(block)
    assert sent < 30_000_000 or flood in ("line breaks", "extensions")
    assert server.resident < before + 30
    server.check()


@pytest.mark.long
@pytest.mark.parametrize("unfinished", UNFINISHED)
def test_connections_that_never_finish_keep_nobody_out(server, held, unfinished):
    for _ in range(1100):
        with contextlib.suppress(OSError):
            held.enter_context(connect(server)).sendall(UNFINISHED[unfinished])
    started = time.monotonic()
    assert server.server.ping(timeout=2) == 200
    server.check()
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("confused", CONFUSED)
def test_what_is_no_clear_request_is_refused_and_closed(server, confused):
    with connect(server) as connection:
        connection.sendall(CONFUSED[confused])
        connection.shutdown(socket.SHUT_WR)
        answers = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65_536):
                answers += piece
    assert answers.count(b"HTTP/1.1 200") <= (confused == "an upgrade")
    assert b"HTTP/1.1 5" not in answers
    server.check()


def test_answers_that_nobody_reads_take_no_place(server, held):
    body = json.dumps(server.target.control).encode()
    request = POST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    before = server.resident
    for _ in range(20):
        held.enter_context(connect(server)).sendall(request * 50)
    server.check()
    assert server.resident < before + 100
