"""The rehearsal's container engine: found on this machine or installed, and called through its CLI."""

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

from extended_dlc import files
from extended_dlc.options.build import DOCKER_OUTPUT
from extended_dlc.running import run

LABEL = "io.extended-dlc.rehearsal"
"""The label of all containers of a rehearsal (`--label LABEL=<state folder>`); `remove_containers` filters by it."""


_OWN_STORE = "CONTAINERS_STORAGE_CONF"
"""The variable by which podman has a store in the state folder."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A container engine with Docker's CLI: Docker or podman."""

    program: str
    """Absolute path of the program. The CDK CLI gets it in `CDK_DOCKER`."""

    environment: Mapping[str, str]
    """Environment variables that every call of the program needs, also by the CDK CLI, beside the caller's."""

    has_one_exporter: bool = False
    """Whether `docker build` is BuildKit inside the engine, as before Docker 23: it knows no `--output type=docker`, no
    `--build-context`, and only Docker's media types."""

    def call(self, *arguments: str, timeout: float | None = 600) -> str:
        """Run `program arguments…` and return its standard output. Raises `EngineError` with its standard error."""
        try:
            done = run([self.program, *arguments], environment={**os.environ, **self.environment}, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise EngineError(f"{Path(self.program).name} {arguments[0]} gave no result in {timeout:g} s") from None
        except OSError as error:
            raise EngineError(f"{self.program} cannot be run: {error}") from None
        if done.returncode != 0:
            raise EngineError(f"{Path(self.program).name} {arguments[0]} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def has_image(self, reference: str) -> bool:
        """Whether the engine's local store has this image; no registry is queried."""
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
        target: str | None = None,
        arguments: Mapping[str, str] | None = None,
        log: Path | None = None,
        timeout: float | None = 1800,
    ) -> None:
        """Build a folder's Dockerfile for linux/amd64 and name the image `tag`.

        `target` is the stage to build, by default the last one. `arguments` become `--build-arg`. The build's output
        goes to the file `log`, which an `EngineError` names.
        """
        given = [f"--build-arg={name}={value}" for name, value in (arguments or {}).items()]
        given += [f"--target={target}"] if target is not None else []
        command = ["build", "--platform=linux/amd64", f"--tag={tag}", *self.outputs, *given, str(folder)]
        try:
            output = self.call(*command, timeout=timeout)
        except EngineError as error:
            if log is None:
                raise
            log.write_text(str(error))
            raise EngineError(f"{error}\nthe log is {log}") from None
        if log is not None:
            log.write_text(output)

    def push(self, image: str, destination: str) -> None:
        """Push a local image to `destination` (`host:port/repository:tag` in the loopback registry)."""
        self.call("tag", image, destination)
        self.call("push", "--quiet", destination, timeout=1800)

    def containers(self, label: str = LABEL, *, running_only: bool = False) -> list[str]:
        """The IDs of the containers with this label (`name` or `name=value`)."""
        return self.call("ps", "-q" if running_only else "-aq", f"--filter=label={label}", timeout=60).split()

    def remove_containers(self, label: str = LABEL) -> list[str]:
        """Kill and remove only the containers with this label; returns their IDs."""
        if running := self.containers(label, running_only=True):
            # `rm --force` alone waits 10 s for a podman container to stop
            with suppress(EngineError):  # it may end by itself at this moment
                self.call("kill", *running, timeout=60)
        found = self.containers(label)
        if found:
            self.call("rm", "--force", *found, timeout=120)
        return found

    def remove_interrupted_builds(self) -> None:
        """Remove the working containers of builds that were interrupted, where the store is the rehearsal's own.

        podman leaves them with their file systems mounted, so that the folder cannot be deleted. In another store they
        may be of builds that go on.
        """
        if _OWN_STORE not in self.environment:
            return
        listed = self.call("ps", "--all", "--external", "--format={{.ID}} {{.Command}}", timeout=60)
        builds = [
            identifier
            for identifier, _, command in (line.partition(" ") for line in listed.splitlines())
            if "buildah" in command
        ]
        if builds:
            self.call("rm", "--force", *builds, timeout=120)

    @property
    def outputs(self) -> list[str]:
        """The options of `build` for Docker's media types."""
        return [] if self.has_one_exporter or self.is_podman() else [f"--output={DOCKER_OUTPUT}"]

    def is_podman(self) -> bool:
        """Whether this is podman, also under the name docker (`podman-docker`)."""
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
        """Write the engine to a file for another process."""
        files.write(file, json.dumps({**asdict(self), "environment": dict(self.environment)}))

    @staticmethod
    def load(file: Path) -> Engine | None:
        """Read a file of `save`; None where it is missing or invalid."""
        match files.read_json(file):
            case {"program": str(program), "environment": dict(environment), **more}:
                one = more.get("has_one_exporter") is True
                return Engine(program=program, environment=environment, has_one_exporter=one)
        return None


_LOG_INS = ("auths", "credsStore", "credHelpers")
"""The keys of Docker's config.json for log-ins to registries."""

_NO_SUCH_EXPORTER = 'exporter "docker" could not be found'
"""BuildKit's words for `--output type=docker` in Docker 18.09 to 22."""


class EngineError(RuntimeError):
    """The container engine is missing or failed; the message ends with what to do."""


def find_engine(
    state: Path,
    *,
    registry: str,
    say: Callable[[str], None],
    on_download: Callable[[str, float], None] = lambda what, seconds: None,
) -> Engine:
    """This machine's container engine, ready to build, run, and push to `registry` without TLS.

    - `EXTENDED_DLC_ENGINE` or `CDK_DOCKER` names the program, where it is set; no other is tried then.
    - A Docker Engine that responds, or a podman that can build and run, is used as it is.
    - A podman that cannot (a machine without systemd, a container with fewer capabilities …) gets its own configuration
      below `state`, with its images and containers; nothing in `/etc` is written.
    - Without an engine, on Debian and Ubuntu as root, podman is installed with apt, which `say` announces.

    `registry` is the `host:port` of the loopback registry. `on_download` is called with what was downloaded and the
    seconds it took. Raises `EngineError`, which says what to install, where no engine is available.
    """
    state = state.absolute()
    named = next((name for name in ("EXTENDED_DLC_ENGINE", "CDK_DOCKER") if os.environ.get(name)), None)
    if named:
        return _named_engine(named, state, registry)
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


def _named_engine(variable: str, state: Path, registry: str) -> Engine:
    """The engine whose program an environment variable names."""
    program = shutil.which(os.environ[variable])
    if program is None:
        raise EngineError(f"{variable} ({os.environ[variable]}) is not a program on this machine: correct or unset it")
    why_not: list[str] = []
    engine = _ready(program, state, registry, why_not)
    if engine is None:
        why = "; ".join(why_not)
        raise EngineError(f"{variable} names {program}, which cannot be used: {why}\nmend that, or unset {variable}")
    return engine


def _ready(program: str, state: Path, registry: str, why_not: list[str]) -> Engine | None:
    """The engine of a program; None, with the reason appended to `why_not`, where it does not work."""
    plain = Engine(program=program, environment={})
    try:
        if not plain.is_podman():
            # the client prints its version without a server; the server's version proves that it responds
            plain.call("version", "--format", "{{.Server.Version}}", timeout=30)
            docker = replace(plain, environment=_docker_environment(state / "engine"))
            if platform.system() != "Linux":
                return docker
            try:
                _try_out(docker, state / "engine")  # fails for a client without its buildx plugin
            except EngineError as error:
                if _NO_SUCH_EXPORTER not in str(error):
                    raise
                docker = replace(docker, has_one_exporter=True)
                _try_out(docker, state / "engine")
            return docker
        if not (state / "podman").is_dir():
            users = replace(plain, environment=_podman_environment(state / "engine", registry, _users_registries()))
            if platform.system() != "Linux":  # podman's virtual machine cannot be configured from here
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


def _docker_environment(folder: Path) -> dict[str, str]:
    """Docker's variables: the CDK's log-ins are noted below the state, and all other settings stay the user's."""
    users = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    config = folder / "docker"
    config.mkdir(parents=True, exist_ok=True)
    content = files.read_json(users / "config.json")
    kept = {key: content[key] for key in content if key not in _LOG_INS} if isinstance(content, dict) else {}
    files.write(config / "config.json", json.dumps(kept))
    for link in config.iterdir():
        if link.is_symlink():
            link.unlink()
    with suppress(OSError):  # there may be no such folder
        for each in users.iterdir():  # contexts, plugins, builders
            if each.name not in ("config.json", ".buildNodeID"):
                (config / each.name).symlink_to(each.resolve())
    # BuildKit for `RUN --mount`; Docker before 23 uses it only with this variable
    return {"DOCKER_BUILDKIT": "1", "DOCKER_CONFIG": str(config)}


# ---- podman with the rehearsal's own configuration ----


@dataclass(frozen=True, kw_only=True)
class _Workaround:
    """A setting that podman needs only on some machines."""

    name: str
    containers: str = ""
    """Lines for the section `[containers]` of containers.conf."""
    engine: str = ""
    """Lines for the section `[engine]`."""
    environment: Mapping[str, str] = field(default_factory=dict)


def _workarounds() -> list[_Workaround]:
    files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1048576)
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    # podman itself limits processes to 32768; -1 is "unlimited"
    processes = 32768 if processes == resource.RLIM_INFINITY else min(processes, 32768)
    if files == resource.RLIM_INFINITY:
        files = 1048576
    return [
        # RUN steps without namespaces, where the OCI runtime cannot create them
        _Workaround(name="chroot builds", environment={"BUILDAH_ISOLATION": "chroot"}),
        # crun, Debian's default, fails on hybrid cgroups (version 1 beside an empty version 2)
        _Workaround(name="runc", engine='runtime = "runc"'),
        # podman manages cgroups itself, where systemd does not respond
        _Workaround(name="cgroupfs", engine='cgroup_manager = "cgroupfs"'),
        # podman sets higher limits than this process has, which fails without CAP_SYS_RESOURCE (setting rlimit type 7)
        _Workaround(
            name="limits", containers=f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]'
        ),
    ]


