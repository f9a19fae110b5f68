"""The built wheel in an empty environment, as a stranger installs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.support.terminal import played, shown

ROOT = Path(__file__).parents[2]

STRANGERS_APP = """
import json, sys
import aws_cdk as cdk
import extended_dlc
from extended_dlc import ExtendedDlc, HubModel, HuggingFaceEndpoint, Proof, RealTime

app = cdk.App(outdir=sys.argv[1])
stack = cdk.Stack(app, "Stranger", env=cdk.Environment(region="eu-west-1"))
image = ExtendedDlc(stack, "Image", transformers="5.23.0", base="registry.example.com/ours:1")
HuggingFaceEndpoint(stack, "Whisper", model=HubModel("openai/whisper-base"), image=image, hosting=RealTime())
HuggingFaceEndpoint(stack, "Bloom", model=HubModel("bigscience/bloom-560m"), image=image, verify=Proof())
app.synth()
functions = stack.node.find_child("ExtendedDlcProver").node.find_child("Function").node.default_child
print(json.dumps({
    "file": extended_dlc.__file__,
    "tag": image.image_uri.rpartition(":")[2],
    "proof": stack.resolve(functions.code)["s3Key"],
}))
"""


OLDEST_CDK = "aws-cdk-lib==" + re.search(r"aws-cdk-lib>=([\d.]+)", (ROOT / "pyproject.toml").read_text())[1]  # type: ignore[index]
NEWEST_CDK = re.search(r"^aws-cdk-lib==[\d.]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[0]  # type: ignore[index]


def run(*command: str, cwd: Path | None = None, path: str | None = None, **more: str) -> str:
    environment = {**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, **more}
    if path:
        environment["PYTHONPATH"] = path
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


EPOCH = "1700000000"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, as an index would have it."""
    return built(ROOT, tmp_path_factory.mktemp("dist"))


def built(folder: Path, out: Path, *more: str) -> Path:
    run(sys.executable, "-m", "build", "--outdir", str(out), *more, str(folder), SOURCE_DATE_EPOCH=EPOCH)
    (wheel,) = out.glob("*.whl")
    return wheel


def test_another_build_elsewhere_and_later_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    for name in ("extended_dlc", "docker"):
        unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, tmp_path / name, copy_function=shutil.copyfile, ignore=unwanted)
    again = built(tmp_path, tmp_path / "dist", "--wheel")
    assert again.name == wheel.name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        stamps = {each.date_time for each in first.infolist()}
        assert stamps == {time.gmtime(int(EPOCH))[:6]}
        assert [each.filename for each in first.infolist()] == [each.filename for each in second.infolist()]
    assert again.read_bytes() == wheel.read_bytes()


