"""The settings reference in the docs."""

from __future__ import annotations

from extended_dlc.app.reference import FILE, SCHEMA, reference, schema


def test_the_reference_in_the_docs_is_what_the_code_says() -> None:
    assert FILE.read_text() == reference(), "run 'make docs'"


def test_the_json_schema_is_what_the_code_says() -> None:
    assert SCHEMA.read_text() == schema(), "run 'make docs'"


def test_every_setting_is_described() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `") and not line.startswith("| `-c")]
    assert len(rows) > 25
    assert not [row for row in rows if row.rstrip("| ").endswith("|")], "a setting without a word"
