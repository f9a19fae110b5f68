"""Endpoint instances: `IMAGE serve` in a container, started, watched and stopped as SageMaker does it."""

from __future__ import annotations

import http.client
import logging
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from extended_dlc.rehearsal.embedded.scraping import scrape
from extended_dlc.rehearsal.engine import LABEL, Engine, EngineError

PING_SECONDS = 2.0
"""How long one `/ping` may take (SageMaker developer guide, "How Containers Serve Requests")."""

STARTUP_SECONDS = 600
"""How long a container may take to its first good `/ping`, unless the variant says otherwise."""

STOP_SECONDS = 30
"""How long a container has between SIGTERM and SIGKILL."""

RESTART_SECONDS = 1.0
"""How long after its end a container is started again; twice as long each time that it ends soon."""

_LASTING_SECONDS = 60.0
"""After so long a container counts as one that stays up; no pause is longer."""

_BETWEEN_PINGS = 0.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Serve:
    """What one instance is to serve."""

    endpoint: str
    variant: str
    image: str
    """The image as the engine pulls it: by digest from the embedded registry, or as the model names it."""

    environment: Mapping[str, str]
    model_folder: Path | None = None
    """The unpacked model data, or None for a model without any."""

    startup_seconds: float = STARTUP_SECONDS

    on_log: Callable[[Path], None] | None = None
    """Told of the file that gets the container's output, before it is started."""

    scrape_seconds: float | None = None
    """How often it is asked for its metrics, once it is in service. Default: never."""


class NotServing(Exception):
    """An instance did not come up; the message is the endpoint's `FailureReason`."""


class Instance(Protocol):
    """One running instance."""

    @property
    def port(self) -> int:
        """The loopback port that it serves on."""

    @property
    def log(self) -> Path:
        """The file that gets its output."""

    def exit_code(self) -> int | None:
        """The code that it ended with, or None while it runs."""

    def stop(self, seconds: float) -> None:
        """End it: SIGTERM, and SIGKILL after so many seconds. Returns when it is gone."""


class Launcher(Protocol):
    """Starts instances."""

    def start(self, serve: Serve, *, port: int, log: Path) -> Instance:
        """Start one instance on this port, and do not wait for its health. Raises `NotServing`."""


@dataclass(kw_only=True)
class Container:
    """An instance in a container of the engine, which runs in the foreground of a process here."""

    engine: Engine
    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    def exit_code(self) -> int | None:
        """The code that the container ended with, or None while it runs."""
        return self.process.poll()

    def stop(self, seconds: float) -> None:
        """Stop and remove the container."""
        if self.process.poll() is None:
            with suppress(EngineError):  # it may end by itself in this moment
                self.engine.call("stop", "-t", f"{seconds:.0f}", self.name, timeout=seconds + 60)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        with suppress(EngineError):  # a container that never came to be
            self.engine.call("rm", "--force", self.name, timeout=60)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, kw_only=True)
class Containers:
    """Starts instances as containers on the host's network."""

    engine: Engine
    owner: str
    """The value of the containers' label: whose they are."""

    platform_environment: Mapping[str, str] = field(default_factory=dict)
    """What the platform adds to each container's environment; the model's own wins."""

    def start(self, serve: Serve, *, port: int, log: Path) -> Instance:
        """Pull the image and run it with `serve`."""
        try:
            self.engine.call("pull", "--quiet", serve.image, timeout=1800)
        except EngineError as error:
            raise NotServing(f"The image '{serve.image}' cannot be pulled: {error}") from None
        environment = {**self.platform_environment, **serve.environment, "SAGEMAKER_BIND_TO_PORT": str(port)}
        name = f"extended-dlc-{secrets.token_hex(6)}"
        volume = [f"--volume={serve.model_folder}:/opt/ml/model"] if serve.model_folder else []
        command = [
            self.engine.program,
            "run",  # without --rm: podman 4.3.1 then waits up to 20 s for the exit code of a container that is gone
            f"--name={name}",
            f"--label={LABEL}={self.owner}",
            "--network=host",
            "--log-driver=none",
            *volume,
            *(f"--env={key}={value}" for key, value in environment.items()),
            serve.image,
            "serve",
        ]
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                    command,
                    env={**os.environ, **self.engine.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the terminal is ours to pass on
                )
        except OSError as error:
            raise NotServing(f"The container engine cannot be run: {error}") from None
        return Container(engine=self.engine, name=name, port=port, log=log, process=process)


