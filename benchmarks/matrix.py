"""Which transformers releases the image's layer really carries: built, proved and asked, one after the other.

    python benchmarks/matrix.py [RELEASE ...]

For each release the Dockerfile's own steps (install.py, prove.py) run over a stand-in base, in a virtual environment
as in `image_layer.py`; then the server answers for a tiny BLOOM, Whisper, BERT and ViT, which that release made itself.
The table goes to docs/matrix.md, what was seen of each release to matrix.json. Without arguments: the newest patch of
each of the last twelve minors and of 4.57, 4.51 and 4.46. With arguments those rows alone are made again.
"""

from __future__ import annotations

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

from image_layer import ENVIRONMENT, make_base, make_layer, run

from extended_dlc.facts.catalog import version
from extended_dlc.facts.releases import releases

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".json")
PAGE = ROOT / "docs" / "matrix.md"
BASES = ("4.44.2", "4.51.3")
"""transformers of the stand-in bases; a release is built on the newest that is older than it."""

MINORS = 12
ALSO = ("4.57", "4.51", "4.46")
PORT = 18080


@dataclass(frozen=True)
class Request:
    """What one model is asked."""

    maker: str
    content_type: str
    body: bytes
    answers: Callable[[Any], bool]


@dataclass(frozen=True)
class Row:
    """What was seen of a release."""

    release: str
    base: str
    date: str
    build: str
    """`ok`, or what the build said at its end."""

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


def wanted() -> list[str]:
    """The newest patch of each minor that is in the matrix, newest first."""
    newest: dict[str, str] = {}
    for release in releases():
        newest[release.rpartition(".")[0]] = release  # oldest first, so the last one stays
    minors = sorted(newest, key=lambda minor: version(newest[minor]), reverse=True)
    chosen = [*minors[:MINORS], *(minor for minor in ALSO if minor not in minors[:MINORS])]
    return [newest[minor] for minor in chosen]


def last_line(error: subprocess.CalledProcessError) -> str:
    """What a step said at its end."""
    return (error.stderr or str(error)).strip().splitlines()[-1][:300]


def build(base: Path, layer: Path, release: str) -> str:
    """Run the Dockerfile's steps; `ok`, or what they said."""
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
    """Status and body; 0 where nobody listens."""
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


def measure(release: str, bases: dict[str, Path], work: Path) -> Row:
    """One row."""
    base = next(name for name in sorted(bases, key=version, reverse=True) if version(name) < version(release))
    layer = work / "layer"
    built = build(bases[base], layer, release)
    answers = {}
    if built == "ok":
        for name, request in REQUESTS.items():
            answers[name] = answer(layer, request, work / "models" / release / name)
            print(f"  {name}: {answers[name]}", flush=True)
    shutil.rmtree(layer, ignore_errors=True)
    return Row(release, base, date.today().isoformat(), built, answers)


def page(rows: list[dict[str, Any]]) -> str:
    """docs/matrix.md."""
    lines = [
        "# Which releases were run",
        "",
        "Made by `make matrix`: the image's install and proof steps over a stand-in base (torch 2.13.0 for the CPU and",
        "an older transformers), then the server's answers for tiny random models that the release made itself. Not on",
        "real Deep Learning Containers, and not on GPUs.",
        "",
        f"| transformers | over | built and proved | {' | '.join(REQUESTS)} | seen |",
        f"|---|---|---|{'---|' * len(REQUESTS)}---|",
    ]
    notes: list[str] = []

    def cell(row: dict[str, Any], said: str) -> str:
        if said in ("ok", "-"):
            return {"ok": "yes", "-": "-"}[said]
        notes.append(f"{len(notes) + 1}. {row['release']}: {said}")
        return f"no ({len(notes)})"

    for row in sorted(rows, key=lambda each: version(each["release"]), reverse=True):
        cells = [cell(row, row["build"]), *(cell(row, row["answers"].get(name, "-")) for name in REQUESTS)]
        lines.append(f"| {row['release']} | {row['base']} | {' | '.join(cells)} | {row['date']} |")
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def main(asked: list[str]) -> int:
    """Fill the rows that are asked for; 1 where one of them fails."""
    rows = {row["release"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    chosen = asked or wanted()
    if not asked:
        rows = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bases = {name: work / f"base-{name}" for name in BASES}
        for name, base in bases.items():
            print(f"the base with transformers {name}", flush=True)
            make_base(base, name, "pillow")
        for number, release in enumerate(chosen, 1):
            print(f"{release} ({number} of {len(chosen)})", flush=True)
            rows[release] = asdict(measure(release, bases, work))
            ordered = sorted(rows.values(), key=lambda each: version(each["release"]))
            RESULTS.write_text("[\n" + ",\n".join(" " + json.dumps(row) for row in ordered) + "\n]\n")
            PAGE.write_text(page(ordered))
    failed = [name for name in chosen if {rows[name]["build"], *rows[name]["answers"].values()} != {"ok"}]
    print(f"failed: {', '.join(failed)}" if failed else "all answered")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
