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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from candidates import NEWEST, STOCK_RELEASE, Direct, Ours, Stock
from load import http_request
from models import model, sound, sound_file, texts
from serving_table import print_table, write_table

FIGURES = Path(__file__).parent / "serving.json"
GENERATE = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False}
CLIENTS = 16
STEADY = 1.15
"""Most by which the calibration loop may move within a round."""

WORKERS_AND_THREADS = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1))
"""What the stock server's best tuning is looked for in; two cores gain nothing from more."""

Turn = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure."""

    rounds: int = 5
    seconds: float = 3
    """Of one turn."""
    requests: int = 2500
    """Of one client, for its latency, over all rounds."""


QUICK = Effort(rounds=2, seconds=1, requests=200)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Texts for one model: what `CLIENTS` clients ask."""

    model: str
    task: str
    lengths: tuple[int, ...]
    seconds: float = 3
    """Least of one turn; a turn is never less than one batch."""

    @property
    def parameters(self) -> dict[str, Any]:
        return GENERATE if self.task == "text-generation" else {}

    def bodies(self, tokens: int) -> list[bytes]:
        return [json.dumps({"inputs": text, "parameters": self.parameters}).encode() for text in texts(tokens)]

    def requests(self, tokens: int) -> list[bytes]:
        return [http_request(body, "application/json") for body in self.bodies(tokens)]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One thing to measure, which makes rows of the table."""

    name: str
    minutes: float
    """About how long it takes on two cores."""
    run: Callable[[Bench], Any]
    release: str = STOCK_RELEASE


@dataclass(kw_only=True)
class Bench:
    """A run: how much effort, what is known, and what to tell."""

    effort: Effort
    release: str = STOCK_RELEASE
    figures: dict[str, Any] = field(default_factory=lambda: {"stages": {}})
    say: Callable[[str], None] = print

    @property
    def with_stock(self) -> bool:
        return self.release == STOCK_RELEASE

    def rounds(self, turns: Mapping[str, Turn], count: int | None = None) -> dict[str, Any]:
        """Alternate: name -> figure -> one value a round, and how many rounds were void."""
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
            if max(loops) > STEADY * min(loops) and void < 2 * wanted:
                void += 1
                self.say(f"round void: the calibration loop took {min(loops):.3f} to {max(loops):.3f} s")
                continue
            kept += 1
            for name, result in results.items():
                for figure, value in result.items():
                    values[name].setdefault(figure, []).append(value)
        return {"values": values, "void": void, "unsteady": void >= 2 * wanted}


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
        with Direct(folder, task, bench.release, text, GENERATE) as process:
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
        turn()  # the page cache
    return [_row("start to first answer, bloom-tiny", "s", "seconds", bench.rounds(turns))]


def latency(bench: Bench) -> list[dict[str, Any]]:
    """What one client waits for, above the call itself."""
    generation = Text(model="bloom-tiny", task="text-generation", lengths=(8,))
    classification = Text(model="bert-tiny", task="text-classification", lengths=(32,))
    return [row for of in (generation, classification) for row in _latency(bench, of)]


def _latency(bench: Bench, of: Text) -> list[dict[str, Any]]:
    (tokens,) = of.lengths
    each = -(-bench.effort.requests // bench.effort.rounds)
    seen: dict[str, list[float]] = {}
    with _running(bench, of) as running:

        def turn(who: str) -> dict[str, float]:
            made = _load(running[who], of, tokens, seconds=0, least=each, at_once=1)
            waits = [1000 * seconds for seconds in made["latencies"]]
            seen.setdefault(who, []).extend(waits)
            return {"p50": _quantile(waits, 0.5), "p99": _quantile(waits, 0.99)}

        result = bench.rounds({who: functools.partial(turn, who) for who in running})
    rows = []
    for figure, at in (("p50", 0.5), ("p99", 0.99)):
        row = _row(f"one client, {of.model}, {of.task}, {tokens} tokens: {figure}", "ms", figure, result)
        row["all"] = {who: round(_quantile(values, at), 5) for who, values in seen.items()}
        row["requests"] = {who: len(values) for who, values in seen.items()}
        rows.append(row)
    return rows


def memory(name: str) -> Callable[[Bench], list[dict[str, Any]]]:
    """What a candidate weighs once it has answered many at once, alone on the machine."""

    def run(bench: Bench) -> list[dict[str, Any]]:
        of = Text(model=name, task="text-generation", lengths=(32,))

        def turn(make: Callable[[], Any]) -> Turn:
            def measure() -> dict[str, float]:
                others = _others_with_torch()
                if others:
                    bench.say(f"{others} other processes share torch's pages: these figures are too low")
                with make() as process:
                    _first(process, of)
                    _load(process, of, 32, seconds=2, least=2 * CLIENTS)
                    return {"megabytes": process.memory / 1e6, "sharing": others}

            return measure

        result = bench.rounds({who: turn(make) for who, make in _makers(bench, of).items()})
        row = _row(f"memory after load, {name}", "MB", "megabytes", result)
        row["sharing"] = max(max(figures["sharing"]) for figures in result["values"].values())
        return [row]

    return run


def throughput(of: Text) -> Callable[[Bench], list[dict[str, Any]]]:
    """What 16 clients get, at each length."""

    def run(bench: Bench) -> list[dict[str, Any]]:
        tuned = bench.figures["stages"].get(f"tuning {_name(of)}", {}).get("rows", {}) if bench.with_stock else {}
        seconds = min(bench.effort.seconds, of.seconds) if bench.effort is QUICK else of.seconds
        rows = []
        with _running(bench, of, {tuple(setting) for setting in tuned.values()}) as running:
            for tokens in of.lengths:
                turns: dict[str, Turn] = {}
                for who in ("ours", "stock"):
                    if who in running:
                        turns[who] = lambda who=who, tokens=tokens: _rate(running[who], of, tokens, seconds)
                if str(tokens) in tuned:
                    best = running[f"stock {tuple(tuned[str(tokens)])}"]
                    turns["tuned"] = lambda best=best, tokens=tokens: _rate(best, of, tokens, seconds)
                turns["batched"] = lambda tokens=tokens: _rate(running["direct"], of, tokens, seconds)
                turns["direct"] = lambda tokens=tokens: _rate(running["direct"], of, tokens, seconds / 2, at_once=1)
                name = f"{CLIENTS} clients, {of.model}, {of.task}, {tokens} tokens"
                row = _row(name, "requests/s", "rate", bench.rounds(turns))
                if str(tokens) in tuned:
                    row["tuning"] = tuned[str(tokens)]
                rows.append(row)
        return rows

    return run


def tuning(of: Text) -> Callable[[Bench], dict[str, tuple[int, int]]]:
    """Workers and threads with which the stock server is fastest, at each length."""

    def run(bench: Bench) -> dict[str, tuple[int, int]]:
        rates: dict[int, dict[tuple[int, int], float]] = {tokens: {} for tokens in of.lengths}
        seconds = min(bench.effort.seconds, 3)
        for setting in WORKERS_AND_THREADS:
            bench.say(f"stock server with {setting[0]} workers of {setting[1]} threads")
            with Stock(model(of.model), of.task, workers=setting[0], threads=setting[1]) as stock:
                stock.wait_for_answer(of.bodies(of.lengths[0])[0])
                for tokens in of.lengths:
                    made = stock.load(of.requests(tokens), CLIENTS, seconds=seconds, least=CLIENTS, warm=CLIENTS // 2)
                    rates[tokens][setting] = made["rate"]
        bench.say(f"requests/s by workers and threads: {rates}")
        return {str(tokens): max(found, key=found.__getitem__) for tokens, found in rates.items()}

    return run


def speech(name: str) -> Callable[[Bench], list[dict[str, Any]]]:
    """Seconds of audio that are transcribed in a second."""

    def run(bench: Bench) -> list[dict[str, Any]]:
        task, rows = "automatic-speech-recognition", []
        folder = model(name)
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(Ours(folder, task, bench.release))
            direct = stack.enter_context(Direct(folder, task, bench.release, str(sound_file(1)), {}))
            stock = stack.enter_context(Stock(folder, task)) if bench.with_stock else None
            direct.read()
            ours.wait_for_answer(sound(1), "audio/wav")
            if stock is not None:
                stock.wait_for_answer(sound(1), "audio/wave")
            for seconds in (1, 10, 60):
                # the stock server takes no parameter beside audio, and without one no audio beyond 30 s: it gets the
                # path of a file, which spares it the transfer
                long = {"return_timestamps": True} if seconds > 30 else {}
                by_path = json.dumps({"inputs": str(sound_file(seconds)), "parameters": long}).encode()
                theirs = (
                    http_request(by_path, "application/json") if long else http_request(sound(seconds), "audio/wave")
                )
                mine = http_request(sound(seconds), "audio/wav")
                for clients in (1, 8):
                    long_enough = {"seconds": bench.effort.seconds, "least": clients}

                    def turn(
                        server: Any, request: bytes, clients: int = clients, of: Any = long_enough, s: int = seconds
                    ) -> Any:
                        return {"rate": s * server.load([request], clients, warm=clients, **of)["rate"]}

                    turns: dict[str, Turn] = {"ours": lambda turn=turn, mine=mine: turn(ours, mine)}
                    if stock is not None:
                        turns["stock"] = lambda turn=turn, theirs=theirs: turn(stock, theirs)
                    if clients == 1:
                        order = {"inputs": [str(sound_file(seconds))], "parameters": long, "batch": 1, "warm": 1}
                        turns["direct"] = lambda order=order, of=long_enough, s=seconds: {
                            "rate": s * direct.order(**order, **of)["rate"]
                        }
                    label = f"{clients} client{'s' if clients > 1 else ''}, {name}, {seconds} s of audio"
                    rows.append(_row(label, "audio s/s", "rate", bench.rounds(turns)))
        return rows

    return run


TEXTS = (
    Text(model="bloom-tiny", task="text-generation", lengths=(8, 32, 128)),
    Text(model="bloom-medium", task="text-generation", lengths=(8,), seconds=8),
    Text(model="bloom-medium", task="text-generation", lengths=(32,), seconds=8),
    Text(model="bloom-medium", task="text-generation", lengths=(128,), seconds=8),
    Text(model="bert-tiny", task="text-classification", lengths=(8, 32, 128)),
    Text(model="bert-medium", task="text-classification", lengths=(8, 32), seconds=4),
    Text(model="bert-medium", task="text-classification", lengths=(128,), seconds=6),
    Text(model="bert-tiny", task="feature-extraction", lengths=(8, 32, 128)),
    Text(model="bert-medium", task="feature-extraction", lengths=(8, 32), seconds=4),
    Text(model="bert-medium", task="feature-extraction", lengths=(128,), seconds=6),
)


def stages() -> list[Stage]:
    """All of them, in the order in which they run."""
    beside_stock = [
        Stage(name="start", minutes=2.5, run=start),
        Stage(name="latency", minutes=5, run=latency),
        *(Stage(name=f"memory {name}", minutes=4, run=memory(name)) for name in ("bloom-tiny", "bloom-medium")),
        *(Stage(name=f"speech {name}", minutes=7, run=speech(name)) for name in ("whisper-tiny", "whisper-medium")),
    ]
    for of in TEXTS:
        beside_stock.append(Stage(name=f"tuning {_name(of)}", minutes=3, run=tuning(of)))
        beside_stock.append(Stage(name=_name(of), minutes=7, run=throughput(of)))
    newest = [
        Stage(name=f"{stage.name} @{NEWEST}", minutes=0.6 * stage.minutes, run=stage.run, release=NEWEST)
        for stage in beside_stock
        if not stage.name.startswith("tuning")
    ]
    return [*beside_stock, *newest]


def _name(of: Text) -> str:
    return f"{of.model} {of.task} {','.join(map(str, of.lengths))}"


def _makers(bench: Bench, of: Text) -> dict[str, Callable[[], Any]]:
    folder, first = model(of.model), texts(of.lengths[0])[0]
    makers: dict[str, Callable[[], Any]] = {
        "ours": lambda: Ours(folder, of.task, bench.release),
        "direct": lambda: Direct(folder, of.task, bench.release, first, of.parameters),
    }
    if bench.with_stock:
        makers["stock"] = lambda: Stock(folder, of.task)
    return makers


@contextlib.contextmanager
def _running(bench: Bench, of: Text, tuned: set[tuple[int, int]] = frozenset()) -> Iterator[dict[str, Any]]:  # type: ignore[assignment]
    """The candidates, each of which has answered."""
    with contextlib.ExitStack() as stack:
        makers = _makers(bench, of)
        for workers, threads in sorted(tuned):
            makers[f"stock {(workers, threads)}"] = lambda w=workers, t=threads: Stock(
                model(of.model), of.task, workers=w, threads=t
            )
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
        process.wait_for_answer(of.bodies(of.lengths[0])[0])


def _load(process: Any, of: Text, tokens: int, *, seconds: float, least: int, at_once: int = CLIENTS) -> dict[str, Any]:
    """The figures of so many clients, or of batches of that size."""
    order = {"seconds": seconds, "least": least, "warm": at_once}
    if isinstance(process, Direct):
        return dict(process.order(inputs=texts(tokens), parameters=of.parameters, batch=at_once, **order))
    return dict(process.load(of.requests(tokens), at_once, **order))


def _rate(process: Any, of: Text, tokens: int, seconds: float, at_once: int = CLIENTS) -> dict[str, float]:
    return {"rate": _load(process, of, tokens, seconds=seconds, least=at_once, at_once=at_once)["rate"]}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="stages whose name has this; measured again")
    parser.add_argument("--quick", action="store_true", help="a small run, whose figures are printed and not kept")
    parser.add_argument("--minutes", type=float, help="begin no stage that would not end in so many minutes")
    parser.add_argument("--list", action="store_true", help="the stages, with their minutes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves no server behind
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"stages": {}}
    todo = [
        stage
        for stage in stages()
        if (any(part in stage.name for part in options.only) if options.only else stage.name not in figures["stages"])
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

        bench = Bench(effort=QUICK if options.quick else Effort(), release=stage.release, figures=figures, say=say)
        at = time.monotonic()
        rows = stage.run(bench)
        figures["stages"][stage.name] = {
            "release": stage.release,
            "minutes": round((time.monotonic() - at) / 60, 1),
            "machine": _machine(),
            "rows": rows,
        }
        if isinstance(rows, list):
            print_table(rows)
        if not options.quick:
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
            write_table(figures)
        todo.pop(0)


if __name__ == "__main__":
    main()
