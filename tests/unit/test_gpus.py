"""GPUs that an image can drive: both sides of each rule, in the facts, in a synth and in a plan."""

from __future__ import annotations

from datetime import date
from typing import Any

import aws_cdk as cdk
import botocore.session
import pytest
from aws_cdk import aws_ecr as ecr
from aws_cdk.assertions import Annotations, Match, Template
from click.testing import CliRunner

from extended_dlc import (
    Component,
    Components,
    EcrImage,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    PublishedImage,
    RealTime,
    StockDlc,
)
from extended_dlc.cli import main
from extended_dlc.decisions.sizing import smallest_instances
from extended_dlc.facts import _tables, gpus
from extended_dlc.facts.catalog import INFERENCE, VLLM, dlc_images
from extended_dlc.facts.compat import bases_for, inference_ami_version
from extended_dlc.facts.gpus import check_gpu, gpu_of, host_images, pick_host_image
from extended_dlc.facts.instances import all_instances, find_instance
from extended_dlc.facts.models import ModelFacts
from tests.support.settings import plan_of
from tests.support.stacks import ENV

TORCH_2_6 = {"cuda": "cu124", "torch": "2.6.0"}
VLLM_13: dict[str, Any] = {"cuda": "cu130", "torch": None}
AL2, AL2023 = "al2-ami-sagemaker-inference-gpu-3-1", "al2023-ami-sagemaker-inference-gpu-4-1"


# the tables


def test_the_gpu_of_every_type_is_known_and_each_row_says_from_where() -> None:
    with_gpus = [instance for instance in all_instances() if instance.gpus]
    assert len(with_gpus) > 40
    assert [instance.name for instance in with_gpus if gpu_of(instance) is None] == []
    rows = [*_tables.table("gpus")["gpus"], *_tables.table("host_images")["host_images"]]
    rows += [*_tables.table("cuda_builds")["cuda_builds"], *_tables.table("cuda_builds")["cuda_toolkits"]]
    assert all(row["source"] and row["checked"] for row in rows)


def test_every_gpu_base_of_the_newest_images_has_a_row_for_its_build() -> None:
    for image in [dlc_images(INFERENCE, accelerator="gpu")[-1], *dlc_images("pytorch", accelerator="gpu")]:
        assert gpus._build_of(image.cuda or "", image.torch) is not None, image.name


def test_a_host_image_that_is_not_withdrawn_is_one_that_sagemaker_takes() -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    taken = model.shape_for("ProductionVariantInferenceAmiVersion").enum
    assert {row.inference_ami_version for row in host_images() if row.withdrawn is None} <= set(taken)


# code for the GPU


@pytest.mark.parametrize(
    ("instance_type", "image", "why", "instead"),
    [
        (
            "ml.g7e.2xlarge",
            TORCH_2_6,
            "capability 12.0) .*: its torch 2.6.0 for CUDA 12.4 is built for 5.0 to 9.0",
            "p5",
        ),
        ("ml.p6-b200.48xlarge", TORCH_2_6, "capability 10.0) .* is built for 5.0 to 9.0", "p5e"),
        ("ml.p6-b300.48xlarge", TORCH_2_6, "capability 10.3) .* is built for 5.0 to 9.0", "p5e"),
        ("ml.g7.2xlarge", TORCH_2_6, "capability 12.0) .* is built for 5.0 to 9.0", "g"),
        ("ml.p2.xlarge", TORCH_2_6, "capability 3.7) .* is built for 5.0 to 9.0", "g4dn.xlarge"),
        ("ml.p3.2xlarge", VLLM_13, "capability 7.0) .*: its CUDA 13.0 begins at 7.5", "g4dn.2xlarge"),
        (
            "ml.p3.2xlarge",
            {"cuda": "cu133", "torch": "2.14.0"},
            "its torch 2.14.0 for CUDA 13.3 is built for 7.5",
            "g4dn",
        ),
        ("ml.p2.xlarge", {"cuda": "12.1", "torch": None}, "its CUDA 12.1 begins at 5.0", "g4dn.xlarge"),
        ("ml.p3.2xlarge", {"cuda": "cu128", "torch": "2.7.1"}, "torch 2.7.1 for CUDA 12.8 is built for 7.5", "g4dn"),
        ("ml.p3.2xlarge", {"cuda": "cu129", "torch": "2.12.0"}, "torch 2.12.0 for CUDA 12.9 is built for 7.5", "g4dn"),
    ],
)
def test_gpus_that_the_image_has_no_code_for_are_refused_with_the_nearest_type(
    instance_type: str, image: dict[str, Any], why: str, instead: str
) -> None:
    with pytest.raises(ValueError, match=why.replace(")", r"\)")) as error:
        check_gpu(find_instance(instance_type), **image)
    assert f": take ml.{instead}" in str(error.value)


