"""How fast our server is, beside the stock server and beside a bare process with `pipeline()`, which is the limit.

    python benchmarks/serving.py                       every stage that benchmarks/serving.json does not have yet
    python benchmarks/serving.py --minutes 8           only what fits into 8 minutes; exit code 3 while stages are left
    python benchmarks/serving.py --only latency --quick    one stage, small: printed, kept nowhere

Same model, same inputs, same run: in each round every candidate has its turn, in another order, with a calibration loop
between the turns; a round in which the loop moves by more than 15 % is void and runs again. Figures are medians of the
rounds, and ratios are taken within a round. The table in README.md is made from serving.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from candidates import NEWEST, STOCK_RELEASE, Direct, Ours, Stock
from load import http_request
from models import GENERATE, model, precision, sound, sound_file, texts
from serving_table import print_table, write_table

FIGURES = Path(__file__).parent / "serving.json"
CLIENTS = 16
STEADY = 1.15
"""Most by which the calibration loop may move within a round."""

WORKERS_AND_THREADS = ((1, 2), (2, 1), (2, 2), (3, 1), (4, 1))
"""What the stock server's best tuning is looked for in, its default on two cores included, which is (2, 1)."""

Turn = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The effort of a run."""

    rounds: int = 5
    hurry: bool = False
    """Whether each turn is as short as possible."""
    requests: int = 2000
    """Number of requests of one client for its latency, over all rounds."""

    def seconds(self, wanted: float) -> float:
        """Seconds of one turn."""
        return 0.5 if self.hurry else wanted


QUICK = Effort(rounds=2, hurry=True, requests=100)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Texts for one model, which `CLIENTS` clients send."""

    model: str
    task: str
    tokens: int
    seconds: float = 1.5
    """Minimum of one turn; a turn is at least one batch."""
    minutes: float = 1.5
    """About how long `throughput` takes."""
    dtype: str = ""
    """The precision that our server is configured with; empty for its own choice."""

    @property
    def name(self) -> str:
        return " ".join(filter(None, [self.name_without_dtype, self.dtype]))

    @property
    def name_without_dtype(self) -> str:
        """The name without a precision, which the other candidates cannot be configured with."""
        return f"{self.model} {self.task} {self.tokens}"

    @property
    def precision(self) -> str:
        """The precision of our server and of the direct call, its limit; the stock server only has float32."""
        return self.dtype or precision(self.model)

    @property
    def parameters(self) -> dict[str, Any]:
        return GENERATE if self.task == "text-generation" else {}

    @property
    def bodies(self) -> list[bytes]:
        return [json.dumps({"inputs": text, "parameters": self.parameters}).encode() for text in texts(self.tokens)]

    @property
    def requests(self) -> list[bytes]:
        return [http_request(body, "application/json") for body in self.bodies]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One measurement, which makes rows of the table."""

    name: str
    minutes: float
    """About how long it takes on two cores."""
    run: Callable[[Bench], Any]
    release: str = STOCK_RELEASE


@dataclass(kw_only=True)
class Bench:
    """A run: its effort, the figures that exist already, and the report of its progress."""

    effort: Effort
    release: str = STOCK_RELEASE
    figures: dict[str, Any] = field(default_factory=lambda: {"stages": {}})
    say: Callable[[str], None] = print

    @property
    def with_stock(self) -> bool:
        return self.release == STOCK_RELEASE

    def rounds(self, turns: Mapping[str, Turn], count: int | None = None) -> dict[str, Any]:
        """Measure the candidates in turns: name -> figure -> a value per round; and the number of void rounds."""
        wanted = count or self.effort.rounds
        values: dict[str, dict[str, list[float]]] = {name: {} for name in turns}
        void = kept = 0
        names = list(turns)
        while kept < wanted:
            results, loops = {}, [calibrate()]
            for name in names:
                self.say(f"round {kept + 1} of {wanted}: {name}")
                results[name] = turns[name]()
                loops.append(calibrate())
            names = [*names[1:], names[0]]
            if max(loops) > STEADY * min(loops) and void < wanted:
                void += 1
                self.say(f"round void: the calibration loop took {min(loops):.3f} to {max(loops):.3f} s")
                continue
            kept += 1
            for name, result in results.items():
                for figure, value in result.items():
                    values[name].setdefault(figure, []).append(value)
        return {"values": values, "void": void, "unsteady": void >= wanted}


def calibrate() -> float:
    """Seconds of a fixed piece of work on two cores, the best of three: other work on the machine shows in it."""
    block = bytes(4_000_000)

    def work() -> None:
        for _ in range(32):
            hashlib.sha256(block).digest()  # without the GIL

    def once() -> float:
        began = time.perf_counter()
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began

    return min(once() for _ in range(3))


def start(bench: Bench) -> list[dict[str, Any]]:
    """From the start of a process to its first answer."""
    folder, task = model("bloom-tiny"), "text-generation"
    text = texts(8)[0]
    body = json.dumps({"inputs": text, "parameters": GENERATE}).encode()

    def bare() -> dict[str, float]:
        began = time.perf_counter()
        with Direct(folder, task, bench.release, text, GENERATE, precision("bloom-tiny")) as process:
            process.read()
            return {"seconds": time.perf_counter() - began}

    def server(make: Callable[[], Any]) -> Turn:
        def turn() -> dict[str, float]:
            began = time.perf_counter()
            with make() as process:
                process.wait_for_answer(body)
                return {"seconds": time.perf_counter() - began}

        return turn

    turns: dict[str, Turn] = {"ours": server(lambda: Ours(folder, task, bench.release)), "direct": bare}
    if bench.with_stock:
        turns["stock"] = server(lambda: Stock(folder, task))
    for turn in turns.values():
        turn()  # fill the page cache
    return [_row("start to first answer, bloom-tiny", "s", "seconds", bench.rounds(turns))]


def latency(of: Text) -> Callable[[Bench], list[dict[str, Any]]]:
    """The latency of one client above that of the call itself."""

    def run(bench: Bench) -> list[dict[str, Any]]:
        each = -(-bench.effort.requests // bench.effort.rounds)
        seen: dict[str, list[float]] = {}
        with _running(bench, of) as running:

            def turn(who: str) -> dict[str, float]:
                made = _load(running[who], of, seconds=0, least=each, at_once=1)
                waits = [1000 * seconds for seconds in made["latencies"]]
                seen.setdefault(who, []).extend(waits)
                return {"p50": _quantile(waits, 0.5), "p99": _quantile(waits, 0.99)}

            result = bench.rounds({who: functools.partial(turn, who) for who in running})
        rows = []
        for figure, at in (("p50", 0.5), ("p99", 0.99)):
            row = _row(f"one client, {of.model}, {of.task}, {of.tokens} tokens: {figure}", "ms", figure, result)
            row["all"] = {who: round(_quantile(values, at), 5) for who, values in seen.items()}
            row["requests"] = {who: len(values) for who, values in seen.items()}
            rows.append(row)
        return rows

    return run


def memory(name: str) -> Callable[[Bench], list[dict[str, Any]]]:
    """The memory of a candidate that runs alone and has answered many requests at once."""

    def run(bench: Bench) -> list[dict[str, Any]]:
        of = Text(model=name, task="text-generation", tokens=32)

        def turn(make: Callable[[], Any]) -> Turn:
            def measure() -> dict[str, float]:
                others = _others_with_torch()
                if others:
                    bench.say(f"{others} other processes share torch's pages: these figures are too low")
                with make() as process:
                    _first(process, of)
                    _load(process, of, seconds=bench.effort.seconds(2), least=CLIENTS)
                    time.sleep(1)  # the memory that is given back during a pause
                    return {"megabytes": process.memory / 1e6, "sharing": others}

            return measure

        result = bench.rounds({who: turn(make) for who, make in _makers(bench, of).items()})
        row = _row(f"memory after load, {name}, {of.precision}", "MB", "megabytes", result)
        row["sharing"] = max(max(figures["sharing"]) for figures in result["values"].values())
        return [row]

    return run


def throughput(of: Text) -> Callable[[Bench], list[dict[str, Any]]]:
    """The rate that 16 clients get."""

    def run(bench: Bench) -> list[dict[str, Any]]:
        tuned = bench.figures["stages"].get(f"tuning {of.name_without_dtype}") if bench.with_stock else None
        seconds = bench.effort.seconds(of.seconds)
        with _running(bench, of, tuned["setting"] if tuned else None) as running:
            turns = {who: functools.partial(_rate, process, of, seconds) for who, process in running.items()}
            # the same process twice: a batch at a time is the limit, one by one is what batching is worth
            turns["batched"] = turns.pop("direct")
            turns["direct"] = functools.partial(_rate, running["direct"], of, seconds / 2, at_once=1)
            result = bench.rounds(turns)
        name = f"{CLIENTS} clients, {of.model}, {of.task}, {of.tokens} tokens, {of.precision}"
        row = _row(name, "requests/s", "rate", result)
        if tuned:
            row["tuning"] = tuned["setting"]
        return [row]

    return run


def tuning(of: Text) -> Callable[[Bench], dict[str, Any]]:
    """The numbers of workers and threads with which the stock server is fastest."""

    def run(bench: Bench) -> dict[str, Any]:
        rates: list[tuple[float, tuple[int, int]]] = []
        for workers, threads in WORKERS_AND_THREADS:
            bench.say(f"stock server with {workers} workers of {threads} threads")
            with Stock(model(of.model), of.task, workers=workers, threads=threads) as stock:
                stock.wait_for_answer(of.bodies[0])
                seconds = bench.effort.seconds(2)
                made = stock.load(of.requests, CLIENTS, seconds=seconds, least=CLIENTS, warm=CLIENTS // 2)
                rates.append((round(made["rate"], 2), (workers, threads)))
        bench.say(f"requests/s, workers and threads: {rates}")
        return {"rates": rates, "setting": max(rates)[1]}

    return run


def speech(name: str, seconds: int) -> Callable[[Bench], list[dict[str, Any]]]:
    """Seconds of audio that are transcribed in a second."""

    def run(bench: Bench) -> list[dict[str, Any]]:
        folder, task, audio = model(name), "automatic-speech-recognition", sound(seconds)
        # the stock server takes no parameter beside audio, and without one no audio beyond 30 s: it gets the path of a
        # file instead, which spares it the transfer
        long = {"return_timestamps": True} if seconds > 30 else {}
        by_path = json.dumps({"inputs": str(sound_file(seconds)), "parameters": long}).encode()
        requests = {
            "ours": http_request(audio, "audio/wave"),
            "stock": http_request(by_path, "application/json") if long else http_request(audio, "audio/wave"),
        }
        order = {"inputs": [str(sound_file(seconds))], "parameters": long, "batch": 1}
        turn_seconds = bench.effort.seconds(3)
        rows = []
        with contextlib.ExitStack() as stack:
            running: dict[str, Any] = {
                "ours": stack.enter_context(Ours(folder, task, bench.release)),
                "stock": stack.enter_context(Stock(folder, task)),
                "direct": stack.enter_context(
                    Direct(folder, task, bench.release, str(sound_file(1)), {}, precision(name))
                ),
            }
            running["direct"].read()
            for who in requests:
                running[who].wait_for_answer(sound(1), "audio/wave")

            def turn(who: str, clients: int) -> dict[str, float]:
                effort = {"seconds": turn_seconds, "least": clients, "warm": clients}
                if who == "direct":
                    return {"rate": seconds * running[who].order(**order, **effort)["rate"]}
                return {"rate": seconds * running[who].load([requests[who]], clients, **effort)["rate"]}

            for clients in (1, 8):
                turns = {
                    who: functools.partial(turn, who, clients) for who in running if clients == 1 or who in requests
                }
                label = f"{clients} client{'s' if clients > 1 else ''}, {name}, {seconds} s of audio"
                rows.append(_row(label, "audio s/s", "rate", bench.rounds(turns)))
        return rows

    return run


_CLASSIFY, _FEATURES, _GENERATE = "text-classification", "feature-extraction", "text-generation"
_TINY = (
    *(Text(model="bloom-tiny", task=_GENERATE, tokens=tokens) for tokens in (8, 32, 128)),
    *(Text(model="bert-tiny", task=task, tokens=tokens) for task in (_CLASSIFY, _FEATURES) for tokens in (8, 32, 128)),
)
_MEDIUM = (
    *(Text(model="bloom-medium", task=_GENERATE, tokens=tokens, seconds=4, minutes=6) for tokens in (8, 32, 128)),
    *(
        Text(model="bert-medium", task=task, tokens=tokens, seconds=3, minutes=2.5)
        for task in (_CLASSIFY, _FEATURES)
        for tokens in (8, 32, 128)
    ),
)
TEXTS = (*_TINY, *_MEDIUM)
IN_FLOAT32 = tuple(replace(of, dtype="float32") for of in _MEDIUM)
"""The same with equal digits: a CPU that multiplies bfloat16 is told not to."""


def stages() -> list[Stage]:
    """All of them, in the order in which they run."""
    first = [
        Stage(name="start", minutes=3, run=start),
        *(
            Stage(name=f"latency {of.model}", minutes=minutes, run=latency(of))
            for of, minutes in (
                (Text(model="bloom-tiny", task=_GENERATE, tokens=8), 4),
                (Text(model="bert-tiny", task=_CLASSIFY, tokens=32), 2),
            )
        ),
        *(Stage(name=f"memory {name}", minutes=4, run=memory(name)) for name in ("bloom-tiny", "bloom-medium")),
    ]
    heard = [
        ("whisper-tiny", 1, 3),
        ("whisper-tiny", 10, 3),
        ("whisper-tiny", 60, 3),
        ("whisper-medium", 1, 12),
        ("whisper-medium", 10, 12),
    ]
    return [
        *first,
        *(
            Stage(name=f"speech {name} {length}", minutes=minutes, run=speech(name, length))
            for name, length, minutes in heard
        ),
        *(
            stage
            for of in TEXTS
            for stage in (
                Stage(name=f"tuning {of.name}", minutes=1.5, run=tuning(of)),
                Stage(name=of.name, minutes=of.minutes, run=throughput(of)),
            )
        ),
        *(Stage(name=of.name, minutes=of.minutes, run=throughput(of)) for of in IN_FLOAT32),
        *(
            Stage(name=f"{stage.name} @{NEWEST}", minutes=stage.minutes / 2, run=stage.run, release=NEWEST)
            for stage in first
        ),
        *(
            Stage(name=f"{of.name} @{NEWEST}", minutes=of.minutes / 2, run=throughput(of), release=NEWEST)
            for of in TEXTS
            if of.tokens == 32
        ),
    ]


def _makers(bench: Bench, of: Text) -> dict[str, Callable[[], Any]]:
    folder, first = model(of.model), texts(of.tokens)[0]
    makers: dict[str, Callable[[], Any]] = {
        "ours": lambda: Ours(folder, of.task, bench.release, EXTENDED_DLC_DTYPE=of.dtype),
        "direct": lambda: Direct(folder, of.task, bench.release, first, of.parameters, of.precision),
    }
    if bench.with_stock:
        makers["stock"] = lambda: Stock(folder, of.task)
    return makers


@contextlib.contextmanager
def _running(bench: Bench, of: Text, tuned: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """The candidates, once each has answered."""
    with contextlib.ExitStack() as stack:
        makers = _makers(bench, of)
        if tuned:
            makers["tuned"] = lambda: Stock(model(of.model), of.task, workers=tuned[0], threads=tuned[1])
        running = {}
        for who, make in makers.items():
            bench.say(f"starting: {who}")
            running[who] = stack.enter_context(make())
            _first(running[who], of)
        yield running


def _first(process: Any, of: Text) -> None:
    if isinstance(process, Direct):
        process.read()
    else:
        process.wait_for_answer(of.bodies[0])


def _load(process: Any, of: Text, *, seconds: float, least: int, at_once: int = CLIENTS) -> dict[str, Any]:
    """The figures with so many clients, or with batches of that size."""
    order = {"seconds": seconds, "least": least, "warm": at_once}
    if isinstance(process, Direct):
        return dict(process.order(inputs=texts(of.tokens), parameters=of.parameters, batch=at_once, **order))
    return dict(process.load(of.requests, at_once, **order))


def _rate(process: Any, of: Text, seconds: float, at_once: int = CLIENTS) -> dict[str, float]:
    return {"rate": _load(process, of, seconds=seconds, least=at_once, at_once=at_once)["rate"]}


def _row(name: str, unit: str, figure: str, result: Mapping[str, Any]) -> dict[str, Any]:
    values = {who: [round(value, 5) for value in figures[figure]] for who, figures in result["values"].items()}
    return {"name": name, "unit": unit, "values": values, "void": result["void"], "unsteady": result["unsteady"]}


def _quantile(values: Sequence[float], at: float) -> float:
    return sorted(values)[min(len(values) - 1, int(at * len(values)))]


def _others_with_torch() -> int:
    """How many processes hold torch: pages shared with them count in part only, which flatters a candidate."""
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found += int(name) != os.getpid() and "libtorch_cpu" in Path(f"/proc/{name}/maps").read_text()
    return found


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": names[0] if names else "unknown",
        "python": sys.version.split()[0],
        "date": datetime.date.today().isoformat(),
    }


def _measure(stage: Stage, bench: Bench) -> None:
    """Run a stage, and put its figures among the others in the order of the stages."""
    began = time.monotonic()
    found = stage.run(bench)
    measured = bench.figures["stages"]
    measured[stage.name] = {
        "release": stage.release,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "machine": _machine(),
        **(found if isinstance(found, dict) else {"rows": found}),
    }
    bench.figures["stages"] = {one.name: measured[one.name] for one in stages() if one.name in measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=[stage.name for stage in stages()],
        help="a stage of --list; measured again",
    )
    parser.add_argument("--quick", action="store_true", help="a small run, whose figures are printed and not kept")
    parser.add_argument("--minutes", type=float, help="begin no stage that would not end in so many minutes")
    parser.add_argument("--list", action="store_true", help="the stages, with their minutes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves no server behind
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"stages": {}}
    todo = [
        stage
        for stage in stages()
        if (stage.name in options.only if options.only else stage.name not in figures["stages"])
    ]
    if options.list:
        for stage in stages():
            print(f"{'done' if stage.name in figures['stages'] else f'{stage.minutes:.0f} min':8} {stage.name}")
        return
    began = time.monotonic()
    while todo:
        stage = todo[0]
        spent = (time.monotonic() - began) / 60
        if options.minutes and spent + stage.minutes > options.minutes:
            print(f"{len(todo)} stages are left: run this again")
            sys.exit(3)
        left = sum(one.minutes for one in todo)

        def say(what: str, stage: Stage = stage, left: float = left) -> None:
            print(f"{time.strftime('%H:%M:%S')} about {left:.0f} min left · {stage.name}: {what}", flush=True)

        _measure(
            stage, Bench(effort=QUICK if options.quick else Effort(), release=stage.release, figures=figures, say=say)
        )
        print_table(figures["stages"][stage.name].get("rows", []))
        if not options.quick:
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
            write_table(figures)
        todo.pop(0)


if __name__ == "__main__":
    main()
