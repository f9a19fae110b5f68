"""The terminal: commands played in a real pseudo-terminal at three widths, and what holds for all commands.

The screens are committed, times removed; `python -m tests.unit.test_terminal` writes them anew, and `make docs` does.
"""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from extended_dlc.cli import main
from extended_dlc.cli.exit_codes import STATUSES, page
from extended_dlc.rehearsal import hub as hub_program
from extended_dlc.terminal import NEWS_SECONDS, Passing, Screen, Waiting, plain
from tests.support.terminal import played, shown

ROOT = Path(__file__).parents[2]
SCREENS = Path(__file__).parent / "screens"
WIDTHS = (60, 80, 120)

COMMANDS = (
    "plan --model bigscience/bloom --transformers 5.23.0",
    "catalog search 4.51 gpu",
    "lookup tiny/qwen",
    "check bloom --transformers 4.17.0 --with peft==0.18.1",
    "catalog show huggingface-pytorch-inference:9 --region us-east-1",
    "plann",
    "rehearse --app true",
)

PLAYER = """
import shlex, sys
from extended_dlc.cli import main
for line in sys.argv[1:]:
    print(f"$ extended-dlc {line}", flush=True)
    try:
        main(shlex.split(line), prog_name="extended-dlc")
    except SystemExit as end:
        print(f"[exit status {end.code or 0}]", flush=True)
"""

REHEARSAL = """
from extended_dlc.rehearsal.leftovers import Left, Resource
from extended_dlc.rehearsal.report import Report, StepFailed
report = Report()
with report.step("make the stand-in for AWS's base image") as step:
    for number in range(3):
        report.detail(f"STEP {number}: RUN pip install")
    report.say("export AWS_ENDPOINT_URL='http://localhost:1/a/line/that/is/to/be/copied/and/so/is/not/wrapped'")
    step.proof = "made from the same PyPI packages as the DLC, which cannot be pulled here"
try:
    with report.step("cdk deploy: build the image, bring up BLOOM and Whisper") as step:
        report.detail("EndpointStack | CREATE_FAILED | AWS::SageMaker::Endpoint | model")
        step.log = "logs/05-cdk-deploy.log"
        raise RuntimeError("cdk deploy failed with exit status 1:\\nthe container ended: cannot load the model: bloom")
except StepFailed:
    pass
with report.step("nothing is left but what the template keeps") as step:
    names = {"AWS::ECR::Repository": "speech-image9d2b1c7e-x0b2v7nqk3fd", "AWS::S3::Bucket": "speech-recordings"}
    kept = tuple(Resource(type=kind, name=name, region="us-east-1") for kind, name in names.items())
    step.proof = Left(kept=kept, others=()).proof
"""


@contextmanager
def hub() -> Iterator[str]:
    """The address of a Hub with one model, whose commit is always the same."""
    with TemporaryDirectory() as root:
        model = Path(root, "tiny", "qwen")
        model.mkdir(parents=True)
        (model / "config.json").write_text('{"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64}')
        header = b'{"w": {"dtype": "BF16", "shape": [1000], "data_offsets": [0, 2000]}}'
        (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(2000))
        server = make_server(
            "127.0.0.1", 0, hub_program.Hub(Path(root)), threaded=True, request_handler=hub_program._Handler
        )
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.port}"
        server.shutdown()
        server.server_close()


