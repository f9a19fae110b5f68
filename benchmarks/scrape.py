"""What being scraped costs: one server under load, asked for `/metrics` each second by the clock, and not.

    python benchmarks/scrape.py [--rounds 12] [--seconds 5]

In each round the same server has three turns, in another order each time: without a scrape, with one, and without one
once more, which says what two runs of the same differ by. Figures are answers a second and the server's CPU time for an
answer, which a busy machine does not lengthen as much; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from candidates import Ours
from load import json_request
from models import model, texts

CLIENTS = 16
TURNS = ("without", "with", "without again")


@contextmanager
def scraped(port: int, each: float = 1.0) -> Iterator[list[float]]:
    """Request the metrics each second by the clock, however long a response takes; yields the time of each."""
    over, took = threading.Event(), list[float]()

    def scrape() -> None:
        following = time.monotonic()
        while not over.wait(max(0.0, following - time.monotonic())):
            following += each
            began = time.perf_counter()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                answer.read()
            took.append(time.perf_counter() - began)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    requests = [json_request({"inputs": text}) for text in texts(8)]
    rates, costs, took = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list), list[float]()
    with Ours(model("bert-tiny"), "text-classification") as server:
        server.wait_until_healthy()
        server.load(requests, CLIENTS, seconds=2, least=CLIENTS, warm=CLIENTS)
        for number in range(options.rounds):
            for turn in TURNS[number % 3 :] + TURNS[: number % 3]:
                before = server.cpu_seconds
                if turn == "with":
                    with scraped(server.port) as times:
                        figures = server.load(requests, CLIENTS, seconds=options.seconds, least=CLIENTS, warm=CLIENTS)
                    took += times
                else:
                    figures = server.load(requests, CLIENTS, seconds=options.seconds, least=CLIENTS, warm=CLIENTS)
                rates[turn].append(figures["rate"])
                costs[turn].append((server.cpu_seconds - before) / len(figures["latencies"]))
                print(f"round {number + 1}, {turn}: {figures['rate']:.0f} answers a second", flush=True)
    for name, values in (("answers a second", rates), ("CPU time for an answer", costs)):
        for turn in TURNS[1:]:
            ratios = sorted(one / base for one, base in zip(values[turn], values["without"], strict=True))
            quarter = len(ratios) // 4
            print(
                f"{name}, {turn} / without: {statistics.median(ratios):.3f} "
                f"(half of the rounds: {ratios[quarter]:.3f} to {ratios[-quarter - 1]:.3f})"
            )
    print(f"a scrape under load took {statistics.median(took) * 1000:.1f} ms; {len(took)} of them")


if __name__ == "__main__":
    main()
