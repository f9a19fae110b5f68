"""The benchmark for GPUs, in its smallest size on the CPU: its comparisons hold, and no section fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_every_section_runs_and_texts_that_share_steps_are_those_of_the_model_alone(tmp_path):
    file = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, PROGRAM, "--size", "smallest", "--device", "cpu", "--json", file],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert (found["device"], found["correct"]["equal"], found["correct"]["different"]) == ("cpu", 24, 0)
    assert {section for section, value in found.items() if isinstance(value, dict)} == {
        *("bert", "clients", "correct", "memory", "whisper")
    }
    for count in ("1", "4"):
        assert all(found["clients"][count][f"ours, {way}"]["tokens/s"] > 0 for way in ("greedy", "chance"))
    assert 1 < found["bert"]["batches"] < 16
