"""`extended-dlc doctor`: each check on both sides, against programs and services that behave like the real ones."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from extended_dlc.doctor import CHECKS, Check, Finding, Ok, Problem, Target, Unknown, account, engine, examine, tools

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
REGION = "us-east-1"
OURS = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/ours"
Programs = Callable[..., Path]


def settings(base: str | None = None, **hosting: Any) -> dict[str, Any]:
    return {
        "region": REGION,
        "image": {"transformers": "5.23.0", "base": base},
        "endpoints": {"bloom": {"model": "bigscience/bloom-560m", "hosting": hosting}},
    }


def target(folder: Path, raw: Mapping[str, Any] | None = None, program: str = "docker") -> Target:
    return Target(folder=folder, settings=settings() if raw is None else raw, engine=program)


def assert_problem(finding: Finding, message: str, remedy: str) -> None:
    assert isinstance(finding, Problem), finding
    assert re.search(message, finding.message), finding.message
    assert re.search(remedy, finding.remedy), finding.remedy


def assert_ok(finding: Finding, message: str) -> None:
    assert isinstance(finding, Ok), finding
    assert re.search(message, finding.message), finding.message


def assert_unknown(finding: Finding, message: str) -> None:
    assert isinstance(finding, Unknown), finding
    assert re.search(message, finding.message), finding.message


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A search path with nothing on it, and a way to put programs of Python's own there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("CDK_DOCKER", "BUILDAH_FORMAT"):
        monkeypatch.delenv(variable, raising=False)

    def put(name: str, source: str, *, into: Path = folder) -> Path:
        into.mkdir(parents=True, exist_ok=True)
        program = into / name
        program.write_text(f"#!{sys.executable}\nimport sys\nwords = sys.argv[1:]\n{source}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    return put


def says(**answers: str) -> str:
    """The source of a program that prints an answer to its first words, and otherwise fails."""
    return (
        f"for start, answer in {list(answers.items())!r}:\n"
        "    if ' '.join(words).startswith(start.replace('_', ' ')):\n        sys.exit(print(answer))\n"
        "sys.exit('unknown command')"
    )


DOCKER = (
    "if words == ['--version']: print('Docker version 28.2.2, build e6534b4')\n"
    "elif words[0] == 'info':\n"
    "    print({{'{{{{.ServerVersion}}}}': '28.2.2', '{{{{.Architecture}}}}': {architecture!r},"
    " '{{{{.DockerRootDir}}}}': {root!r}, '{{{{json .DriverStatus}}}}': {store!r}}}[words[-1]])\n"
    "elif words[:2] == ['buildx', 'version']: print('github.com/docker/buildx v0.24.0 abc')\n"
    "elif words[:2] == ['buildx', 'inspect']: print('{buildkit}\\nPlatforms: {platforms}')\n"
    "else: sys.exit('docker: unknown command')"
)
STOPPED = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
# as Docker 28 does it: the client's part, a line about the server on standard error, and status 1
STOPPED_DOCKER = (
    f"if words == ['--version']: print('Docker version 28.2.2, build e6534b4')\nelse: print(); sys.exit({STOPPED!r})"
)


def docker(
    architecture: str = "x86_64",
    root: str = "/",
    platforms: str = "linux/amd64",
    store: str = '[["Backing Filesystem","extfs"]]',
    buildkit: str = "",
) -> str:
    return DOCKER.format(architecture=architecture, root=root, platforms=platforms, store=store, buildkit=buildkit)


def podman(architecture: str = "amd64") -> str:
    return (
        "if words == ['--version']: print('podman version 4.3.1')\n"
        f"else: print({{'{{{{.Version.Version}}}}': '4.3.1', '{{{{.Host.Arch}}}}': {architecture!r},"
        " '{{.Store.GraphRoot}}': '/'}[words[-1]])"
    )


# ---- the programs ----


def cdk_json(folder: Path, app: str) -> Target:
    (folder / "cdk.json").write_text(json.dumps({"app": app}))
    return target(folder)


def test_python_with_the_cdk_library_is_fine(tmp_path: Path) -> None:
    assert_ok(tools.python(cdk_json(tmp_path, f"{sys.executable} app.py")), r"^3\.\d+\.\d+ with aws-cdk-lib$")


def test_python_that_is_too_old_is_named(tmp_path: Path, path: Programs) -> None:
    path("python3", "print('3.9.18 True')")
    assert_problem(
        tools.python(cdk_json(tmp_path, "python3 app.py")),
        r"is Python 3\.9\.18, too old: 3\.10",
        r"install Python 3\.10",
    )


def test_a_python_of_another_age_altogether_is_named(tmp_path: Path, path: Programs) -> None:
    path("python", "sys.exit('ImportError: No module named util')")
    assert_problem(
        tools.python(cdk_json(tmp_path, "python app.py")), "not a Python that works .*No module", r"Python 3\.10"
    )


def test_a_virtual_environment_that_was_not_activated_is_named(tmp_path: Path, path: Programs) -> None:
    path("python3", "print('3.12.1 False')")
    (tmp_path / "Makefile").touch()
    assert_problem(
        tools.python(cdk_json(tmp_path, "python3 app.py")), "has no aws-cdk-lib", r"source \.venv/bin/activate"
    )
    (tmp_path / "Makefile").unlink()
    assert_problem(tools.python(cdk_json(tmp_path, "python3 app.py")), "has no aws-cdk-lib", "install -r requirements")


def test_no_python_on_the_path_is_named_and_another_starter_is_unknown(tmp_path: Path, path: Programs) -> None:
    assert_problem(tools.python(cdk_json(tmp_path, "python3 app.py")), "there is no python3", "install Python")
    assert_unknown(tools.python(cdk_json(tmp_path, "poetry run python app.py")), "started by poetry")


@pytest.mark.parametrize(("release", "old"), [("v20.0.0", True), ("v22.1.0", False), ("v24.11.1", False)])
def test_a_node_that_works_is_fine_and_an_old_one_is_said_in_one_line(
    tmp_path: Path, path: Programs, release: str, old: bool
) -> None:
    path("node", says(__version=release).replace("__version", "--version"))
    assert_ok(tools.node(target(tmp_path)), f"{release}; it is past its end of life" if old else release)
    said = "Node.js 20 is past its end of life: install Node.js 22 or newer (https://nodejs.org), then: node --version"
    assert tools.old_node() == (said if old else None)


def test_an_old_node_and_none_are_named(tmp_path: Path, path: Programs) -> None:
    assert_problem(tools.node(target(tmp_path)), r"there is no Node\.js", r"install Node\.js 22")
    path("node", "print('v18.20.4')")
    assert_problem(tools.node(target(tmp_path)), r"v18\.20\.4 is too old", r"install Node\.js 22")


def app(folder: Path, pinned: str = "2.1148.1") -> Target:
    (folder / "package.json").write_text(json.dumps({"devDependencies": {"aws-cdk": pinned}}))
    (folder / "package-lock.json").touch()
    return target(folder)


def test_the_cli_that_this_checkout_pins_is_fine() -> None:
    if not (ROOT / "node_modules" / ".bin" / "cdk").exists():
        pytest.skip("the CDK CLI is not installed: run `make setup`")
    assert_ok(tools.cdk(target(ROOT)), r"^2\.\d+\.\d+$")


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ("3.0.0 (build 4f3efd4)", r"3\.0\.0 was published by accident .*#38113"),
        ("2.1147.9 (build abc)", r"2\.1147\.9, older than 2\.1148\.1, which package\.json pins"),
        ("1.204.0 (build abc)", r"1\.204\.0, and the app is made for 2\.x"),
    ],
)
def test_a_wrong_cli_is_named_in_node_modules_and_on_the_path(
    tmp_path: Path, path: Programs, printed: str, problem: str
) -> None:
    path("cdk", f"print({printed!r})", into=tmp_path / "node_modules" / ".bin")
    assert_problem(tools.cdk(app(tmp_path)), problem, "^npm ci$")
    path("cdk", f"print({printed!r})")
    assert_problem(tools.cdk_on_path(app(tmp_path)), problem, r"npx cdk.*npm install --global aws-cdk@2\.1148\.1")


def test_a_newer_cli_of_the_same_major_is_fine(tmp_path: Path, path: Programs) -> None:
    path("cdk", "print('2.1200.0 (build abc)')")
    assert_ok(tools.cdk_on_path(app(tmp_path)), r"2\.1200\.0")


def test_no_cli_is_a_problem_in_node_modules_alone(tmp_path: Path, path: Programs) -> None:
    assert_problem(tools.cdk(app(tmp_path)), "no CDK CLI in node_modules", "^npm ci$")
    assert_ok(tools.cdk_on_path(app(tmp_path)), "^none")


def test_in_a_folder_that_pins_none_the_one_on_the_path_decides(tmp_path: Path, path: Programs) -> None:
    assert_problem(tools.cdk(target(tmp_path)), "no CDK CLI", "npm install aws-cdk@2")
    path("cdk", "print('2.1000.0 (build abc)')")
    assert_ok(tools.cdk(target(tmp_path)), "see cdk-on-path")
    assert_ok(tools.cdk_on_path(target(tmp_path)), r"2\.1000\.0")


# ---- the container engine ----


def test_an_engine_that_runs_is_fine(tmp_path: Path, path: Programs) -> None:
    path("docker", docker())
    for check, seen in {
        engine.engine: r"^Docker Engine 28\.2\.2$",
        engine.engine_setting: "^docker$",
        engine.buildkit: r"v0\.24\.0",
        engine.platform: "^amd64, no emulation$",
    }.items():
        assert_ok(check(target(tmp_path)), seen)


def test_no_engine_is_named(tmp_path: Path, path: Programs) -> None:
    assert_problem(engine.engine(target(tmp_path)), "no container engine 'docker'", "install Docker")
    path("podman", podman())
    assert_problem(engine.engine(target(tmp_path)), "no docker .* but podman is", "export CDK_DOCKER=podman")


def test_a_stopped_engine_is_named_and_what_depends_on_it_is_unknown(tmp_path: Path, path: Programs) -> None:
    path("docker", STOPPED_DOCKER)
    start = "open -a Docker" if sys.platform == "darwin" else "sudo systemctl start docker"
    assert_problem(engine.engine(target(tmp_path)), f"installed but does not run: {re.escape(STOPPED)}", start)
    for check in (engine.platform, engine.disk):
        assert_unknown(check(target(tmp_path)), "does not answer: see 'engine'")


def test_an_old_client_that_ends_well_without_its_server_is_not_taken_for_one(tmp_path: Path, path: Programs) -> None:
    path(
        "docker",
        "print('Docker version 20.10') if words == ['--version'] else (print(), print('ERROR: no', file=sys.stderr))",
    )
    assert_problem(engine.engine(target(tmp_path)), "does not run: ERROR: no", "docker")


def test_an_engine_that_is_not_allowed_is_told_from_a_stopped_one(tmp_path: Path, path: Programs) -> None:
    denied = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
    path("docker", f"print('Docker version 28') if words == ['--version'] else sys.exit({denied!r})")
    assert_problem(engine.engine(target(tmp_path)), "you may not use it: permission denied", "usermod -aG docker")


def test_an_engine_that_hangs_is_unknown(tmp_path: Path, path: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extended_dlc.doctor.programs.SECONDS", 0.5)
    path(
        "docker",
        "import time\nif words == ['--version']: print('Docker version 28')\nelse: time.sleep(30)",
    )
    assert_unknown(engine.engine(target(tmp_path)), r"gave no answer in 0\.5 s")


def test_docker_without_buildx_is_named(tmp_path: Path, path: Programs) -> None:
    path("docker", docker().replace("'buildx', 'version'", "'no', 'such'"))
    assert_problem(engine.buildkit(target(tmp_path)), "no buildx", "docker-buildx-plugin")


CONTAINERD = '[["driver-type","io.containerd.snapshotter.v1"]]'


@pytest.mark.parametrize(
    ("store", "buildkit", "seen"),
    [
        (CONTAINERD, "Name: default\\nBuildKit version: v0.31.0", r"BuildKit v0\.31\.0, image store containerd's$"),
        (
            '[["Backing Filesystem","extfs"]]',
            "Buildkit:  v0.11.6",
            r"BuildKit v0\.11\.6, image store the graph driver's",
        ),
        ("", "Name: default", "BuildKit of unknown version, image store of an unknown kind$"),
    ],
)
def test_what_decides_on_dockers_manifests_is_said(
    tmp_path: Path, path: Programs, store: str, buildkit: str, seen: str
) -> None:
    path("docker", docker(store=store, buildkit=buildkit))
    assert_ok(engine.buildkit(target(tmp_path)), seen)


def test_podman_wants_its_setting_and_dockers_media_types(
    tmp_path: Path, path: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path("podman", podman())
    told = settings()
    assert_ok(engine.engine(target(tmp_path, told, "podman")), r"^podman 4\.3\.1$")
    assert_problem(
        engine.engine_setting(target(tmp_path, told, "podman")),
        r"image\.build\.engine is docker and podman is podman",
        '"engine": "podman"',
    )
    told["image"]["build"] = {"engine": "podman"}
    assert_problem(
        engine.engine_setting(target(tmp_path, told, "podman")), "OCI manifests", "export BUILDAH_FORMAT=docker"
    )
    monkeypatch.setenv("BUILDAH_FORMAT", "docker")
    assert_ok(engine.engine_setting(target(tmp_path, told, "podman")), "^podman$")
    assert_ok(engine.buildkit(target(tmp_path, told, "podman")), "not needed")


def test_emulation_is_explained_and_its_absence_is_a_problem(tmp_path: Path, path: Programs) -> None:
    path("docker", docker("aarch64", platforms="linux/arm64, linux/amd64 (+2), linux/386"))
    assert_ok(
        engine.platform(target(tmp_path)), "is aarch64.*under emulation, its proof step included.*uncaught target"
    )
    path("docker", docker("aarch64", platforms="linux/arm64, linux/arm/v7"))
    assert_problem(engine.platform(target(tmp_path)), "cannot build for linux/amd64.*exec format", "Rosetta.*binfmt")


def test_podman_on_another_processor_is_not_guessed_at(tmp_path: Path, path: Programs) -> None:
    path("podman", podman("arm64"))
    finding = engine.platform(target(tmp_path, program="podman"))
    assert not (isinstance(finding, Ok) and "no emulation" in finding.message)
    assert "arm64" in finding.message


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the engine's disk is a virtual machine's")
@pytest.mark.parametrize(
    ("instance_type", "free", "enough"),
    [("ml.m5.xlarge", 9, False), ("ml.m5.xlarge", 11, True), ("ml.g5.xlarge", 11, False), ("ml.g5.xlarge", 26, True)],
)
def test_the_disk_is_judged_by_the_kind_of_image(
    tmp_path: Path, path: Programs, monkeypatch: pytest.MonkeyPatch, instance_type: str, free: int, enough: bool
) -> None:
    path("docker", docker(root=str(tmp_path)))
    disk = type("Usage", (), {"free": free * 10**9})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: disk)
    finding = engine.disk(target(tmp_path, settings(instance_type=instance_type)))
    if enough:
        assert_ok(finding, f"{free} GB are free")
    else:
        assert_problem(finding, f"^{free} GB are free in .* wants about", "^docker system prune --all$")


def test_a_disk_of_a_virtual_machine_is_unknown(tmp_path: Path, path: Programs) -> None:
    path("docker", docker(root="/var/lib/of-another-machine"))
    assert_unknown(engine.disk(target(tmp_path)), "virtual machine.*docker system df")


def test_an_image_that_is_published_needs_no_engine(tmp_path: Path, path: Programs) -> None:
    published = target(tmp_path, {"region": REGION, "image": {"kind": "ecr"}, "endpoints": {}})
    for check in (engine.engine, engine.engine_setting, engine.buildkit, engine.platform, engine.disk):
        assert_ok(check(published), "not needed")
    assert_ok(account.base_image(published), "not needed")


def test_what_was_looked_up_decides_on_the_base_here_as_in_the_app(tmp_path: Path) -> None:
    raw = settings(instance_type="ml.p4de.24xlarge")
    raw["endpoints"]["bloom"]["model"] = "someone/x"
    (before,) = target(tmp_path, raw).bases
    assert "/huggingface-pytorch-inference:" in before
    large = {"asked": "main", "model_type": "bloom", "task": "text-generation", "parameters": 176 * 10**9}
    (tmp_path / "cdk.lookups.json").write_text(json.dumps({"extended-dlc:model:someone/x": large}))
    (after,) = target(tmp_path, raw).bases
    assert "/huggingface-vllm:" in after


# ---- the account ----


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """moto as the AWS of the caller's environment."""
    return use(moto, monkeypatch)


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for variable in [name for name in os.environ if name.startswith(("AWS_", "EXTENDED_DLC"))]:
        monkeypatch.delenv(variable)
    given = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return url


