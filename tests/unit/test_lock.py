"""The lock of the image's layer: what pip says as a file, and the file as an argument of the build."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Environment, Stack
from click.testing import CliRunner
from packaging.requirements import Requirement

from extended_dlc import ExtendedDlc, HubModel, HuggingFaceEndpoint
from extended_dlc.cli import main
from extended_dlc.facts.catalog import find_image
from extended_dlc.installed import docker_folder
from extended_dlc.options.lock import read_lock, write_lock
from maintain import shipped_lock

SHA = "a" * 64
REPORT = {
    "environment": {"python_full_version": "3.12.8"},
    "install": [
        {
            "metadata": {"name": name, "version": version},
            "download_info": {"url": "https://x/y.whl", "archive_info": {"hashes": {"sha256": SHA}}},
        }
        for name, version in (("transformers", "5.23.0"), ("Tokenizers", "0.22.1"))
    ],
}


def test_a_lock_has_the_base_its_python_the_day_and_each_package_with_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "extended-dlc.lock"
    file.write_text(write_lock(REPORT, base="registry/base:1", day="2026-11-28"))
    assert file.read_text().splitlines() == [
        "# extended-dlc lock",
        "# base registry/base:1",
        "# python 3.12",
        "# date 2026-11-28",
        f"tokenizers==0.22.1 --hash=sha256:{SHA}",
        f"transformers==5.23.0 --hash=sha256:{SHA}",
    ]
    # the day changes no image
    assert "date" not in read_lock(str(file), "5.23.0")
    stack = Stack(App(), "Test", env=Environment(region="us-east-1"))
    options: dict[str, Any] = {"transformers": "5.23.0", "accelerator": "cpu"}
    locked = ExtendedDlc(stack, "Locked", lock=str(file), **options)
    assert locked.image_uri != ExtendedDlc(stack, "Open", **options).image_uri


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"'lock' \(.*\) is not a file: run 'extended-dlc lock'"),
        ("transformers==5.23.0\n", r"was not written by 'extended-dlc lock'"),
        ("# extended-dlc lock\ntransformers==5.23.0\n", r"has a line without a version or a hash"),
        (f"# extended-dlc lock\ntransformers==5.22.0 --hash=sha256:{SHA}\n", r"is not of transformers 5\.23\.0"),
        (
            f"# extended-dlc lock\ntransformers==5.23.0 --hash=sha256:{SHA}\n" * 2,
            r"names a package twice \(transformers\)",
        ),
        (
            f"# extended-dlc lock\ntransformers==5.23.0 --hash=sha256:{SHA}\n"
            f"hf_xet==1.8.0 --hash=sha256:{SHA}\nHF-Xet==1.8.1 --hash=sha256:{SHA}\n",
            r"names a package twice \(hf-xet\)",
        ),
        (
            f"# extended-dlc lock\ntransformers==5.23.0 --hash=sha256:{SHA}\n"
            f"Torch==2.13.0 --hash=sha256:{SHA}\nnvidia_nccl-cu12==2 --hash=sha256:{SHA}\n",
            r"names what the base image has and keeps \(nvidia-nccl-cu12, torch\)",
        ),
        (
            f"# extended-dlc lock\ntransformers==5.23.0 --hash=sha256:{SHA}\n"
            + "".join(f"package-{number}==1.0 --hash=sha256:{SHA}\n" for number in range(1500)),
            r"has 1501 packages, of which one argument of a build takes some 1,100",
        ),
        ("# extended-dlc lock\n\udcff", r"is not UTF-8 text"),
    ],
)
def test_a_file_that_locks_nothing_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "lock"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message):
        read_lock(str(file), "5.23.0")


def test_the_command_asks_the_bases_pip_by_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped_settings: dict[str, Any]
) -> None:
    engine = tmp_path / "engine"
    engine.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"json.dump(sys.argv[1:], open({str(tmp_path / 'called')!r}, 'w'))\n"
        f"print('pip says'); print({json.dumps(json.dumps(REPORT))})\n"
    )
    engine.chmod(0o755)
    settings = tmp_path / "settings.json"
    shipped_settings["image"] = {"transformers": "5.23.0"}
    settings.write_text(json.dumps(shipped_settings))
    monkeypatch.setenv("CDK_DOCKER", str(engine))
    output = tmp_path / "extended-dlc.lock"
    done = CliRunner().invoke(main, ["lock", f"--settings={settings}", f"--output={output}"])
    assert done.exit_code == 0, done.output
    assert "2 packages for 763104351884.dkr.ecr." in done.output
    called = json.loads((tmp_path / "called").read_text())
    assert called[:3] == ["run", "--rm", "--entrypoint=python"]
    assert called[-4:] == ["--report", "--server=native", "5.23.0", ""]
    assert read_lock(str(output), "5.23.0").startswith("# python 3.12")
    engine.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such image')\n")
    failed = CliRunner().invoke(main, ["lock", f"--settings={settings}", f"--output={output}"])
    assert failed.exit_code == 1
    assert "no such image" in failed.output


def test_the_image_installs_what_the_lock_names_for_the_python_it_was_made_for() -> None:
    spec = importlib.util.spec_from_file_location("install", docker_folder("inference") / "install.py")
    assert spec is not None
    assert spec.loader is not None
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    python = ".".join(map(str, sys.version_info[:2]))
    line = f"transformers==5.23.0 --hash=sha256:{SHA}"
    assert install.locked(f"# python {python}\n{line}") == [line]
    assert install.locked("") == []
    with pytest.raises(SystemExit, match=rf"LOCK was made for Python 3\.1, and the base has {python}"):
        install.locked(f"# python 3.1\n{line}")


def test_an_image_that_is_built_for_two_regions_is_locked_in_both(tmp_path: Path) -> None:
    file = tmp_path / "extended-dlc.lock"
    file.write_text(write_lock(REPORT, base="registry/base:1", day="2026-11-28"))
    app = App()
    first, other = (
        Stack(app, region, env=Environment(account="1" * 12, region=region)) for region in ("us-east-1", "eu-west-1")
    )
    image = ExtendedDlc(first, "Image", transformers="5.23.0", accelerator="cpu", lock=str(file))
    for stack in (first, other):
        HuggingFaceEndpoint(stack, "Bloom", model=HubModel("bigscience/bloom-560m"), image=image, verify=False)
    (twin,) = [each for each in other.node.children if isinstance(each, ExtendedDlc)]
    # the tag is the hash of the build's arguments, too
    assert twin.image_uri.rpartition(":")[2] == image.image_uri.rpartition(":")[2]


def test_the_shipped_lock_fits_the_shipped_settings() -> None:
    image = shipped_lock.shipped_image()
    text = shipped_lock.FILE.read_text()
    assert f"\n# base {image.base}\n" in text, "run 'make lock'"
    locked = read_lock(str(shipped_lock.FILE), image.transformers)
    python, *lines = locked.splitlines()
    assert python == "# python " + ".".join(find_image(image.base).python.removeprefix("py").partition("3")[1:])
    has = dict(line.partition(" ")[0].split("==") for line in lines)
    for wanted in map(Requirement, shipped_lock.asked(image.transformers)):
        assert has[wanted.name] in wanted.specifier, f"{wanted}: run 'make lock'"
    # the lock is one build argument, and Linux takes 128 KiB for one
    assert len(locked) < 128 * 1024
    protected = shipped_lock.install_step().PROTECTED
    assert [name for name in has if protected.fullmatch(name)] == []


def test_a_lock_of_the_index_leaves_the_base_what_only_its_torch_needs() -> None:
    resolved = ["accelerate==1.15.0  # via -r wanted.txt", "numpy==2.5.5  # via accelerate, transformers"]
    resolved += ["filelock==4.3.1  # via huggingface-hub, torch", "torch==2.6.0  # via -r wanted.txt, accelerate"]
    resolved += ["jinja2==3.1.6  # via torch", "markupsafe==3.0.4  # via jinja2", "triton==3.2.0  # via torch"]
    assert shipped_lock._layer(resolved) == ["accelerate==1.15.0", "filelock==4.3.1"]


def test_a_lock_that_the_base_does_not_fit_says_how_to_lock_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(docker_folder("inference")))
    prove = importlib.import_module("prove")
    complaint = "awscli 1.40 has requirement PyYAML<6.1, but you have pyyaml 7.0."
    monkeypatch.setattr(prove.install, "complaints", lambda: [complaint, "the base's own"])
    monkeypatch.delenv("LOCK", raising=False)
    (open_build,) = prove.pip_has_no_new_complaints(["the base's own"])
    monkeypatch.setenv("LOCK", "pyyaml==7.0")
    (locked,) = prove.pip_has_no_new_complaints(["the base's own"])
    assert complaint in open_build
    assert "choose a transformers release" in open_build
    assert complaint in locked
    assert "run 'extended-dlc lock' with this base" in locked


def test_the_command_tells_what_it_locked_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f"#!/bin/sh\necho '{json.dumps(REPORT)}'\n")
    engine.chmod(0o755)
    monkeypatch.setenv("CDK_DOCKER", str(engine))
    monkeypatch.chdir(Path(__file__).parents[2])
    file = tmp_path / "mine.lock"
    done = CliRunner().invoke(main, ["lock", "--output", str(file), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["file"], found["packages"]) == (str(file), 2)
    assert f"# base {found['base']}" in file.read_text().splitlines()
