"""What the rehearsal prints, and its report of a failed step."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from extended_dlc.rehearsal.report import Report, StepFailed


def test_a_step_reports_its_proof_and_its_downloads_apart(tmp_path: Path) -> None:
    report = Report(out=io.StringIO())
    with report.step("build") as step:
        step.download_seconds = 100.0
        step.proof = "built\nand named"
    printed = report.out.getvalue()
    assert "build: ok" in printed
    assert "downloads 100.0 s" in printed
    assert "and named" in printed
    report.write(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert (written["ok"], written["download_seconds"]) == (True, 100.0)
    assert written["seconds"] < 0, "the work is what remains without the downloads"


def test_a_failed_step_prints_the_reason_and_where_its_log_is(tmp_path: Path) -> None:
    report = Report(out=io.StringIO())

    def fail() -> None:
        with report.step("find") as step:
            step.log = "/somewhere/find.log"
            raise RuntimeError("no engine: install one")

    with pytest.raises(StepFailed, match="no engine"):
        fail()
    printed = report.out.getvalue()
    assert "find: FAILED" in printed
    assert "no engine: install one" in printed
    assert "its log: /somewhere/find.log" in printed
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is False


def test_an_interrupt_stays_one_and_the_step_says_so() -> None:
    report = Report(out=io.StringIO())

    def interrupted() -> None:
        with report.step("wait") as step:
            step.log = "/somewhere/that-was-not-written-yet.log"
            report.detail("a line of a program")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "wait: stopped by the user after 0.0 s" in report.out.getvalue()
    for word in ("FAILED", "a line of a program", "its log"):
        assert word not in report.out.getvalue()
    assert report.steps[0].proof == "stopped by the user"
    assert not report.steps[0].ok


def test_a_report_without_steps_is_no_success(tmp_path: Path) -> None:
    Report(out=io.StringIO()).write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is False
