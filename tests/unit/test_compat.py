"""Which base carries which release, which release knows which model: both sides of each rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from extended_dlc.facts import _tables, catalog, compat
from extended_dlc.facts import releases as release_facts
from extended_dlc.facts.catalog import INFERENCE, dlc_images, find_image
from extended_dlc.facts.compat import (
    check_model_type,
    check_pair,
    check_stock_server,
    find_model_type,
    find_release,
    inference_ami_version,
    near_model_type,
    pick_base,
    pick_vllm,
)
from extended_dlc.facts.releases import every_release, releases

TUTORIAL = f"{INFERENCE}:1.10.2-transformers4.17.0-gpu-py38-cu113-ubuntu20.04"
TORCH_2_3 = f"{INFERENCE}:2.3.0-transformers4.48.0-gpu-py311-cu121-ubuntu22.04"
NEWEST_4 = f"{INFERENCE}:2.6.0-transformers4.51.3-gpu-py312-cu124-ubuntu22.04"
NEWEST = f"{INFERENCE}:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The tables to change for one test, as copies."""
    copies = {
        name: {key: list(rows) if isinstance(rows, list) else rows for key, rows in _tables.table(name).items()}
        for name in ("images", "releases", "model_types", "stock_server", "host_images")
    }
    cached = (catalog._all_images, every_release, releases, compat.model_types)
    for module in (catalog, compat, release_facts):
        monkeypatch.setattr(module, "table", copies.__getitem__)
    for function in cached:
        function.cache_clear()
    yield copies
    for function in cached:
        function.cache_clear()


# the releases


def test_a_release_tells_what_its_wheel_asks_for() -> None:
    found = find_release("5.23.0")
    assert found is not None
    assert (found.python, found.torch, found.huggingface_hub) == ("3.11", "2.6", ">=1.31.0,<3.0")
    assert (found.tokenizers, found.safetensors) == (">=0.23.1,<0.24.0", ">=0.8.0")


@pytest.mark.parametrize(
    ("release", "python", "torch"),
    [("4.17.0", "3.6", "1.0"), ("4.31.0", "3.8", "1.9"), ("4.46.3", "3.8", None), ("5.0.0", "3.10", "2.2")],
)
def test_floors_follow_the_wheels_through_the_years(release: str, python: str, torch: str | None) -> None:
    found = find_release(release)
    assert found is not None
    assert (found.python, found.torch) == (python, torch)


def test_releases_outside_our_data_are_not_known_and_not_refused() -> None:
    assert find_release("99.0.0") is None
    assert find_release("4.16.2") is None


def test_a_withdrawn_release_is_refused_with_its_neighbour() -> None:
    with pytest.raises(ValueError, match=r"is not on PyPI, or was withdrawn there: take 4\.57\.1 "):
        find_release("4.57.0")


def test_a_release_that_never_was_is_refused_with_both_neighbours() -> None:
    with pytest.raises(ValueError, match=r"take 4\.57\.6 or 5\.0\.0 "):
        find_release("4.58.0")


# pick


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.parametrize("transformers", ["5.5.3", "5.23.0"])
def test_the_newest_base_is_picked_for_what_is_as_new_or_newer(transformers: str, accelerator: str) -> None:
    choice = pick_base(transformers, accelerator, "eu-west-1")
    assert (choice.image.transformers, choice.image.accelerator, choice.known) == ("5.5.3", accelerator, True)
    assert choice.uri == choice.image.uri("eu-west-1")
    assert choice.why.endswith("and the newest of its family")
    assert choice.notes == ()


def test_a_base_made_for_the_next_major_is_passed_over_while_another_carries_the_release() -> None:
    choice = pick_base("4.57.6", "gpu", "us-east-1")
    assert choice.image.name == NEWEST_4
    assert choice.why.endswith(
        "the next newer, 2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04, is made for transformers 5"
    )


