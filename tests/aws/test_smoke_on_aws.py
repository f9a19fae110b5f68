"""The smoke test on a real account: skipped unless the environment asks for it, because it costs money."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REGION = os.environ.get("EXTENDED_DLC_SMOKE_REGION")
PRICE = os.environ.get("EXTENDED_DLC_SMOKE_HOURLY_PRICE")
MINUTES = os.environ.get("EXTENDED_DLC_SMOKE_MAX_MINUTES")


@pytest.mark.skipif(
    not REGION or not (PRICE or MINUTES),
    reason="costs money on an AWS account: set EXTENDED_DLC_SMOKE_REGION, and EXTENDED_DLC_SMOKE_HOURLY_PRICE (USD of "
    "one ml.m5.xlarge there) or EXTENDED_DLC_SMOKE_MAX_MINUTES, to run it",
)
def test_bloom_and_whisper_answer_on_aws_and_nothing_is_left(tmp_path: Path) -> None:
    limits = [f"--hourly-price={PRICE}"] if PRICE else []
    limits += [f"--max-minutes={MINUTES}"] if MINUTES else []
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "extended_dlc",
            "smoke",
            str(REGION),
            "--yes",
            f"--json={tmp_path / 'report.json'}",
            *limits,
        ],
        cwd=ROOT,
        check=False,
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert done.returncode == 0, [step for step in report["steps"] if not step["ok"]]
    assert report["steps"][-1]["name"] == "nothing is left"
