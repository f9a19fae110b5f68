"""The load: clients that each send a request, wait for its answer and send the next, over connections they keep.

A process of its own, the same for every candidate, with no library between it and the socket: what it costs must not
hide what it measures. It reads one order (pickled) from standard input and writes its figures to standard output.
"""

from __future__ import annotations

import json
import pickle
import re
import resource
import selectors
import socket
import sys
import time
from typing import Any

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client:
    """One connection, with the request that is in flight on it."""

    def __init__(self, port: int, requests: list[bytes], first: int) -> None:
        """Connect; the first request is `requests[first]`."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests, self._next = requests, first
        self.sent = 0.0
        self._left = 0

    def send(self) -> None:
        """Send the next request as a whole: the server reads while this writes."""
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def receive(self, buffer: bytearray) -> bool:
        """Read the bytes that have arrived into the buffer; whether the response is complete."""
        received = self.socket.recv_into(buffer)
        if not received:
            raise SystemExit("the server closed a connection in the middle")
        if self._left:
            self._left -= received
        else:
            end = buffer.find(b"\r\n\r\n", 0, received)
            length = LENGTH.search(buffer, 0, end)
            # neither our server nor the stock one sends a head in pieces
            if end < 0 or length is None or not buffer.startswith(b" 200", 8):
                raise SystemExit(f"not an answer: {bytes(buffer[:500])!r}")
            self._left = end + 4 + int(length[1]) - received
        return self._left == 0


def run(port: int, requests: list[bytes], clients: int, *, seconds: float, least: int, warm: int) -> dict[str, Any]:
    """Load the server until `seconds` have passed and `least` answers came; a whole number of rounds of the clients.

    The first `warm` answers (one at least) do not count. The rate is taken between answers, while all clients are still
    at work, so that neither the start nor the end dilutes it; answers that come in bunches count in whole bunches.
    """
    selector, buffer = selectors.DefaultSelector(), bytearray(1 << 20)
    for number in range(clients):
        client = Client(port, requests, number)
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.send()
    latencies: list[float] = []
    ended: list[float] = []
    began = time.perf_counter()
    while True:
        for key, _ in selector.select():
            client = key.data
            if not client.receive(buffer):
                continue
            now = time.perf_counter()
            ended.append(now)
            latencies.append(now - client.sent)
            counted = len(ended) - warm
            if counted >= least and counted % clients == 0 and now - ended[warm - 1] >= seconds:
                usage = resource.getrusage(resource.RUSAGE_SELF)
                return {
                    "rate": counted / (now - ended[warm - 1]),
                    "latencies": latencies[warm:],
                    "cpu_share": (usage.ru_utime + usage.ru_stime) / (now - began),
                }
            client.send()


def http_request(body: bytes, content_type: str) -> bytes:
    """The bytes of a request on the wire."""
    head = (
        "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def json_request(body: Any) -> bytes:
    """The same for a body of JSON."""
    return http_request(json.dumps(body).encode(), "application/json")


if __name__ == "__main__":
    json.dump(run(**pickle.load(sys.stdin.buffer)), sys.stdout)