def serve(answer: Callable[[str, Any], tuple[int, str]]) -> Iterator[str]:
    """An AWS that gives the answers that moto does not."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            status, content = answer(action, json.loads(body) if action else body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def refusal(action: str, body: Any) -> tuple[int, str]:
    """Nothing is allowed, and a session is over."""
    if action == "GetAuthorizationToken":
        return 200, json.dumps({"authorizationData": []})
    if action:
        return 400, json.dumps({"__type": "AccessDeniedException", "message": "not authorized to perform it"})
    return 403, (
        "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>The security token included in the "
        "request is expired</Message></Error></ErrorResponse>"
    )


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for url in serve(refusal):
        use(url, monkeypatch)
        yield


QUOTAS = [{"QuotaName": f"ml.c5.{n}xlarge for endpoint usage", "QuotaCode": f"L-{n}", "Value": 1.0} for n in range(250)]
QUOTAS += [
    {"QuotaName": "ml.m5.xlarge for training job usage", "QuotaCode": "L-OTHER", "Value": 0.0},
    {"QuotaName": "ml.m5.xlarge for endpoint usage", "QuotaCode": "L-FIVE", "Value": 5.0},
    {"QuotaName": "ml.g5.xlarge for endpoint usage", "QuotaCode": "L-ZERO", "Value": 0.0},
]


BUILDS = [
    {"QuotaName": "Concurrently running builds for Linux/Large environment", "QuotaCode": "L-LARGE", "Value": 1.0},
    {"QuotaName": "Concurrently running builds for Linux/Small environment", "QuotaCode": "L-SMALL", "Value": 0.0},
]


def quotas(action: str, body: Any) -> tuple[int, str]:
    assert action == "ListServiceQuotas"
    if body["ServiceCode"] == "codebuild":
        return 200, json.dumps({"Quotas": BUILDS})
    assert body["ServiceCode"] == "sagemaker"
    start = int(body.get("NextToken", 0))
    end = start + body["MaxResults"]
    following = {"NextToken": str(end)} if end < len(QUOTAS) else {}
    return 200, json.dumps({"Quotas": QUOTAS[start:end], **following})


@pytest.fixture
def quota_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for url in serve(quotas):
        use(url, monkeypatch)
        yield


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


def publish() -> str:
    """Put ours:1 into its repository."""
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    digest = f"sha256:{'1' * 64}"
    ecr = client("ecr")
    ecr.put_image(repositoryName="ours", imageTag="1", imageManifest=json.dumps(manifest), imageDigest=digest)
    return digest


def test_credentials_that_aws_takes_are_shown(tmp_path: Path, aws: str) -> None:
    assert_ok(account.credentials(target(tmp_path)), f"^account {ACCOUNT}, ")


def test_no_credentials_are_named_and_what_depends_on_them_is_unknown(
    tmp_path: Path, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert_problem(account.credentials(target(tmp_path)), "there are no AWS credentials", "aws configure, or aws sso")
    for check in (account.bootstrap, account.base_image, account.quota):
        assert_unknown(check(target(tmp_path)), "no AWS credentials: see 'credentials'")


def test_a_profile_that_does_not_exist_is_named(tmp_path: Path, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    assert_problem(account.credentials(target(tmp_path)), "AWS_PROFILE.*elsewhere", "aws configure list-profiles")


@pytest.mark.usefixtures("refusing")
def test_credentials_that_ended_are_named(tmp_path: Path) -> None:
    assert_problem(
        account.credentials(target(tmp_path)), "does not take your credentials: ExpiredToken", "aws sso login"
    )


@pytest.mark.usefixtures("refusing")
def test_what_one_may_not_ask_is_unknown(tmp_path: Path) -> None:
    assert_unknown(account.bootstrap(target(tmp_path)), "no ssm:GetParameter")
    assert_unknown(account.quota(target(tmp_path)), "no servicequotas:ListServiceQuotas")


@pytest.mark.parametrize("qualifier", ["hnb659fds", "mycorp"])
def test_the_bootstrap_is_told_by_its_version(tmp_path: Path, aws: str, qualifier: str) -> None:
    context = {} if qualifier == "hnb659fds" else {"@aws-cdk/core:bootstrapQualifier": qualifier}
    (tmp_path / "cdk.json").write_text(json.dumps({"context": context}))
    command = f"^npx cdk bootstrap aws://{ACCOUNT}/{REGION}$"
    parameter = f"/cdk-bootstrap/{qualifier}/version"
    assert_problem(account.bootstrap(target(tmp_path)), f"not bootstrapped in {REGION}", command)
    for version, judge in {
        "5": lambda found: assert_problem(found, "has version 5: 6 is the oldest", command),
        "6": lambda found: assert_ok(found, f"^version 6 in {REGION}$"),
        "30": lambda found: assert_ok(found, "^version 30"),
    }.items():
        client("ssm").put_parameter(Name=parameter, Value=version, Type="String", Overwrite=True)
        judge(account.bootstrap(target(tmp_path)))
    client("ssm").delete_parameter(Name=parameter)


def test_a_base_in_ecr_is_asked_for_as_a_pull_does(tmp_path: Path, aws: str) -> None:
    ecr = client("ecr")
    here = target(tmp_path, settings(f"{OURS}:1"))
    other = f"^pick another: extended-dlc catalog list --region {REGION}$"
    assert_problem(account.base_image(here), f"no repository ours in registry {ACCOUNT}", other)
    ecr.create_repository(repositoryName="ours")
    assert_problem(account.base_image(here), f"there is no ours:1 in registry {ACCOUNT}", other)
    digest = publish()
    assert_ok(account.base_image(here), "ours:1 can be pulled")
    assert_ok(account.base_image(target(tmp_path, settings(f"{OURS}@{digest}"))), "can be pulled")
    ecr.delete_repository(repositoryName="ours", force=True)


@pytest.mark.usefixtures("refusing")
def test_a_forbidden_base_in_ecr_is_named(tmp_path: Path) -> None:
    assert_problem(
        account.base_image(target(tmp_path)),
        "forbidden: you may not pull huggingface-pytorch-inference from registry 763104351884 in us-east-1",
        "ecr:BatchGetImage .*public base",
    )


def test_a_login_that_is_not_allowed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in serve(lambda action, body: (400, json.dumps({"__type": "AccessDeniedException"}))):
        use(url, monkeypatch)
        assert_problem(
            account.base_image(target(tmp_path)), "cannot log in", "ecr:GetAuthorizationToken.*extended-dlc login"
        )


ELSEWHERE = "registry.example.com/team/base:1"


@pytest.mark.parametrize(
    ("errors", "kind", "message", "remedy"),
    [
        ("unauthorized: authentication required", Problem, "registry.example.com refuses", "^docker login registry"),
        ("denied: requested access to the resource is denied", Problem, "forbidden", "^docker login registry"),
        ("no such manifest: registry.example.com/team/base:1", Problem, "there is no registry", "correct image.base"),
        ("dial tcp: lookup registry.example.com: i/o timeout", Unknown, "docker pull registry.example.com", ""),
    ],
)
def test_a_base_elsewhere_is_asked_for_by_the_engine(
    tmp_path: Path, path: Programs, errors: str, kind: type[Finding], message: str, remedy: str
) -> None:
    path("docker", f"sys.exit({errors!r})")
    finding = account.base_image(target(tmp_path, settings(ELSEWHERE)))
    assert isinstance(finding, kind)
    assert re.search(message, finding.message)
    assert re.search(remedy, finding.remedy if isinstance(finding, Problem) else "")


@pytest.mark.parametrize(("word", "seen"), [("image", "is on this machine"), ("manifest", "can be pulled")])
def test_a_base_elsewhere_that_is_there_is_fine(tmp_path: Path, path: Programs, word: str, seen: str) -> None:
    path("docker", f"sys.exit(0 if words == [{word!r}, 'inspect', {ELSEWHERE!r}] else 'no')")
    assert_ok(account.base_image(target(tmp_path, settings(ELSEWHERE))), seen)


def test_another_type_for_an_endpoint_that_scales_is_found_before_sagemaker_refuses_it(
    tmp_path: Path, aws: str
) -> None:
    sagemaker, scaling = (
        boto3.client(each, region_name="us-east-1") for each in ("sagemaker", "application-autoscaling")
    )
    scaling.describe_scalable_targets(ServiceNamespace="sagemaker")  # moto loads a service with its first request
    role = "arn:aws:iam::123456789012:role/speech"
    sagemaker.create_model(ModelName="scaled", ExecutionRoleArn=role, PrimaryContainer={"Image": "bloom"})
    variant = {"VariantName": "AllTraffic", "ModelName": "scaled", "InstanceType": "ml.m5.xlarge"}
    variants = [{**variant, "InitialInstanceCount": 1, "InitialVariantWeight": 1}]
    sagemaker.create_endpoint_config(EndpointConfigName="scaled", ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName="extended-dlc-bloom", EndpointConfigName="scaled")
    assert_ok(account.scaled_type(target(tmp_path, settings(instance_type="ml.g5.xlarge"))), "no endpoint that scales")
    scaling.register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/extended-dlc-bloom/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=2,
    )
    assert_ok(account.scaled_type(target(tmp_path, settings(instance_type="ml.m5.xlarge"))), "no endpoint that scales")
    assert_problem(
        account.scaled_type(target(tmp_path, settings(instance_type="ml.g5.xlarge"))),
        "extended-dlc-bloom scales on ml.m5.xlarge and would go over to ml.g5.xlarge",
        "deploy without 'scaling' and with the old type, then with the new type",
    )


@pytest.mark.usefixtures("quota_service")
def test_the_quota_for_endpoints_is_found_behind_hundreds_of_others(tmp_path: Path) -> None:
    assert_ok(account.quota(target(tmp_path)), r"^5 of ml\.m5\.xlarge$")


@pytest.mark.usefixtures("quota_service")
def test_a_quota_of_zero_comes_with_the_request_to_type(tmp_path: Path) -> None:
    assert_problem(
        account.quota(target(tmp_path, settings(instance_type="ml.g5.xlarge"))),
        r"^'ml\.g5\.xlarge for endpoint usage' is 0 in us-east-1 and 1 are asked for$",
        "^aws service-quotas request-service-quota-increase --service-code sagemaker --quota-code L-ZERO "
        "--desired-value 1 --region us-east-1$",
    )


@pytest.mark.usefixtures("quota_service")
def test_instances_of_all_endpoints_are_counted(tmp_path: Path) -> None:
    wanted = settings(instances=4)
    wanted["endpoints"]["whisper"] = {"model": "whisper", "hosting": {"instances": 2}}
    assert_problem(account.quota(target(tmp_path, wanted)), "is 5 in us-east-1 and 6 are asked", "--desired-value 6")


@pytest.mark.usefixtures("quota_service")
def test_a_quota_that_is_not_listed_is_unknown(tmp_path: Path) -> None:
    wanted = target(tmp_path, settings(instance_type="ml.m5.24xlarge"))
    assert_unknown(account.quota(wanted), r"lists no 'ml\.m5\.24xlarge for endpoint usage'")


def mirrored(**weights: str) -> dict[str, Any]:
    """Settings of an endpoint whose first component has mirrored weights."""
    found = settings()
    own = {"model": "openai/whisper-base", "revision": "a" * 40, "weights": {"kind": "mirrored", **weights}}
    parts = {"a": {"memory_mb": 512, **own}, "b": {"memory_mb": 512}}
    hosting = {"kind": "components", "maximum": 1, "components": parts}
    found["endpoints"]["shared"] = {"model": "bigscience/bloom-560m", "hosting": hosting}
    return found


@pytest.mark.usefixtures("quota_service")
def test_an_account_that_may_run_no_build_is_told_before_the_copy_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_problem(
        account.codebuild(target(tmp_path, mirrored())),
        "Linux/Small environment' is 0 in us-east-1, .*Cannot have more than 0 builds in queue",
        "^aws service-quotas request-service-quota-increase --service-code codebuild --quota-code L-SMALL "
        "--desired-value 1 --region us-east-1$",
    )
    monkeypatch.setitem(BUILDS[1], "Value", 5.0)
    assert_ok(account.codebuild(target(tmp_path, mirrored())), "^5 builds at a time$")
    for without in (settings(), mirrored(project="ours")):
        assert_ok(account.codebuild(target(tmp_path, without)), "not needed")


# ---- all of them ----


def test_without_a_network_nothing_is_wrong_and_all_is_over_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address takes connections and never answers, which is the slowest way of having no network."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        use(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        asked = [check for check in CHECKS if check.ask.__module__ == account.__name__]
        assert len(asked) == 6
        begun = time.monotonic()
        findings = dict(examine(target(tmp_path, mirrored()), asked))
        assert time.monotonic() - begun < 9
    for finding in findings.values():
        assert_unknown(finding, "AWS cannot be reached|no answer within")


def test_a_check_that_hangs_or_breaks_is_unknown_and_the_others_are_shown(tmp_path: Path) -> None:
    def breaks(target: Target) -> Finding:
        raise KeyError("oops")

    checks = (
        Check("hangs", lambda target: time.sleep(20) or Ok("")),  # type: ignore[func-returns-value]
        Check("breaks", breaks),
        Check("fine", lambda target: Ok("yes")),
    )
    begun = time.monotonic()
    findings = dict(examine(target(tmp_path), checks, seconds=0.3))
    assert time.monotonic() - begun < 2
    assert_unknown(findings["hangs"], r"no answer within 0\.3 s")
    assert_unknown(findings["breaks"], "the check itself failed: KeyError")
    assert_ok(findings["fine"], "yes")


@pytest.mark.parametrize("raw", [{}, {"image": 1, "endpoints": 2}, {"image": None, "endpoints": {"a": None}}])
def test_broken_settings_break_no_check(tmp_path: Path, aws: str, path: Programs, raw: Any) -> None:
    for _, finding in examine(target(tmp_path, raw)):
        assert "the check itself failed" not in finding.message


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extended_dlc", "doctor", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def healthy(tmp_path: Path, path: Programs, aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder and an account in which nothing is wrong."""
    folder = tmp_path / "app"
    folder.mkdir()
    content = {"app": f"{sys.executable} app.py", "context": {"extended-dlc": settings(f"{OURS}:1")}}
    (folder / "cdk.json").write_text(json.dumps(content))
    app(folder)
    path("cdk", "print('2.1148.1 (build fcf5e34)')", into=folder / "node_modules" / ".bin")
    path("node", "print('v24.1.0')")
    path("docker", docker(root=str(tmp_path)))
    client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String", Overwrite=True)
    client("ecr").create_repository(repositoryName="ours")
    publish()
    yield folder
    client("ssm").delete_parameter(Name="/cdk-bootstrap/hnb659fds/version")
    client("ecr").delete_repository(repositoryName="ours", force=True)


