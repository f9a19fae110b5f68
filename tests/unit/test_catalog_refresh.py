"""How the tables are generated: what is read, what is asked for again, and what a failure leaves behind."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from extended_dlc import refresh as refreshing
from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import version
from extended_dlc.facts.compat import model_types
from extended_dlc.facts.releases import releases as known_releases
from extended_dlc.facts.releases import tasks_of
from extended_dlc.refresh import _pip, dlc, images, releases, transformers
from extended_dlc.refresh import _write as writing
from extended_dlc.refresh._pip import RefreshError, Upload
from extended_dlc.refresh.source import tasks_in_source, types_in_source

FILLER = "".join(f'        ("type-{number}", "Config{number}"),\n' for number in range(40))


def quiet(text: str) -> None:
    """Say nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A web server on loopback that gives the files of a folder."""
    handler = functools.partial(QuietFiles, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


# what the metadata of a wheel says


def test_floors_and_ranges_are_read_from_a_wheels_metadata() -> None:
    row = releases.row(
        "4.30.0",
        ">=3.7.0",
        [
            "filelock",
            "huggingface-hub (<1.0,>=0.14.1)",
            "tokenizers (!=0.11.3,<0.14,>=0.11.1)",
            "safetensors>=0.3.1",
            "accelerate (>=0.20.2) ; extra == 'accelerate'",
            "torch (!=1.12.0,>=1.9) ; extra == 'torch'",
            "torch>=1.99; extra == 'torchhub'",
            "fugashi[unidic] (>=1.0) ; extra == 'ja'",
        ],
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
    row = releases.row("4.46.3", ">=3.8.0", ["torch ; extra == 'torch'"])
    assert (row["torch"], row["tokenizers"]) == (None, None)


def test_the_torch_that_a_release_disables_is_read_where_it_says_so() -> None:
    says = 'logger.warning_once(f"Disabling PyTorch because PyTorch >= 2.4 is required but found {torch_version}")'
    assert releases.torch_gate(["", says]) == "2.4"
    assert releases.torch_gate(['logger.info("Disabling PyTorch because USE_TF is set")']) is None


# what the source of a wheel knows


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
    assert types_in_source([others + source]) == {"new", *(f"type-{number}" for number in range(40))}


def test_a_mapping_in_a_form_not_met_yet_is_an_error_and_not_an_empty_table() -> None:
    with pytest.raises(RefreshError, match="only 0 model types found"):
        types_in_source(["CONFIG_MAPPING_NAMES = load()"])


def test_tasks_are_read_with_their_other_names_and_with_the_old_ones_that_lead_to_new_ones() -> None:
    many = ", ".join(f'"task-{number}": {{"impl": Pipeline}}' for number in range(15))
    tasks = tasks_in_source(f"""
TASK_ALIASES = {{"ner": "token-classification"}}
SUPPORTED_TASKS = {{"token-classification": {{"impl": Pipeline, "default": {{"model": "x"}}}}, {many}}}
REMOVED_TASKS = {{"translation": "use another"}}
def _resolve_deprecated_task(task):
    if task == "image-to-text":
        logger.warning_once("gone")
        return "image-text-to-text"
    if task in REMOVED_TASKS:
        raise KeyError(task)
    return task
""")
    assert tasks == {
        **{f"task-{number}": None for number in range(15)},
        "token-classification": None,
        "ner": "token-classification",
        "image-to-text": "image-text-to-text",
    }


def test_tasks_in_a_form_not_met_yet_are_an_error() -> None:
    with pytest.raises(RefreshError, match="only 0 tasks found"):
        tasks_in_source("SUPPORTED_TASKS = load()")


# the tables of transformers


WHEELS = {
    "4.1.0": ({"a", "old"}, {}),
    "4.17.0": ({"a", "old"}, {"text": None, "say": "text"}),
    "4.17.1": ({"a", "patched"}, {"text": None, "say": "text"}),
    "4.18.0": ({"never counts: it was withdrawn"}, {}),
    "5.0.0": ({"a", "patched", "new"}, {"text": None}),
}
UPLOADS = {release: Upload(date="2026-01-02", yanked=release == "4.18.0") for release in ("3.5.0", *WHEELS)}
NOTHING: dict[str, Any] = {"releases": None, "model_types": None, "tasks": None}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The releases whose wheels were read, in place of which `WHEELS` answers."""
    asked: list[str] = []

    def read_wheel(release: str, folder: Path) -> transformers.Wheel:
        asked.append(release)
        types, tasks = WHEELS[release]
        row = {"release": release, "python": "3.9"}
        return transformers.Wheel(row=row, types={(name,) for name in types}, tasks=set(tasks.items()))

    monkeypatch.setattr(transformers, "read_wheel", read_wheel)
    return asked


