"""What one busy process beside the server leaves of its rate: alone, and beside a loop that takes a whole core.

    python benchmarks/neighbour.py [--rounds 5] [--seconds 6] [--json FILE]

One server, in turns of another order each round. On two cores a fair half is 0.5; at least 0.4 of the rate alone is to
be left. float32; the load generator shares the cores, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from candidates import Ours
from load import json_request
from models import GENERATE, model, texts
from ratios import spread

LEAST = 0.4
LOADS = (
    ("bert-medium", "text-classification", 16),
    ("bert-tiny", "text-classification", 1),
    ("bloom-tiny", "text-generation", 1),
    ("bloom-tiny", "text-generation", 16),
    ("bloom-medium", "text-generation", 4),
)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Run another process that takes a whole core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kept: dict[str, list[dict[str, float]]] = {}
    for name, task, clients in LOADS:
        parameters = GENERATE if task == "text-generation" else {}
        asked = [json_request({"inputs": text, "parameters": parameters}) for text in texts(32)]
        with Ours(model(name), task, EXTENDED_DLC_DTYPE="float32") as server:
            server.wait_until_healthy()
            server.load(asked, clients, seconds=2, least=clients, warm=clients)
            for number in range(options.rounds):
                row = {}
                for turn in ("alone", "beside")[:: 1 if number % 2 else -1]:
                    with busy() if turn == "beside" else contextlib.nullcontext():
                        # the first answers are those of the change: the number of threads follows within a second
                        figures = server.load(asked, clients, seconds=options.seconds, least=clients, warm=2 * clients)
                    row[turn] = figures["rate"]
                kept.setdefault(f"{name}, {clients} at once", []).append(row)
        rows = kept[f"{name}, {clients} at once"]
        ratios = [row["beside"] / row["alone"] for row in rows]
        middle = {turn: statistics.median(row[turn] for row in rows) for turn in ("alone", "beside")}
        print(
            f"{name:13} {clients:2} at once  alone {middle['alone']:8.2f}  beside {middle['beside']:8.2f} answers/s  "
            f"left {spread(ratios)}, at least {LEAST}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