@pytest.mark.parametrize(
    ("instance_type", "image"),
    [
        ("ml.p3.2xlarge", TORCH_2_6),
        ("ml.p3.2xlarge", {"cuda": "cu128", "torch": "2.8.0"}),
        ("ml.g4dn.xlarge", TORCH_2_6),
        ("ml.p5en.48xlarge", TORCH_2_6),
        ("ml.g6e.xlarge", TORCH_2_6),
        ("ml.p2.xlarge", {"cuda": "cu113", "torch": "1.10.2"}),
        ("ml.g4dn.xlarge", VLLM_13),
        ("ml.g7e.2xlarge", VLLM_13),
        ("ml.p6-b300.48xlarge", {"cuda": "cu133", "torch": "2.14.0"}),
        ("ml.g7e.2xlarge", {"cuda": "cu129", "torch": "2.8.0"}),
        ("ml.m5.xlarge", TORCH_2_6),
    ],
)
def test_gpus_that_it_has_code_for_pass_without_a_word(instance_type: str, image: dict[str, Any]) -> None:
    assert check_gpu(find_instance(instance_type), **image) == ()


def test_the_newest_base_that_drives_the_gpu_is_named() -> None:
    bases = bases_for("5.23.0", "inference")
    with pytest.raises(ValueError, match="cannot drive") as error:
        check_gpu(find_instance("ml.g7e.2xlarge"), **TORCH_2_6, bases=lambda: bases, region="us-east-1")
    assert str(error.value).endswith(
        'take ml.p5.4xlarge, or base="763104351884.dkr.ecr.us-east-1.amazonaws.com/'
        'pytorch:2.14.0-cu133-amzn2023-sagemaker"'
    )


def test_a_type_that_is_not_offered_in_the_region_is_not_proposed() -> None:
    assert find_instance("ml.p5.4xlarge").is_offered("eu-central-2") is False
    with pytest.raises(ValueError, match="take ml") as error:
        check_gpu(find_instance("ml.g7e.2xlarge"), **TORCH_2_6, region="eu-central-2")
    assert "ml.p5.4xlarge" not in str(error.value)


@pytest.mark.parametrize(("cuda", "torch"), [("cu150", None), ("cu150", "2.14.0"), ("cu124", None), ("cu127", "2.6.0")])
def test_what_no_table_knows_passes_with_a_note(cuda: str, torch: str | None) -> None:
    (note, *_) = check_gpu(find_instance("ml.p6-b200.48xlarge"), cuda=cuda, torch=torch)
    assert "is not known here: if it says 'no kernel image is available'" in note


def test_a_gpu_that_no_table_knows_passes_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_gpus", dict)
    (note,) = check_gpu(find_instance("ml.g5.xlarge"), **TORCH_2_6)
    assert "nothing is known here of the GPU of ml.g5.xlarge (NVIDIA A10G)" in note


# the host's driver


def test_the_host_image_is_the_first_whose_driver_drives_the_gpus() -> None:
    assert inference_ami_version("cu124", ["ml.g5.xlarge"]) == AL2
    assert inference_ami_version("cu128", ["ml.g7e.2xlarge"]) == AL2023, "driver 550 is older than these GPUs"
    assert inference_ami_version("cu128", ["ml.g5.xlarge", "ml.g7e.2xlarge"]) == AL2023
    assert inference_ami_version("cu130", ["ml.p3.2xlarge"]) == AL2023
    assert inference_ami_version(None, ["ml.m5.xlarge"]) is None


def test_gpus_newer_than_every_host_image_get_sagemakers_default_and_a_note() -> None:
    instance = find_instance("ml.g7.2xlarge")
    assert inference_ami_version("cu133", [instance.name]) is None
    (note,) = check_gpu(instance, cuda="cu133", torch="2.14.0")
    assert "need driver 595 or newer, and no host image known here has one: SageMaker's default is left" in note


def test_types_that_need_different_host_images_are_refused_as_one_variant(stack: cdk.Stack) -> None:
    with pytest.raises(
        ValueError, match=rf"need different host images \(ml.g5.xlarge: {AL2023}, ml.g7.2xlarge: none\)"
    ):
        inference_ami_version("cu133", ["ml.g5.xlarge", "ml.g7.2xlarge"])
    base = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.14.0-cu133-amzn2023-sagemaker"
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", base=base)
    with pytest.raises(ValueError, match=r"'instance_type' \(ml.g5.xlarge, ml.g7.2xlarge\) need different host images"):
        serve(stack, image, ["ml.g5.xlarge", "ml.g7.2xlarge"])