def test_from_nothing_every_release_is_read_and_a_withdrawn_one_knows_nothing(read: list[str]) -> None:
    tables = dict(transformers.tables(UPLOADS, NOTHING, quiet))
    assert sorted(read) == list(WHEELS)
    assert {row["model_type"]: (row["first"], row["last"]) for row in tables["model_types"]["model_types"]} == {
        "a": ("4.1.0", None),
        "old": ("4.1.0", "4.17.0"),
        "patched": ("4.17.1", None),
        "new": ("5.0.0", None),
    }
    assert tables["tasks"]["tasks"] == [
        {"task": "say", "alias_of": "text", "first": "4.17.0", "last": "4.17.1"},
        {"task": "text", "alias_of": None, "first": "4.17.0", "last": None},
    ]
    assert [(row["release"], row["date"], row["yanked"]) for row in tables["releases"]["releases"]] == [
        ("4.17.0", "2026-01-02", False),
        ("4.17.1", "2026-01-02", False),
        ("4.18.0", "2026-01-02", True),
        ("5.0.0", "2026-01-02", False),
    ]


def test_a_refresh_reads_new_releases_only_and_ends_like_one_from_nothing(read: list[str]) -> None:
    full = dict(transformers.tables(UPLOADS, NOTHING, quiet))
    older = dict(list(UPLOADS.items())[:-1])
    before = dict(transformers.tables(older, NOTHING, quiet))
    read.clear()
    assert dict(transformers.tables(UPLOADS, before, quiet)) == full
    assert read == ["5.0.0"]
    read.clear()
    assert dict(transformers.tables(UPLOADS, full, quiet)) == full
    assert read == [], "nothing new, nothing read, nothing changed"


def test_a_release_that_is_withdrawn_later_keeps_its_row_and_loses_the_rest(read: list[str]) -> None:
    before = dict(transformers.tables(UPLOADS, NOTHING, quiet))
    withdrawn = {**UPLOADS, "5.0.0": Upload(date="2026-01-02", yanked=True)}
    tables = dict(transformers.tables(withdrawn, before, quiet))
    assert tables["releases"]["releases"][-1]["yanked"]
    assert "new" not in {row["model_type"] for row in tables["model_types"]["model_types"]}


def test_the_index_tells_final_releases_their_dates_and_what_was_withdrawn(tmp_path: Path) -> None:
    def file(name: str, day: str, *, yanked: bool | str = False) -> dict[str, Any]:
        return {"filename": name, "upload-time": f"{day}T10:00:00Z", "yanked": yanked}

    files = [
        file("thing-1.10.0-py3-none-any.whl", "2026-03-01"),
        file("thing-1.9.0-py3-none-any.whl", "2026-02-01", yanked="broken"),
        file("thing-1.9.0.tar.gz", "2026-01-31"),
        file("thing-2.0.0rc1-py3-none-any.whl", "2026-04-01"),
    ]
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "index.html").write_text(json.dumps({"files": files}))
    with served(tmp_path) as address:
        assert list(_pip.uploads("thing", address).items()) == [
            ("1.9.0", Upload(date="2026-02-01", yanked=True)),
            ("1.10.0", Upload(date="2026-03-01", yanked=False)),
        ]
        with pytest.raises(RefreshError, match=r"does not tell the releases and their dates \(HTTPError"):
            _pip.uploads("other", address)


def test_the_index_is_the_one_that_pip_is_configured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.com/simple/")
    assert _pip.index() == "https://mirror.example.com/simple"


def test_the_index_of_a_pip_without_configuration_is_pips_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # pip then reads no configuration at all
    assert re.fullmatch(r"https://\S+/simple", _pip.index())


# the committed tables against wheels


def has(release: str) -> tuple[set[str], dict[str, str | None]]:
    """The model types and tasks of a release by the committed tables."""
    known = [types for types in model_types().values() if within(release, types.first, types.last)]
    return {types.model_type for types in known}, tasks_of(release) or {}


def within(release: str, first: str, last: str | None) -> bool:
    return version(first) <= version(release) and (last is None or version(release) <= version(last))


SAMPLE = Path(__file__).parent / "data" / "transformers_wheels.json"


