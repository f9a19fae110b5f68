"""The stand-in base image: its parts, and what it must not contain."""

from __future__ import annotations

import json
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from extended_dlc.rehearsal.base_image import rootfs
from extended_dlc.rehearsal.base_image import stand_in as standin
from extended_dlc.rehearsal.engine import LABEL, Engine, EngineError

STATE = Path(__file__).parents[2] / ".rehearsal"


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The stand-in itself, built here in about a minute where the rehearsal has not built it."""
    try:
        return standin.make_standin(engine, STATE, say=silent)
    except EngineError as error:
        pytest.skip(f"needs the stand-in's parts: {error}")


def run(engine: Engine, image: str, *command: str) -> str:
    return engine.call("run", "--rm", "--network=host", f"--label={LABEL}=test", image, *command)


def test_the_tag_follows_the_grammar_of_the_dlcs(image: str) -> None:
    repository, tag = image.rsplit(":", 1)
    assert repository.endswith("/huggingface-pytorch-inference")
    torch, transformers, device, python, system = tag.split("-")
    assert (torch, transformers, device, system) == ("2.13.0", "transformers4.51.3", "cpu", "standin")
    assert python.startswith("py3")


def test_a_second_call_finds_the_image_in_less_than_a_second(engine: Engine, image: str) -> None:
    said: list[str] = []
    start = time.monotonic()
    assert standin.make_standin(engine, STATE, say=said.append) == image
    assert time.monotonic() - start < 1
    assert said == []


def test_it_has_what_the_dlc_has(engine: Engine, image: str) -> None:
    script = (
        "import json, os, shutil, sys, torch, transformers, accelerate, boto3, requests, sentencepiece;"
        "print(json.dumps([transformers.__version__, torch.__version__.split('+')[0], sys.executable, os.getuid(),"
        "shutil.which('ffmpeg') is not None, os.path.isdir('/opt/ml/model'), os.environ['PYTHONDONTWRITEBYTECODE'],"
        "'%d.%d' % sys.version_info[:2]]))"
    )
    *found, python = json.loads(run(engine, image, "python", "-c", script).splitlines()[-1])
    assert found == ["4.51.3", "2.13.0", "/opt/conda/bin/python", 0, True, True, "1"]
    assert f"-py{python.replace('.', '')}-" in image
    configuration = json.loads(engine.call("image", "inspect", image))[0]["Config"]
    assert configuration["Entrypoint"] == ["python", "/usr/local/bin/dockerd-entrypoint.py"]
    assert configuration["Cmd"] == ["serve"]
    for capability in ("accept-bind-to-port", "multi-models"):
        assert configuration["Labels"][f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"


def test_it_carries_no_wheel_no_cache_and_no_setting_of_pip(engine: Engine, image: str) -> None:
    look = (
        "find / -xdev ( -name *.whl -o -name pip.conf -o -path */.cache/pip -o -name wheels -not -empty"
        " -o -name EXTERNALLY-MANAGED ) -not -path */ensurepip/* -print"
    )
    # BuildKit leaves the empty folder on which the wheels were mounted
    assert run(engine, image, *look.split()).strip() == ""
    listing = run(engine, image, "python", "-m", "pip", "config", "list")
    assert listing.strip() == ""


def test_it_starts_fast_because_its_bytecode_is_there(engine: Engine, image: str) -> None:
    script = "import transformers, importlib.util; print(importlib.util.cache_from_source(transformers.__file__))"
    cached = run(engine, image, "python", "-c", script).strip()
    assert run(engine, image, "ls", cached).strip() == cached


def test_it_has_the_stock_server_and_its_java(engine: Engine, image: str) -> None:
    script = (
        "import subprocess, sagemaker_huggingface_inference_toolkit.serving;"
        "print(subprocess.run(['java', '-version'], stderr=subprocess.STDOUT, stdout=subprocess.PIPE).stdout)"
    )
    assert "OpenJDK" in run(engine, image, "python", "-c", script)


# ---- the parts of the stand-in ----


@pytest.fixture(scope="module")
def root_filesystem(tmp_path_factory: pytest.TempPathFactory) -> tarfile.TarFile:
    if rootfs.host_python() is None:
        pytest.skip("needs Debian or Ubuntu with its python3: apt-get install python3")
    archive = tmp_path_factory.mktemp("os") / "os.tar"
    rootfs.write_root_filesystem(archive)
    return tarfile.open(archive)


def test_the_hosts_packages_make_a_file_system_with_python_and_a_shell(root_filesystem: tarfile.TarFile) -> None:
    names = set(root_filesystem.getnames())
    assert f"usr/bin/python{rootfs.host_python()}" in names
    assert {"usr/bin/env", "usr/bin/awk", "tmp", "usr/local/bin"} <= names
    assert names & {"bin", "bin/sh"}
    assert len(names) == len(root_filesystem.getnames())


def test_nothing_of_the_hosts_own_is_in_the_file_system(root_filesystem: tarfile.TarFile) -> None:
    names = set(root_filesystem.getnames())
    of_host = {"etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/pip.conf", "etc/shadow", "etc/machine-id"}
    assert not of_host & names
    assert not [name for name in names if name.startswith(("etc/ssl/certs/", "root/", "home/", "usr/local/share/"))]
    passwd = root_filesystem.extractfile("etc/passwd")
    assert passwd is not None
    assert passwd.read() == Path("/usr/share/base-passwd/passwd.master").read_bytes()


class FakePip:
    """Stands in for the user's pip: records its calls, and lacks the given packages."""

    def __init__(self, *absent: str) -> None:
        self.asked: list[tuple[list[str], list[str]]] = []
        self.absent = absent

    def __call__(self, pip: list[str], options: list[str], requirements: list[str], folder: Path) -> str:
        self.asked.append((options, requirements))
        missing = [one for one in requirements if one in self.absent]
        return f"absent here: {missing[0]}" if missing else ""