def test_gpus_whose_last_driver_is_older_than_the_cuda_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kepler = gpus._gpus()["NVIDIA K80"]
    turing = {**kepler.__dict__, "compute_capability": "7.5"}
    monkeypatch.setattr(gpus, "_gpus", lambda: {"NVIDIA K80": gpus.Gpu(**turing)})
    with pytest.raises(ValueError, match=r"its CUDA 12\.4 needs driver 525 or newer, and 470 is the last one for them"):
        check_gpu(find_instance("ml.p2.xlarge"), **TORCH_2_6)


def test_the_day_that_the_al2_line_is_withdrawn_its_next_row_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = host_images()
    assert (first.inference_ami_version, first.system, first.supported_until) == (AL2, "Amazon Linux 2", "2026-06-30")
    rows = (gpus.HostImage(**{**first.__dict__, "withdrawn": "2027-01-01"}), *others)
    monkeypatch.setattr(gpus, "host_images", lambda: rows)
    found = pick_host_image("cu124", [find_instance("ml.g5.xlarge")])
    assert found is not None
    assert (found.inference_ami_version, found.driver) == (AL2023, 580)


# in a synth


@pytest.fixture
def stack() -> cdk.Stack:
    return cdk.Stack(cdk.App(), "Stack", env=ENV)


def serve(stack: cdk.Stack, image: Any, instance_type: str | list[str], model: str = "bigscience/bloom-560m") -> None:
    hosting = RealTime(instance_type=instance_type)
    HuggingFaceEndpoint(stack, "Endpoint", model=HubModel(model, revision="0" * 40), image=image, hosting=hosting)


@pytest.mark.parametrize("cuda", ["latest", "12", "cu12", "cu", "CU124", "cuda12.4", "12.x"])
def test_what_is_no_release_of_cuda_is_refused_by_its_option(stack: cdk.Stack, cuda: str) -> None:
    repository = ecr.Repository.from_repository_name(stack, "Repository", "own")
    rule = rf"'cuda' \({cuda}\) is not a release of CUDA: write it as .* cu124, or as 12\.4"
    with pytest.raises(ValueError, match=rule):
        serve(stack, EcrImage(repository, "1", accelerator="gpu", cuda=cuda), "ml.g6.xlarge")
    with pytest.raises(ValueError, match=rule):
        PublishedImage(uri="own:1", cuda=cuda)


@pytest.mark.parametrize("kinds", [("9.2", "cu118"), ("cu130", "12.8.1"), ("12.4", "cu130")])
def test_the_newest_cuda_of_components_decides_on_their_host(stack: cdk.Stack, kinds: tuple[str, str]) -> None:
    repository = ecr.Repository.from_repository_name(stack, "Repository", "own")
    first, second = (EcrImage(repository, each, accelerator="gpu", cuda=each) for each in kinds)
    named = {"a": first, "b": second}
    components = [Component(name=name, memory_mb=1000, accelerators=1, image=named[name]) for name in named]
    hosting = Components(instance_type="ml.g6.12xlarge", maximum=1, components=components)
    HuggingFaceEndpoint(stack, "Endpoint", model=HubModel("bloom", revision="0" * 40), image=first, hosting=hosting)
    host = AL2023 if "cu130" in kinds else None
    (config,) = Template.from_stack(stack).find_resources("AWS::SageMaker::EndpointConfig").values()
    assert config["Properties"]["ProductionVariants"][0].get("InferenceAmiVersion") == host


@pytest.mark.parametrize("kind", [ExtendedDlc, StockDlc])
def test_an_accelerator_that_no_image_serves_is_refused_without_a_wrong_reason(stack: cdk.Stack, kind: Any) -> None:
    image = StockDlc() if kind is StockDlc else ExtendedDlc(stack, "Image", transformers="5.23.0")
    with pytest.raises(ValueError, match=r"'instance_type' \(ml\.inf2\.xlarge\) computes with neuron, .* accelerator$"):
        serve(stack, image, "ml.inf2.xlarge")


@pytest.mark.parametrize("instance_type", ["ml.g7e.2xlarge", "ml.p2.xlarge"])
def test_a_synth_refuses_gpus_that_the_default_base_cannot_drive(stack: cdk.Stack, instance_type: str) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", family="inference")
    with pytest.raises(ValueError, match=rf"'instance_type' \({instance_type}\) has GPUs .* cannot drive"):
        serve(stack, image, instance_type)


