"""The settings reference in the docs."""

from __future__ import annotations

from stacks.reference import FILE, reference


def test_the_reference_in_the_docs_is_what_the_code_says() -> None:
    assert FILE.read_text() == reference(), "run 'make docs'"


def test_every_setting_is_described() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `") and not line.startswith("| `-c")]
    assert len(rows) > 25
    assert not [row for row in rows if row.rstrip("| ").endswith("|")], "a setting without a word"
