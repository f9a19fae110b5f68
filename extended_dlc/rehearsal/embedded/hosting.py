"""Endpoint instances: `IMAGE serve` runs in a container that is started, watched and stopped as SageMaker does."""

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

from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.embedded.scraping import scrape
from extended_dlc.rehearsal.engine import LABEL, Engine, EngineError

PING_SECONDS = 2.0
"""The time-out of one `/ping` (SageMaker developer guide, "How Containers Serve Requests")."""

STARTUP_SECONDS = 600
"""The time until the first successful `/ping`, unless the variant sets another."""

STOP_SECONDS = 30
"""The time between SIGTERM and SIGKILL."""

RESTART_SECONDS = 1.0
"""The pause before an ended container is restarted; it doubles each time that the container ends soon."""

_LASTING_SECONDS = 60.0
"""A container that ran this long resets the pause; it is also the longest pause."""

_BETWEEN_PINGS = 0.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Serve:
    """What one instance serves."""

    endpoint: str
    variant: str
    image: str
    """The reference with which the engine pulls: by digest from the embedded registry, or as the model names it."""

    environment: Mapping[str, str]
    model_folder: Path | None = None
    """The unpacked model data; None for a model without any."""

    startup_seconds: float = STARTUP_SECONDS

    on_log: Callable[[Path], None] | None = None
    """Called with the path of the container's log file, before the container is started."""

    scrape_seconds: float | None = None
    """The interval at which the container's metrics are scraped, once it is in service. Default: never."""


class NotServing(Exception):
    """An instance did not become healthy; the message is the endpoint's `FailureReason`."""


class Instance(Protocol):
    """The interface of a running instance."""

    @property
    def port(self) -> int:
        """Its port on the loopback interface."""

    @property
    def log(self) -> Path:
        """The file with its output."""

    def exit_code(self) -> int | None:
        """The container's exit code, or None while it runs."""

    def stop(self, seconds: float) -> None:
        """End it with SIGTERM, then SIGKILL after this many seconds. Returns when it has ended."""


class Launcher(Protocol):
    """The interface that starts instances."""

    def start(self, serve: Serve, *, port: int, log: Path) -> Instance:
        """Start one instance on this port without waiting for its health. Raises `NotServing`."""


@dataclass(kw_only=True)
class Container:
    """An instance in a container of the engine, whose CLI runs in the foreground of a child process."""

    engine: Engine
    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    def exit_code(self) -> int | None:
        return self.process.poll()

    def stop(self, seconds: float) -> None:
        if self.process.poll() is None:
            with suppress(EngineError):  # the container may end by itself at this moment
                self.engine.call("stop", "-t", f"{seconds:.0f}", self.name, timeout=seconds + 60)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        with suppress(EngineError):  # the container may never have been created
            self.engine.call("rm", "--force", self.name, timeout=60)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, kw_only=True)
class Containers:
    """Starts instances as containers in the host's network."""

    engine: Engine
    owner: str
    """The value of the containers' label."""

    platform_environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of every container; the model's own take precedence."""

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
                    start_new_session=True,  # Ctrl-C must not reach the container directly
                )
        except OSError as error:
            raise NotServing(f"The container engine cannot be run: {error}") from None
        return Container(engine=self.engine, name=name, port=port, log=log, process=process)


class InService:
    """An instance that was healthy once: its container is restarted whenever it ends, as SageMaker does."""

    def __init__(self, instance: Instance, start_again: Callable[[], Instance]) -> None:
        self._now = instance
        self._start_again = start_again
        self.stopping = threading.Event()
        """Set when the instance is stopped for good."""

        self._watch = threading.Thread(target=self._keep_up, name=f"watch of {instance.log.name}", daemon=True)
        self._watch.start()

    @property
    def port(self) -> int:
        """The port of the current container."""
        return self._now.port

    @property
    def log(self) -> Path:
        """The file with the output of all its containers."""
        return self._now.log

    def exit_code(self) -> int | None:
        """The exit code of the ended container, until another is started."""
        return self._now.exit_code()

    def stop(self, seconds: float) -> None:
        self.stopping.set()
        self._watch.join()
        self._now.stop(seconds)

    def die(self) -> None:
        """End the current container; another is started."""
        self._now.stop(0)

    def die_after(self, seconds: float, scenarios: Scenarios) -> None:
        """End the current container after so many seconds, unless the instance is stopped before."""

        def wait() -> None:
            if not self.stopping.wait(seconds):
                scenarios.meet("container_seconds")
                self.die()

        threading.Thread(target=wait, name=f"end of {self.log.name}", daemon=True).start()

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
                self._now.stop(0)  # removes the ended container
                self._now = self._start_again()
            except NotServing as failure:
                _log.warning("the container of %s cannot be started again: %s", self.log.name, failure)
            started = time.monotonic()


class Hosting:
    """All running instances."""

    def __init__(self, launcher: Launcher | None, logs: Path, *, scenarios: Scenarios) -> None:
        """`scenarios` say after how many seconds a container in service ends, once."""
        self.launcher = launcher
        self._scenarios = scenarios
        self._logs = logs
        self._up: list[Instance] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, serve: Serve) -> Instance:
        """Start one instance and wait for its first good `/ping`. Raises `NotServing`, with the instance removed."""
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
        if seconds := self._scenarios.container_seconds:
            kept.die_after(seconds, self._scenarios)
        return kept

    def kill(self, endpoint: str) -> int:
        """End the containers of an endpoint as if they had run out of memory, and return how many there were."""
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
        """Stop all instances in parallel."""
        self._closing.set()
        with self._lock:
            instances = list(self._up)
        threads = [threading.Thread(target=self.stop, args=(each, 5)) for each in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def running(self) -> list[str]:
        """The log file of each running instance."""
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
    """The HTTP status of one `/ping`, or why there was no response."""
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
    """The last lines of a log file."""
    try:
        text = log.read_bytes()[-16_384:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def _failure(serve: Serve, instance: Instance, what: str) -> str:
    """SageMaker's message, the cause and the end of the log, within SageMaker's limit of 1024 characters."""
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
    """A free port below 32768: multi-model-server accepts no other, and the system assigns none of these to clients."""
    for _ in range(200):
        port = 18_000 + secrets.randbelow(14_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NotServing("No free port between 18000 and 32000 on 127.0.0.1.")
