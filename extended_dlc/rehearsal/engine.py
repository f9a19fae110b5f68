"""The container engine of the rehearsal: found on this machine, or installed, and called by its command line."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from extended_dlc.options.build import DOCKER_OUTPUT
from extended_dlc.rehearsal import files

LABEL = "io.extended-dlc.rehearsal"
"""The label of every container that a rehearsal starts (`--label LABEL=<whose>`); `remove_containers` goes by it."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A container engine with Docker's command line: Docker itself, or podman."""

    program: str
    """Absolute path of the program. The CDK CLI gets it as `CDK_DOCKER`."""

    environment: Mapping[str, str]
    """What every call of the program (the CDK CLI's calls too) needs in its environment, beyond the caller's own."""

    def call(self, *arguments: str, timeout: float | None = 600) -> str:
        """Run `program arguments…` and return its standard output; if it fails, raise `EngineError` with its errors."""
        try:
            done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
                [self.program, *arguments],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EngineError(f"{Path(self.program).name} {arguments[0]} gave no result in {timeout:g} s") from None
        except OSError as error:
            raise EngineError(f"{self.program} cannot be run: {error}") from None
        if done.returncode != 0:
            raise EngineError(f"{Path(self.program).name} {arguments[0]} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def has_image(self, reference: str) -> bool:
        """Whether the engine's own store holds this image; asks no registry."""
        try:
            self.call("image", "inspect", reference, timeout=60)
        except EngineError:
            return False
        return True

    def build(
        self,
        folder: Path,
        *,
        tag: str,
        arguments: Mapping[str, str] | None = None,
        log: Path | None = None,
        timeout: float | None = 1800,
    ) -> None:
        """Build the Dockerfile of a folder for linux/amd64 and name the image `tag`.

        `arguments` become `--build-arg`. What the build prints goes to the file `log`; an `EngineError` names it.
        """
        given = [f"--build-arg={name}={value}" for name, value in (arguments or {}).items()]
        if not self.is_podman():
            given.append(f"--output={DOCKER_OUTPUT}")
        try:
            output = self.call("build", "--platform=linux/amd64", f"--tag={tag}", *given, str(folder), timeout=timeout)
        except EngineError as error:
            if log is None:
                raise
            log.write_text(str(error))
            raise EngineError(f"{error}\nthe log is {log}") from None
        if log is not None:
            log.write_text(output)

    def push(self, image: str, destination: str) -> None:
        """Push a local image to `destination` (`host:port/repository:tag`, the host being the loopback registry)."""
        self.call("tag", image, destination)
        self.call("push", "--quiet", destination, timeout=1800)

    def containers(self, label: str = LABEL, *, running_only: bool = False) -> list[str]:
        """The ids of the containers with this label (`name`, or `name=value`)."""
        return self.call("ps", "-q" if running_only else "-aq", f"--filter=label={label}", timeout=60).split()

    def remove_containers(self, label: str = LABEL) -> list[str]:
        """Kill and remove the containers with this label, no others; returns the ids of those that there were."""
        if running := self.containers(label, running_only=True):
            # `rm --force` alone waits 10 s for a podman container to stop by itself
            with suppress(EngineError):  # it may end by itself in this moment
                self.call("kill", *running, timeout=60)
        found = self.containers(label)
        if found:
            self.call("rm", "--force", *found, timeout=120)
        return found

    def is_podman(self) -> bool:
        """Whether this is podman, also under Docker's name (`podman-docker`)."""
        return "podman" in self.call("--version", timeout=60).lower()

    def version(self) -> str:
        """One line for a report, such as `podman 4.3.1 (runc, overlay)`."""
        if self.is_podman():
            form = "{{.Version.Version}}\t{{.Host.OCIRuntime.Name}}\t{{.Store.GraphDriverName}}"
            number, runtime, driver = self.call("info", "--format", form, timeout=60).strip().split("\t")
            return f"podman {number} ({runtime}, {driver})"
        form = "{{.ServerVersion}}\t{{.DefaultRuntime}}\t{{.Driver}}"
        number, runtime, driver = self.call("info", "--format", form, timeout=60).strip().split("\t")
        return f"Docker Engine {number} ({runtime}, {driver})"

    def save(self, file: Path) -> None:
        """Write the engine down for another process."""
        files.write(file, json.dumps({**asdict(self), "environment": dict(self.environment)}))

    @staticmethod
    def load(file: Path) -> Engine | None:
        """Read what `save` wrote; None where there is nothing, or nothing that can be read."""
        match files.read_json(file):
            case {"program": str(program), "environment": dict(environment)}:
                return Engine(program=program, environment=environment)
        return None


class EngineError(RuntimeError):
    """The container engine is missing or refused; the message ends with the next thing to do."""


def find_engine(
    state: Path,
    *,
    registry: str,
    say: Callable[[str], None],
    on_download: Callable[[str, float], None] = lambda what, seconds: None,
) -> Engine:
    """The container engine of this machine, ready to build, to run, and to push to `registry` without TLS.

    - `EXTENDED_DLC_ENGINE` or `CDK_DOCKER`, where set, names the program; no other is then tried.
    - A Docker Engine that answers is used as it is, and so is a podman that can build and run.
    - A podman that cannot (a machine without systemd, a container with fewer capabilities …) gets a configuration of
      its own below `state`; its images and containers live there too, and nothing in `/etc` is written.
    - Where there is none, on Debian and Ubuntu as root, podman is installed with apt, after telling `say`.

    `registry` is the `host:port` of the loopback registry. `on_download` hears what was downloaded and its seconds.
    Raises `EngineError` with what to install where no engine can be had.
    """
    state = state.absolute()
    named = next((name for name in ("EXTENDED_DLC_ENGINE", "CDK_DOCKER") if os.environ.get(name)), None)
    if named:
        program = shutil.which(os.environ[named])
        if program is None:
            raise EngineError(f"{named} ({os.environ[named]}) is not a program on this machine: correct or unset it")
        reasons: list[str] = []
        engine = _ready(program, state, registry, reasons)
        if engine is None:
            why = "; ".join(reasons)
            raise EngineError(f"{named} names {program}, which does not answer: start it, or unset {named} ({why})")
        return engine

    why_not: list[str] = []
    for name in ("docker", "podman"):
        program = shutil.which(name)
        if program and (found := _ready(program, state, registry, why_not)):
            return found
        if why_not and name == "docker":
            say(f"{program} is passed over: {why_not[-1].splitlines()[0]}")
    if why_not and shutil.which("podman"):
        raise EngineError("no container engine works here: " + "; ".join(why_not))
    if not _can_install():
        tried = f" ({'; '.join(why_not)})" if why_not else ""
        raise EngineError(
            f"no container engine answers on this machine{tried}: install Docker Engine or podman and start it, "
            "or name the program in EXTENDED_DLC_ENGINE"
        )
    _install_podman(say, on_download)
    program = shutil.which("podman")
    if program and (found := _own_podman(program, state, registry, why_not)):
        return found
    raise EngineError("podman is installed but does not work here: " + "; ".join(why_not))


def _ready(program: str, state: Path, registry: str, why_not: list[str]) -> Engine | None:
    """The engine behind a program, or None, with the reason added to `why_not`."""
    plain = Engine(program=program, environment={})
    try:
        if not plain.is_podman():
            # the client alone prints a version too: only the server's proves that something answers
            plain.call("version", "--format", "{{.Server.Version}}", timeout=30)
            # BuildKit, for `RUN --mount`; Docker Engine 20.10 still asks to be told
            docker = replace(plain, environment={"DOCKER_BUILDKIT": "1"})
            if platform.system() == "Linux":
                _try_out(docker, state / "engine")  # a client without its buildx plugin fails here, and says so
            return docker
        if not (state / "podman").is_dir():
            users = replace(plain, environment=_podman_environment(state / "engine", registry, _users_registries()))
            if platform.system() != "Linux":  # podman's virtual machine: nothing to configure from here
                users.call("info", timeout=60)
                return users
            try:
                _try_out(users, state / "engine")
            except EngineError:
                if os.geteuid() != 0:
                    raise
            else:
                return users
        return _own_podman(program, state, registry, why_not)
    except EngineError as error:
        why_not.append(str(error))
        return None


# ---- a podman of the rehearsal's own ----


@dataclass(frozen=True, kw_only=True)
class _Workaround:
    """A setting that podman needs on some machines only."""

    name: str
    containers: str = ""
    """Lines for the section `[containers]` of containers.conf."""
    engine: str = ""
    """Lines for its section `[engine]`."""
    environment: Mapping[str, str] = field(default_factory=dict)


def _workarounds() -> list[_Workaround]:
    files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1048576)
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    # podman itself caps the number of processes at 32768; -1 is "unlimited"
    processes = 32768 if processes == resource.RLIM_INFINITY else min(processes, 32768)
    if files == resource.RLIM_INFINITY:
        files = 1048576
    return [
        # RUN steps without namespaces, where the runtime cannot make them
        _Workaround(name="chroot builds", environment={"BUILDAH_ISOLATION": "chroot"}),
        # crun, Debian's default, fails on hybrid cgroups (version 1 with an empty version 2 beside it)
        _Workaround(name="runc", engine='runtime = "runc"'),
        # cgroups by hand, where no systemd answers
        _Workaround(name="cgroupfs", engine='cgroup_manager = "cgroupfs"'),
        # podman asks for higher limits than ours, which without CAP_SYS_RESOURCE fails (setting rlimit type 7)
        _Workaround(
            name="limits", containers=f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]'
        ),
    ]


