"""The settings reference in the docs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from extended_dlc.app.reference import FILE, SCHEMA, reference
from extended_dlc.cli import main


def test_the_reference_in_the_docs_is_what_the_code_says() -> None:
    assert FILE.read_text() == reference(), "run 'make docs'"


def test_the_json_schema_is_what_the_code_says() -> None:
    # in a process of its own, as 'make docs' makes it: what others have imported does not count
    code = "import sys; from extended_dlc.app.reference import schema; sys.stdout.write(schema())"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert SCHEMA.read_text() == made, "run 'make docs'"


def test_every_setting_is_described() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `") and not line.startswith("| `-c")]
    assert len(rows) > 25
    assert not [row for row in rows if row.rstrip("| ").endswith("|")], "a setting without a word"


EXAMPLES = sorted((FILE.parents[1] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_editor_accepts_the_examples_and_marks_what_the_app_refuses(file: Path) -> None:
    import jsonschema

    content = yaml.safe_load(file.read_text())
    assert "settings.schema.json" in file.read_text().splitlines()[0], "an editor finds the schema by the first line"
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert [error.message for error in validator.iter_errors(content)] == []
    endpoint = next(iter(content["endpoints"].values()))
    for wrong in ({"modle": "x"}, {"task": 5}, {"hosting": {"kind": "real-tme"}}, {"revision": ["main"]}):
        content["endpoints"] = {"a": {**endpoint, **wrong}}
        assert not validator.is_valid(content), wrong


def test_the_command_prints_the_schema() -> None:
    assert CliRunner().invoke(main, ["schema"]).output == SCHEMA.read_text()
    path = CliRunner().invoke(main, ["schema", "--path"]).output.strip()
    assert Path(path) == SCHEMA
