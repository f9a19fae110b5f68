"""The program where its surroundings are not as they should be: signals, streams, disks, locales, colours."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from extended_dlc import files
from extended_dlc.cli import main
from extended_dlc.running import Terminated, run, run_in_view, signals_end_as_ctrl_c
from tests.support.terminal import played
from tests.unit.test_terminal import commands

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "extended_dlc"]
ENGINE = """#!/bin/sh
case "$1" in run|info|version|login) ;; *) exit 0;; esac
sleep 100 &
echo $! >> pids
wait
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the shipped settings, and an engine that never answers."""
    (tmp_path / "cdk.json").write_text((ROOT / "cdk.json").read_text())
    (tmp_path / "engine").write_text(ENGINE)
    (tmp_path / "engine").chmod(0o755)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", **more}


def wait_for(what: Path) -> None:
    deadline = time.monotonic() + 30
    while not what.exists() or not what.read_text().strip():
        assert time.monotonic() < deadline, f"{what} was not written"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Whether a process that was killed ends, which the kernel does a moment later."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("command", "number"),
    [(["lock"], signal.SIGINT), (["sbom", "ours:1"], signal.SIGTERM), (["doctor", "--json"], signal.SIGHUP)],
)
def test_a_signal_ends_a_command_with_one_line_and_what_it_started(
    project: Path, command: list[str], number: signal.Signals
) -> None:
    before = sorted(each.name for each in project.iterdir())
    process = subprocess.Popen(
        [*PROGRAM, *command],
        cwd=project,
        env=environment(CDK_DOCKER=str(project / "engine")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(project / "pids")
    process.send_signal(number)  # to the program alone, as a supervisor does
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, "stopped")
    assert output == "" if "--json" not in command else json.loads(output)["status"] == "stopped"
    pids = [int(pid) for pid in (project / "pids").read_text().split()]
    assert pids
    assert all(map(is_gone, pids)), "the container engine went on"
    assert sorted(each.name for each in project.iterdir()) == sorted([*before, "pids"])


def test_a_signal_that_is_ignored_stays_so_and_handlers_are_given_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_end_as_ctrl_c():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "nohup"
            with pytest.raises(Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_program_whose_time_is_up_ends_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run("sleep 100 & echo $! > pids; wait", folder=tmp_path, timeout=0.3)
    assert is_gone(int((tmp_path / "pids").read_text()))
    done = run("echo a; echo b >&2; exit 3", together=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "a\nb\n", None)


def test_a_script_may_save_what_it_has_when_it_is_told_to_end(tmp_path: Path) -> None:
    script = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(0.5)
    pathlib.Path("saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path("began").write_text("yes")
time.sleep(100)
"""
    outer = """
import sys
from pathlib import Path
from extended_dlc.running import run_in_view, signals_end_as_ctrl_c
with signals_end_as_ctrl_c():
    run_in_view([sys.executable, "-c", sys.argv[1]], folder=Path(), environment={})
"""
    process = subprocess.Popen(
        [sys.executable, "-c", outer, script], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path / "began")
    process.terminate()
    process.wait(30)
    assert (tmp_path / "saved").exists()
    assert run_in_view([sys.executable, "-c", "raise SystemExit(4)"], folder=tmp_path, environment={}) == 4