def _own_podman(program: str, state: Path, registry: str, why_not: list[str]) -> Engine | None:
    """Podman with store, configuration and log-ins below `state`, and the fewest workarounds with which it works."""
    home = state / "podman"
    remembered = home / "workarounds.json"
    every = _workarounds()
    if isinstance(names := files.read_json(remembered), list):
        engine = _configure(program, home, registry, [one for one in every if one.name in names])
        try:
            _try_out(engine, home)
        except EngineError:
            remembered.unlink()  # another kernel, another container: find out again
        else:
            return engine
    needed = every
    try:
        _try_out(_configure(program, home, registry, needed), home)
        for one in every:
            fewer = [other for other in needed if other is not one]
            try:
                _try_out(_configure(program, home, registry, fewer), home)
            except EngineError:
                continue
            needed = fewer
    except EngineError as error:
        why_not.append(str(error))
        return None
    files.write(remembered, json.dumps([one.name for one in needed]))
    return _configure(program, home, registry, needed)


def _configure(program: str, home: Path, registry: str, workarounds: Iterable[_Workaround]) -> Engine:
    workarounds = list(workarounds)
    home.mkdir(parents=True, exist_ok=True)
    storage = home / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/storage"\nrunroot = "{home}/run"\n')
    containers = home / "containers.conf"
    containers.write_text(
        "\n".join(
            [
                "[containers]",
                # the containers talk to servers on this machine's loopback; no bridge, no firewall rule is made
                'netns = "host"',
                *(one.containers for one in workarounds if one.containers),
                "[engine]",
                f'tmp_dir = "{home}/libpod"',
                # the default, one lock segment in /dev/shm, is shared with other stores of this machine
                'lock_type = "file"',
                'events_logger = "none"',
                *(one.engine for one in workarounds if one.engine),
                "",
            ]
        )
    )
    environment = {
        **_podman_environment(home, registry, "unqualified-search-registries = []\n"),
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF": str(containers),
    }
    for one in workarounds:
        environment.update(one.environment)
    return Engine(program=program, environment=environment)


