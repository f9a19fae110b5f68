"""Which transformers releases the image's layer really carries: built, proved and asked, one after the other.

    python benchmarks/matrix.py [--work FOLDER] [RELEASE[@BASE] ...]

For each release the Dockerfile's own steps (install.py, prove.py) run over a stand-in base, in a virtual environment
as in `image_layer.py`; then the server answers for a tiny BLOOM, Whisper, BERT and ViT, which that release made itself.
The table goes to docs/matrix.md, what was seen of each release to matrix.json. Without arguments: the newest patch of
each of the last twelve minors and of 4.57, 4.51 and 4.46, and the newest release on what ships underneath it: the parts
of the newest Hugging Face base, and AWS's own PyTorch. With arguments those rows alone are made again.

The parts of the newest Hugging Face base are 3 GB to download and 8 GB installed, of which each layer is a copy: torch
2.6.0 is on PyPI with CUDA alone.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
import wave
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from struct import pack
from typing import Any

from image_layer import ENVIRONMENT, make_layer, run

from extended_dlc.facts.catalog import version
from extended_dlc.facts.releases import releases

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".json")
PAGE = ROOT / "docs" / "matrix.md"
BASES = {
    "4.44.2": ("torch==2.13.0", "transformers==4.44.2", "accelerate", "pillow"),
    "4.51.3": ("torch==2.13.0", "transformers==4.51.3", "accelerate", "pillow"),
    # the pins of the newest Hugging Face base (2.6.0-transformers5.5.3, aws/deep-learning-containers at ca82ce3f68)
    "5.5.3": (
        *("torch==2.6.0", "numpy==1.26.4", "transformers==5.5.3", "huggingface_hub==1.10.0", "diffusers==0.38.0"),
        *("peft==0.18.1", "accelerate==1.12.0", "setuptools==82.0.1", "pillow", "sentencepiece", "protobuf", "scipy"),
        "librosa",
    ),
    # what AWS's own PyTorch images have of it, which bring no transformers
    "none": ("torch==2.13.0", "numpy", "pillow", "scipy"),
}
"""The parts of the stand-in bases, by their transformers."""

ORDINARY = ("4.44.2", "4.51.3")
"""A release is built on the newest of these that is older than it."""

SHIPPED = ("5.5.3", "none")
"""What the newest release is built on as well."""

MINORS = 12
ALSO = ("4.57", "4.51", "4.46")
PORT = 18080


@dataclass(frozen=True)
class Request:
    """The request for one model, and a test of its response."""

    maker: str
    content_type: str
    body: bytes
    answers: Callable[[Any], bool]


@dataclass(frozen=True)
class Row:
    """The result of one release."""

    release: str
    base: str
    """The transformers release of the base."""

    torch: str
    date: str
    build: str
    """`ok`, or the last lines of the build."""

    answers: dict[str, str]
    """Model -> `ok`, or what went wrong."""


def _silence() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 16000))
    return file.getvalue()


def _picture() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(32 * (b"\0" + 32 * b"\x80\x40\x20"))
    header = pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


REQUESTS = {
    "bloom": Request(
        "text-generation",
        "application/json",
        _json({"inputs": "hello", "parameters": {"max_new_tokens": 4}}),
        lambda answer: answer[0]["generated_text"].startswith("hello"),
    ),
    "whisper": Request(
        "automatic-speech-recognition", "audio/wav", _silence(), lambda answer: isinstance(answer["text"], str)
    ),
    "bert": Request(
        "text-classification",
        "application/json",
        _json({"inputs": "hello"}),
        lambda answer: 0 <= answer[0]["score"] <= 1,
    ),
    "vit": Request("image-classification", "image/png", _picture(), lambda answer: 0 <= answer[0]["score"] <= 1),
}


Pair = tuple[str, str]


def ordinary(release: str) -> Pair:
    """A release and the base that it is built on."""
    return release, next(name for name in reversed(ORDINARY) if version(name) < version(release))


def wanted() -> list[Pair]:
    """The pairs of the matrix, newest first."""
    newest: dict[str, str] = {}
    for release in releases():
        newest[release.rpartition(".")[0]] = release  # oldest first, so that the newest patch of a minor stays
    minors = sorted(newest, key=lambda minor: version(newest[minor]), reverse=True)
    chosen = [*minors[:MINORS], *(minor for minor in ALSO if minor not in minors[:MINORS])]
    return [
        *((newest[minors[0]], base) for base in SHIPPED),
        *(ordinary(newest[minor]) for minor in chosen),
    ]


def make_base(folder: Path, parts: tuple[str, ...]) -> None:
    """A stand-in base of these parts, compiled, as pip leaves it in an image; one that is there is kept."""
    if (folder / "made").exists():
        return
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/python", "-m", "pip", "install", "-q", *parts)
    # PYTHONDONTWRITEBYTECODE or a pip configuration may have kept pip from compiling
    subprocess.run(
        [folder / "bin/python", "-m", "compileall", "-q", "-j2", folder / "lib"], check=False, stdout=subprocess.DEVNULL
    )
    (folder / "made").touch()


def last_line(error: subprocess.CalledProcessError) -> str:
    """The last lines of a step's output."""
    return (error.stderr or str(error)).strip().splitlines()[-1][:300]


