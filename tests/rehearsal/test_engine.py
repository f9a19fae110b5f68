"""Finding a container engine, and calling it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from extended_dlc.rehearsal import engine as engines
from extended_dlc.rehearsal.engine import LABEL, Engine, EngineError, find_engine

STATE = Path(__file__).parents[2] / ".rehearsal"


def silent(_: str) -> None:
    pass


@pytest.fixture
def label(engine: Engine) -> Iterator[str]:
    label = f"{LABEL}=test-{os.getpid()}"
    yield label
    engine.remove_containers(label)


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with one program of this machine, `sleep`."""
    folder = tmp_path_factory.mktemp("image")
    engines._trial_context(folder, "sleep")
    (folder / "Dockerfile").write_text("FROM scratch\nARG MADE_FOR\nLABEL for=${MADE_FOR}\nCOPY root /\n")
    tag = f"localhost/extended-dlc/test:{os.getpid()}"
    engine.build(folder, tag=tag, arguments={"MADE_FOR": "a test"}, log=folder / "build.log")
    yield tag
    engine.call("rmi", "--force", tag)


def program(folder: Path, name: str, script: str) -> Path:
    file = folder / name
    file.write_text(f"#!{sys.executable}\nimport os, sys\narguments = sys.argv[1:]\n{script}")
    file.chmod(0o755)
    return file


CLIENT_WITHOUT_ENGINE = """
if arguments == ["--version"]:
    print("Docker version 28.2.2, build e6534b4")
else:
    sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
"""
DOCKER_ENGINE = """
print("Docker version 28.2.2" if arguments == ["--version"] else "28.2.2")
"""
BROKEN_PODMAN = """
if arguments == ["--version"]:
    print("podman version 4.3.1")
else:
    sys.exit("Error: " + arguments[0] + " is not possible in here")
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the path, on a machine where nothing can be installed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("EXTENDED_DLC_ENGINE", "CDK_DOCKER"):
        monkeypatch.delenv(name, raising=False)
    return folder


def find(state: Path, say: Callable[[str], None] = silent) -> Engine:
    return find_engine(state, registry="127.0.0.1:5000", say=say)


def test_a_docker_that_answers_is_used_as_it_is(path: Path, tmp_path: Path) -> None:
    docker = program(path, "docker", DOCKER_ENGINE)
    found = find(tmp_path / "state")
    assert found.program == str(docker)
    assert not [name for name in found.environment if name.startswith("CONTAINERS")]


OLD_DOCKER = """
if any(each.startswith("--output") for each in arguments):
    sys.exit('Error response from daemon: exporter "docker" could not be found')
print("Docker version 20.10.24" if arguments == ["--version"] else "20.10.24")
"""


def test_a_docker_before_buildx_builds_without_its_options(path: Path, tmp_path: Path) -> None:
    """Docker 20.10 really ends so: its `docker build` is BuildKit in the engine, with one exporter."""
    program(path, "docker", OLD_DOCKER)
    found = find(tmp_path / "state")
    assert found.has_one_exporter
    assert found.environment["DOCKER_BUILDKIT"] == "1"
    found.build(tmp_path, tag="a:b")
    found.save(tmp_path / "engine.json")
    assert Engine.load(tmp_path / "engine.json") == found


def test_log_ins_of_a_rehearsal_are_no_business_of_the_users_docker(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = tmp_path / "users"
    (users / "contexts").mkdir(parents=True)
    written = json.dumps({"auths": {"here": {"auth": "secret"}}, "credsStore": "osxkeychain", "currentContext": "far"})
    (users / "config.json").write_text(written)
    monkeypatch.setenv("DOCKER_CONFIG", str(users))
    log_in = """
if arguments[:1] == ["login"]:
    open(os.path.join(os.environ["DOCKER_CONFIG"], "config.json"), "a").write("AWS")