@pytest.mark.parametrize(
    ("shell", "status"),
    [
        ("check bloom --json >&-", 0),
        ("nonsense 2>&-", 2),
        ("init new <&-", 0),
        ("catalog list | head -1", 0),
        ("check bloom --json > /dev/full", 1),
        ("--help > /dev/full", 1),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_traceback(project: Path, shell: str, status: int) -> None:
    whole = f"{' '.join(PROGRAM)} {shell}"
    done = subprocess.run(whole, shell=True, cwd=project, env=environment(), capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_a_locale_without_utf_8_reads_and_writes_the_same_files(tmp_path: Path) -> None:
    for name, more in (("utf8", {"LC_ALL": "C.UTF-8"}), ("ascii", {"LC_ALL": "C", "PYTHONUTF8": "0"})):
        more["PYTHONCOERCECLOCALE"] = "0"
        command = [*PROGRAM, "init", str(tmp_path / name / "first")]
        done = subprocess.run(command, cwd=tmp_path, env=environment(**more), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for file in (tmp_path / "utf8" / "first").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "ascii" / file.relative_to(tmp_path / "utf8")).read_bytes()


@pytest.mark.parametrize(
    ("variables", "on_a_terminal", "in_a_pipe"),
    [
        ({}, "\x1b[1;31m", None),
        ({"NO_COLOR": "1"}, "\x1b[1m", None),
        ({"NO_COLOR": ""}, "\x1b[1;31m", None),
        ({"CLICOLOR": "0"}, None, None),
        ({"TERM": "dumb"}, None, None),
        ({"TERM": ""}, None, None),
        ({"FORCE_COLOR": "1"}, "\x1b[1;31m", "\x1b[1;31m"),
        ({"FORCE_COLOR": "0"}, "\x1b[1;31m", None),
        ({"CLICOLOR_FORCE": "1", "TERM": "dumb"}, "\x1b[1;31m", "\x1b[1;31m"),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "\x1b[1m", "\x1b[1m"),
    ],
)
def test_colour_is_where_the_usual_variables_want_it(
    tmp_path: Path, variables: dict[str, str], on_a_terminal: str | None, in_a_pipe: str | None
) -> None:
    script = [sys.executable, "-c", "from extended_dlc.terminal import Screen; Screen().line('wrong', 'problem')"]
    piped = subprocess.run(script, env=environment(**variables), capture_output=True, text=True, check=True).stdout
    for found, wanted in ((played(script, tmp_path, 80, **variables).decode(), on_a_terminal), (piped, in_a_pipe)):
        assert found.strip() == (f"{wanted}wrong\x1b[0m" if wanted else "wrong")


@pytest.mark.parametrize(
    "names", [names for names, command in commands() if any("--json" in each.opts for each in command.params)]
)
def test_with_json_a_refusal_is_json_too(names: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*names, "--nonsense", "--json"])
    assert done.exit_code == 2
    assert "--nonsense" in done.stderr
    if names[0] in ("rehearse", "smoke"):
        assert done.stdout == "", "theirs goes to a file"
    else:
        assert json.loads(done.stdout)["error"].startswith("No such option '--nonsense'.")


def test_without_json_standard_output_has_nothing_of_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["plan"])
    assert (done.exit_code, done.stdout) == (1, "")
    done = CliRunner().invoke(main, ["plan", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"] in done.stderr


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("exit 125", ["cannot run 763104351884.dkr.ecr", "extended-dlc login", "permission denied on /run/x.sock"]),
        ("exit 1", ["the base's pip says no:", "permission denied on /run/x.sock"]),
        (None, ["there is no container engine", "install Docker, or name yours in CDK_DOCKER"]),
    ],
)
def test_an_engines_own_error_is_told_from_its_containers(
    project: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, words: list[str]
) -> None:
    engine = project / "engine"
    engine.write_text(f"#!/bin/sh\necho permission denied on /run/x.sock >&2\n{program}\n")
    if program is None:
        engine.unlink()
    monkeypatch.setenv("CDK_DOCKER", str(engine))
    monkeypatch.chdir(project)
    done = CliRunner().invoke(main, ["lock"])
    assert done.exit_code == 1
    assert [word for word in words if word not in done.stderr] == []
    assert not (project / "extended-dlc.lock").exists()


def test_a_node_on_which_no_app_starts_is_said_before_a_rehearsal_begins(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = project / "node"
    node.write_text("#!/bin/sh\necho v16.20.2\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{project}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(project)
    done = CliRunner().invoke(main, ["rehearse", "--app", "true"])
    assert done.exit_code == 1
    assert "Node.js 16 is too old for the CDK" in done.stderr
    assert "install Node.js 22 or newer" in done.stderr
    assert not (project / ".rehearsal").exists()


# files


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "cdk.context.json"
    file.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # a disk with room for 100 bytes
    try:
        with pytest.raises(OSError, match=r"cdk\.context\.json"):
            files.write(file, "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_what_is_replaced_keeps_its_rights_and_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    files.write(link, "Zoë")
    assert link.is_symlink()
    assert file.read_bytes() == "Zoë".encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    files.write(Path(os.devnull), "x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode), "a device is no file to replace"
