"""SECURITY.md names tests that exist, and attacks of every kind of task."""

from __future__ import annotations

import re
from pathlib import Path

from tests.attack.targets import TARGETS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = [line.strip("|").split("|") for line in TEXT.splitlines() if line.startswith("| ") and line.count("|") == 10]


def test_every_test_of_the_table_exists():
    tests = "\n".join(
        file.read_text() for folder in ("attack", "runtime") for file in (ROOT / "tests" / folder).glob("*.py")
    )
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 15
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []


def test_every_cell_of_the_table_is_a_test_or_a_reason():
    assert len(ROWS) > 10
    for row in ROWS[1:]:
        assert all(re.search(r"`test_\w+`|\w+ \w+ \w+", cell) for cell in row[1:]), row[0]


def test_every_kind_of_server_has_a_column():
    named = set(re.findall(r"`([a-z0-9-]+)`", "|".join(ROWS[0])))
    assert named == {kind for kind, target in TARGETS.items() if "oldest" not in kind}