def test_a_base_of_the_next_major_is_taken_when_no_other_is_left(tables: dict[str, Any]) -> None:
    tables["images"]["images"] = [row for row in tables["images"]["images"] if row["transformers"] == "5.5.3"]
    choice = pick_base("4.57.6", "gpu", "us-east-1")
    assert choice.image.name == NEWEST
    assert "older than the base's own 5.5.3" in choice.notes[0]


def test_an_older_release_of_the_same_major_goes_over_the_newest_base_with_a_note() -> None:
    choice = pick_base("5.3.0", "cpu", "us-east-1")
    assert choice.image.transformers == "5.5.3"
    assert len(choice.notes) == 1
    assert "transformers 5.3.0 is older than the base's own 5.5.3" in choice.notes[0]


def test_a_release_newer_than_our_data_gets_the_newest_base_and_says_that_it_is_not_known() -> None:
    choice = pick_base("5.99.0", "gpu", "us-east-1")
    assert (choice.image.name, choice.known) == (NEWEST, False)
    assert "newer than 5.24.0, the end of what is known here" in choice.notes[0]


def newest_needs_torch(tables: dict[str, Any], torch: str) -> str:
    """One more release, the newest, which asks for this torch."""
    new = {**tables["releases"]["releases"][-1], "release": "5.98.0", "torch": torch}
    tables["releases"]["releases"].append(new)
    return "5.98.0"


@pytest.mark.parametrize(("accelerator", "tag"), [("gpu", "2.14.0-cu133"), ("cpu", "2.14.0-cpu")])
def test_awss_own_pytorch_image_carries_what_no_base_of_hugging_face_does(
    tables: dict[str, Any], accelerator: str, tag: str
) -> None:
    transformers = newest_needs_torch(tables, "2.7")
    choice = pick_base(transformers, accelerator, "us-east-1")
    assert choice.uri == f"763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:{tag}-amzn2023-sagemaker"
    assert "no huggingface-pytorch-inference image carries transformers 5.98.0" in choice.why
    assert choice.why.endswith("has torch 2.6.0 and transformers 5.98.0 needs 2.7")
    (note,) = choice.notes
    assert "the layer puts in what it lacks" in note
    assert check_pair(choice.uri, transformers) == choice.notes


def test_a_base_of_hugging_face_goes_before_awss_own_while_one_carries_the_release(tables: dict[str, Any]) -> None:
    transformers = newest_needs_torch(tables, "2.6")
    assert pick_base(transformers, "gpu", "us-east-1").image.name == NEWEST


def test_the_stock_server_never_goes_onto_an_image_without_one(tables: dict[str, Any]) -> None:
    transformers = newest_needs_torch(tables, "2.7")
    with pytest.raises(ValueError, match="no gpu base in the region carries it"):
        pick_base(transformers, "gpu", "us-east-1", "stock")


def test_a_region_with_awss_own_images_alone_gets_one_of_them() -> None:
    (region,) = {"me-west-1"} - {region for image in dlc_images(INFERENCE) for region in image.regions}
    assert pick_base("5.23.0", "cpu", region).image.repository == "pytorch"


def test_a_release_that_needs_more_than_any_base_has_is_refused_with_the_nearest_pair(tables: dict[str, Any]) -> None:
    transformers = newest_needs_torch(tables, "2.99")
    known = list(releases())[-2]
    with pytest.raises(ValueError, match="needs Python") as error:
        pick_base(transformers, "gpu", "us-east-1")
    assert str(error.value) == (
        "needs Python 3.11 and torch 2.99: no gpu base in the region carries it; the newest, "
        "2.14.0-cu133-amzn2023-sagemaker, has torch 2.14.0 and transformers 5.98.0 needs 2.99; "
        f"the nearest pair that works is transformers {known} on {NEWEST}"
    )


def test_the_next_newer_base_is_passed_over_where_it_is_not_published(tables: dict[str, Any]) -> None:
    tables["images"]["published"] = {**tables["images"]["published"], "few": ["eu-west-1"]}
    tables["images"]["images"] = [
        {**row, "regions": "few"} if row["transformers"] == "5.5.3" else row for row in tables["images"]["images"]
    ]
    choice = pick_base("5.23.0", "gpu", "us-east-1")
    assert choice.image.name == NEWEST_4
    assert choice.why.endswith("is not published in us-east-1")
    assert pick_base("5.23.0", "gpu", "eu-west-1").image.name == NEWEST


