"""The in-image server as a process, with real tiny models and both ends of the transformers range."""

from __future__ import annotations

import http.client
import io
import json
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "docker" / "inference"
sys.path.insert(0, str(IMAGE))  # the server's pure parts are tested in this process
sys.path.append(str(Path(__file__).parent))  # the modules that make models are beside the tests

OLDEST = "4.46.3"
(NEWEST,) = re.findall(r"^transformers==(.+)$", (Path(__file__).parent / "requirements.txt").read_text(), re.MULTILINE)
OVERLAY = ROOT / ".cache" / f"transformers-{OLDEST}"
OPENAI = "3.57.0"
OVERLAY_REQUIREMENTS = (f"transformers=={OLDEST}", "tokenizers==0.20.3", "huggingface_hub==0.36.2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need models where torch or transformers is missing."""
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        skip = pytest.mark.skip(reason="needs torch and transformers: pip install -r tests/runtime/requirements.txt")
        for item in items:
            if Path(__file__).parent in item.path.parents and "models" in getattr(item, "fixturenames", ()):
                item.add_marker(skip)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    content_type: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        """Status, code and message of an error; asserts the shape of its body."""
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"code", "message"}
        return self.status, self.json["error"]["code"], self.json["error"]["message"]


class Server:
    """One running server process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self._log = process, port, log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def tells(self, text: str, seconds: float = 5, since: int = 0) -> bool:
        """Whether the log has the text, or gets it soon: a request is logged after its response."""
        deadline = time.monotonic() + seconds
        while text not in self.log[since:] and time.monotonic() < deadline:
            time.sleep(0.02)
        return text in self.log[since:]

    @property
    def request_lines(self) -> list[dict[str, Any]]:
        """The log's lines about requests; the last ones may not be written yet."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def lines_of(self, ask: Callable[[], Any], count: int = 1) -> list[dict[str, Any]]:
        """The lines of `count` requests; each line is written after the response."""
        time.sleep(0.1)  # the line of an earlier request may not be written yet
        before = len(self.request_lines)
        ask()
        deadline = time.monotonic() + 5
        while len(self.request_lines) < before + count and time.monotonic() < deadline:
            time.sleep(0.02)
        lines = self.request_lines[before:]
        assert len(lines) == count, lines
        return lines

    def ask(
        self, body: bytes | dict[str, Any], content_type: str | None = "application/json", timeout: float = 60
    ) -> Answer:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.request("POST", "/invocations", data, headers, timeout)

    def ping(self, timeout: float = 10) -> int:
        return self.request("GET", "/ping", timeout=timeout).status

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.read(), response.headers.get("content-type", ""))
        finally:
            connection.close()

    def wait_until_ready(self, seconds: float = 60) -> Server:
        assert self.wait_for_status(200, seconds) == 200, self.log
        return self

    def wait_for_status(self, status: int, seconds: float = 60) -> int | None:
        """The last status of `/ping`, once it is `status`, the process has ended, or the time is over."""
        deadline, last = time.monotonic() + seconds, None
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                last = self.ping()
                if last == status:
                    return last
            except OSError:
                pass
            time.sleep(0.05)
        return last

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


Start = Callable[..., Server]


@pytest.fixture(scope="session")
def ffmpeg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program called ffmpeg, as the base images have it on the PATH."""
    import imageio_ffmpeg

    folder = tmp_path_factory.mktemp("ffmpeg")
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    return folder


@pytest.fixture(scope="session")
def overlay() -> Path:
    """A folder with transformers' oldest supported release, for the front of PYTHONPATH."""
    return _kept_packages(OVERLAY.name, *OVERLAY_REQUIREMENTS, dependencies=False)


class Clients:
    """A process with an unmodified client, which makes one call for each line of its input."""

    def __init__(self, program: Path, packages: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(packages)},
        )

    def __call__(self, server: Server) -> Callable[..., Any]:
        """A function that makes calls with this server's base URL."""
        return lambda call, **arguments: self._ask(f"http://127.0.0.1:{server.port}/v1", call, arguments)

    def _ask(self, base_url: str, call: str, arguments: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"base_url": base_url, "call": call, "arguments": arguments}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@pytest.fixture(scope="session")
def openai_client() -> Iterator[Clients]:
    """The unmodified openai package from PyPI."""
    packages = _kept_packages(f"openai-{OPENAI}", f"openai=={OPENAI}")
    clients = Clients(Path(__file__).parent / "openai_client.py", packages)
    yield clients
    clients.stop()


@pytest.fixture(scope="session")
def kept_packages() -> Callable[..., Path]:
    """Makes a folder of packages, once, without installing them in the environment."""
    return _kept_packages


def _kept_packages(name: str, *requirements: str, dependencies: bool = True) -> Path:
    """A folder of packages, made once, outside the environment."""
    folder = ROOT / ".cache" / name
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        alone = [] if dependencies else ["--no-deps"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", *alone, "--target", unfinished, *requirements], check=True
        )
        try:
            unfinished.rename(folder)
        except OSError:  # another test process has made it in the meantime
            assert folder.is_dir()
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny random models: those with which the image's build tests the server."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, IMAGE / "tiny_models.py", folder], check=True, capture_output=True)
    _make_misbehaving(folder)
    return folder