"""
    program(path, "docker", log_in + DOCKER_ENGINE)
    for _ in range(2):
        found = find(tmp_path / "state")
    config = Path(found.environment["DOCKER_CONFIG"])
    assert json.loads((config / "config.json").read_text()) == {"currentContext": "far"}
    assert (config / "contexts").resolve() == users / "contexts"
    found.call("login", "127.0.0.1:5000")
    assert (config / "config.json").read_text().endswith("AWS")
    assert (users / "config.json").read_text() == written


def test_a_docker_client_without_an_engine_is_no_engine(path: Path, tmp_path: Path) -> None:
    program(path, "docker", CLIENT_WITHOUT_ENGINE)
    with pytest.raises(EngineError, match=r"(?s)no container engine answers.*Cannot connect.*install Docker Engine or"):
        find(tmp_path / "state")


def test_without_any_engine_the_message_says_what_to_install(path: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EngineError, match=r"install Docker Engine or podman and start it, or name .*EXTENDED_DLC_ENGINE"
    ):
        find(tmp_path / "state")


def test_a_podman_that_cannot_run_gives_its_own_reason(path: Path, tmp_path: Path) -> None:
    program(path, "podman", BROKEN_PODMAN)
    with pytest.raises(EngineError, match="build is not possible in here"):
        find(tmp_path / "state")


@pytest.mark.parametrize("variable", ["EXTENDED_DLC_ENGINE", "CDK_DOCKER"])
def test_a_named_program_is_used_and_no_other(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    program(path, "docker", DOCKER_ENGINE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv(variable, str(program(elsewhere, "finch", DOCKER_ENGINE)))
    assert find(tmp_path / "state").program == str(elsewhere / "finch")
    monkeypatch.setenv(variable, str(program(elsewhere, "dead", CLIENT_WITHOUT_ENGINE)))
    with pytest.raises(
        EngineError, match=rf"(?s){variable} names .*dead, which cannot be used: .*Cannot connect.*or unset"
    ):
        find(tmp_path / "state")
    monkeypatch.setenv(variable, "absent")
    with pytest.raises(EngineError, match=rf"{variable} \(absent\) is not a program"):
        find(tmp_path / "state")


def test_where_podman_is_installed_the_reader_is_told_before(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    program(path, "apt-get", "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(engines, "_apt", lambda command: order.append(" ".join(command)))
    with pytest.raises(EngineError, match="podman is installed but does not work"):
        find(tmp_path / "state", say=order.append)
    assert "installing podman and runc with apt-get" in order[0]
    assert "--download-only" in order[1]
    assert order[2].endswith("podman runc")


def test_an_engine_survives_being_written_down(tmp_path: Path) -> None:
    engine = Engine(program="/usr/bin/podman", environment={"A": "b"})
    engine.save(tmp_path / "engine.json")
    assert Engine.load(tmp_path / "engine.json") == engine
    for cut_off in ("", "[]", "{", '{"program": "/usr/bin/podman"}'):
        (tmp_path / "engine.json").write_text(cut_off)
        assert Engine.load(tmp_path / "engine.json") is None


def test_a_failed_call_tells_what_the_program_said(path: Path) -> None:
    engine = Engine(program=str(program(path, "docker", CLIENT_WITHOUT_ENGINE)), environment={})
    with pytest.raises(EngineError, match="docker ps failed: Cannot connect"):
        engine.call("ps")
    with pytest.raises(EngineError, match="absent cannot be run"):
        Engine(program="absent", environment={}).call("ps")


def test_a_call_that_hangs_ends_with_the_seconds_waited(path: Path) -> None:
    engine = Engine(program=str(program(path, "docker", "import time; time.sleep(60)")), environment={})
    with pytest.raises(EngineError, match=r"docker info gave no result in 0\.5 s"):
        engine.call("info", timeout=0.5)


def test_what_an_interrupted_build_left_is_removed_from_a_store_of_its_own_only(path: Path) -> None:
    script = """
import sys
from pathlib import Path
if sys.argv[1] == "ps":
    print("1a /server serve\\n2b buildah\\n3c buildah")
else:
    Path(sys.argv[0] + ".removed").write_text(" ".join(sys.argv[1:]))