def _own_podman(program: str, state: Path, registry: str, why_not: list[str]) -> Engine | None:
    """podman with its store, configuration and log-ins below `state`, and the fewest workarounds that it needs."""
    home = state / "podman"
    remembered = home / "workarounds.json"
    every = _workarounds()
    if isinstance(names := files.read_json(remembered), list):
        engine = _configure(program, home, registry, [one for one in every if one.name in names])
        try:
            _try_out(engine, home)
        except EngineError:
            remembered.unlink()  # the kernel or the container has changed: try again
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


def unmount_store(state: Path) -> None:
    """Unmount podman's store below `state`, which podman leaves mounted, so that the folder can be deleted.

    A store in use stays mounted: it has mounts below it. The next use mounts it again.
    """
    store = state / "podman" / "storage" / "overlay"
    if store.exists():
        with suppress(OSError):  # not every system has the program
            subprocess.run(["umount", str(store)], check=False, capture_output=True)  # noqa: S603, S607


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
                # containers call servers on this machine's loopback; no bridge or firewall rule is created
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
    """podman's variables for a registry without TLS; all other settings stay the user's."""
    folder.mkdir(parents=True, exist_ok=True)
    # a location without a port matches every port, and the registry's may change between runs
    host = registry.rsplit(":", 1)[0]
    (folder / "registries.conf").write_text(f'{registries}\n[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    auth = folder / "auth.json"
    if not auth.exists():  # podman 4 cannot log in to a missing file; the user's own is not touched
        auth.write_text("{}")
    return {
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        "REGISTRY_AUTH_FILE": str(auth),
        # podman's option for Docker's media types, as DOCKER_OUTPUT is Docker's
        "BUILDAH_FORMAT": "docker",
        "LC_ALL": _utf8_locale(),
    }


def _utf8_locale() -> str:
    """The user's locale where it is in UTF-8, else C.UTF-8.

    podman hands its monitor, conmon, the variables LC_* and not LANG, and conmon ends without a word where its locale
    cannot read a path, as of a folder with an umlaut.
    """
    named = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := os.environ.get(name))), "")
    return named if named.lower().replace("-", "").endswith("utf8") else "C.UTF-8"