@pytest.mark.parametrize("release", json.loads(SAMPLE.read_text())["wheels"])
def test_the_tables_agree_with_the_committed_sample_of_wheels(release: str) -> None:
    wheel = json.loads(SAMPLE.read_text())["wheels"][release]
    types, tasks = has(release)
    assert sorted(types) == wheel["model_types"]
    assert tasks == wheel["tasks"]


@pytest.mark.skipif(
    not os.environ.get("EXTENDED_DLC_WHEELS"),
    reason="set EXTENDED_DLC_WHEELS=1 to download two wheels of transformers and replace the committed sample",
)
def test_the_tables_agree_with_two_wheels_taken_at_random(tmp_path: Path) -> None:
    sample = {}
    for release in sorted(random.sample(list(known_releases()), 2), key=version):
        wheel = transformers.read_wheel(release, tmp_path)
        types, tasks = sorted(name for (name,) in wheel.types if name), {name: of for name, of in wheel.tasks if name}
        assert has(release) == (set(types), tasks), release
        row = known_releases()[release]
        assert (row.python, row.torch, row.torch_gate) == tuple(
            wheel.row[key] for key in ("python", "torch", "torch_gate")
        )
        sample[release] = {"model_types": types, "tasks": dict(sorted(tasks.items()))}
    source = "the wheels of two releases taken at random, read by EXTENDED_DLC_WHEELS=1"
    SAMPLE.write_text(writing.layout({"source": source, "wheels": sample}) + "\n")


def test_the_committed_tables_know_what_the_transformers_here_knows() -> None:
    installed = pytest.importorskip("transformers")
    if installed.__version__ not in known_releases():
        pytest.skip("newer than the tables")
    folder = Path(installed.__file__).parent
    sources = [folder / "models/auto" / name for name in ("auto_mappings.py", "configuration_auto.py")]
    types = types_in_source(source.read_text() for source in sources if source.exists())
    assert has(installed.__version__) == (types, tasks_in_source((folder / "pipelines/__init__.py").read_text()))


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
    vllm = {
        **image,
        "repository": "huggingface-vllm",
        "tag_prefix": "0.29.0-transformers5.15.0",
        "container_version": {"gpu": "cu130-ubuntu24.04-v1.0"},
    }
    pytorch = {"py_versions": ["py2", "py3", "py312"], "registries": registries, "repository": "pytorch-inference"}
    linux = {
        "container_version": {"gpu": "cu133-amzn2023-sagemaker", "cpu": "cpu-amzn2023-sagemaker"},
        "registries": registries,
        "repository": "pytorch",
        "tag_prefix": "2.13",
    }
    files = {
        "huggingface": {"inference": {"versions": {"5.5.3": hugging_face}}, "training": {"versions": {}}},
        "huggingface-vllm": {"inference": {"versions": {"0.29.0": vllm}}},
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


NO_LIST: dict[str, Any] = {"source": "", "dlc_images": []}


@pytest.mark.usefixtures("no_corrections")
def test_each_family_is_read_in_its_own_grammar(tmp_path: Path) -> None:
    content = images.images(sdk(tmp_path), NO_LIST)
    assert [f"{row['repository']}:{row['tag']}" for row in content["images"]] == [
        "huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04",
        "huggingface-pytorch-inference:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04",
        "huggingface-vllm:0.29.0-transformers5.15.0-gpu-py312-cu130-ubuntu24.04-v1.0",
        "pytorch:2.13-cpu-amzn2023-sagemaker",
        "pytorch:2.13-cu133-amzn2023-sagemaker",
        "pytorch-inference:2.6.0-cpu-py312",
        "pytorch-inference:2.6.0-gpu-py312",
    ]
    assert content["published"] == {"huggingface-pytorch-inference-2": ["cn-north-1", "eu-west-1"]}
    assert content["dns_suffixes"] == {"cn-north-1": "amazonaws.com.cn"}
    assert images.images(sdk(tmp_path), NO_LIST) == content


@pytest.mark.usefixtures("no_corrections")
def test_two_accounts_for_a_region_are_an_error_and_not_a_guess(tmp_path: Path) -> None:
    with pytest.raises(RefreshError, match="two accounts own pytorch-inference in eu-west-1"):
        images.images(sdk(tmp_path, registries={"eu-west-1": "111111111111"}), NO_LIST)


def test_a_row_that_the_source_has_by_now_wins_over_the_added_one() -> None:
    (added, *_) = table("image_corrections")["image_corrections"][0]["add"]
    theirs = {**added, "regions": "theirs"}
    kept = [row for row in images._corrected([theirs]) if row["tag"] == added["tag"]]
    assert kept == [theirs]


# AWS's own list of images


LISTED = {
    "pytorch/2.13-cuda-sagemaker.yml": {
        "framework": "PyTorch",
        "version": "2.13",
        "accelerator": "gpu",
        "python": "py312",
        "cuda": "cu133",
        "platform": "sagemaker",
        "public_registry": True,
        "eop": "2027-07-20",
        "tags": ["2.13.0-cu133-amzn2023-sagemaker", "2.13-cu133-amzn2023-sagemaker"],
    },
    "pytorch/2.13-cuda-ec2.yml": {"platform": "ec2", "tags": ["2.13.0-cu133-amzn2023"]},
    "huggingface-vllm/0.30.0-gpu-sagemaker.yml": {
        "framework": "vLLM",
        "version": "0.30.0",
        "accelerator": "gpu",
        "python": "py312",
        "cuda": "cu130",
        "transformers": "5.15.0",
        "platform": "sagemaker",
        "tags": ["0.30.0-transformers5.15.0-gpu-py312-cu130-ubuntu24.04"],
    },
    "sglang/0.5-gpu-sagemaker.yml": {"platform": "sagemaker", "tags": ["0.5.0"]},
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of git's with AWS's list in it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    commit(folder, LISTED)
    return folder


def git(folder: Path, *arguments: str) -> str:
    named = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
    return subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, files: dict[str, dict[str, Any]]) -> str:
    for name, content in files.items():
        file = folder / "docs/src/data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=more")
    return git(folder, "rev-parse", "HEAD")