def test_a_region_without_any_base_is_refused_with_the_nearest_region() -> None:
    with pytest.raises(
        ValueError, match=r"has no base in 'us-east-9'; did you mean 'us-east-2'\? Else give a reference of your own"
    ):
        pick_base("5.23.0", "gpu", "us-east-9")


def test_an_accelerator_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="has no base that computes with 'neuron': take cpu or gpu"):
        pick_base("5.23.0", "neuron", "us-east-1")


def test_the_native_server_starts_at_4_46() -> None:
    assert pick_base("4.46.1", "gpu", "us-east-1").image.name == NEWEST_4
    with pytest.raises(ValueError, match=r"older than the native server carries: take 4\.46\.1 or newer"):
        pick_base("4.45.2", "gpu", "us-east-1")


def test_the_stock_server_gets_the_tutorials_own_pair() -> None:
    assert pick_base("4.24.0", "gpu", "us-east-1", "stock").image.name == TUTORIAL
    assert pick_base("4.25.1", "gpu", "us-east-1", "stock").image.name == TUTORIAL


def test_the_stock_server_is_never_moved_back() -> None:
    for transformers in ("4.30.2", "4.46.3", "4.51.3", "4.57.6", "5.5.3", "5.23.0"):
        choice = pick_base(transformers, "cpu", "us-east-1", "stock")
        assert catalog.version(choice.image.release) <= catalog.version(transformers)


def test_what_the_stock_server_cannot_run_is_refused_with_the_native_one_as_way_out() -> None:
    with pytest.raises(ValueError, match=r"the nearest pair that works is transformers 4\.57\.6 on .*4\.51\.3.*native"):
        pick_base("5.3.0", "gpu", "us-east-1", "stock")


def test_every_pick_is_a_pair_that_the_check_accepts() -> None:
    for transformers in releases():
        if catalog.version(transformers)[:2] >= compat.NATIVE_TRANSFORMERS:
            choice = pick_base(transformers, "gpu", "us-east-1")
            assert check_pair(choice.uri, transformers) == choice.notes
            assert check_pair(choice.image, transformers) == choice.notes
    stock = pick_base("4.24.0", "gpu", "us-east-1", "stock")
    assert check_pair(stock.image, "4.24.0", "stock") == stock.notes != ()


# the vLLM family


def test_vllm_is_moved_forward_with_a_note_and_never_back() -> None:
    forward = pick_vllm("5.23.0", "us-east-1")
    assert forward.image.repository == "huggingface-vllm"
    assert forward.why.endswith("and the newest of its family")
    assert "was not measured with transformers 5.23.0" in forward.notes[-1]
    same = pick_vllm(forward.image.release, "us-east-1")
    assert (same.image, same.notes) == (forward.image, ())
    older = pick_vllm("5.10.2", "us-east-1")
    assert older.image.transformers == "5.10.2"
    assert "and vLLM is not moved back" in older.why
    with pytest.raises(ValueError, match="goes onto no vLLM image in us-east-1: the newest, "):
        pick_vllm("4.17.0", "us-east-1")


# check


@pytest.mark.parametrize(
    ("base", "server", "last"),
    # what each image of the family can be extended to at most
    [
        (TUTORIAL, "stock", "4.41.2"),
        (f"{INFERENCE}:2.1.0-transformers4.37.0-gpu-py310-cu118-ubuntu20.04", "native", "4.55.4"),
        (TORCH_2_3, "native", "5.0.0"),
        (NEWEST_4, "native", "5.24.0"),
        (NEWEST, "native", "5.24.0"),
    ],
)
def test_each_base_has_its_last_release(base: str, server: compat.Server, last: str) -> None:
    known = list(releases())
    check_pair(base, last, server)
    for newer in known[known.index(last) + 1 :]:
        with pytest.raises(ValueError, match="cannot"):
            check_pair(base, newer, server)