def _users_registries() -> str:
    """The content of the user's registries.conf, to which an entry is added, because the variable replaces the file."""
    given = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for file in (
        Path(given) if given else home / "containers/registries.conf",
        Path("/etc/containers/registries.conf"),
    ):
        if file.is_file():
            return file.read_text("utf-8")
    return ""


def _try_out(engine: Engine, folder: Path) -> None:
    """Build and run a tiny image with a RUN step. Raises `EngineError`."""
    context = folder / "trial"
    if not (context / "Dockerfile").exists():
        _trial_context(context)
    image = f"localhost/extended-dlc/trial:{os.getpid()}"
    engine.call("build", "--no-cache", "--quiet", f"--tag={image}", *engine.outputs, str(context), timeout=120)
    try:
        engine.call("run", "--rm", "--network=host", f"--label={LABEL}=trial", image, timeout=120)
    finally:
        engine.call("rmi", "--force", image, timeout=60)


def _trial_context(context: Path, name: str = "true") -> None:
    """Write the build context of an image with one program of this machine and its shared libraries."""
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
    # runc, because podman's default crun fails on hybrid cgroups
    packages = ["podman", "runc"]
    say(f"no container engine answers on this machine: installing {' and '.join(packages)} with apt-get")
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"]
    start = time.monotonic()
    try:
        _apt([*install, "--download-only", *packages])
    except EngineError:  # the package lists are missing or old
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