def test_a_project_of_the_wheel_alone_is_synthesized(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    program = str(python.parent / "extended-dlc")
    printed = run(program, "init", str(folder), "--model", "openai/whisper-base", cwd=tmp_path)
    requirement = (folder / "requirements.txt").read_text().splitlines()[0]
    assert requirement.startswith("extended-dlc[rehearse] @ file:")
    steps = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    rest = ["pip install -r requirements.txt", "extended-dlc plan", "extended-dlc rehearse"]
    assert steps == [f"cd {folder}", *rest], "the wheel alone cannot rehearse"
    screen = shown(played([program, "rehearse"], folder, 40, code=1, PYTHONPATH=""))
    assert f"  pip install '{requirement}'\n" in screen, "it is copied in one piece"
    context = json.dumps(json.loads((folder / "cdk.json").read_text())["context"])
    both = """
import runpy, shutil
runpy.run_path("app.py", run_name="__main__")
shutil.move("out", "one")
runpy.run_module("extended_dlc.app", run_name="__main__")
"""
    run(str(python), "-c", both, cwd=folder, CDK_CONTEXT_JSON=context, CDK_OUTDIR=str(folder / "out"))
    one, two = (folder / out / "EndpointStack.template.json" for out in ("one", "out"))
    assert one.read_bytes() == two.read_bytes()
    resources = json.loads(one.read_text())["Resources"].values()
    (model,) = (each for each in resources if each["Type"] == "AWS::SageMaker::Model")
    assert model["Properties"]["PrimaryContainer"]["Environment"]["HF_MODEL_ID"] == "openai/whisper-base"


def test_no_module_asks_the_network_or_the_environment_when_it_is_imported(python: Path, tmp_path: Path) -> None:
    program = """
import importlib, os, pkgutil, socket, sys
def refuse(*arguments, **options):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
import extended_dlc
skipped = ("docker", "rehearsal", "programs.functions", "app.template", "refresh")
skipped = tuple(f"extended_dlc.{name}" for name in skipped)
for module in pkgutil.walk_packages(extended_dlc.__path__, "extended_dlc."):
    if not module.name.startswith(skipped) and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("extended_dlc.")]))
"""
    done = subprocess.run(
        [str(python), "-c", program], cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 80


def environment_with(wheel: Path, folder: Path, python: str, *more: str) -> Path:
    """An interpreter with the wheel, what it brings and `more`, byte-compiled as pip does, and nothing else."""
    uv = Path(sys.executable).with_name("uv")
    run(str(uv), "venv", "--quiet", "--python", python, str(folder))
    interpreter = folder / "bin" / "python"
    run(
        *(str(uv), "pip", "install", "--quiet", "--compile-bytecode", "--python", str(interpreter)),
        *(str(wheel), *more),
    )
    return interpreter


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of this Python with the wheel."""
    constraints = ("--constraint", str(ROOT / "requirements.txt"))
    return environment_with(wheel, tmp_path_factory.mktemp("venv"), sys.executable, *constraints)


def test_the_wheel_carries_the_images_and_no_bytecode(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"extended_dlc/docker/inference/Dockerfile", "extended_dlc/docker/inference/.dockerignore"} <= set(names)
    assert "extended_dlc/py.typed" in names
    assert "extended_dlc/facts/data/images.json" in names
    assert "extended_dlc/programs/functions/proof.py" in names
    assert "extended_dlc/app/settings.schema.json" in names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(("tests/", "stacks/", "docker/"))]


def test_a_plain_install_brings_the_cdk_and_not_the_rehearsal(python: Path) -> None:
    listing = "from importlib.metadata import distributions; print(*(d.metadata['Name'] for d in distributions()))"
    installed = {name.lower() for name in run(str(python), "-c", listing).split()}
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
    assert Path(installed["file"]).parent.joinpath("docker").is_dir(), "the installer has compiled what lies in there"
    assert installed["tag"] == checkout["tag"]
    assert installed["proof"] == checkout["proof"]


def test_the_rehearsal_says_what_it_lacks_without_its_extra(python: Path, tmp_path: Path) -> None:
    program = python.parent / "extended-dlc"
    command = [str(program), "rehearse"]
    environment = {**os.environ, "COLUMNS": "300"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (way_out,) = re.findall(r"pip install '(extended-dlc\[rehearse\] @ file:.*\.whl)'", done.stderr)
    assert Path(way_out.partition("file://")[2]).is_file()
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(("version", "cdk"), [("3.10", OLDEST_CDK), ("3.13", NEWEST_CDK)])
def test_a_strangers_stack_synthesises_on_the_oldest_and_the_newest_that_we_support(
    wheel: Path, tmp_path: Path, version: str, cdk: str
) -> None:
    interpreter = _interpreter(version)
    if interpreter is None:
        pytest.skip(f"install Python {version} to run this")
    python = environment_with(wheel, tmp_path / "venv", interpreter, cdk)
    app = tmp_path / "stranger.py"
    app.write_text(STRANGERS_APP)
    run(str(python), str(app), str(tmp_path / "out"), cwd=tmp_path)
    template = json.loads((tmp_path / "out" / "Stranger.template.json").read_text())
    kinds = [resource["Type"] for resource in template["Resources"].values()]
    assert kinds.count("AWS::SageMaker::Endpoint") == 2
    assert kinds.count("Custom::CDKECRDeployment") == 1


def _interpreter(version: str) -> str | None:
    """A Python of this version that runs, pyenv's shims included, which answer only when told which one is meant."""
    program = shutil.which(f"python{version}")
    if program is None:
        return None
    asked = subprocess.run(
        [program, "-c", "import sys; print(sys.executable)"],
        env={**os.environ, "PYENV_VERSION": version},
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or None


RELEASED = Path(__file__).parent / "released"


@pytest.mark.parametrize("released", sorted(RELEASED.glob("*.json")), ids=lambda file: file.stem)
def test_an_upgrade_replaces_neither_endpoint_nor_repository(python: Path, tmp_path: Path, released: Path) -> None:
    """The template of an earlier release against today's: what CloudFormation would have to replace.

    A file is a release's template of the stranger's stack: `cp OUT/Stranger.template.json released/VERSION.json`.
    """
    app = tmp_path / "stranger.py"
    app.write_text(STRANGERS_APP)
    run(str(python), str(app), str(tmp_path / "out"), cwd=tmp_path)
    today = json.loads((tmp_path / "out" / "Stranger.template.json").read_text())["Resources"]
    before = json.loads(released.read_text())["Resources"]
    replacing = {"AWS::SageMaker::Endpoint": "EndpointName", "AWS::ECR::Repository": "RepositoryName"}
    kept = {name: resource for name, resource in before.items() if resource["Type"] in replacing}
    assert len(kept) == 3
    for name, resource in kept.items():
        assert name in today, f"{name} would be deleted and made anew"
        assert today[name]["Type"] == resource["Type"]
        decisive = replacing[resource["Type"]]
        assert today[name]["Properties"].get(decisive) == resource["Properties"].get(decisive), f"{name}: {decisive}"
        assert today[name].get("DeletionPolicy") == resource.get("DeletionPolicy")


@pytest.mark.thorough
def test_the_first_hour_of_a_stranger_ends_with_an_answer(wheel: Path, tmp_path: Path) -> None:
    """From the wheel alone, in an empty folder, by nothing but the commands that are printed."""
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    programs = tmp_path / "venv" / "bin"
    run(str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel))
    folder = tmp_path / "Bäcker's first"
    folder.mkdir()
    printed = run(str(programs / "extended-dlc"), "init", cwd=folder)
    steps = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    assert steps == ["pip install -r requirements.txt", "extended-dlc plan", "extended-dlc rehearse"]
    machine = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "NODE_"))}
    machine |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    machine["LANG"] = "C.UTF-8"  # alone, as most terminals have it
    try:
        for step in steps:
            screen = shown(played(["sh", "-c", step], folder, 80, **machine))
        lines = [line.strip() for line in screen.splitlines()]
        assert any("ask backer-s-first-model: ok in" in line for line in lines)
        assert '→ [{"generated_text": "Hello, my name is' in " ".join(lines)
        assert re.fullmatch(r"the rehearsal passed in \d+ s(, downloads \d+ s)?", [line for line in lines if line][-1])
    finally:
        shutil.rmtree(folder / ".rehearsal")  # gigabytes, of which nothing is still mounted
