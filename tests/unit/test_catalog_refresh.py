"""How the tables are generated: what is read, what is asked for again, and what a failure leaves behind."""

from __future__ import annotations

import json
import os
import random
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.facts._tables import table
from extended_dlc.facts.refresh import _pip, images, model_types, releases
from extended_dlc.facts.refresh import _write as writing
from extended_dlc.facts.refresh._pip import RefreshError

FILLER = "".join(f'        ("type-{number}", "Config{number}"),\n' for number in range(40))


def quiet(text: str) -> None:
    """Say nothing."""


# releases


def test_floors_and_ranges_are_read_from_a_wheels_metadata() -> None:
    row = releases.row(
        "4.30.0",
        {
            "requires_python": ">=3.7.0",
            "requires_dist": [
                "filelock",
                "huggingface-hub (<1.0,>=0.14.1)",
                "tokenizers (!=0.11.3,<0.14,>=0.11.1)",
                "safetensors>=0.3.1",
                "accelerate (>=0.20.2) ; extra == 'accelerate'",
                "torch (!=1.12.0,>=1.9) ; extra == 'torch'",
                "torch>=1.99; extra == 'torchhub'",
                "fugashi[unidic] (>=1.0) ; extra == 'ja'",
            ],
        },
    )
    assert row == {
        "release": "4.30.0",
        "python": "3.7",
        "torch": "1.9",
        "huggingface_hub": ">=0.14.1,<1.0",
        "tokenizers": ">=0.11.1,<0.14,!=0.11.3",
        "safetensors": ">=0.3.1",
    }


def test_a_torch_without_floor_is_none() -> None:
    row = releases.row("4.46.3", {"requires_python": ">=3.8.0", "requires_dist": ["torch ; extra == 'torch'"]})
    assert (row["torch"], row["tokenizers"]) == (None, None)


def test_only_new_releases_are_asked_for_and_withdrawn_ones_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def metadata(package: str, release: str) -> dict[str, Any]:
        asked.append(release)
        return {"requires_python": ">=3.11.0", "requires_dist": []}

    monkeypatch.setattr(_pip, "wheel_metadata", metadata)
    before = {"releases": [{"release": "5.0.0", "old": True}, {"release": "5.1.0", "old": True}]}
    content = releases.releases(["4.16.2", "5.0.0", "5.2.0"], before, quiet)
    assert asked == ["5.2.0"]
    assert [row["release"] for row in content["releases"]] == ["5.0.0", "5.2.0"]
    assert content["releases"][0]["old"]


# model types


@pytest.mark.parametrize(
    "source",
    [
        'CONFIG_MAPPING = OrderedDict(\n    [\n        ("new", NewConfig),\n' + FILLER + "    ]\n)",
        'CONFIG_MAPPING_NAMES = OrderedDict[str, str](\n    [\n        ("new", "NewConfig"),\n' + FILLER + "    ]\n)",
        "CONFIG_MAPPING_NAMES: dict = OrderedDict([\n"
        + FILLER
        + '])\nCONFIG_MAPPING_NAMES.update({"new": "NewConfig"})',
        "CONFIG_MAPPING_NAMES = OrderedDict([\n"
        + FILLER
        + '])\nCONFIG_MAPPING_NAMES = OrderedDict(**{"new": "NewConfig"}, **CONFIG_MAPPING_NAMES)',
    ],
)
def test_the_mapping_is_read_in_each_form_that_it_had(source: str) -> None:
    others = 'MODEL_NAMES_MAPPING = OrderedDict([("other", "Other")])\nSPECIAL.update({"special": "x"})\n'
    assert model_types.types_in_source([others + source]) == {"new", *(f"type-{number}" for number in range(40))}


