"""The server of an earlier commit beside the one of this checkout: start-up, memory, latency and throughput.

    python benchmarks/builds.py --before COMMIT [--rounds 5] [--seconds 4] [--json FILE]

In each round the earlier build, this one and this one once more have a turn each, in another order; "now again" says
what the same build run twice differs by. Ratios are taken within a round, to the earlier build. Tiny models, since with
them the server's own part is largest; float32 for all.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from candidates import IMAGE, ROOT, Ours
from load import http_request
from models import GENERATE, model, sound, texts
from ratios import spread

BUILDS = ("before", "now", "now again")
KINDS: Mapping[str, tuple[str, Callable[[], list[tuple[bytes, str]]]]] = {
    "bloom-tiny": ("text-generation", lambda: [_json({"inputs": text, "parameters": GENERATE}) for text in texts(8)]),
    "bert-tiny": ("text-classification", lambda: [_json({"inputs": text}) for text in texts(32)]),
    "whisper-tiny": ("automatic-speech-recognition", lambda: [(sound(1), "audio/wav")]),
}
"""The model, its task, and what is asked in turn."""


def _json(body: Mapping[str, Any]) -> tuple[bytes, str]:
    return json.dumps(body).encode(), "application/json"


def server_of(commit: str, folder: Path) -> Path:
    """The server's package from a commit."""
    archive = subprocess.run(
        ["git", "archive", commit, "docker/inference"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder / "docker" / "inference"


def turn(image: Path, name: str, seconds: float) -> dict[str, float]:
    """Start a build once, and measure its start-up, memory and load."""
    task, asked = KINDS[name]
    kept = asked()
    requests = [http_request(*one) for one in kept]
    began = time.perf_counter()
    with Ours(model(name), task, image=image, EXTENDED_DLC_DTYPE="float32") as server:
        server.wait_for_answer(*kept[0])
        figures = {"start to first answer, s": time.perf_counter() - began}
        time.sleep(2.5)
        figures["memory, MB"] = server.memory / 1e6
        one = server.load(requests, 1, seconds=seconds, least=20, warm=20)
        figures["one client, ms"] = 1000 * statistics.median(one["latencies"])
        figures["16 clients, answers/s"] = server.load(requests, 16, seconds=seconds, least=32, warm=64)["rate"]
        time.sleep(2.5)  # an idle server returns what it no longer needs within two seconds
        figures["memory after, MB"] = server.memory / 1e6
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="COMMIT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="builds-") as folder:
        now = Path(folder, "now", IMAGE.name)
        shutil.copytree(IMAGE, now, ignore=shutil.ignore_patterns("__pycache__"))
        images = dict(zip(BUILDS, (server_of(options.before, Path(folder, "before")), now, now), strict=True))
        for image in dict.fromkeys(images.values()):
            turn(image, "bert-tiny", 0.1)  # fill the page cache
        for number in range(options.rounds):
            for name in KINDS:
                order = BUILDS[number % 3 :] + BUILDS[: number % 3]
                made = {build: turn(images[build], name, options.seconds) for build in order}
                rounds.setdefault(name, []).append(made)
                print(f"round {number + 1}, {name}: {made}", flush=True)
    for name, rows in rounds.items():
        for figure in rows[0]["now"]:
            middle = {build: statistics.median(row[build][figure] for row in rows) for build in BUILDS}
            said = ""
            for build in BUILDS[1:]:
                ratios = [row[build][figure] / row["before"][figure] for row in rows]
                said += f"  {build} {spread(ratios)}"
            print(f"{name:13} {figure:26} before {middle['before']:9.2f}  now {middle['now']:9.2f} {said}")
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1) + "\n")


if __name__ == "__main__":
    main()