def _podman_environment(folder: Path, registry: str, registries: str) -> dict[str, str]:
    """What podman needs to be told for a registry without TLS; the other settings stay the user's."""
    folder.mkdir(parents=True, exist_ok=True)
    # a location without a port stands for all of them: the registry's port may change between two runs
    host = registry.rsplit(":", 1)[0]
    (folder / "registries.conf").write_text(f'{registries}\n[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    auth = folder / "auth.json"
    if not auth.exists():  # podman 4 refuses to log in to a file that is not there; the user's own is left alone
        auth.write_text("{}")
    return {
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        "REGISTRY_AUTH_FILE": str(auth),
        # podman's way to Docker's media types, as DOCKER_OUTPUT is Docker's
        "BUILDAH_FORMAT": "docker",
    }


def _users_registries() -> str:
    """The registries.conf in force, for a copy with one entry more (the variable replaces the file)."""
    given = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for file in (
        Path(given) if given else home / "containers/registries.conf",
        Path("/etc/containers/registries.conf"),
    ):
        if file.is_file():
            return file.read_text()
    return ""


def _try_out(engine: Engine, folder: Path) -> None:
    """Build a tiny image with a RUN step and run it, or raise `EngineError`."""
    context = folder / "trial"
    if not (context / "Dockerfile").exists():
        _trial_context(context)
    image = f"localhost/extended-dlc/trial:{os.getpid()}"
    engine.call("build", "--no-cache", "--quiet", f"--tag={image}", str(context), timeout=120)
    try:
        engine.call("run", "--rm", "--network=host", f"--label={LABEL}=trial", image, timeout=120)
    finally:
        engine.call("rmi", "--force", image, timeout=60)


def _trial_context(context: Path, name: str = "true") -> None:
    """An image of one program of this machine and the libraries that it loads."""
    root = context / "root"
    program = Path(shutil.which(name) or f"/bin/{name}").resolve()
    linked = subprocess.run(  # noqa: S603
        [shutil.which("ldd") or "/usr/bin/ldd", str(program)], capture_output=True, text=True, check=False
    )
    libraries = [word for word in linked.stdout.split() if word.startswith("/")]
    for file in (str(program), *libraries):
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (context / "Dockerfile").write_text(
        f'FROM scratch\nCOPY root /\nRUN --mount=type=bind,source=root,target=/mnt ["{program}"]\nCMD ["{program}"]\n'
    )


# ---- installing podman ----


def _can_install() -> bool:
    return platform.system() == "Linux" and os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install_podman(say: Callable[[str], None], on_download: Callable[[str, float], None]) -> None:
    # runc because crun, which podman would bring, fails on hybrid cgroups
    packages = ["podman", "runc"]
    say(f"no container engine answers on this machine: installing {' and '.join(packages)} with apt-get")
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"]
    start = time.monotonic()
    try:
        _apt([*install, "--download-only", *packages])
    except EngineError:  # no package lists yet, or old ones
        _apt(["apt-get", "update", "--quiet"])
        _apt([*install, "--download-only", *packages])
    on_download("podman and runc, with apt-get", time.monotonic() - start)
    _apt([*install, *packages])


def _apt(command: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EngineError(
            f"'{' '.join(command)}' failed: {(done.stderr or done.stdout).strip()[-1000:]}\n"
            "install Docker Engine or podman by hand and try again"
        )