def test_a_mapping_in_a_form_not_met_yet_is_an_error_and_not_an_empty_table() -> None:
    with pytest.raises(RefreshError, match="only 0 model types found"):
        model_types.types_in_source(["CONFIG_MAPPING_NAMES = load()"])


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Releases and what they know, read instead of wheels; what was read leaves the dictionary."""
    there: dict[str, set[str]] = {}
    monkeypatch.setattr(model_types, "types_in_release", lambda release, folder: there.pop(release))
    return there


def rows(content: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {row["model_type"]: (row["first"], row["last"]) for row in content["model_types"]}


def test_a_type_has_the_patch_it_came_with_and_the_last_release_that_had_it(
    wheels: dict[str, set[str]],
) -> None:
    wheels |= {
        "4.1.0": {"a", "old"},
        "4.1.1": {"a", "old"},
        "4.1.2": {"a", "old", "patched"},
        "4.1.3": {"a", "old", "patched"},
        "4.2.0": {"a", "patched", "new"},
        "4.2.1": {"never read"},
        "4.2.2": {"a", "patched", "new"},
    }
    known = ["3.5.0", *wheels]
    content = model_types.model_types(known, None, quiet)
    assert rows(content) == {
        "a": ("4.1.0", None),
        "old": ("4.1.0", "4.1.3"),
        "patched": ("4.1.2", None),
        "new": ("4.2.0", None),
    }
    assert list(wheels) == ["4.2.1"], "between equal ends nothing needs to be read"


def test_a_refresh_reads_new_releases_only_and_ends_like_one_from_nothing(wheels: dict[str, set[str]]) -> None:
    everything = {"4.1.0": {"a", "old"}, "4.2.0": {"a"}, "4.2.1": {"a"}, "5.0.0": {"a", "b"}}
    wheels |= everything
    full = model_types.model_types(list(everything), None, quiet)
    wheels |= {"4.1.0": {"a", "old"}, "4.2.0": {"a"}}
    first = model_types.model_types(["4.1.0", "4.2.0"], None, quiet)
    wheels |= {"4.2.1": {"a"}, "5.0.0": {"a", "b"}}
    assert model_types.model_types(list(everything), first, quiet) == full
    assert model_types.model_types(list(everything), full, quiet) == full, "nothing new, nothing read, nothing changed"


def test_the_committed_table_knows_what_the_transformers_here_knows() -> None:
    transformers = pytest.importorskip("transformers")
    from extended_dlc.facts.compat import find_release
    from extended_dlc.facts.compat import model_types as known_types

    if find_release(transformers.__version__) is None:
        pytest.skip("newer than the table")
    folder = Path(transformers.__file__).parent
    sources = [folder / "models/auto" / name for name in ("auto_mappings.py", "configuration_auto.py")]
    here = model_types.types_in_source(source.read_text() for source in sources if source.exists())
    release = releases._numbers(transformers.__version__)
    ours = {
        name
        for name, one in known_types().items()
        if releases._numbers(one.first) <= release and (one.last is None or release <= releases._numbers(one.last))
    }
    assert ours == here


@pytest.mark.skipif(
    not os.environ.get("EXTENDED_DLC_WHEELS"),
    reason="set EXTENDED_DLC_WHEELS=1 to download three wheels of transformers",
)
def test_the_table_agrees_with_wheels_taken_at_random(tmp_path: Path) -> None:
    every = [release for release in _pip.releases("transformers") if release >= "4."]
    # those that the refresh did not need to read say most
    sample = [*random.sample(sorted(set(every) - set(table("model_types")["releases"])), 2), random.choice(every)]
    for release in sample:
        print(release)
        assert model_types._as_read({**table("model_types"), "releases": [release]}, every)[release] == (
            model_types.types_in_release(release, tmp_path)
        ), release


# images


def sdk(folder: Path, **changes: Any) -> Path:
    """A wheel of sagemaker-core with one image of each kind."""
    registries = {"eu-west-1": "763104351884", "cn-north-1": "727897471807"}
    image = {
        "py_versions": ["py312"],
        "registries": registries,
        "repository": "huggingface-pytorch-inference",
        "container_version": {"gpu": "cu124-ubuntu22.04", "cpu": "ubuntu22.04"},
    }
    hugging_face = {"version_aliases": {"pytorch2.6": "pytorch2.6.0"}, "pytorch2.6.0": image | changes}
    pytorch = {"py_versions": ["py2", "py3", "py312"], "registries": registries, "repository": "pytorch-inference"}
    linux = {
        "container_version": {"gpu": "cu133-amzn2023-sagemaker", "cpu": "cpu-amzn2023-sagemaker"},
        "registries": registries,
        "repository": "pytorch",
        "tag_prefix": "2.13",
    }
    files = {
        "huggingface": {"inference": {"versions": {"5.5.3": hugging_face}}, "training": {"versions": {}}},
        "pytorch": {
            "inference": {"processors": ["cpu", "gpu"], "versions": {"2.6.0": pytorch}},
            "training": {"processors": ["cpu", "gpu"], "versions": {}},
        },
        "pytorch-amzn2023": {"training": {"versions": {"2.13": linux}}},
    }
    wheel = folder / "sagemaker_core-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"sagemaker/core/image_uri_config/{name}.json", json.dumps(content))
    return wheel


@pytest.fixture
def no_corrections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_corrected", lambda rows: rows)


@pytest.mark.usefixtures("no_corrections")
def test_each_family_is_read_in_its_own_grammar(tmp_path: Path) -> None:
    content = images.images(sdk(tmp_path))
    assert [f"{row['repository']}:{row['tag']}" for row in content["images"]] == [
        "huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04",
        "huggingface-pytorch-inference:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04",
        "pytorch:2.13-cpu-amzn2023-sagemaker",
        "pytorch:2.13-cu133-amzn2023-sagemaker",
        "pytorch-inference:2.6.0-cpu-py312",
        "pytorch-inference:2.6.0-gpu-py312",
    ]
    assert content["published"] == {"huggingface-pytorch-inference-2": ["cn-north-1", "eu-west-1"]}
    assert content["dns_suffixes"] == {"cn-north-1": "amazonaws.com.cn"}
    assert images.images(sdk(tmp_path)) == content


@pytest.mark.usefixtures("no_corrections")
def test_two_accounts_for_a_region_are_an_error_and_not_a_guess(tmp_path: Path) -> None:
    with pytest.raises(RefreshError, match="two accounts own pytorch-inference in eu-west-1"):
        images.images(sdk(tmp_path, registries={"eu-west-1": "111111111111"}))


def test_a_row_that_the_source_has_by_now_wins_over_the_added_one() -> None:
    (added, *_) = table("image_corrections")["image_corrections"][0]["add"]
    theirs = {**added, "regions": "theirs"}
    kept = [row for row in images._corrected([theirs]) if row["tag"] == added["tag"]]
    assert kept == [theirs]


# writing, and failing


def test_a_table_that_did_not_change_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "DATA", tmp_path)
    content = {"source": "s", "things": [{"a": 1}]}
    assert writing.write("things", content) == (1, True)
    assert writing.write("things", content) == (1, False)
    assert [file.name for file in tmp_path.iterdir()] == ["things.json"], "no half-written file stays"


def test_a_few_rows_may_leave_where_that_is_ordinary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "DATA", tmp_path)
    writing.write("things", {"source": "s", "things": [1, 2, 3, 4]})
    assert writing.write("things", {"source": "s", "things": [1, 2, 3]}, may_lose=2) == (3, True)
    with pytest.raises(RefreshError, match="would shrink from 3 to 0 rows"):
        writing.write("things", {"source": "s", "things": []}, may_lose=2)


def test_every_table_is_committed_as_the_refresh_lays_it_out() -> None:
    for name in ("images", "instances", "releases", "model_types"):
        assert (writing.DATA / f"{name}.json").read_text() == writing.layout(table(name)) + "\n"


@pytest.mark.parametrize(
    ("stderr", "remedy"),
    [
        ("/usr/bin/python3: No module named pip", "ensurepip"),
        ("no such option: --json", "install --upgrade pip"),
        ("WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement x", "check the network"),
    ],
)
def test_a_pip_that_fails_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch, stderr: str, remedy: str) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(RefreshError, match=remedy):
        _pip.releases("transformers")