@pytest.fixture(scope="session")
def start_server(
    tmp_path_factory: pytest.TempPathFactory, ffmpeg_folder: Path, overlay: Path, models: Path
) -> Iterator[Start]:
    """Starts the server on a model of `models` (or a folder, or None) with more environment; stops all at the end."""
    servers: list[Server] = []

    def start(model: str | Path | None, release: str = NEWEST, *, ffmpeg: bool = True, **environment: str) -> Server:
        base = tmp_path_factory.mktemp("ml")
        if model is not None:
            (base / "model").symlink_to(models / model)
        path = [str(ffmpeg_folder)] if ffmpeg else []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = base / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "extended_dlc_server", "serve"],
                cwd=base,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": os.pathsep.join([*path, str(base)]),
                    "HOME": str(base),
                    "PYTHONPATH": os.pathsep.join([*([str(overlay)] if release == OLDEST else []), str(IMAGE)]),
                    "SAGEMAKER_BASE_DIR": str(base),
                    "SAGEMAKER_BIND_TO_PORT": str(port),
                    "OMP_NUM_THREADS": "1",  # tiny models gain nothing from more, and the tests run many servers
                    **environment,
                },
            )
        servers.append(Server(process, port, log))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


# CI tests all with the newest release, and with the oldest what depends on it most; `make test` tests all with both
RELEASES = [NEWEST] if os.environ.get("EXTENDED_DLC_TEST_NEWEST_ONLY") else [NEWEST, OLDEST]


@pytest.fixture(scope="session", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """A transformers release at one end of the supported range."""
    return str(request.param)


@pytest.fixture(scope="session")
def server_path(overlay: Path, release: str) -> str:
    """PYTHONPATH for a program that imports the server's modules and this release."""
    return os.pathsep.join([*([str(overlay)] if release == OLDEST else []), str(IMAGE)])


@pytest.fixture(scope="session")
def bloom(start_server: Start, release: str) -> Server:
    return start_server("bloom", release).wait_until_ready()


@pytest.fixture(scope="session")
def whisper(start_server: Start, release: str) -> Server:
    # a tiny random model may advance by hundredths of a second through a minute of sound, which takes long
    return start_server("whisper", release, EXTENDED_DLC_ANSWER_SECONDS="900").wait_until_ready()


@pytest.fixture(scope="session")
def bert(start_server: Start, release: str) -> Server:
    return start_server("bert-classifier", release).wait_until_ready()


@pytest.fixture(scope="session")
def misbehaving(start_server: Start, release: str) -> Server:
    return start_server("misbehaving", release, HF_TRUST_REMOTE_CODE="true").wait_until_ready()


@pytest.fixture(scope="session")
def tone() -> Callable[..., bytes]:
    """A WAV file of a sine: seconds, rate, channels, bytes a sample."""

    def make(seconds: float = 1, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
        samples = (0.5 * math.sin(2 * math.pi * 440 * index / rate) for index in range(int(seconds * rate)))
        pack = {
            1: lambda value: struct.pack("<B", int(128 + 127 * value)),
            2: lambda value: struct.pack("<h", int(32767 * value)),
            3: lambda value: struct.pack("<i", int((2**31 - 1) * value))[1:],
            4: lambda value: struct.pack("<i", int((2**31 - 1) * value)),
        }[width]
        file = io.BytesIO()
        with wave.open(file, "wb") as audio:
            audio.setnchannels(channels)
            audio.setsampwidth(width)
            audio.setframerate(rate)
            audio.writeframes(b"".join(pack(value) * channels for value in samples))
        return file.getvalue()

    return make


MISBEHAVING = '''
import time
from transformers import BloomForCausalLM


class Misbehaving(BloomForCausalLM):
    """What it does depends on the number of tokens it is asked with; one letter is one token."""

    def generate(self, *args, input_ids=None, **kwargs):
        match input_ids.shape[1]:
            case 30:
                raise MemoryError
            case 40:
                raise SystemExit("gone")
            case 50:
                raise RuntimeError("one of those days with the token hf_secretsecret")
            case 60:
                streamer = kwargs["streamer"]
                streamer.put(input_ids)
                streamer.put(input_ids[0, :1])
                raise RuntimeError("in the middle")
            case 70:
                time.sleep(3)
        return super().generate(*args, input_ids=input_ids, **kwargs)
'''


def _make_misbehaving(folder: Path) -> None:
    """BLOOM with code of its own that fails on purpose."""
    target = folder / "misbehaving"
    target.mkdir()
    for file in (folder / "bloom").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "misbehaving.Misbehaving"}
    config["architectures"] = ["MisbehavingForCausalLM"]
    (target / "config.json").write_text(json.dumps(config))
    (target / "misbehaving.py").write_text(MISBEHAVING)
