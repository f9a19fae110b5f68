"""`extended-dlc init`: a project that works as it is, or nothing at all."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
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
        (["--model", ""], "Error: '--model' () is not a Hub model id"),
        (["--region", ""], "Error: '--region' () is no region with AWS's base images"),
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


class Terminal:
    """`extended-dlc init mine` on a terminal, without variables that name a region."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "extended_dlc", "init", "mine", *arguments],
            cwd=folder,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("AWS_")}, "PYTHONPATH": str(ROOT)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that its ^C is a signal
        )
        os.close(theirs)
        self.screen = ""

    def type(self, keys: str, *, after: str) -> None:
        """Type keys after the screen shows this, which it has not shown before."""
        self._read(until=after)
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Its exit status."""
        self._read(until=None)
        os.close(self._ours)
        return self._process.wait(60)

    def _read(self, *, until: str | None) -> None:
        new = ""
        while until is None or until not in new:
            assert select.select([self._ours], [], [], 60)[0], f"{until!r} was not shown: {new}"
            try:
                piece = os.read(self._ours, 65536).decode()
            except OSError:  # the program has gone
                piece = ""
            if not piece:
                assert until is None, f"{until!r} was not shown: {new}"
                break
            new += piece
        self.screen += new


def test_on_a_terminal_it_asks_for_what_is_not_given(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--region", "eu-west-1")
    terminal.type("openai/whisper-tiny\n", after="Model of the Hugging Face Hub [bigscience/bloom-560m]: ")
    terminal.type("\n", after="Instance type, or 'serverless' [ml.m5.xlarge]: ")
    assert terminal.end() == 0
    assert "Region" not in terminal.screen
    hosting = {"kind": "real-time", "instance_type": "ml.m5.xlarge"}
    assert settings(tmp_path / "mine")["endpoints"] == {"model": {"model": "openai/whisper-tiny", "hosting": hosting}}


def test_a_question_is_asked_again_until_the_app_takes_the_answer(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    model, instance, region = "[bigscience/bloom-560m]: ", "[ml.m5.xlarge]: ", "[us-east-1]: "
    answers = [(model, "a/b/c"), (model, "bigscience/bloom"), (instance, "ml.g5"), (instance, "")]
    answers += [(instance, "ml.p5.48xlarge"), (region, "eu-wst-1"), (region, "eu-west-1")]
    for question, answer in answers:
        terminal.type(f"{answer}\n", after=question)
    assert terminal.end() == 0
    reasons = ["'--model' (a/b/c) is not a Hub model id", "did you mean 'ml.g5.xlarge'?"]
    reasons += ["'--instance-type' (ml.m5.xlarge) cannot hold bigscience/bloom", "did you mean 'eu-west-1'?"]
    assert [each for each in reasons if each not in terminal.screen] == []
    written = settings(tmp_path / "mine")
    hosting = {"kind": "real-time", "instance_type": "ml.p5.48xlarge"}
    assert written["endpoints"] == {"model": {"model": "bigscience/bloom", "hosting": hosting}}
    assert written["region"] == "eu-west-1"


@pytest.mark.parametrize(("key", "status", "said"), [("\x03", 130, "stopped"), ("\x04", 1, "nothing was done")])
def test_ctrl_c_in_a_question_stops_and_its_end_of_input_does_nothing(
    tmp_path: Path, key: str, status: int, said: str
) -> None:
    terminal = Terminal(tmp_path)
    terminal.type(key, after="Hub [bigscience/bloom-560m]: ")
    assert terminal.end() == status
    assert terminal.screen.replace("\r", "").endswith(f"\n{said}\n")
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_the_options_is_said_before_a_question(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--instance-type", "ml.g5")
    assert terminal.end() == 1
    assert "Model of the Hugging Face Hub" not in terminal.screen


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Bücher 2", "bucher-2"), ("Straße", "strasse"), ("日本", "extended-dlc"), ("2nd", "extended-dlc")],
)
def test_the_stack_s_name_is_that_of_the_folder_in_plain_letters(tmp_path: Path, folder: str, name: str) -> None:
    assert init(str(tmp_path / folder)).exit_code == 0
    assert settings(tmp_path / folder)["name"] == name


def test_with_json_it_asks_nothing_and_names_the_files_and_the_next_commands(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--json")
    assert terminal.end() == 0
    found = json.loads(terminal.screen)
    assert (found["folder"], found["next"]) == ("mine", ["cd mine", "extended-dlc plan", "extended-dlc rehearse"])
    assert sorted(each.partition("/")[0] for each in found["files"]) == FILES