def test_a_base_with_an_old_torch_is_refused_with_what_it_carries_and_what_carries_the_release() -> None:
    with pytest.raises(ValueError, match="cannot go onto") as error:
        check_pair(TORCH_2_3, "5.23.0")
    assert str(error.value) == (
        f"cannot go onto {TORCH_2_3}: it has torch 2.3.0 and transformers 5.23.0 needs 2.6; the newest release that it "
        f"carries is 5.0.0; the newest base that carries 5.23.0 is {NEWEST}"
    )


def test_a_base_with_an_old_python_is_refused_for_the_native_server_whatever_the_release() -> None:
    with pytest.raises(ValueError, match=r"has Python 3\.8 and the native server needs 3\.10; the newest base"):
        check_pair(TUTORIAL, "4.46.3")


def test_a_mirror_is_judged_by_its_tag() -> None:
    with pytest.raises(ValueError, match="cannot go onto"):
        check_pair(f"registry.example.com:5000/mirror/{TORCH_2_3}", "5.23.0")


def test_a_base_whose_tag_tells_nothing_passes() -> None:
    assert check_pair("registry.example.com:5000/ours:1", "5.23.0") == ()
    assert check_pair("x/y@sha256:" + "0" * 64, "5.23.0", "stock") == ()


def test_a_public_base_of_which_the_tag_tells_no_python_is_judged_by_its_torch() -> None:
    (note,) = check_pair("public.ecr.aws/deep-learning-containers/pytorch:2.13-cu133-amzn2023-sagemaker", "5.23.0")
    assert "the layer puts in what it lacks (accelerate, sentencepiece, protobuf, ffmpeg)" in note
    with pytest.raises(ValueError, match=r"torch 2\.3\.0"):
        check_pair("public.ecr.aws/deep-learning-containers/pytorch-inference:2.3.0-cpu-py311-ubuntu22.04", "5.23.0")


def test_a_release_that_is_not_known_is_noted_and_still_needs_what_the_newest_known_one_does() -> None:
    (note,) = check_pair(NEWEST, "5.99.0")
    assert "newer than 5.24.0" in note
    with pytest.raises(ValueError, match=r"transformers 5\.99\.0 needs \(as 5\.24\.0\) at least 2\.6"):
        check_pair(TORCH_2_3, "5.99.0")


def test_a_withdrawn_release_is_refused_on_any_base() -> None:
    with pytest.raises(ValueError, match="withdrawn"):
        check_pair("registry.example.com:5000/ours:1", "4.57.0")


# the stock server


@pytest.mark.parametrize(
    ("base", "transformers"),
    [(TUTORIAL, "4.20.1"), (TUTORIAL, "4.30.2"), (NEWEST_4, "4.57.6"), (NEWEST, "5.23.0"), (NEWEST, "5.5.3")],
)
def test_pairs_that_were_run_are_measured(base: str, transformers: str) -> None:
    assert check_stock_server(base, transformers).measured


@pytest.mark.parametrize("transformers", ["4.19.4", "4.31.0", "4.41.2"])
def test_what_was_not_run_passes_and_says_so(transformers: str) -> None:
    stock = check_stock_server(TUTORIAL, transformers)
    assert not stock.measured
    assert f"was not measured with transformers {transformers}" in stock.how


@pytest.mark.parametrize(
    ("base", "transformers", "reason"),
    [
        (TUTORIAL, "4.46.3", "Conversation"),
        (f"{INFERENCE}:2.1.0-transformers4.37.0-gpu-py310-cu118-ubuntu20.04", "4.42.0", "Conversation"),
        (NEWEST_4, "5.0.0", "is_tf_available"),
        (TORCH_2_3, "5.23.0", "is_tf_available"),
    ],
)
def test_what_is_known_to_break_is_refused(base: str, transformers: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"cannot run on the stock server of .*{reason}.*native server"):
        check_stock_server(base, transformers)