def test_awss_list_is_read_from_a_clone_with_the_commit_and_without_other_platforms_and_families(
    repository: Path, tmp_path: Path
) -> None:
    found = dlc.images(dlc.clone(str(repository), tmp_path / "clone"))
    assert [row["file"] for row in found["dlc_images"]] == [
        "docs/src/data/huggingface-vllm/0.30.0-gpu-sagemaker.yml",
        "docs/src/data/pytorch/2.13-cuda-sagemaker.yml",
    ]
    assert {row["commit"] for row in found["dlc_images"]} == {git(repository, "rev-parse", "HEAD")}
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found["dlc_images"][0]["date"])


def test_a_file_that_left_the_list_keeps_its_row_and_one_that_did_not_change_its_commit(repository: Path) -> None:
    before = dlc.images(repository)
    (repository / "docs/src/data/huggingface-vllm/0.30.0-gpu-sagemaker.yml").unlink()
    commit(repository, {"sglang/0.6-gpu-sagemaker.yml": {"platform": "sagemaker", "tags": ["0.6.0"]}})
    assert dlc.images(repository, before) == before
    changed = LISTED["pytorch/2.13-cuda-sagemaker.yml"] | {"tags": ["2.13.1-cu133-amzn2023-sagemaker"]}
    newest = commit(repository, {"pytorch/2.13-cuda-sagemaker.yml": changed})
    vllm, pytorch = dlc.images(repository, before)["dlc_images"]
    assert (vllm["commit"] != newest, pytorch["commit"], pytorch["tags"]) == (True, newest, changed["tags"])


@pytest.mark.usefixtures("no_corrections")
def test_the_two_sources_are_one_table_and_each_row_says_which_has_it(repository: Path, tmp_path: Path) -> None:
    rows = images.images(sdk(tmp_path), dlc.images(repository))["images"]
    found = {(row["repository"], row["tag"], row["regions"] is None): row for row in rows}
    regions = "huggingface-pytorch-inference-2"
    assert len(found) == len(rows)
    both = found["pytorch", "2.13-cu133-amzn2023-sagemaker", False]
    assert (both["source"], both["python"], both["patched_until"]) == ("sdk+dlc", "py312", "2027-07-20")
    theirs = found["huggingface-vllm", "0.30.0-transformers5.15.0-gpu-py312-cu130-ubuntu24.04", False]
    assert (theirs["source"], theirs["vllm"], theirs["torch"], theirs["regions"]) == ("dlc", "0.30.0", None, regions)
    assert ("pytorch", "2.13.0-cu133-amzn2023-sagemaker", True) in found
    ours = found["huggingface-pytorch-inference", "2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04", False]
    assert ours["source"] == "sdk"


