"""`extended-dlc doctor` as a whole: all checks together, and the command."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.doctor import CHECKS, Check, Finding, Ok, Target, account, examine
from tests.support.doctor import (
    OURS,
    ROOT,
    STOPPED,
    STOPPED_DOCKER,
    Programs,
    app,
    assert_ok,
    assert_unknown,
    client,
    docker,
    mirrored,
    podman,
    publish,
    settings,
    target,
    use,
)


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
        assert time.monotonic() - begun < 20  # one after the other they would take 24 s
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
    findings = dict(examine(target(tmp_path), checks, seconds=1))
    assert time.monotonic() - begun < 15  # the check that hangs takes 20 s
    assert_unknown(findings["hangs"], r"no answer within 1 s")
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
