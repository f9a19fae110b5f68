"""The release that trained a model, as the server's log tells it beside the one that serves."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server.files import trained


@pytest.mark.parametrize(
    ("wrote", "installed", "level", "says"),
    [
        ("5.24.0", "5.23.0", logging.WARNING, "trained with transformers 5.24.0, and this image has 5.23.0"),
        ("5.0.0.dev0", "4.57.6", logging.WARNING, "build the image with 5.0.0.dev0"),
        ("5.23.1", "5.23.0", logging.INFO, "which transformers 5.23.0 reads"),
        ("4.46.3", "5.23.0", logging.INFO, "trained with transformers 4.46.3"),
    ],
)
def test_a_newer_trainer_is_a_warning_and_an_older_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrote: str, installed: str, level: int, says: str
) -> None:
    (tmp_path / trained.RECORD).write_text(json.dumps({"transformers": wrote, "torch": "2.9.0"}))
    with caplog.at_level(logging.INFO):
        trained.log_training(tmp_path, installed)
    (record,) = caplog.records
    assert record.levelno == level
    assert says in record.getMessage()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"transformers": 5}', '{"transformers": "x\\ny"}', "5" * 70_000])
def test_a_record_that_is_none_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    (tmp_path / trained.RECORD).write_text(content)
    with caplog.at_level(logging.INFO):
        trained.log_training(tmp_path, "5.23.0")
        trained.log_training(tmp_path / "nowhere", "5.23.0")
    assert caplog.records == []


def test_the_server_says_it_at_its_start(models: Path, tmp_path: Path, start_server: Any) -> None:
    model = tmp_path / "tuned"
    shutil.copytree(models / "bloom", model)
    (model / trained.RECORD).write_text(json.dumps({"transformers": "99.1.0"}))
    server = start_server(model).wait_until_ready()
    try:
        assert "was trained with transformers 99.1.0, and this image has" in server.log
    finally:
        server.stop()
