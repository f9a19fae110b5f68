"""Chats of different lengths and streams: our server beside `transformers serve --continuous-batching`.

    python benchmarks/chats.py [--rounds 5] [--size tiny|medium] [--json FILE]
    python benchmarks/chats.py --arrivals 1000     requests that arrive by chance (Poisson), and their 99th percentile

Same model folder, same requests, float32 on both sides, each alone on the machine in its turn, in another order each
round; figures are medians of the rounds, and ratios are taken within a round. What the peer's bounded cache is set to
stands in `PEER`; it writes greedy text whatever the temperature says, so "chance" is the easier work there.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import json
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from candidates import CACHE, NEWEST, Ours, Server, free_port, kept_packages, python_path
from ratios import spread

PEER = ("--cb-num-blocks", "256", "--cb-block-size", "32", "--cb-max-batch-tokens", "1024")
NEEDS = (
    *("openai==3.57.0", "fastapi==0.165.0", "starlette==1.10.0", "accelerate==1.15.0"),
    *("jiter", "distro", "sniffio", "httpx", "httpcore", "psutil", "opentelemetry-api"),
)
"""Packages that `transformers serve` needs and the tests' environment does not have."""

FOLDER = CACHE / "benchmark-models"
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    "medium": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10},
}
WORDS = 2000


class Peer(Server):
    """`transformers serve` of the newest release, on one model."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self.port = free_port()
        more = kept_packages("transformers-serve", *NEEDS)
        super().__init__(
            [
                Path(sys.executable).parent / "transformers",
                *("serve", str(folder), "--continuous-batching", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--dtype", "float32", "--device", "cpu", *PEER),
            ],
            {"PYTHONPATH": python_path(NEWEST, more)},
        )

    def wait_until_healthy(self, seconds: float = 180) -> None:
        """Wait until it answers a chat."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if chat(self.port, self.name, words=8, most=2)["tokens"]:
                    return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"never healthy:\n{self.log.read_text()[-3000:]}")

    name = ""


@functools.cache
def model(size: str) -> Path:
    """A Llama with random weights, a tokenizer with one token for each word, and a chat template."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = FOLDER / f"llama-{size}"
    if (folder / "made").is_file():
        return folder
    words = {f"w{number}": number for number in range(WORDS)}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0", eos_token="w1")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=WORDS, num_attention_heads=12 if size == "medium" else 4, num_key_value_heads=4,
        max_position_embeddings=2048, eos_token_id=1, bos_token_id=2, pad_token_id=1, **SIZES[size],
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "made").touch()
    return folder


def chat(port: int, name: str, *, words: int, most: int, stream: bool = True, **more: Any) -> dict[str, Any]:
    """Send one chat; returns its number of tokens, and the seconds to the first one."""
    content = " ".join(f"w{random.randrange(3, WORDS)}" for _ in range(words))
    body = {"model": name, "messages": [{"role": "user", "content": content}], "max_tokens": most, "stream": stream}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    started, first, tokens = time.perf_counter(), 0.0, 0
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps({**body, **more}), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {response.read()[:500]!r}")
        if not stream:
            tokens = json.loads(response.read())["usage"]["completion_tokens"]
        for line in response if stream else ():
            choices = json.loads(line[6:])["choices"] if line.startswith(b"data: {") else ()
            if choices and choices[0]["delta"].get("content"):
                first = first or time.perf_counter() - started
                tokens += 1
    finally:
        connection.close()
    return {"tokens": tokens, "first": first}


def load(port: int, name: str, clients: int, seconds: float, ask: Callable[[int], dict[str, Any]]) -> dict[str, float]:
    """Closed loops of so many clients: tokens a second, and the middle of the times to the first token.

    A request that is under way at the end is waited for, and its tokens count by the part of its time before the end:
    whole requests alone would make steps of seconds with a slow model.
    """
    end, parts, firsts = time.perf_counter() + seconds, [0.0] * clients, list[float]()

    def client(number: int) -> None:
        count = number
        while (began := time.perf_counter()) < end:
            done = chat(port, name, **ask(count))
            now = time.perf_counter()
            parts[number] += done["tokens"] * min(1.0, (end - began) / (now - began))
            firsts.append(done["first"])
            count += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"tokens/s": sum(parts) / seconds, "first": statistics.median(firsts)}


def arrivals(port: int, name: str, each_second: float, count: int, seed: int) -> dict[str, float]:
    """Requests of 8 to 64 tokens that arrive by a Poisson process: the middle and the 99th percentile of their seconds.

    Counted from when a request was due, so that a server that is behind does not slow down who asks.
    """
    chance, due, took = random.Random(seed), 0.0, list[float]()
    start = time.perf_counter() + 0.5
    threads = []

    def one(number: int, at: float) -> None:
        chat(port, name, words=30, most=mixed(number), stream=False, temperature=0)
        took.append(time.perf_counter() - start - at)

    for number in range(count):
        due += chance.expovariate(each_second)
        time.sleep(max(0.0, start + due - time.perf_counter()))
        threads.append(threading.Thread(target=one, args=(number, due)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    if len(took) < count:
        raise RuntimeError(f"{count - len(took)} of {count} requests were not answered")
    took.sort()
    return {"p50": statistics.median(took), "p99": took[int(0.99 * count)]}


@contextlib.contextmanager
def stopped(processes: Iterable[subprocess.Popen[bytes]]) -> Iterator[None]:
    """The others hold still: the peer's scheduler looks for work all the time, which takes the cores from ours."""
    held = list(processes)
    for process in held:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in held:
            process.send_signal(signal.SIGCONT)