class InService:
    """An instance that has been healthy: its container is started again whenever it ends, as SageMaker does it."""

    def __init__(self, instance: Instance, start_again: Callable[[], Instance]) -> None:
        self._now = instance
        self._start_again = start_again
        self.stopping = threading.Event()
        """Set when it is stopped for good."""

        self._watch = threading.Thread(target=self._keep_up, name=f"watch of {instance.log.name}", daemon=True)
        self._watch.start()

    @property
    def port(self) -> int:
        """The port of the container that runs now."""
        return self._now.port

    @property
    def log(self) -> Path:
        """The file that gets the output of every container."""
        return self._now.log

    def exit_code(self) -> int | None:
        """The code that the container ended with, until another is started."""
        return self._now.exit_code()

    def stop(self, seconds: float) -> None:
        self.stopping.set()
        self._watch.join()
        self._now.stop(seconds)

    def die(self) -> None:
        """End the container that runs now; another is started."""
        self._now.stop(0)

    def _keep_up(self) -> None:
        pause, started = RESTART_SECONDS, time.monotonic()
        while not self.stopping.wait(_BETWEEN_PINGS):
            code = self._now.exit_code()
            if code is None:
                continue
            if time.monotonic() - started > _LASTING_SECONDS:
                pause = RESTART_SECONDS
            if self.stopping.wait(pause):
                return
            _log.info("the container of %s exited with %s: another is started", self.log.name, _describe(code))
            pause = min(2 * pause, _LASTING_SECONDS)
            try:
                self._now.stop(0)  # takes away what is left of it
                self._now = self._start_again()
            except NotServing as failure:
                _log.warning("the container of %s cannot be started again: %s", self.log.name, failure)
            started = time.monotonic()


class Hosting:
    """All instances that are up."""

    def __init__(self, launcher: Launcher | None, logs: Path) -> None:
        self.launcher = launcher
        self._logs = logs
        self._up: list[Instance] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, serve: Serve) -> Instance:
        """Start one instance and wait for its first good `/ping`. Raises `NotServing` with nothing left behind."""
        if self.launcher is None:
            raise NotServing("The embedded AWS runs without a container engine.")
        log = self._logs / f"{serve.endpoint}.{serve.variant}.{time.strftime('%H%M%S')}-{secrets.token_hex(2)}.log"
        log.touch()
        if serve.on_log is not None:
            serve.on_log(log)
        instance = self.launcher.start(serve, port=_free_port(), log=log)
        with self._lock:
            self._up.append(instance)
        try:
            self._wait(instance, serve)
        except NotServing:
            self.stop(instance)
            raise
        launcher = self.launcher
        with self._lock:
            if instance not in self._up:
                raise NotServing("The embedded AWS is being closed.")
            kept = InService(instance, lambda: launcher.start(serve, port=_free_port(), log=log))
            self._up[self._up.index(instance)] = kept
        scrape(kept, serve.scrape_seconds, name=log.stem, logs=self._logs)
        return kept

    def kill(self, endpoint: str) -> int:
        """Have the containers of an endpoint die in service, as by a lack of memory; how many there were."""
        with self._lock:
            found = [each for each in self._up if each.log.name.startswith(f"{endpoint}.")]
        for each in found:
            if isinstance(each, InService):
                each.die()
        return len(found)

    def stop(self, instance: Instance, seconds: float = STOP_SECONDS) -> None:
        instance.stop(seconds)
        with self._lock:
            if instance in self._up:
                self._up.remove(instance)

    def close(self) -> None:
        """Stop every instance, all at a time."""
        self._closing.set()
        with self._lock:
            instances = list(self._up)
        threads = [threading.Thread(target=self.stop, args=(each, 5)) for each in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def running(self) -> list[str]:
        """The logs of the instances that are up, one each."""
        with self._lock:
            return [str(each.log) for each in self._up]

    def _wait(self, instance: Instance, serve: Serve) -> None:
        deadline = time.monotonic() + serve.startup_seconds
        last = "no connection"
        while time.monotonic() < deadline and not self._closing.is_set():
            code = instance.exit_code()
            if code is not None:
                raise NotServing(_failure(serve, instance, f"The container exited with {_describe(code)}."))
            last = ping(instance.port)
            if last == "200":
                return
            self._closing.wait(_BETWEEN_PINGS)
        raise NotServing(_failure(serve, instance, f"The last /ping within {serve.startup_seconds:g} s: {last}."))


def ping(port: int) -> str:
    """The status of one `/ping`, or why there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PING_SECONDS)
    try:
        connection.request("GET", "/ping")
        response = connection.getresponse()
        response.read()
        return str(response.status)
    except TimeoutError:
        return f"no answer in {PING_SECONDS:g} s"
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    finally:
        connection.close()


def last_lines(log: Path, count: int = 8) -> str:
    """The end of a log."""
    try:
        text = log.read_bytes()[-16_384:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def _failure(serve: Serve, instance: Instance, what: str) -> str:
    """SageMaker's sentence, what happened, and the end of the log; SageMaker's limit is 1024 characters."""
    head = (
        f"The primary container for production variant {serve.variant} did not pass the ping health check. "
        f"Please check CloudWatch logs for this endpoint. {what} Log: {instance.log}"
    )
    tail = last_lines(instance.log)
    room = 1024 - len(head) - 1
    return f"{head}\n{tail[-room:]}" if tail and room > 0 else head


def _describe(code: int) -> str:
    if code < 0 or code > 128:
        with suppress(ValueError):
            return f"code {code} ({signal.Signals(-code if code < 0 else code - 128).name})"
    return f"code {code}"


def _free_port() -> int:
    """A free port below 32768: multi-model-server takes no other, and the system gives it to no client meanwhile."""
    for _ in range(200):
        port = 18_000 + secrets.randbelow(14_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NotServing("No free port between 18000 and 32000 on 127.0.0.1.")