def test_the_neighbour_that_makes_the_tutorials_pair_work_is_named() -> None:
    assert check_stock_server(TUTORIAL, "4.24.0").needs == ("huggingface_hub<0.26",)
    (note,) = check_pair(TUTORIAL, "4.24.0", "stock")
    assert "huggingface_hub<0.26" in note


def test_an_unchanged_image_runs_its_own_server() -> None:
    for image in dlc_images(INFERENCE):
        assert check_stock_server(image, image.release).measured


def test_each_row_of_the_hand_kept_tables_says_how_and_when() -> None:
    assert all(row["how"] and row["checked"] and row["reason"] for row in _tables.table("stock_server")["stock_server"])
    corrections = _tables.table("image_corrections")
    assert all(row["why"] and row["source"] and row["checked"] for row in corrections["image_corrections"])


# model types


@pytest.mark.parametrize(
    ("model_type", "first"),
    [
        ("bloom", "4.20.0"),
        ("whisper", "4.23.0"),
        ("llama", "4.28.0"),
        ("mistral", "4.34.0"),
        ("qwen2", "4.37.0"),
        ("gemma3", "4.50.0"),
        ("qwen3", "4.51.0"),
        ("glm4", "4.51.3"),  # with a patch
    ],
)
def test_a_model_type_loads_from_its_first_release_on(model_type: str, first: str) -> None:
    known = list(releases())
    before = known[known.index(first) - 1]
    check_model_type(model_type, first)
    check_model_type(model_type, "5.23.0")
    check_model_type(model_type, "99.0.0")
    with pytest.raises(
        ValueError, match=rf"transformers {before} cannot load model type '{model_type}': needs >= {first}\."
    ):
        check_model_type(model_type, before)


def test_the_error_of_an_old_image_names_image_and_way_out() -> None:
    with pytest.raises(ValueError, match="cannot load") as error:
        check_model_type("bloom", "4.17.0", image=TUTORIAL)
    assert str(error.value) == (
        f"transformers 4.17.0 in {TUTORIAL} cannot load model type 'bloom': needs >= 4.20.0. extend the image with "
        "4.20.0 or newer (ExtendedDlc(transformers=…)) or pick a newer base (extended-dlc catalog list)"
    )


def test_a_model_type_that_left_is_refused_from_then_on() -> None:
    check_model_type("transfo-xl", "4.57.6")
    with pytest.raises(ValueError, match=r"it left after 4\.57\.6, needs 4\.0\.0 to 4\.57\.6\. extend .*\"4\.57\.6\""):
        check_model_type("transfo-xl", "5.0.0")


def test_a_type_of_the_oldest_release_read_is_not_refused_for_older_ones() -> None:
    check_model_type("bert", "3.5.1")


def test_an_unknown_model_type_passes_with_the_nearest_name_as_a_hint() -> None:
    check_model_type("whispr", "4.17.0")
    assert find_model_type("whispr") is None
    assert near_model_type("whispr") == "; did you mean 'whisper'?"
    assert near_model_type("zzzzzz") == ""


def test_an_image_whose_transformers_is_not_known_passes() -> None:
    check_model_type("bloom", None, image="ours")


# the host


@pytest.mark.parametrize(
    ("cuda", "host"),
    [
        (None, None),
        ("cu113", None),
        ("cu118", None),
        ("cu121", "al2-ami-sagemaker-inference-gpu-3-1"),
        ("cu129", "al2-ami-sagemaker-inference-gpu-3-1"),
        ("cu130", "al2023-ami-sagemaker-inference-gpu-4-1"),
        ("12.4", "al2-ami-sagemaker-inference-gpu-3-1"),
        ("cu150", None),
    ],
)
def test_the_host_image_follows_the_images_cuda(cuda: str | None, host: str | None) -> None:
    assert inference_ami_version(cuda) == host


def test_every_base_of_the_newest_line_has_a_host_image() -> None:
    assert inference_ami_version(find_image(NEWEST).cuda) == "al2-ami-sagemaker-inference-gpu-3-1"