STANDIN = standin._StandIn(reference="x/y:z", parts=standin.DLC_4_51_3, python="3.11")


@pytest.fixture
def collect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[FakePip], tuple[list[str], list[str]]]:
    def collect(pip: FakePip) -> tuple[list[str], list[str]]:
        monkeypatch.setattr(standin, "_download", pip)
        monkeypatch.setattr(standin, "_make_wheels", lambda pip, requirements, folder: "")
        said: list[str] = []
        downloads: list[str] = []
        standin._collect_wheels(
            tmp_path, STANDIN, say=said.append, on_download=lambda what, seconds: downloads.append(what)
        )
        return said, downloads

    return collect


def test_a_cpu_build_of_torch_is_preferred(
    collect: Callable[[FakePip], tuple[list[str], list[str]]], tmp_path: Path
) -> None:
    said, downloads = collect(FakePip())
    assert said == []
    assert downloads == ["the stand-in's wheels, with pip"]
    assert "torch==2.13.0+cpu" in (tmp_path / "torch.txt").read_text().splitlines()


def test_without_a_cpu_build_the_reader_is_warned_and_gets_what_there_is(
    collect: Callable[[FakePip], tuple[list[str], list[str]]], tmp_path: Path
) -> None:
    said, _ = collect(FakePip("torch==2.13.0+cpu"))
    assert "gigabytes of CUDA" in said[0]
    assert "PIP_EXTRA_INDEX_URL" in said[0]
    assert "torch==2.13.0" in (tmp_path / "torch.txt").read_text().splitlines()


def test_wheels_are_got_once_but_again_after_a_failure(
    collect: Callable[[FakePip], tuple[list[str], list[str]]],
) -> None:
    with pytest.raises(
        EngineError, match=r"(?s)packages \(torch.*transformers==4\.51\.3, .*\): absent here: t.*reachable"
    ):
        collect(FakePip("transformers==4.51.3"))
    pip = FakePip()
    collect(pip)
    assert pip.asked
    again = FakePip()
    assert collect(again) == ([], [])
    assert again.asked == []


def test_pip_is_told_the_images_python_only_where_it_differs_from_the_hosts() -> None:
    other = "3.10" if sys.version_info[:2] != (3, 10) else "3.12"
    options = standin.pip_target(other)
    assert f"--python-version={other}" in options
    assert "--platform=manylinux_2_28_x86_64" in options
    if sys.platform == "linux":
        assert standin.pip_target(f"{sys.version_info.major}.{sys.version_info.minor}") == []


def test_a_machine_with_neither_registry_nor_packages_is_told_what_to_make_reachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreachable(Engine):
        def call(self, *arguments: str, timeout: float | None = 600) -> str:
            raise EngineError("no such host")

    monkeypatch.setattr(rootfs, "host_python", lambda: None)
    with pytest.raises(EngineError, match=r"(?s)no OS layer for the stand-in: no such host.*make public\.ecr\.aws/"):
        standin.make_standin(Unreachable(program="x", environment={}), tmp_path, say=silent)


def test_parts_of_another_python_than_the_machines_come_with_the_public_image_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Unreachable(Engine):
        def call(self, *arguments: str, timeout: float | None = 600) -> str:
            asked.append(" ".join(arguments))
            raise EngineError("no such host")

    engine = Unreachable(program="x", environment={})
    assert not standin.can_have(engine, "3.8")
    monkeypatch.setattr(rootfs, "host_python", lambda: "3.11")
    with pytest.raises(EngineError, match=r"no OS layer for the stand-in"):
        standin.make_standin(engine, tmp_path, parts=standin.DLC_4_17_0, say=silent)
    assert any("public.ecr.aws/docker/library/python:3.8-slim" in one for one in asked)
    assert not any("3.11" in one for one in asked)
