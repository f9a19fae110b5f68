"""The app that the synth is measured beside makes the template of the shipped settings."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from synth import BY_HAND, require_same_template, run_synth  # type: ignore[import-not-found]  # noqa: E402


def test_the_app_by_hand_makes_the_same_resources_and_outputs(tmp_path: Path) -> None:
    ours, by_hand = tmp_path / "ours", tmp_path / "hand"
    run_synth(ROOT / "app.py", ours)
    run_synth(BY_HAND, by_hand)
    require_same_template(ours, by_hand)
