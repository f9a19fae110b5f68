"""What the image's own layers weigh and how fast the server starts, against the two installs it could have been.

Three layers over the same base: ours (the Dockerfile's own steps), a bytecode-free install of the same packages, and a
fully compiled one. Size: files in the layer, ours over bytecode-free, at most 1.1. Start-up: process start to the first
`/ping` that says 200 (a tiny BLOOM, warm page cache), ours over fully compiled, alternating, at most 1.05.

    python benchmarks/image_layer.py [--transformers RELEASE] [--base 4.51.3] [--pairs 10] [--json FILE]

Runs on virtual environments, not on images: the base is an environment with torch and an older transformers, each layer
a copy of it in which the Dockerfile's commands run. So it needs no container engine, and the page cache is the only
storage it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from candidates import NEWEST, free_port

IMAGE = Path(__file__).parents[1] / "docker" / "inference"
SIZE_LIMIT, START_LIMIT = 1.1, 1.05
# as in the Deep Learning Containers; one place less where the machine's own settings show
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(*command: str | Path, **environment: str) -> None:
    subprocess.run(
        command,
        check=True,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def make_base(folder: Path, transformers: str, *more: str) -> None:
    """The base: torch, a transformers release and whatever else, compiled, as pip leaves it in an image."""
    run(sys.executable, "-m", "venv", folder)
    run(
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "-q",
        "torch==2.13.0",
        f"transformers=={transformers}",
        "accelerate",
        *more,
    )
    # PYTHONDONTWRITEBYTECODE or a pip configuration may have kept pip from compiling
    subprocess.run(
        [folder / "bin/python", "-m", "compileall", "-q", "-j2", folder / "lib"], check=False, stdout=subprocess.DEVNULL
    )


def make_layer(base: Path, folder: Path, transformers: str) -> None:
    """A copy of the base with the install step and the server, bytecode-free."""
    run("cp", "-a", base, folder)
    # the environment's programs point at the base; its Python is only ever called by path here
    build = folder / "opt/build"
    build.mkdir(parents=True)
    for name in ("install.py", "requirements.txt", "prove.py", "bytecode.py", "tiny_models.py"):
        shutil.copy(IMAGE / name, build)
    server = folder / "opt/extended_dlc_server"
    shutil.copytree(IMAGE / server.name, server, ignore=shutil.ignore_patterns("__pycache__"))
    run(folder / "bin/python", "-B", build / "install.py", transformers)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Relative path -> (size, time of change): the files that a layer is made of."""
    return {
        str(file.relative_to(folder)): (file.stat().st_size, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    }


def weight(base: dict[str, tuple[int, int]], layer: Path) -> int:
    """Bytes of the files that the layer adds or changes."""
    return sum(state[0] for name, state in files_of(layer).items() if base.get(name) != state)


def start(layer: Path, model: Path) -> float:
    """Seconds from the start of the process to the first `/ping` that says 200."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").symlink_to(model)
        environment = {
            "PYTHONPATH": str(layer / "opt"),
            "SAGEMAKER_BASE_DIR": folder,
            "SAGEMAKER_BIND_TO_PORT": str(port),
        }
        began = time.perf_counter()
        process = subprocess.Popen(
            [layer / "bin/python", "-m", "extended_dlc_server", "serve"],
            env={**ENVIRONMENT, **environment},
            stderr=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                        return time.perf_counter() - began
                except OSError:
                    time.sleep(0.01)
            sys.exit(f"the server of {layer} ended with {process.returncode}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def measure(work: Path, transformers: str, base_release: str, pairs: int) -> dict[str, object]:
    base = work / "base"
    make_base(base, base_release)
    before = files_of(base)
    free, ours, full = work / "bytecode-free", work / "ours", work / "fully-compiled"
    make_layer(base, free, transformers)
    for layer in (ours, full):
        run("cp", "-a", free, layer)
    run(
        ours / "bin/python",
        "-B",
        ours / "opt/build/prove.py",
        transformers,
        "bloom,whisper",
        PYTHONPATH=str(ours / "opt"),
    )
    subprocess.run([full / "bin/python", "-m", "compileall", "-q", "-j2", full / "lib", full / "opt"], check=False)
    weights = {layer.name: weight(before, layer) for layer in (free, ours, full)}

    models = work / "models"
    run(full / "bin/python", IMAGE / "tiny_models.py", models)
    for layer in (ours, full, free):  # fill the page cache
        start(layer, models / "bloom")
    seconds: dict[str, list[float]] = {"ours": [], "fully-compiled": []}
    for number in range(pairs):
        for layer in (ours, full) if number % 2 else (full, ours):
            seconds[layer.name].append(start(layer, models / "bloom"))
    without = [start(free, models / "bloom") for _ in range(3)]
    ratios = [mine / theirs for mine, theirs in zip(seconds["ours"], seconds["fully-compiled"], strict=True)]
    return {
        "transformers": {"base": base_release, "image": transformers},
        "bytes": weights,
        "size_ratio": weights["ours"] / weights["bytecode-free"],
        "start_seconds": {**seconds, "bytecode-free": without},
        "start_ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--transformers", default=NEWEST, help="release of the image")
    parser.add_argument("--base", default="4.51.3", help="release of the base")
    parser.add_argument("--pairs", type=int, default=10, help="alternating starts of each")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.transformers, options.base, options.pairs)
    seconds: dict[str, list[float]] = result["start_seconds"]  # type: ignore[assignment]
    print(f"{'layer':16} {'MB':>8}   start-up: median (least - most), s")
    for name, size in result["bytes"].items():  # type: ignore[attr-defined]
        times = seconds[name]
        print(f"{name:16} {size / 1e6:8.1f}   {statistics.median(times):.2f} ({min(times):.2f} - {max(times):.2f})")
    ratio: dict[str, float] = result["start_ratio"]  # type: ignore[assignment]
    print(f"size:     {result['size_ratio']:.3f} of bytecode-free (at most {SIZE_LIMIT})")
    print(
        f"start-up: {ratio['median']:.3f} of fully compiled, {ratio['least']:.3f} - {ratio['most']:.3f} "
        f"in {options.pairs} alternating pairs (at most {START_LIMIT})"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
