"""The precision that the server chooses on this CPU beside float32 and bfloat16, at one and at 16 clients.

    python benchmarks/precision.py [--rounds 5] [--seconds 4] [--json FILE]

Three servers of each model, the others still while one has its turn, in another order each round. The ratio is the
rate of the better of the two fixed precisions over the chosen one's, within a round: at most 1.1.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import chats
import embeddings
from candidates import Ours
from load import http_request, json_request
from models import GENERATE, model, sound, texts
from ratios import spread

MOST = 1.1
PRECISIONS: Mapping[str, Mapping[str, str]] = {
    "chosen": {},
    "float32": {"EXTENDED_DLC_DTYPE": "float32"},
    "bfloat16": {"EXTENDED_DLC_DTYPE": "bfloat16"},
}


def loads() -> Mapping[str, tuple[Path, str, list[bytes]]]:
    """The row's name -> the model, its task and the requests."""
    asked = [json_request({"inputs": text}) for text in texts(32)]
    words = [" ".join(f"w{number}" for number in range(start, start + 30)) for start in range(3, 1600, 100)]
    llama = [json_request({"inputs": text, "parameters": GENERATE}) for text in words]
    return {
        "BERT, 22 million weights": (embeddings.weights(), "sentence-embeddings", asked),
        "BERT, 100 million weights": (model("bert-medium"), "text-classification", asked),
        "Llama, 77 million weights": (chats.model("medium"), "text-generation", llama),
        "Whisper, of whisper-tiny's sizes": (
            model("whisper-medium"),
            "automatic-speech-recognition",
            [http_request(sound(10), "audio/wav")],
        ),
    }


def show(name: str, rows: list[dict[str, float]]) -> None:
    """Print the medians of a load, and how much faster the better precision is than the chosen one."""
    middle = {each: statistics.median(row[each] for row in rows) for each in PRECISIONS}
    ratios = [max(row["float32"], row["bfloat16"]) / row["chosen"] for row in rows]
    said = "  ".join(f"{each} {rate:8.2f}" for each, rate in middle.items())
    print(f"{name:40} {said} answers/s  better / chosen {spread(ratios)}, at most {MOST}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kept: dict[str, list[dict[str, float]]] = {}
    for what, (folder, task, asked) in loads().items():
        with ExitStack() as stack:
            servers = {}
            for precision, variables in PRECISIONS.items():
                servers[precision] = Ours(folder, task, EXTENDED_DLC_ANSWER_SECONDS="600", **variables)
                stack.enter_context(servers[precision])
            for server in servers.values():
                server.wait_until_healthy()
            for number in range(-1, options.rounds):  # the first round warms up
                for clients in (1, 16):
                    row = {}
                    for precision in list(servers)[:: 1 if number % 2 else -1]:
                        others = [each.process for key, each in servers.items() if key != precision]
                        with chats.stopped(others):
                            figures = servers[precision].load(
                                asked, clients, seconds=options.seconds, least=clients, warm=clients
                            )
                        row[precision] = figures["rate"]
                    if number >= 0:
                        kept.setdefault(f"{what}, {clients} at once", []).append(row)
        for name in [each for each in kept if each.startswith(f"{what}, ")]:
            show(name, kept[name])
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
