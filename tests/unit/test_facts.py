"""The published facts and what is decided from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extended_dlc.facts import checks
from extended_dlc.facts.catalog import INFERENCE, dlc_images, is_moving, read_tag
from extended_dlc.facts.instances import all_instances, find_instance
from extended_dlc.facts.refresh._pip import RefreshError
from extended_dlc.facts.refresh._write import layout, write

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
    monkeypatch.setattr("extended_dlc.facts.refresh._write.DATA", tmp_path)
    before = {"source": "s", "things": [{"a": 1}, {"a": 2}]}
    write("things", before)
    with pytest.raises(RefreshError, match=r"things\.json would shrink from 2 to 1 rows"):
        write("things", {"source": "s", "things": [{"a": 1}]})
    assert json.loads((tmp_path / "things.json").read_text()) == before, "the old table must survive"


def test_a_table_is_written_one_row_a_line() -> None:
    text = layout({"source": "s", "rows": [{"a": 1}, {"a": 2}], "map": {"k": {"b": 1}}})
    assert text.splitlines()[3:5] == ['    {"a": 1},', '    {"a": 2}']
    assert json.loads(text) == {"source": "s", "rows": [{"a": 1}, {"a": 2}], "map": {"k": {"b": 1}}}
