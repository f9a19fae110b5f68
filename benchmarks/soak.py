"""Hours in minutes: our server under mixed load, every answer compared, and memory that must not grow.

    python benchmarks/soak.py --minutes 30       the figure of benchmarks/README.md; CI runs 3 minutes

Three servers with tiny models (text generation, classification, speech) get requests from two clients each, one in
twenty of them bad on purpose. Exit code 1 where an answer is not the direct call's, where a bad request gets another
status than its own, where anything answers 5xx, or where memory grows.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import itertools
import json
import math
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from candidates import NEWEST, Direct, Ours
from models import model, precision, sound, sound_file, texts
from serving_table import write_between

FIGURES = Path(__file__).parent / "soak.json"
CLIENTS = 2
PAUSE_SECONDS = 0.05
"""A client's pause, on average: the servers are busy and idle in turn."""
BAD = 0.05
NOISE_BYTES = 1_500_000
"""Growth over the whole time that does not count: a single step of the allocator is as large, at any time."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request, and the response that it must have."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    answer: Any = None


@dataclass(kw_only=True)
class Soaked:
    """A server, the requests that it gets, and the results."""

    name: str
    server: Ours
    good: list[Question]
    bad: list[Question]
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    def ask_until(self, deadline: float, seed: int) -> None:
        """Send requests as one client until the deadline."""
        chance = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        while time.monotonic() < deadline:
            question = chance.choice(self.bad if chance.random() < BAD else self.good)
            try:
                connection.request("POST", "/invocations", question.body, {"Content-Type": question.content_type})
                response = connection.getresponse()
                body = response.read()
            except OSError as error:
                self.wrong.append(f"no answer: {error!r}")
                connection.close()
                continue
            self.statuses[response.status] += 1
            got = json.loads(body)
            if response.status != question.status or (question.status == 200 and not same(got, question.answer)):
                self.wrong.append(f"{question.body[:80]!r}: {response.status} {body[:300]!r}")
            time.sleep(chance.expovariate(1 / PAUSE_SECONDS))
        connection.close()


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal but for the last digits: a batch adds numbers up in another order."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-4)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Memory's slope, in bytes a second, with its 95 % interval."""

    slope: float
    least: float
    most: float
    seconds: float

    @property
    def grows(self) -> bool:
        """Whether it surely grows, and by more than an allocator's step."""
        return self.least > NOISE_BYTES / self.seconds


def trend(samples: Sequence[tuple[float, int]], blocks: int = 24) -> Trend:
    """A line through the means of equal stretches of time.

    Neighbouring samples are not independent, which would make the interval too narrow: means of stretches are much less
    dependent, and what dependence is left (their residuals' correlation with the one before) widens the interval.
    """
    first, last = samples[0][0], samples[-1][0]
    width = (last - first) / blocks
    points = []
    for number in range(blocks):
        inside = [bytes_ for at, bytes_ in samples if number <= (at - first) / width < number + 1]
        if inside:
            points.append((first + (number + 0.5) * width, statistics.fmean(inside)))
    times, values = zip(*points, strict=True)
    slope, offset = statistics.linear_regression(times, values)
    residuals = [value - offset - slope * at for at, value in points]
    spread = sum(residual**2 for residual in residuals)
    correlation = sum(a * b for a, b in itertools.pairwise(residuals)) / spread if spread else 0.0
    correlation = min(0.9, max(0.0, correlation))
    free = max(1.0, len(points) * (1 - correlation) / (1 + correlation) - 2)
    middle = statistics.fmean(times)
    error = math.sqrt(spread / free / sum((at - middle) ** 2 for at in times))
    half = _student(free) * error
    return Trend(slope=slope, least=slope - half, most=slope + half, seconds=last - first)


def _student(free: float) -> float:
    """Student's 97.5 % quantile, to three digits from 3 degrees of freedom on (Cornish and Fisher's expansion)."""
    normal = statistics.NormalDist().inv_cdf(0.975)
    first = (normal**3 + normal) / 4
    second = (5 * normal**5 + 16 * normal**3 + 3 * normal) / 96
    third = (3 * normal**7 + 19 * normal**5 + 17 * normal**3 - 15 * normal) / 384
    return normal + first / free + second / free**2 + third / free**3


def generation() -> tuple[str, str, list[tuple[Any, dict[str, Any]]], list[Question]]:
    """A server of text generation: prompts of all lengths, and bad requests of all kinds."""
    asked = [
        (text, {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False})
        for tokens, count in ((8, 32), (32, 16), (128, 4))
        for text in texts(tokens)
    ]
    bad = [
        Question(body=b'{"inputs": "hel', status=400),
        Question(body=b"", status=400),
        Question(body=b'{"no": "inputs"}', status=400),
        Question(body=b'{"inputs": "hello", "parameters": {"max_new_toks": 1}}', status=400),
        Question(body=b'{"inputs": "hello", "parameters": {"temperature": "warm", "do_sample": true}}', status=400),
        Question(body=b"hello", content_type="application/x-nothing", status=415),
    ]
    return "bloom-tiny", "text-generation", asked, bad


