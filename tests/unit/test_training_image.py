"""`ExtendedDlc(family="training")`: which base it picks, how it is built, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    StockDlc,
    TrainingCode,
    TrainingInstances,
    TrainingJob,
)
from extended_dlc.facts.catalog import TRAINING, dlc_images, read_tag
from extended_dlc.facts.compat import check_training, pick_training
from extended_dlc.images.registry_login import bases_to_pull, ecr_registries
from tests.support.settings import plan_of

ROOT = Path(__file__).parents[2]
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
NEWEST = "2.11-transformers5.13-cu130-amzn2023-sagemaker"
OLD_FORM = "2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04"


def build_of(stack: Stack) -> tuple[Path, dict[str, Any]]:
    """The context of the only image that is built, and how it is built."""
    app = stack.node.root
    assert isinstance(app, App)
    out = Path(app.synth().directory)
    (asset,) = json.loads((out / "Test.assets.json").read_text())["dockerImages"].values()
    return out / asset["source"]["directory"], asset["source"]


def trains_on(stack: Stack, image: ExtendedDlc, instance_type: str) -> TrainingJob:
    """A job with the image on an instance type."""
    code = TrainingCode(str(ROOT / "examples/training/causal_lm_lora"))
    instances = TrainingInstances(instance_type=instance_type)
    return TrainingJob(stack, instance_type.replace(".", ""), code=code, image=image, instances=instances)


def test_both_forms_of_the_tag_are_in_the_catalogue_with_what_is_inside() -> None:
    for tag, torch, transformers in ((NEWEST, "2.11", "5.13.1"), (OLD_FORM, "2.9.0", "5.3.0")):
        facts = read_tag(f"{REGISTRY}/{TRAINING}:{tag}")
        assert facts is not None
        assert (facts.torch, facts.transformers, facts.python, facts.cuda) == (torch, transformers, "py312", "cu130")
        assert facts.accelerator == "gpu"
    assert dlc_images(TRAINING)[-1].tag == NEWEST


@pytest.mark.parametrize(
    ("transformers", "accelerator", "tag"),
    [
        ("5.24.0", "gpu", f"{TRAINING}:{NEWEST}"),
        # a release of the major release before goes onto a base that was made for it
        ("4.57.6", "gpu", f"{TRAINING}:2.8.0-transformers4.56.2-gpu-py312-cu129-ubuntu22.04"),
        # all of Hugging Face's are for GPUs
        ("5.24.0", "cpu", "pytorch:2.14.0-cpu-amzn2023-sagemaker"),
    ],
)
def test_the_newest_base_that_carries_the_release_is_picked(transformers: str, accelerator: str, tag: str) -> None:
    choice = pick_training(transformers, accelerator, "us-east-1")
    assert choice.uri.endswith(f"/{tag}")
    assert tag.partition(":")[2] in choice.why
    assert bool(choice.notes) == tag.startswith("pytorch:")


def test_a_release_that_the_layers_packages_do_not_go_with_is_refused_with_the_oldest_that_does() -> None:
    with pytest.raises(ValueError, match=r"2\.11-transformers5\.13.*need transformers 4\.46\.\d or newer"):
        pick_training("4.40.0", "gpu", "us-east-1")
    with pytest.raises(ValueError, match=r"has Python 3\.9 and the layer's packages need 3\.10; the newest base"):
        check_training(f"{TRAINING}:1.13.1-transformers4.26.0-gpu-py39-cu117-ubuntu20.04", "4.57.6")
    with pytest.raises(ValueError, match=r"has no base in 'mars-1'"):
        pick_training("5.24.0", "gpu", "mars-1")


def test_the_image_is_built_from_the_shared_installer_and_its_own_files_alone(stack: Stack) -> None:
    ExtendedDlc(stack, "Image", transformers="5.24.0", family="training", model_types=["bloom"])
    context, source = build_of(stack)
    assert source["dockerFile"] == "training/Dockerfile"
    assert source["dockerBuildArgs"] == {
        "BASE_IMAGE": f"{REGISTRY}/{TRAINING}:{NEWEST}",
        "TRANSFORMERS_VERSION": "5.24.0",
        "MODEL_TYPES": "bloom",
    }
    assert "dockerBuildTarget" not in source
    existing = {str(file.relative_to(context)) for file in context.rglob("*") if file.is_file()}
    dockerfile = (context / "training/Dockerfile").read_text().replace("\\\n", " ")
    copied = {word for line in dockerfile.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert existing == copied | {"training/Dockerfile"}
    assert (context / "inference/install.py").read_bytes() == (ROOT / "docker/inference/install.py").read_bytes()


def test_the_hash_of_the_image_does_not_change_with_the_server(stack: Stack, tmp_path: Path) -> None:
    """What it does not copy is no part of it: a change of the server would otherwise rebuild every training image."""
    ExtendedDlc(stack, "Image", transformers="5.24.0", family="training")
    context, _ = build_of(stack)
    server = context / "inference/extended_dlc_server"
    names = {str(file.relative_to(server)) for file in server.rglob("*.py")}
    assert names == {"__init__.py", "errors.py", "machine/__init__.py", "machine/secret.py"}


def test_an_endpoint_refuses_the_image_and_a_job_refuses_one_that_serves(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.24.0", family="training")
    with pytest.raises(ValueError, match=r"'family' \(training\) trains models.*leave family= out.*TrainingJob"):
        HuggingFaceEndpoint(stack, "Served", model=HubModel("bigscience/bloom-560m"), image=image)
    serving = ExtendedDlc(stack, "Serving", transformers="5.24.0", accelerator="cpu")
    with pytest.raises(ValueError, match=r"serves models and does not train them: .*family='training'"):
        trains_on(stack, serving, "ml.m5.xlarge")
    with pytest.raises(ValueError, match=r"trains and does not serve: take an inference image"):
        HuggingFaceEndpoint(
            stack,
            "Stock",
            model=HubModel("bigscience/bloom-560m"),
            image=StockDlc(base=f"{REGISTRY}/{TRAINING}:{OLD_FORM}"),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "training", "server": "stock"}, r"'server' \(stock\) does not go with the training family"),
        (
            {
                "family": "training",
                "base": f"{REGISTRY}/huggingface-pytorch-inference:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04",
            },
            r"is an image of huggingface-pytorch-inference, which serves and does not train",
        ),
        (
            {"family": "inference", "base": f"{REGISTRY}/{TRAINING}:{OLD_FORM}"},
            r"'family' \(inference\) contradicts base .* trains and does not serve",
        ),
        ({"family": "training", "base": NEWEST}, r"is a tag alone: write the image's whole reference"),
    ],
)
def test_options_that_contradict_the_family_are_refused(stack: Stack, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExtendedDlc(stack, "Image", transformers="5.24.0", **options)


def test_a_base_that_trains_says_the_family_itself(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.24.0", base=f"{REGISTRY}/{TRAINING}:{OLD_FORM}")
    assert (image.decided.family, image.decided.cuda) == ("training", "cu130")
    trains_on(stack, image, "ml.g5.xlarge")
    moves = Match.string_like_regexp("can change without a change of the image's hash")
    Annotations.from_stack(stack).has_warning("/Test/Image", moves)
    Template.from_stack(stack).resource_count_is("AWS::ECR::Repository", 1)


def test_gpus_that_the_base_cannot_drive_are_refused_and_a_cpu_is_noted(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.24.0", family="training")
    # CUDA 13 has no code for Volta
    with pytest.raises(ValueError, match=r"'instance_type' \(ml\.p3\.2xlarge\) has GPUs .*cannot drive.*7\.5"):
        trains_on(stack, image, "ml.p3.2xlarge")
    trains_on(stack, image, "ml.m5.xlarge")
    Annotations.from_stack(stack).has_warning(
        "/Test/mlm5xlarge", Match.string_like_regexp("has no GPU.*it trains there, slowly")
    )


def test_settings_with_endpoints_refuse_it_with_the_way_out(shipped_settings: dict[str, Any]) -> None:
    shipped_settings["image"]["family"] = "training"
    found = plan_of(shipped_settings)
    assert [each for each in found["problems"] if "image.family (training): trains models" in each]


def test_the_log_in_knows_the_registry_of_the_base(stack: Stack) -> None:
    from extended_dlc.decisions.asked import ImageAsked
    from extended_dlc.decisions.decide import decide

    asked = ImageAsked(kind="extended", family="training", transformers="5.24.0")
    decision = decide(asked, [], region="us-east-1")
    (registry,) = ecr_registries(bases_to_pull(decision))
    assert (registry.host, registry.account) == (REGISTRY, "763104351884")
    assert decision.image.layer[0] == "transformers==5.24.0"
    assert "peft" in decision.image.layer[-1]