"""
    podman = program(path, "podman", script)
    removed = path / "podman.removed"
    Engine(program=str(podman), environment={}).remove_interrupted_builds()
    assert not removed.exists(), "builds of the user's may go on in the user's store"
    Engine(program=str(podman), environment={"CONTAINERS_STORAGE_CONF": "x"}).remove_interrupted_builds()
    assert removed.read_text() == "rm --force 2b 3c"


def test_the_settings_of_our_podman_all_lie_below_the_state(engine: Engine) -> None:
    if "CONTAINERS_CONF" not in engine.environment:
        pytest.skip("this machine's engine works as it is")
    files = [value for value in engine.environment.values() if value.startswith("/")]
    assert files
    assert all(Path(file).is_relative_to(STATE) for file in files)
    info = json.loads(engine.call("info", "--format", "json"))
    for key in ("graphRoot", "runRoot", "volumePath"):
        assert Path(info["store"][key]).is_relative_to(STATE)


def test_our_podman_carries_no_workaround_that_this_machine_does_without(engine: Engine) -> None:
    if "CONTAINERS_CONF" not in engine.environment:
        pytest.skip("this machine's engine works as it is")
    # its own store, because others use the rehearsal's meanwhile; in a folder as users have it
    home = STATE / f"test Zoë {os.getpid()}" / "podman"
    home.mkdir(parents=True)
    try:
        engines._own_podman(engine.program, home.parent, "127.0.0.1:5000", [])
        names = json.loads((home / "workarounds.json").read_text())
        for name in names:
            fewer = [one for one in engines._workarounds() if one.name in names and one.name != name]
            with pytest.raises(EngineError):
                engines._try_out(engines._configure(engine.program, home, "127.0.0.1:5000", fewer), home)
    finally:
        shutil.rmtree(home.parent)


@pytest.mark.parametrize(
    ("variables", "locale"),
    [
        ({}, "C.UTF-8"),
        ({"LANG": "de_DE.UTF-8"}, "de_DE.UTF-8"),
        ({"LANG": "fr_FR.utf8", "LC_ALL": "", "LC_CTYPE": "POSIX"}, "C.UTF-8"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, "C.UTF-8"),
        ({"LANG": "C", "LC_CTYPE": "pt_BR.UTF-8"}, "pt_BR.UTF-8"),
    ],
)
def test_podman_and_its_monitor_read_paths_in_utf_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], locale: str
) -> None:
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert engines._podman_environment(tmp_path, "127.0.0.1:5000", "")["LC_ALL"] == locale


def test_a_second_search_takes_less_than_three_seconds(engine: Engine) -> None:
    import time

    start = time.monotonic()
    assert find_engine(STATE, registry="127.0.0.1:5000", say=silent) == engine
    assert time.monotonic() - start < 3


def test_the_version_line_names_engine_and_number(engine: Engine) -> None:
    assert engine.version().split()[0] in ("podman", "Docker")
    assert any(letter.isdigit() for letter in engine.version())


@pytest.mark.parametrize(("name", "asks"), [("docker", True), ("podman", False)])
def test_docker_is_asked_for_its_own_media_types_and_podman_does_not_know_the_option(
    tmp_path: Path, name: str, asks: bool
) -> None:
    script = f"print('{name} version 5' if arguments == ['--version'] else ' '.join(arguments))"
    log = tmp_path / "build.log"
    Engine(program=str(program(tmp_path, name, script)), environment={}).build(tmp_path, tag="x/y:z", log=log)
    assert ("--output=type=docker,oci-mediatypes=false" in log.read_text().split()) == asks


def test_a_build_gets_its_arguments_and_leaves_a_log(engine: Engine, image: str) -> None:
    assert engine.has_image(image)
    assert not engine.has_image(f"{image}-absent")
    labels = json.loads(engine.call("image", "inspect", image))[0]["Config"]["Labels"]
    assert labels["for"] == "a test"


def test_a_failed_build_says_why_and_where_its_log_is(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY absent.txt /\n")
    log = tmp_path / "build.log"
    with pytest.raises(EngineError, match=r"(?s)absent\.txt.*the log is .*build\.log"):
        engine.build(tmp_path, tag="localhost/extended-dlc/fails", log=log)
    assert "absent.txt" in log.read_text()


def test_only_containers_with_the_label_are_removed_running_or_not(engine: Engine, image: str, label: str) -> None:
    other = f"{label}-other"
    run = ("run", "--detach", "--network=host")
    sleep = str(Path(shutil.which("sleep") or "").resolve())
    bystander = engine.call(*run, f"--label={other}", image, sleep, "300").strip()
    try:
        running = engine.call(*run, f"--label={label}", image, sleep, "300").strip()
        ended = engine.call(*run, f"--label={label}", image, sleep, "0").strip()
        assert engine.call("wait", ended).strip() == "0"
        removed = engine.remove_containers(label)
        assert {running[:12], ended[:12]} == {one[:12] for one in removed}
        assert engine.containers(label) == []
        assert [one[:12] for one in engine.containers(other)] == [bystander[:12]]
    finally:
        engine.remove_containers(other)
    assert engine.remove_containers(label) == []


class Registry(BaseHTTPRequestHandler):
    """As much of a registry as a push needs; its blobs outlive it, as the embedded registry's do."""

    protocol_version = "HTTP/1.1"
    blobs: set[str] = set()  # noqa: RUF012 - shared by design
    requests: list[str] = []  # noqa: RUF012

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def answer(self, status: int, **headers: str) -> None:
        self.requests.append(f"{self.command} {self.path}")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("length", "0"))
        self.end_headers()

    def drain(self) -> int:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        total = 0
        while size := int(self.rfile.readline(), 16):
            total += len(self.rfile.read(size + 2)) - 2
        self.rfile.readline()
        return total

    def do_HEAD(self) -> None:
        self.answer(200 if self.path.rpartition("/")[2] in self.blobs else 404)

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/v2/" else 404)

    def do_POST(self) -> None:
        self.drain()
        self.answer(202, Location=f"{self.path}1", Docker_Upload_UUID="1", Range="0-0")

    def do_PATCH(self) -> None:
        last = self.drain() - 1
        self.answer(202, Location=self.path, Docker_Upload_UUID="1", Range=f"0-{last}")

    def do_PUT(self) -> None:
        self.drain()
        if "digest=" in self.path:
            self.blobs.add(self.path.partition("digest=")[2].replace("%3A", ":"))
        self.answer(201, Location=self.path)


def test_a_registry_that_has_the_layers_gets_none_of_them_again(engine: Engine, image: str) -> None:
    def push(port: int, tag: str) -> tuple[int, list[str]]:
        server = ThreadingHTTPServer(("127.0.0.1", port), Registry)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        Registry.requests.clear()
        destination = f"127.0.0.1:{server.server_port}/assets:{tag}"
        try:
            engine.push(image, destination)
            return server.server_port, list(Registry.requests)
        finally:
            engine.call("rmi", destination)
            server.shutdown()
            thread.join()
            server.server_close()

    port, first = push(0, "one")
    _, second = push(port, "two")
    assert [one for one in first if one.startswith("POST")]
    # the reasons are the same port, and successful HEAD requests for existing blobs
    assert [one for one in second if not one.startswith(("GET", "HEAD"))] == ["PUT /v2/assets/manifests/two"]