def classification() -> tuple[str, str, list[tuple[Any, dict[str, Any]]], list[Question]]:
    """A server of classification: texts of all lengths, and texts that are too long."""
    asked: list[tuple[Any, dict[str, Any]]] = [(text, {}) for tokens in (8, 32, 128) for text in texts(tokens)]
    bad = [
        Question(body=json.dumps({"inputs": " ".join(["the"] * 600)}).encode(), status=400),
        Question(body=b'{"inputs": 7}', status=400),
        Question(body=b"\xff\xfe", content_type="text/plain", status=400),
        Question(body=b"{}", status=400),
    ]
    return "bert-tiny", "text-classification", asked, bad


def speech() -> tuple[str, str, list[tuple[Any, dict[str, Any]]], list[Question]]:
    """A server of speech: sounds of several lengths, and bodies that are no sound."""
    asked: list[tuple[Any, dict[str, Any]]] = [(str(sound_file(seconds)), {}) for seconds in (1, 2, 3, 10)]
    bad = [
        Question(body=b"RIFF no sound", content_type="audio/wav", status=400),
        Question(body=b"", content_type="audio/flac", status=400),
        Question(body=sound(1)[:40], content_type="audio/wav", status=400),
        Question(body=b'{"inputs": "https://example.com/a.wav"}', status=400),
    ]
    return "whisper-tiny", "automatic-speech-recognition", asked, bad


def _question(task: str, asked: Any, parameters: dict[str, Any], answer: Any) -> Question:
    if task == "automatic-speech-recognition":
        return Question(body=Path(asked).read_bytes(), content_type="audio/wav", answer=answer)
    # our server answers a text in the same shape alone and in a batch
    return Question(body=json.dumps({"inputs": asked, "parameters": parameters}).encode(), answer=answer)


def soak(minutes: float) -> list[Soaked]:
    """Run the soak; prints a line each minute."""
    with contextlib.ExitStack() as stack:
        soaked = []
        for name, task, asked, bad in (generation(), classification(), speech()):
            with Direct(model(name), task, NEWEST, *asked[0], precision(name)) as direct:
                direct.read()
                answers = [direct.order(answers=True, inputs=[one], parameters=with_) for one, with_ in asked]
            good = [_question(task, *pair, answer[0]) for pair, answer in zip(asked, answers, strict=True)]
            server = stack.enter_context(Ours(model(name), task, OMP_NUM_THREADS="1"))
            soaked.append(Soaked(name=name, server=server, good=good, bad=bad))
        for one in soaked:
            one.server.wait_for_answer(one.good[0].body, one.good[0].content_type)
        began = time.monotonic()
        deadline = began + 60 * minutes
        clients = [
            threading.Thread(target=one.ask_until, args=(deadline, seed), daemon=True)
            for one in soaked
            for seed in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        minute = 0
        while time.monotonic() < deadline:
            time.sleep(1)
            at = time.monotonic() - began
            for one in soaked:
                one.memory.append((at, one.server.own_memory))
            if at // 60 > minute:
                minute = int(at // 60)
                now = "; ".join(f"{one.name} {one.memory[-1][1] / 1e6:.1f} MB {dict(one.statuses)}" for one in soaked)
                print(f"minute {minute} of {minutes:g}: {now}", flush=True)
        for client in clients:
            client.join(120)
    return soaked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves no server behind
    if options.minutes < 2:
        sys.exit(f"--minutes ({options.minutes:g}) must be 2 or more: the first tells nothing, memory still fills up")
    os.nice(10)  # a low priority: other programs of the machine go first
    settled = 300 if options.minutes >= 15 else 60
    failures, rows = [], []
    for one in soak(options.minutes):
        found = trend([sample for sample in one.memory if sample[0] >= settled])
        rows.append(
            {
                "server": one.name,
                "requests": sum(one.statuses.values()),
                "bad": sum(count for status, count in one.statuses.items() if status >= 400),
                "server_errors": sum(count for status, count in one.statuses.items() if status >= 500),
                "wrong": len(one.wrong),
                "megabytes": round(one.memory[-1][1] / 1e6, 1),
                "slope_kb_s": round(found.slope / 1e3, 3),
                "interval_kb_s": [round(found.least / 1e3, 3), round(found.most / 1e3, 3)],
            }
        )
        failures += [f"{one.name}: {wrong}" for wrong in one.wrong[:5]]
        if found.grows:
            failures.append(
                f"{one.name}: memory grows by {found.slope / 1e3:.1f} kB/s, at least {found.least / 1e3:.1f}"
            )
    table = _table(rows)
    print("\n".join(table))
    if options.minutes >= 30:
        figures = {"minutes": options.minutes, "date": datetime.date.today().isoformat(), "servers": rows}
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        write_between("soak", table)
    sys.exit("\n".join(failures) if failures else 0)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| | requests | bad on purpose | wrong answers | 5xx | memory | slope (95 % interval) |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        slope = "{:+.2f} kB/s ({:+.2f} to {:+.2f})".format(row["slope_kb_s"], *row["interval_kb_s"])
        cells = (row["server"], f"{row['requests']:,}", row["bad"], row["wrong"], row["server_errors"])
        lines.append(f"| {' | '.join(map(str, cells))} | {row['megabytes']} MB | {slope} |")
    return lines


if __name__ == "__main__":
    main()