def session(columns: int, hub_address: str, **environment: str) -> bytes:
    """All commands in the folder of the shipped settings, at this width; and a rehearsal's report."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "cdk.json").write_text((ROOT / "cdk.json").read_text())
        player = [sys.executable, "-c", PLAYER, *COMMANDS]
        commands = played(player, Path(folder), columns, HF_ENDPOINT=hub_address, **environment)
        return commands + played([sys.executable, "-c", REHEARSAL], Path(folder), columns, **environment)


@pytest.fixture(scope="module")
def sessions() -> Iterator[Mapping[int, bytes]]:
    """What terminals of each width get."""
    with hub() as address:
        yield {columns: session(columns, address) for columns in WIDTHS}


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_screen_is_the_one_that_is_committed(columns: int, sessions: Mapping[int, bytes]) -> None:
    assert shown(sessions[columns]) == (SCREENS / f"{columns}.txt").read_text(), "make docs writes the screens anew"


@pytest.mark.parametrize("columns", WIDTHS)
def test_no_line_is_wider_than_the_terminal_but_what_is_copied(columns: int, sessions: Mapping[int, bytes]) -> None:
    wide = [line for line in shown(sessions[columns]).splitlines() if len(line) > columns]
    assert [line for line in wide if not line.lstrip().startswith(("export ", "$ extended-dlc"))] == []


def test_what_is_wrong_is_bold_and_red_and_steps_show_their_seconds(sessions: Mapping[int, bytes]) -> None:
    output = sessions[80].decode()
    assert "\x1b[1;31mproblems" in output
    assert "\x1b[1;31mError: " in output
    assert "\x1b[1;31m[" in output, "the failed step"
    assert re.search("make the stand-in for AWS's base image\x1b\\[[0-9;]*m \\d+ s ", output), "a step that goes on"


def test_no_color_takes_the_colour_and_a_pipe_everything(tmp_path: Path) -> None:
    arguments = ["plan", "--model", "bigscience/bloom", "--transformers", "5.23.0", "--region", "us-east-1"]
    program = [sys.executable, "-c", PLAYER, " ".join(arguments)]
    output = played(program, tmp_path, 80, NO_COLOR="1").decode()
    assert "problems" in output
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", output)
    piped = CliRunner().invoke(main, arguments)
    assert "\x1b" not in piped.output
    assert max(map(len, piped.output.splitlines())) > 200, "a line stays a line"


# what holds for all


def commands(
    group: click.Command = main, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(group, click.Group):
        yield names, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, (*names, name))


def test_every_command_that_answers_something_has_json() -> None:
    without = {
        " ".join(names) for names, command in commands() if not any("--json" in each.opts for each in command.params)
    }
    # schema and sbom are JSON; completion is a script; prepare runs in a synth, where nobody reads its output
    assert without == {"schema", "sbom", "completion", "prepare"}


def test_every_list_of_commands_has_whole_sentences_on_one_line_each() -> None:
    for names in ([], ["catalog"]):
        done = CliRunner().invoke(main, [*names, "--help"], terminal_width=80)
        lines = done.output.splitlines()
        assert max(map(len, lines)) <= 80
        assert not [line for line in lines[1:] if line.endswith("...")]
    text = CliRunner().invoke(main, ["--help"]).output
    for names, _ in commands():
        assert len(re.findall(rf"^  {names[0]} +\S.*\.$", text, re.MULTILINE)) == 1, names


@pytest.mark.parametrize("columns", [60, 80])
def test_the_help_of_each_command_fits_the_terminal(columns: int) -> None:
    wide = {
        line
        for names, _ in commands()
        for line in CliRunner().invoke(main, [*names, "--help"], terminal_width=columns).output.splitlines()
        if len(line) > columns
    }
    assert wide == set()


def test_the_exit_statuses_stand_in_one_table() -> None:
    assert (ROOT / "docs" / "exit-codes.md").read_text() == page(), "make docs writes it anew"
    assert [each.code for each in STATUSES] == [0, 1, 2, 3, 130]
    for file in (ROOT / "extended_dlc" / "cli").glob("*.py"):
        assert not re.search(r"(sys\.exit|SystemExit)\(\d", file.read_text()), f"{file.name} has a status of its own"


def test_an_interrupt_ends_any_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("extended_dlc.cli.plan.raw_settings", interrupted)
    done = CliRunner().invoke(main, ["plan"])
    assert (done.exit_code, done.stdout, done.stderr.strip()) == (130, "", "stopped")
    assert CliRunner().invoke(main, ["plan", "--no-such"]).exit_code == 2


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --no")])
def test_each_shell_completes(shell: str, word: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell])
    assert script.exit_code == 0, script.output
    assert word in script.output
    at = "cat" if shell == "fish" else "1"
    words = {"COMP_WORDS": "extended-dlc cat", "COMP_CWORD": at, "_EXTENDED_DLC_COMPLETE": f"{shell}_complete"}
    done = CliRunner(env=words).invoke(main, [], prog_name="extended-dlc")
    assert "catalog" in done.output


def test_make_help_has_a_line_for_each_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", text, re.MULTILINE)
    assert set(targets) <= set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert set(lines) == set(targets)
    assert all(len(line) > 5 for line in lines.values())


# the parts


def test_a_step_in_a_pipe_gives_a_sign_of_life_now_and_then() -> None:
    out = io.StringIO()
    with Waiting("cdk deploy", out=out, every=0.2) as waiting:
        waiting.detail("\x1b[31mCREATE_IN_PROGRESS\x1b[0m")
        time.sleep(0.7)
    lines = out.getvalue().splitlines()
    assert 1 <= len(lines) <= 3
    assert lines[0].strip() == "cdk deploy: 0 s so far: CREATE_IN_PROGRESS"
    assert NEWS_SECONDS + 1 < 20, "by itself, with the second in which it looks: never 20 s without a line"


def test_a_passing_line_is_news_in_a_pipe_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    passing = Passing(out)
    passing.show("waiting (1 s)")
    assert out.getvalue() == ""
    monkeypatch.setenv("EXTENDED_DLC_NEWS_SECONDS", "0.01")
    passing = Passing(out)
    time.sleep(0.02)
    passing.show("waiting (2 s)")
    passing.clear()
    assert out.getvalue() == "waiting (2 s)\n"


def test_what_others_say_cannot_command_the_terminal() -> None:
    assert plain("\x1b]0;title\x07a\x1b[2Jb\x1b[31mc\x08\x9b1m\td") == "abc1m\td"
    out = io.StringIO()
    Screen(out).line("é 日本語 🙂")
    assert out.getvalue() == "é 日本語 🙂\n"
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    Screen(ascii_only).line("→ é")
    assert ascii_only.buffer.getvalue() == b"? ?\n"  # type: ignore[attr-defined]


if __name__ == "__main__":
    (ROOT / "docs" / "exit-codes.md").write_text(page())
    with hub() as where:
        for width in WIDTHS:
            (SCREENS / f"{width}.txt").write_text(shown(session(width, where)))
    print(json.dumps([str(each.relative_to(ROOT)) for each in sorted(SCREENS.iterdir())]))