def test_a_list_that_cannot_be_had_is_an_error_with_gits_words(tmp_path: Path) -> None:
    with pytest.raises(RefreshError, match=r"failed: .*does not exist"):
        dlc.images(dlc.clone(str(tmp_path / "gone"), tmp_path / "clone"))


def test_a_repository_without_the_list_is_an_error_and_not_an_empty_table(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=nothing")
    with pytest.raises(RefreshError, match="has no docs/src/data"):
        dlc.images(tmp_path)


@pytest.mark.parametrize("reachable", [True, False])
def test_a_refresh_merges_the_list_and_keeps_the_one_there_is_where_git_cannot_get_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reachable: bool
) -> None:
    def stop(package: str, index: str) -> None:
        raise RefreshError("the other tables are not asked for")

    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("EXTENDED_DLC_FACTS", str(data))
    monkeypatch.setattr(writing, "DATA", data)
    writing.write("dlc_images", dlc.images(repository))
    before = (data / "dlc_images.json").read_bytes()
    commit(
        repository, {"pytorch/2.14.yml": LISTED["pytorch/2.13-cuda-sagemaker.yml"] | {"tags": ["2.14.0-cpu-amzn2023"]}}
    )
    monkeypatch.setattr(_pip, "download_wheel", lambda package, folder: sdk(tmp_path))
    monkeypatch.setattr(_pip, "uploads", stop)
    monkeypatch.setattr(refreshing, "find_spec", lambda name: None)
    said: list[str] = []
    where = str(repository if reachable else tmp_path / "gone")
    with pytest.raises(RefreshError, match="not asked for"):
        refreshing.refresh(said.append, where)
    tags = {row["tag"]: row["source"] for row in json.loads((data / "images.json").read_text())["images"]}
    assert tags["2.13-cu133-amzn2023-sagemaker"] == "dlc", "the public one is last"
    assert ("2.14.0-cpu-amzn2023" in tags) is reachable
    assert ((data / "dlc_images.json").read_bytes() == before) is not reachable
    assert any("left as they are, 'git clone" in text for text in said) is not reachable


# writing, and failing


def test_a_table_that_did_not_change_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTENDED_DLC_FACTS", str(tmp_path))
    content = {"source": "s", "things": [{"a": 1}]}
    assert writing.write("things", content) == (1, True)
    assert writing.write("things", content) == (1, False)
    assert [file.name for file in tmp_path.iterdir()] == ["things.json"], "no half-written file stays"


def test_a_few_rows_may_leave_where_that_is_ordinary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTENDED_DLC_FACTS", str(tmp_path))
    writing.write("things", {"source": "s", "things": [1, 2, 3, 4]})
    assert writing.write("things", {"source": "s", "things": [1, 2, 3]}, may_lose=2) == (3, True)
    with pytest.raises(RefreshError, match="would shrink from 3 to 0 rows"):
        writing.write("things", {"source": "s", "things": []}, may_lose=2)


def test_a_refreshed_table_of_the_user_wins_and_one_that_is_broken_is_named(tmp_path: Path) -> None:
    """In a process of its own: tables are read once."""
    program = "from extended_dlc.facts._tables import table; print(len(table('images')['images']))"
    environment = {**os.environ, "EXTENDED_DLC_FACTS": str(tmp_path / "mine")}

    def count() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)

    shipped = table("images")
    assert count().stdout == f"{len(shipped['images'])}\n", "a folder without tables changes nothing"
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine" / "images.json"
    mine.write_text(writing.layout({**shipped, "images": shipped["images"][:3]}))
    assert count().stdout == "3\n"
    mine.write_text("[]")
    refused = count().stderr
    assert f"the table '{mine}' cannot be read" in refused
    assert "extended-dlc catalog refresh" in refused


def test_every_table_is_committed_as_the_refresh_lays_it_out() -> None:
    for name in ("dlc_images", "images", "instances", "releases", "model_types", "tasks"):
        assert (writing.DATA / f"{name}.json").read_text() == writing.layout(table(name)) + "\n"


@pytest.mark.parametrize(
    ("stderr", "remedy"),
    [
        ("/usr/bin/python3: No module named pip", "ensurepip"),
        ("no such option: --json", "install --upgrade pip"),
        ("WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement x", "check the network"),
    ],
)
def test_a_pip_that_fails_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stderr: str, remedy: str
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(RefreshError, match=remedy):
        _pip.download_wheel("transformers", tmp_path)
