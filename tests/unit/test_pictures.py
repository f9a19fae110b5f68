"""The pictures in docs/pictures are those of this state of the project; `make docs` writes them anew."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
sys.path.insert(0, str(ROOT / "benchmarks"))

from pictures import pictures  # type: ignore[import-not-found]  # noqa: E402


@pytest.fixture(scope="module")
def made() -> Mapping[str, str]:
    found: Mapping[str, str] = pictures()
    return found


def test_the_pictures_are_current(made: Mapping[str, str]) -> None:
    assert set(made) == {each.name for each in PICTURES.glob("*.svg")}
    assert [name for name, svg in made.items() if (PICTURES / name).read_text() != svg] == []


def test_each_is_whole_fetches_nothing_and_is_shown_somewhere(made: Mapping[str, str]) -> None:
    pages = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    for name, svg in made.items():
        ElementTree.fromstring(svg)
        assert not re.search(r"(?:href|url|src)\W{1,3}https?:", svg), f"{name} fetches something"
        assert f"pictures/{name})" in text, f"{name} is shown nowhere"


def test_they_show_what_they_are_of(made: Mapping[str, str]) -> None:
    text = {name: re.sub(r"<[^>]*>", "", svg).replace("&#160;", " ") for name, svg in made.items()}
    assert "bigscience/bloom-560m" in text["plan.svg"]
    assert "Whisper transcribes a WAV file: ok" in text["rehearsal.svg"]
    assert all(word in text["architecture.svg"] for word in ("EndpointConfig", "ECR repository", "Hugging Face Hub"))
    assert text["throughput.svg"].count("×") > 30
