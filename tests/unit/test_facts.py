"""The published facts and what is decided from them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from extended_dlc.facts import checks
from extended_dlc.facts.catalog import INFERENCE, dlc_images, is_moving, read_tag, version
from extended_dlc.facts.instances import all_instances, find_instance
from extended_dlc.facts.measured_packages import find_neighbour, neighbours
from extended_dlc.facts.releases import every_release, find_task, releases, tasks_of
from extended_dlc.facts.specifiers import read_requirement
from extended_dlc.refresh._pip import RefreshError
from extended_dlc.refresh._write import layout, write

TUTORIAL = "huggingface-pytorch-inference:1.10.2-transformers4.17.0-gpu-py38-cu113-ubuntu20.04"


def test_the_tutorials_base_is_in_the_catalogue_with_its_address() -> None:
    (image,) = [i for i in dlc_images(INFERENCE) if i.tag == TUTORIAL.split(":")[1]]
    assert image.uri("us-east-1") == f"763104351884.dkr.ecr.us-east-1.amazonaws.com/{TUTORIAL}"
    assert (image.python, image.cuda, image.accelerator) == ("py38", "cu113", "gpu")


def test_china_has_an_account_and_a_dns_suffix_of_its_own() -> None:
    image = dlc_images(INFERENCE)[-1]
    assert image.uri("cn-north-1").startswith("727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/")


def test_a_tag_tells_what_is_inside_and_a_foreign_one_nothing() -> None:
    facts = read_tag(f"registry.example.com/mirror/{TUTORIAL}")
    assert facts is not None
    assert (facts.torch, facts.transformers, facts.accelerator, facts.python, facts.cuda) == (
        "1.10.2",
        "4.17.0",
        "gpu",
        "py38",
        "cu113",
    )
    assert read_tag("registry.example.com:5000/ours:1") is None
    assert read_tag("registry.example.com:5000/ours") is None


@pytest.mark.parametrize(
    ("reference", "moving"),
    [
        (TUTORIAL, True),
        (f"{TUTORIAL}-v1.3", False),
        ("x/y@sha256:" + "0" * 64, False),
        ("x/y:v1.3", True),
        ("x/y", True),
    ],
)
def test_only_a_digest_or_a_versioned_tag_stays_what_it_is(reference: str, moving: bool) -> None:
    assert is_moving(reference) is moving


@pytest.mark.parametrize(
    ("name", "accelerator", "gpus", "gpu_memory_mib"),
    [("ml.g5.12xlarge", "gpu", 4, 22888), ("ml.p4d.24xlarge", "gpu", 8, 40960), ("ml.m5.xlarge", "cpu", 0, 0)],
)
def test_instances_carry_their_accelerators(name: str, accelerator: str, gpus: int, gpu_memory_mib: int) -> None:
    instance = find_instance(name)
    assert (instance.accelerator, instance.gpus, instance.gpu_memory_mib) == (accelerator, gpus, gpu_memory_mib)


def test_every_hosting_type_has_what_it_computes_with() -> None:
    found = all_instances()
    assert len(found) >= 277
    unknown = {instance.name for instance in found if not instance.vcpu or not instance.memory_mib}
    assert unknown == {"ml.p6e-gb200.36xlarge"}
    for instance in found:
        has_one = instance.accelerator != "cpu"
        assert bool(instance.accelerator_name) is bool(instance.accelerators) is has_one, instance.name
        assert bool(instance.accelerator_memory_mib) is has_one, instance.name


def test_only_nvidias_accelerators_count_as_gpus() -> None:
    inferentia = find_instance("ml.inf2.24xlarge")
    assert (inferentia.accelerator_name, inferentia.accelerators, inferentia.gpus) == ("AWS Inferentia2", 6, 0)
    assert (inferentia.accelerator_memory_mib, inferentia.gpu_memory_mib) == (32768, 0)


@pytest.mark.parametrize(
    ("name", "region", "offered"),
    [
        ("ml.p5.48xlarge", "us-east-1", True),
        ("ml.p5.48xlarge", "eu-west-3", False),
        ("ml.p5.48xlarge", "cn-north-1", None),  # no source tells of China
        ("ml.p3.2xlarge", "us-east-1", None),  # nor of a family that EC2 no longer describes
    ],
)
def test_a_type_is_offered_in_a_region_or_not_or_nobody_knows(name: str, region: str, offered: bool | None) -> None:
    assert find_instance(name).is_offered(region) is offered


def test_a_release_tells_its_day_and_whether_it_was_withdrawn() -> None:
    newest = every_release()["5.23.0"]
    assert (newest.date, newest.yanked) == ("2026-11-13", False)
    assert every_release()["4.57.0"].yanked
    assert "4.57.0" not in releases()


def test_no_release_switches_a_torch_off_that_its_metadata_allows() -> None:
    gates = {release.torch_gate for release in every_release().values()}
    assert gates == {None, "2.1", "2.2", "2.4", "2.5", "2.6"}
    for release in every_release().values():
        if release.torch_gate:
            assert release.torch, release.release
            assert version(release.torch_gate) <= version(release.torch), release.release


@pytest.mark.parametrize(
    ("task", "transformers", "alias_of"),
    [
        ("text-generation", "4.17.0", None),
        ("ner", "5.23.0", "token-classification"),
        ("image-to-text", "4.57.6", None),
        ("image-to-text", "5.23.0", "image-text-to-text"),
    ],
)
def test_a_release_has_its_tasks_under_each_of_their_names(task: str, transformers: str, alias_of: str | None) -> None:
    tasks = tasks_of(transformers)
    assert tasks is not None
    assert tasks[task] == alias_of


@pytest.mark.parametrize(
    ("task", "last", "without"),
    [
        ("summarization", "4.57.6", "5.0.0"),
        ("translation_en_to_fr", "4.57.6", "5.0.0"),
        ("question-answering", "5.2.0", "5.3.0"),
        ("conversational", "4.41.2", "4.42.0"),
    ],
)
def test_a_task_that_was_removed_has_its_last_release(task: str, last: str, without: str) -> None:
    assert [span.last for span in find_task(task)] == [last]
    assert task.split("_")[0] not in (tasks_of(without) or {})


def test_of_releases_outside_the_data_no_tasks_are_known() -> None:
    assert tasks_of("4.16.2") is None
    assert tasks_of("99.0.0") is None
    assert find_task("tea-making") == ()


TOOLKIT = "sagemaker-huggingface-inference-toolkit"


@pytest.mark.parametrize(
    ("package", "release", "transformers", "works"),
    [
        (TOOLKIT, "2.6.0", "4.57.6", True),
        (TOOLKIT, "2.6.0", "5.0.0", False),
        (TOOLKIT, "2.4.0", "4.42.0", False),
        ("setuptools", "82.0.1", "4.51.3", False),
    ],
)
def test_what_was_measured_of_a_neighbour_is_known_with_how(
    package: str, release: str, transformers: str, works: bool
) -> None:
    found = find_neighbour(package, release, transformers)
    assert found is not None
    assert found.works is works
    assert (found.reason is None) is works
    assert found.how


@pytest.mark.parametrize(
    ("package", "release", "transformers"),
    [(TOOLKIT, "2.6.0", "4.46.3"), ("setuptools", "81.0.0", "4.51.3"), ("tea", "1.0", "5.23.0")],
)
def test_what_was_not_measured_of_a_neighbour_is_not_known(package: str, release: str, transformers: str) -> None:
    assert find_neighbour(package, release, transformers) is None


def test_the_neighbours_that_the_image_installs_with_transformers_5_were_measured_and_work() -> None:
    source = (Path(__file__).parents[2] / "docker/inference/install.py").read_text()
    (ranges,) = (
        ast.literal_eval(statement.value)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "NEIGHBOURS"
    )
    for package, wanted in ranges.items():
        accepts = read_requirement(f"{package}{wanted}").accepts
        measured = [row for row in neighbours() if row.package == package and accepts(row.range.removeprefix("=="))]
        assert any(row.works for row in measured if row.covers(row.range.removeprefix("=="), "5.23.0")), package
        assert all(row.works for row in measured if version(row.first) >= (5,)), package


def test_an_unknown_instance_type_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'ml\.m5\.xlarge'\?"):
        find_instance("m5.xlarge")


@pytest.mark.parametrize("name", ["bigscience/bloom-560m", "gpt2", "a/b.c_d-e", "org-1/model.v2"])
def test_a_hub_id_passes(name: str) -> None:
    checks.check_model_id(name)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "a//b", "/a", "a/", "a b/c", "a/b--c", "a/..", "-a/b", "a/b.git", "a" * 97]
)
def test_what_cannot_be_a_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a Hub model id"):
        checks.check_model_id(name)


def test_a_refresh_that_would_shrink_a_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTENDED_DLC_FACTS", str(tmp_path))
    before = {"source": "s", "things": [{"a": 1}, {"a": 2}]}
    write("things", before)
    with pytest.raises(RefreshError, match=r"things\.json would shrink from 2 to 1 rows"):
        write("things", {"source": "s", "things": [{"a": 1}]})
    assert json.loads((tmp_path / "things.json").read_text()) == before, "the old table must survive"


def test_a_table_is_written_one_row_a_line() -> None:
    text = layout({"source": "s", "rows": [{"a": 1}, {"a": 2}], "map": {"k": {"b": 1}}})
    assert text.splitlines()[3:5] == ['    {"a": 1},', '    {"a": 2}']
    assert json.loads(text) == {"source": "s", "rows": [{"a": 1}, {"a": 2}], "map": {"k": {"b": 1}}}
