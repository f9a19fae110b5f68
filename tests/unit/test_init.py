"""`extended-dlc init`: a project that works as it is, or nothing at all."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from extended_dlc.app import new_project
from extended_dlc.app.new_project import NewProject
from extended_dlc.cli import main

ROOT = Path(__file__).parents[2]
FILES = [
    *(".gitignore", "README.md", "app.py", "cdk.json", "package.json", "requirements.txt", "settings.json"),
    *("settings.schema.json", "tests"),
]


def init(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


def settings(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "settings.json").read_text())
    return content


def test_it_writes_a_project_whose_own_test_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "My First"
    done = init(str(folder), "--model", "openai/whisper-base", "--instance-type", "serverless", "--region", "eu-west-1")
    assert done.exit_code == 0, done.output
    assert sorted(each.name for each in folder.iterdir()) == FILES
    assert settings(folder)["name"] == "my-first"
    assert settings(folder)["region"] == "eu-west-1"
    assert settings(folder)["endpoints"] == {
        "model": {"model": "openai/whisper-base", "hosting": {"kind": "serverless"}}
    }
    readme = (folder / "README.md").read_text()
    assert "openai/whisper-base behind the SageMaker endpoint `my-first-model`" in readme
    assert "extended-dlc ask my-first-model --sample\n" in readme, "Whisper reads no text"
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert requirements[0] == f"-e {ROOT}[rehearse]", "as it is installed here"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    tested = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
    monkeypatch.chdir(folder)
    planned = CliRunner().invoke(main, ["plan"])
    assert planned.exit_code == 0, planned.output
    assert "openai/whisper-base" in planned.output


def test_it_pins_what_this_repository_pins() -> None:
    template = new_project.TEMPLATE
    ours = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    assert json.loads((template / "package.json").read_text())["devDependencies"] == ours
    flags = [json.loads((folder / "cdk.json").read_text())["context"] for folder in (ROOT, template)]
    checkout, shipped = ({key: value for key, value in each.items() if "/" in key} for each in flags)
    assert checkout == shipped
    shipped_image = json.loads((template / "settings.json").read_text())["image"]
    image = flags[0]["extended-dlc"]["image"]
    assert {key: image[key] for key in shipped_image} == shipped_image


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    done = init(str(tmp_path), "--yes")
    assert done.exit_code == 1
    assert "is not empty (mine.txt): name a new one (extended-dlc init my-endpoint)" in done.output
    assert sorted(each.name for each in tmp_path.iterdir()) == [".git", "mine.txt"]
    (tmp_path / "mine.txt").unlink()
    assert init(str(tmp_path), "--yes").exit_code == 0, "git's own folder does not count"
    assert init(str(tmp_path / "app.py"), "--yes").output.startswith("Error: 'FOLDER'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--instance-type", "ml.m5.xlarg"], "'--instance-type' (ml.m5.xlarg) is not an instance type that"),
        (["--model", "a/b/c"], "'--model' (a/b/c) is not a Hub model id"),
        (
            ["--region", "eu-wst-1"],
            "'--region' (eu-wst-1) is no region with AWS's base images; did you mean 'eu-west-1'?",
        ),
    ],
)
def test_what_the_app_would_refuse_is_said_before_anything_is_written(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = init(str(tmp_path / "new"), *arguments)
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_project_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    folder = tmp_path / "new"
    if exists:
        (folder / ".venv").mkdir(parents=True)
    moves = []

    def replace(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == 3:
            raise OSError(28, "No space left on device")
        os.rename(source, target)

    monkeypatch.setattr(new_project.os, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        NewProject().write(folder)
    assert [each.name for each in tmp_path.rglob("*")] == (["new", ".venv"] if exists else [])


def test_on_a_terminal_it_asks_for_what_is_not_given(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "extended_dlc", "init", "mine", "--region", "eu-west-1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, b"openai/whisper-tiny\n\n")
    assert process.wait(60) == 0
    screen = os.read(ours, 65536).decode()
    os.close(ours)
    assert "Model of the Hugging Face Hub [bigscience/bloom-560m]" in screen
    assert "Instance type, or 'serverless' [ml.m5.xlarge]" in screen
    assert "Region" not in screen.partition("a project is in")[0]
    hosting = {"kind": "real-time", "instance_type": "ml.m5.xlarge"}
    assert settings(tmp_path / "mine")["endpoints"] == {"model": {"model": "openai/whisper-tiny", "hosting": hosting}}
