"""`extended-dlc doctor` and the container engine: Docker and podman, their settings, emulation, the disk."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from extended_dlc.doctor import Ok, account, engine
from tests.support.doctor import (
    REGION,
    STOPPED,
    STOPPED_DOCKER,
    Programs,
    assert_ok,
    assert_problem,
    assert_unknown,
    docker,
    podman,
    settings,
    target,
)


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


def test_a_docker_whose_build_is_not_buildx_is_named(tmp_path: Path, path: Programs) -> None:
    """Docker 20.10 with the plugin: `docker build` is BuildKit in the engine, whose options have no --load."""
    path("docker", docker(build_options="-o, --output stringArray"))
    assert_problem(engine.buildkit(target(tmp_path)), "does not call buildx", "update Docker to 23")


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
    given = settings()
    assert_ok(engine.engine(target(tmp_path, given, "podman")), r"^podman 4\.3\.1$")
    assert_problem(
        engine.engine_setting(target(tmp_path, given, "podman")),
        r"image\.build\.engine is docker and podman is podman",
        '"engine": "podman"',
    )
    given["image"]["build"] = {"engine": "podman"}
    assert_problem(
        engine.engine_setting(target(tmp_path, given, "podman")), "OCI manifests", "export BUILDAH_FORMAT=docker"
    )
    monkeypatch.setenv("BUILDAH_FORMAT", "docker")
    assert_ok(engine.engine_setting(target(tmp_path, given, "podman")), "^podman$")
    assert_ok(engine.buildkit(target(tmp_path, given, "podman")), "not needed")


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
