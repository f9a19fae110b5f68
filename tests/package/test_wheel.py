"""The built wheel in an empty environment, as a stranger installs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STRANGERS_APP = """
import json, sys
import aws_cdk as cdk
import extended_dlc
from extended_dlc import ExtendedDlc, HubModel, HuggingFaceEndpoint, RealTime

app = cdk.App(outdir=sys.argv[1])
stack = cdk.Stack(app, "Stranger", env=cdk.Environment(region="eu-west-1"))
image = ExtendedDlc(stack, "Image", transformers="5.23.0", base="registry.example.com/ours:1")
HuggingFaceEndpoint(stack, "Whisper", model=HubModel("openai/whisper-base"), image=image, hosting=RealTime())
HuggingFaceEndpoint(stack, "Bloom", model=HubModel("bigscience/bloom-560m"), image=image)
app.synth()
print(json.dumps({"file": extended_dlc.__file__, "tag": image.image_uri.rpartition(":")[2]}))
"""


def run(*command: str, cwd: Path | None = None, path: str | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = path
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, as an index would have it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(out), str(ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel and what it brings, installed and byte-compiled by pip, and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", str(folder))
    interpreter = folder / "bin" / "python"
    run(str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c",
        str(ROOT / "requirements.txt"), str(wheel))  # fmt: skip
    return interpreter


def test_the_wheel_carries_the_images_and_no_bytecode(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"extended_dlc/docker/inference/Dockerfile", "extended_dlc/docker/inference/.dockerignore"} <= set(names)
    assert "extended_dlc/py.typed" in names
    assert "extended_dlc/facts/data/images.json" in names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(("tests/", "stacks/", "docker/"))]


def test_a_plain_install_brings_the_cdk_and_not_the_rehearsal(python: Path) -> None:
    listing = json.loads(run(str(python), "-m", "pip", "list", "--format=json"))
    installed = {package["name"].lower() for package in listing}
    assert {"aws-cdk-lib", "boto3", "cdk-ecr-deployment", "click", "pydantic"} <= installed
    assert not installed & {"moto", "werkzeug", "pyyaml", "flask", "torch", "transformers"}


def test_the_image_has_the_same_hash_installed_and_in_the_checkout(python: Path, tmp_path: Path) -> None:
    app = tmp_path / "stranger.py"
    app.write_text(STRANGERS_APP)
    installed = json.loads(run(str(python), str(app), str(tmp_path / "installed"), cwd=tmp_path).splitlines()[-1])
    checkout = json.loads(
        run(sys.executable, str(app), str(tmp_path / "checkout"), cwd=tmp_path, path=str(ROOT)).splitlines()[-1]
    )
    assert Path(installed["file"]).is_relative_to(python.parents[1])
    assert Path(checkout["file"]).is_relative_to(ROOT)
    assert Path(installed["file"]).parent.joinpath("docker").is_dir(), "pip has compiled what lies in there by now"
    assert installed["tag"] == checkout["tag"]


def test_the_rehearsal_says_what_it_lacks_without_its_extra(python: Path, tmp_path: Path) -> None:
    program = python.parent / "extended-dlc"
    done = subprocess.run([str(program), "rehearse"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'extended-dlc[rehearse]'" in done.stderr
    assert "Traceback" not in done.stderr