def test_the_command_prints_one_line_a_check_what_is_not_known_first_and_ends_with_0(healthy: Path) -> None:
    done = run(healthy, "--skip", "disk")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines()]
    fine = [["ok", check.name] for check in CHECKS if check.name not in ("disk", "quota")]
    assert lines == [["unknown", "quota"], *fine]


def test_the_command_prints_the_remedy_and_ends_with_1(healthy: Path, path: Programs) -> None:
    path("docker", STOPPED_DOCKER)
    path("podman", podman())
    done = run(healthy)
    assert done.returncode == 1
    assert done.stdout.startswith("problem  engine "), "what is wrong comes first"
    assert "; or take podman, which is here, too: export CDK_DOCKER=podman" in done.stdout
    assert re.search(r"^problem  engine +docker is installed but does not run.*\n +→ \S", done.stdout, re.MULTILINE)
    report = json.loads(run(healthy, "--json").stdout)
    assert report["ok"] is False
    (found,) = [each for each in report["checks"] if each["check"] == "engine"]
    assert found["state"] == "problem"
    assert STOPPED in found["message"]
    assert found["remedy"]


def test_another_settings_file_and_the_variables_decide(healthy: Path) -> None:
    (healthy / "other.yaml").write_text("region: eu-west-1\nimage: {kind: ecr}\nendpoints: {}\n")
    report = json.loads(run(healthy, "--json", "--settings", "other.yaml").stdout)
    states = {each["check"]: each for each in report["checks"]}
    assert states["bootstrap"]["message"] == "the CDK is not bootstrapped in eu-west-1"
    report = json.loads(run(healthy, "--json", EXTENDED_DLC_REGION="eu-west-2").stdout)
    states = {each["check"]: each for each in report["checks"]}
    assert states["bootstrap"]["message"] == "the CDK is not bootstrapped in eu-west-2"


def test_settings_that_are_not_there_or_not_readable_are_a_problem(tmp_path: Path, path: Programs, aws: str) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert re.search(r"problem  settings +there is no cdk.json: go to the folder.*\n +→ go to the folder", done.stdout)
    (tmp_path / "cdk.json").write_text("{")
    assert re.search(r"problem  settings +cdk.json is not valid: .*\n +→ ", run(tmp_path).stdout)


def test_the_command_never_imports_the_cdk() -> None:
    code = "import sys, extended_dlc.cli.doctor; sys.exit('aws_cdk' in sys.modules or 'boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_check_says_what_it_is() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.ask.__doc__, check.name
    assert all(field.type for field in dataclasses.fields(Check))