def mixed(count: int) -> int:
    """A request for 8 to 64 tokens."""
    return 8 + (count * 37) % 57


LOADS: Mapping[str, tuple[int, Callable[[int], dict[str, Any]]]] = {
    "1 stream of 32": (1, lambda _: {"words": 30, "most": 32, "temperature": 0}),
    "4 streams of 32": (4, lambda _: {"words": 30, "most": 32, "temperature": 0}),
    "16 streams of 32": (16, lambda _: {"words": 30, "most": 32, "temperature": 0}),
    "16 clients, 8 to 64": (16, lambda n: {"words": 30, "most": mixed(n), "stream": False, "temperature": 0}),
    "32 clients, 8 to 64": (32, lambda n: {"words": 30, "most": mixed(n), "stream": False, "temperature": 0}),
    "16 clients, 8 to 64, chance": (
        16,
        lambda n: {"words": 30, "most": mixed(n), "stream": False, "temperature": 0.5 + n % 5 / 10, "top_p": 0.9},
    ),
    "16 clients of 32": (16, lambda _: {"words": 30, "most": 32, "stream": False, "temperature": 0}),
}


MIXED_MEAN = statistics.mean(mixed(count) for count in range(57))


def _alone(servers: Mapping[str, Server], who: str, ask: Callable[[int], dict[str, float]]) -> dict[str, float]:
    """Measure one server while the others are stopped (SIGSTOP)."""
    with stopped(other.process for name, other in servers.items() if name != who):
        done = ask(servers[who].port)
        servers[who].wait_until_idle()
    return done


def _turns(
    servers: Mapping[str, Server], name: str, options: argparse.Namespace, number: int
) -> dict[str, Callable[[int], dict[str, float]]]:
    """The requests of a round, by the name of their row."""

    def closed(clients: int, ask: Callable[[int], dict[str, Any]]) -> Callable[[int], dict[str, float]]:
        def turn(port: int) -> dict[str, float]:
            load(port, name, clients, 2, ask)
            return load(port, name, clients, options.seconds, ask)

        return turn

    turns = {what: closed(clients, ask) for what, (clients, ask) in LOADS.items()}
    if not options.arrivals:
        return turns
    limit = min(_alone(servers, who, turns["16 clients, 8 to 64"])["tokens/s"] for who in servers) / MIXED_MEAN
    return {
        f"arrivals at {share:.0%} of the lower limit": functools.partial(
            arrivals, name=name, each_second=share * limit, count=options.arrivals, seed=number
        )
        for share in (0.5, 0.8)
    }


def main() -> None:
    """Measure each load, round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="medium")
    parser.add_argument("--seconds", type=float, default=12, help="of one turn")
    parser.add_argument("--arrivals", type=int, default=0, help="requests a turn that arrive by chance, instead")
    parser.add_argument("--json", type=Path, help="where the rounds are written")
    options = parser.parse_args()
    folder = model(options.size)
    Peer.name = str(folder)
    kept: dict[str, list[dict[str, Any]]] = {}
    with Ours(folder, "text-generation", EXTENDED_DLC_DTYPE="float32") as ours, Peer(folder) as peer:
        servers = {"ours": ours, "peer": peer}
        for server in servers.values():
            server.wait_until_healthy()
        for number in range(options.rounds):
            for name, ask in _turns(servers, str(folder), options, number).items():
                row = {who: _alone(servers, who, ask) for who in list(servers)[:: 1 if number % 2 else -1]}
                kept.setdefault(name, []).append(row)
    for name, rows in kept.items():
        for figure in rows[0]["ours"]:
            ratios = [row["ours"][figure] / row["peer"][figure] for row in rows if row["peer"][figure]]
            middle = {who: statistics.median(row[who][figure] for row in rows) for who in ("ours", "peer")}
            if ratios:
                both = f"ours {middle['ours']:8.3f}  peer {middle['peer']:8.3f}"
                print(f"{name:30} {figure:9} {both}  ratio {spread(ratios)}")
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
