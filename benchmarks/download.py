"""What it costs that a model's files are compared with the Hub's hashes while they arrive, over loopback.

A stand-in for the Hub on this machine serves 1 GB; huggingface_hub alone downloads it with as many threads as the
server has, then the server does, by turns, each into an empty cache in a process of its own. The server's time over the
other, the median of the rounds, is at most 1.1.

    python benchmarks/download.py [--megabytes 1024] [--files 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 1.1
MODEL = "bench/large"
TIMED = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download
from extended_dlc_server.files import downloads, weights
from extended_dlc_server.files.complete import Incomplete
from extended_dlc_server.settings import Settings
model, way = sys.argv[1:]
began = time.perf_counter()
if way == "verified":
    weights.find_weights(Settings(model_folder=Path("/nothing"), model_id=model), Incomplete(allowed=False))
else:
    info = HfApi().model_info(model)
    with ThreadPoolExecutor(downloads.WORKERS) as pool:
        list(pool.map(lambda file: hf_hub_download(model, file.rfilename, revision=info.sha), info.siblings))
print(time.perf_counter() - began)
"""


def make(folder: Path, megabytes: int, files: int) -> None:
    """A model that is random bytes behind the head of a safetensors file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    size = megabytes * 1024 * 1024 // files
    names = [f"model-{number:05}-of-{files:05}.safetensors" for number in range(1, files + 1)]
    for number, name in enumerate(names):
        head = json.dumps({f"w{number}": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        with (folder / name).open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for start in range(0, size, 1 << 24):
                file.write(os.urandom(min(1 << 24, size - start)))
    index = {"metadata": {}, "weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def seconds(way: str, address: str, work: Path) -> float:
    cache = work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "120",  # a disk that is still writing the round before stalls either way
        "HF_HUB_ETAG_TIMEOUT": "120",
        "PYTHONPATH": str(ROOT / "docker" / "inference"),
    }
    command = [sys.executable, "-c", TIMED, MODEL, way]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    os.sync()
    return float(done.stdout.split()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="download-") as folder:
        work = Path(folder)
        make(work / "hub" / MODEL, given.megabytes, given.files)
        command = [sys.executable, "-m", "extended_dlc.rehearsal.hub", "--root", str(work / "hub"), "--port", "0"]
        hub = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert hub.stdout is not None
            line = hub.stdout.readline()
            threading.Thread(target=hub.stdout.read, daemon=True).start()  # or its pipe fills up
            port = int(line.split(":")[-1].split("/")[0])
            address = f"http://127.0.0.1:{port}"
            seconds("plain", address, work)  # the stand-in hashes each file once
            ratios = []
            for _ in range(given.rounds):
                plain, verified = (seconds(way, address, work) for way in ("plain", "verified"))
                ratios.append(verified / plain)
                print(f"plain {plain:.2f} s, verified {verified:.2f} s: {ratios[-1]:.2f}", flush=True)
        finally:
            hub.terminate()
            hub.wait()
    ratio = statistics.median(ratios)
    print(f"{given.megabytes} MB in {given.files} files: {ratio:.2f} (limit {LIMIT})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