def build(base: Path, layer: Path, release: str) -> str:
    """Run the Dockerfile's steps; `ok`, or their last lines."""
    try:
        make_layer(base, layer, release)
        subprocess.run(
            [layer / "bin/python", "-B", layer / "opt/build/prove.py", release, "bloom,whisper,bert,vit"],
            env={**ENVIRONMENT, "PYTHONPATH": str(layer / "opt")},
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        return last_line(error)
    return "ok"


@contextlib.contextmanager
def serving(layer: Path, model: Path) -> Iterator[None]:
    """The layer's server, once it is healthy; ValueError with its last line where it never is."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        (Path(folder) / "model").symlink_to(model)
        environment = {"SAGEMAKER_BASE_DIR": folder, "SAGEMAKER_BIND_TO_PORT": str(PORT)}
        process = subprocess.Popen(
            [layer / "bin/python", "-m", "extended_dlc_server", "serve"],
            env={**ENVIRONMENT, "PYTHONPATH": str(layer / "opt"), **environment},
            stdout=log,
            stderr=log,
        )
        try:
            while ask("GET", "/ping")[0] != 200:
                if process.poll() is not None:
                    log.seek(0)
                    raise ValueError(log.read().strip().splitlines()[-1][:300])
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait()


def ask(method: str, path: str, body: bytes | None = None, content_type: str = "") -> tuple[int, bytes]:
    """The response's status and body; status 0 if nothing listens."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    try:
        connection.request(method, path, body, {"Content-Type": content_type} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def answer(layer: Path, request: Request, model: Path) -> str:
    """Let the release make the model and the server answer for it; `ok`, or what went wrong."""
    try:
        run(layer / "bin/python", ROOT / "tests/runtime/tiny_tasks.py", request.maker, model)
        with serving(layer, model):
            status, body = ask("POST", "/invocations", request.body, request.content_type)
    except (subprocess.CalledProcessError, ValueError) as error:
        return last_line(error) if isinstance(error, subprocess.CalledProcessError) else str(error)
    if status != 200:
        return f"{status} {body.decode()[:300]}"
    return "ok" if request.answers(json.loads(body)) else f"an unexpected answer: {body.decode()[:300]}"


def measure(release: str, base: str, work: Path) -> Row:
    """Measure one release."""
    layer = work / "layer"
    shutil.rmtree(layer, ignore_errors=True)
    built = build(work / f"base-{base}", layer, release)
    answers = {}
    if built == "ok":
        for name, request in REQUESTS.items():
            answers[name] = answer(layer, request, work / "models" / release / base / name)
            print(f"  {name}: {answers[name]}", flush=True)
    shutil.rmtree(layer, ignore_errors=True)
    torch = BASES[base][0].partition("==")[2]
    return Row(release, base, torch, date.today().isoformat(), built, answers)


def page(rows: list[dict[str, Any]]) -> str:
    """The text of docs/matrix.md."""
    lines = [
        "# Which releases were run",
        "",
        "Made by `make matrix`: the image's install and proof steps over a stand-in base, then the server's answers",
        "for tiny random models that the release made itself. Not on real Deep Learning Containers, and not on GPUs.",
        "",
        "The base with transformers 5.5.3 has the pins of the newest Hugging Face inference image, the one that ships",
        "underneath: torch 2.6.0, numpy 1.26.4, huggingface_hub 1.10.0, diffusers 0.38.0, peft 0.18.1, accelerate",
        "1.12.0. The one without transformers stands for AWS's own PyTorch images. The others are torch for the CPU",
        "and an older transformers.",
        "",
        f"| transformers | over | on torch | built and proved | {' | '.join(REQUESTS)} | seen |",
        f"|---|---|---|---|{'---|' * len(REQUESTS)}---|",
    ]
    notes: list[str] = []

    def cell(row: dict[str, Any], said: str) -> str:
        if said in ("ok", "-"):
            return {"ok": "yes", "-": "-"}[said]
        notes.append(f"{len(notes) + 1}. {row['release']} over {row['base']}: {said}")
        return f"no ({len(notes)})"

    for row in sorted(rows, key=_order, reverse=True):
        cells = [cell(row, row["build"]), *(cell(row, row["answers"].get(name, "-")) for name in REQUESTS)]
        lines.append(f"| {row['release']} | {row['base']} | {row['torch']} | {' | '.join(cells)} | {row['date']} |")
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _order(row: dict[str, Any]) -> tuple[tuple[int, ...], int]:
    return version(row["release"]), list(BASES).index(row["base"])


def main(asked: list[Pair], folder: Path) -> int:
    """Fill the rows that are asked for, or all; 1 where one of them fails."""
    known = json.loads(RESULTS.read_text()) if asked and RESULTS.exists() else []
    rows = {(row["release"], row["base"]): row for row in known}
    chosen = asked or wanted()
    for number, (release, base) in enumerate(chosen, 1):
        print(f"{release} over {base} ({number} of {len(chosen)})", flush=True)
        make_base(folder / f"base-{base}", BASES[base])
        rows[release, base] = asdict(measure(release, base, folder))
        ordered = sorted(rows.values(), key=_order)
        RESULTS.write_text("[\n" + ",\n".join(" " + json.dumps(row) for row in ordered) + "\n]\n")
        PAGE.write_text(page(ordered))
    failed = [f"{pair[0]} over {pair[1]}" for pair in chosen if not _answered(rows[pair])]
    print(f"failed: {', '.join(failed)}" if failed else "all answered")
    return 1 if failed else 0


def _answered(row: dict[str, Any]) -> bool:
    return {row["build"], *row["answers"].values()} == {"ok"}


def pair(text: str) -> Pair:
    """`RELEASE` or `RELEASE@BASE`."""
    release, _, base = text.partition("@")
    return (release, base) if base else ordinary(release)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pairs", nargs="*", type=pair, metavar="RELEASE[@BASE]", help=f"a base is {', '.join(BASES)}")
    parser.add_argument("--work", type=Path, help="keep the bases here for the next run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        sys.exit(main(options.pairs, work))
