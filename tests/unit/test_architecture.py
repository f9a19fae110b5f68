"""docs/architecture.md names every folder, and imports run down only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maintain import architecture

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["library", "server"])
def test_imports_run_down_only_and_every_folder_says_what_it_is(package: str) -> None:
    assert set(architecture.folders(package)) == set(architecture.ORDER[package])
    assert architecture.upward(package) == []
    assert architecture.circle(package) == []
    assert all(what.endswith((".", ":")) for what in architecture.folders(package).values())


def test_the_page_is_as_the_code_is() -> None:
    assert architecture.page(with_walk=False) == architecture.PAGE.read_text(), "run: python -m maintain.architecture"


@pytest.mark.thorough
def test_the_model_of_an_endpoint_is_handed_through_few_modules() -> None:
    entered, handed = architecture.walk()
    assert {"app/section", "decisions/sizing", "models/model", "endpoint/parts"} < set(handed) < set(entered)
    assert len(handed) <= 20, handed


def test_every_file_that_the_page_names_is_there() -> None:
    text = re.sub(r"```.*?```", "", architecture.PAGE.read_text(), flags=re.DOTALL)
    bases = (ROOT, *architecture.PACKAGES.values())
    named = set(re.findall(r"`([\w./]+(?:\.py|/))`", text))
    assert len(named) > 40
    assert {name for name in named if not any((base / name).exists() for base in bases)} == set()