def test_a_synth_takes_them_with_the_base_that_the_error_names(stack: cdk.Stack) -> None:
    base = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.14.0-cu133-amzn2023-sagemaker"
    serve(stack, ExtendedDlc(stack, "Image", transformers="5.23.0", base=base), "ml.g7e.2xlarge")
    config = Template.from_stack(stack).find_resources("AWS::SageMaker::EndpointConfig")
    (variant,) = next(iter(config.values()))["Properties"]["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == AL2023
    Annotations.from_stack(stack).has_no_warning("*", Match.string_like_regexp("GPU"))


def test_a_synth_refuses_vllm_on_gpus_that_cuda_13_dropped(stack: cdk.Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", family="vllm")
    with pytest.raises(ValueError, match=r"'instance_type' \(ml.p3.2xlarge\) has GPUs .*: its CUDA 13.0 begins at 7.5"):
        serve(stack, image, "ml.p3.2xlarge")


def test_a_synth_refuses_them_of_a_stock_image_and_of_one_of_your_own(stack: cdk.Stack) -> None:
    with pytest.raises(ValueError, match=r"is built for 5\.0 to 9\.0"):
        serve(stack, StockDlc(), "ml.g7e.2xlarge")
    other = cdk.Stack(cdk.App(), "Own", env=ENV)
    repository = ecr.Repository.from_repository_name(other, "Repository", "mine")
    with pytest.raises(ValueError, match=r"its CUDA 13\.0 begins at 7\.5"):
        serve(other, EcrImage(repository, "1", cuda="cu130"), "ml.p3.2xlarge")


def test_an_image_of_your_own_without_its_cuda_is_annotated_on_gpus_alone(stack: cdk.Stack) -> None:
    image = EcrImage(ecr.Repository.from_repository_name(stack, "Repository", "mine"), "1")
    serve(stack, image, "ml.g5.xlarge")
    Annotations.from_stack(stack).has_warning("*", Match.string_like_regexp("nothing says which CUDA the image has"))
    other = cdk.Stack(cdk.App(), "Other", env=ENV)
    serve(other, EcrImage(ecr.Repository.from_repository_name(other, "Repository", "mine"), "1"), "ml.m5.xlarge")
    Annotations.from_stack(other).has_no_warning("*", Match.string_like_regexp("which CUDA"))


# in a plan, and in what is proposed


def test_a_plan_refuses_what_the_synth_does_and_shows_gpus_and_driver(shipped_settings: dict[str, Any]) -> None:
    shipped_settings["endpoints"]["model"]["hosting"]["instance_type"] = "ml.g7e.2xlarge"
    (problem,) = plan_of(shipped_settings)["problems"]
    assert problem.startswith("endpoints.model.hosting.instance_type (ml.g7e.2xlarge): has GPUs (NVIDIA RTX PRO")
    shipped_settings["endpoints"]["model"]["hosting"]["instance_type"] = "ml.g5.xlarge"
    image = plan_of(shipped_settings)["image"]
    assert (image["gpus"], image["host_image"]) == ("compute capability 5.0 to 9.0", AL2)
    assert image["host"].startswith("driver 550; Amazon Linux 2, ")


def test_a_host_image_says_when_its_system_is_no_longer_supported() -> None:
    first, *_, last = host_images()
    assert first.support(date(2026, 6, 30)) == "supported until 2026-06-30"
    ended = "its support ended on 2026-06-30: images with CUDA 13 run on Amazon Linux 2023"
    assert first.support(date(2026, 7, 1)) == ended
    assert last.support(date(2030, 1, 1)) == "its support ended on 2029-06-30"


def test_check_and_catalog_show_which_gpus_an_image_drives() -> None:
    checked = CliRunner().invoke(main, ["check", "bloom"]).output
    assert "GPUs         compute capability 5.0 to 9.0, with the newest Hugging Face base" in checked
    shown = CliRunner().invoke(main, ["catalog", "show", dlc_images(VLLM)[-1].name, "--region", "us-east-1"]).output
    assert "GPUs          compute capability 7.5 or newer, as its CUDA" in shown
    assert f"host image    {AL2023} (driver 580)" in shown
    cpu = dlc_images(INFERENCE, accelerator="cpu")[-1].name
    assert "GPUs" not in CliRunner().invoke(main, ["catalog", "show", cpu, "--region", "us-east-1"]).output


def test_no_type_is_proposed_that_the_newest_image_cannot_drive() -> None:
    # 29 GB of weights are too much for 24 GB of g5 and g6, and would go into the 32 GB of g7
    proposed = smallest_instances(ModelFacts(model_id="x/y", parameters=13_000_000_000, dtype="bfloat16"), "gpu")
    assert proposed
    newest = dlc_images(INFERENCE, accelerator="gpu")[-1]
    assert all(gpus.drives(find_instance(name), newest) for name in proposed)
    large = ModelFacts(model_id="x/y", parameters=500_000_000_000, dtype="bfloat16")
    parallel = smallest_instances(large, "gpu", spread="all")
    assert parallel
    assert all(gpus.drives(find_instance(name), dlc_images(VLLM)[-1]) for name in parallel)
