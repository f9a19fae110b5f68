"""The load: clients that each send a request, wait for its answer and send the next, over connections they keep.

A process of its own, the same for every candidate, with no library between it and the socket: what it costs must not
hide what it measures. It reads one order (pickled) from standard input and writes its figures to standard output.
"""

from __future__ import annotations

import json
import pickle
import resource
import selectors
import socket
import sys
import time
from typing import Any


class Client:
    """One connection, and the request that is under way on it."""

    def __init__(self, port: int, requests: list[bytes], first: int) -> None:
        """Its first request is `requests[first]`."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests, self._next = requests, first
        self.sent = 0.0
        self._answer = bytearray()
        self._wanted: int | None = None

    def send(self) -> None:
        """The next request, all of it: the other side reads while we write."""
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._answer.clear()
        self._wanted = None
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Read what is there; whether the answer is complete."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise SystemExit("the server closed a connection in the middle")
        self._answer += data
        if self._wanted is None:
            head, blank, _ = bytes(self._answer[:8192]).partition(b"\r\n\r\n")
            if not blank:
                return False
            lines = head.lower().split(b"\r\n")
            if b" 200 " not in lines[0] + b" ":
                raise SystemExit(f"not an answer: {bytes(self._answer[:500])!r}")
            lengths = [line.partition(b":")[2] for line in lines if line.startswith(b"content-length:")]
            self._wanted = len(head) + len(blank) + int(lengths[0])
        return len(self._answer) >= self._wanted


def run(port: int, requests: list[bytes], clients: int, *, seconds: float, least: int, warm: int) -> dict[str, Any]:
    """Load the server until `seconds` have passed and `least` answers came; a whole number of rounds of the clients.

    The first `warm` answers (one at least) do not count. The rate is taken between answers, while all clients are still
    at work, so that neither the start nor the end dilutes it; answers that come in bunches count in whole bunches.
    """
    selector = selectors.DefaultSelector()
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
            if not client.receive():
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
    """A request as it goes over the wire."""
    head = (
        "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    json.dump(run(**pickle.load(sys.stdin.buffer)), sys.stdout)
