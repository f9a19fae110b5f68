"""The vLLM family: what it is picked for, what it is told, and what it refuses; and bases of the public registry."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    Component,
    Components,
    EcrImage,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    InferenceCode,
    Proof,
    RealTime,
    Serverless,
    Variant,
    VllmServing,
)
from extended_dlc.facts.catalog import dlc_images
from extended_dlc.facts.compat import check_vllm
from extended_dlc.images.registry_login import ecr_registries
from tests.support.settings import plan_of

SEVEN = HubModel("mistralai/Mistral-7B-v0.1", parameters=7_241_732_096, task="text-generation")
ONE_GPU = RealTime(instance_type="ml.g6.xlarge")
PUBLIC = [image.name for image in dlc_images() if not image.login and image.repository.startswith("pytorch")]


def endpoint_in(stack: Stack, *, family: Any = None, **options: Any) -> HuggingFaceEndpoint:
    image = options.pop("image", None) or ExtendedDlc(stack, "Image", transformers="5.23.0", family=family)
    return HuggingFaceEndpoint(stack, "Large", **{"model": SEVEN, "image": image, "hosting": ONE_GPU, **options})


def environment_of(stack: Stack) -> dict[str, Any]:
    (model,) = Template.from_stack(stack).find_resources("AWS::SageMaker::Model").values()
    return dict(model["Properties"]["PrimaryContainer"]["Environment"])


def build_of(stack: Stack) -> tuple[str, dict[str, str]]:
    """The target and the arguments of the only image that is built."""
    app = stack.node.root
    assert isinstance(app, App)
    out = Path(app.synth().directory)
    (asset,) = json.loads((out / "Test.assets.json").read_text())["dockerImages"].values()
    source = asset["source"]
    assert (out / source["directory"] / "install.py").exists()
    return source.get("dockerBuildTarget", "native"), source["dockerBuildArgs"]


@pytest.mark.parametrize("instance_type", ["ml.p4de.24xlarge", "ml.p5.48xlarge"])
def test_bloom_176b_goes_to_vllm_over_eight_gpus_and_the_synth_says_why(stack: Stack, instance_type: str) -> None:
    endpoint = endpoint_in(stack, model=HubModel("bigscience/bloom"), hosting=RealTime(instance_type=instance_type))
    environment = environment_of(stack)
    assert environment["HF_MODEL_ID"] == "bigscience/bloom"
    assert environment["SM_VLLM_TENSOR_PARALLEL_SIZE"] == "8"
    assert endpoint.speaks_openai
    target, arguments = build_of(stack)
    assert target == "vllm"
    assert "/huggingface-vllm:0.30.0-" in arguments["BASE_IMAGE"]
    assert arguments["TRANSFORMERS_VERSION"] == "5.23.0"
    why = Match.string_like_regexp(r"328\.3 GiB of weights.*too large for one of the 8 GPUs of " + instance_type)
    Annotations.from_stack(stack).has_info("/Test/Image", why)


def test_a_model_of_7b_on_one_gpu_keeps_the_native_server(stack: Stack) -> None:
    endpoint = endpoint_in(stack)
    assert not [name for name in environment_of(stack) if name.startswith("SM_VLLM_")]
    assert not endpoint.speaks_openai
    assert build_of(stack)[0] == "native"


def test_a_model_of_7b_on_one_gpu_is_served_by_vllm_where_the_user_says_so(stack: Stack) -> None:
    serving = VllmServing(max_model_len=4096, gpu_memory_utilization=0.85, tool_call_parser="hermes")
    endpoint_in(stack, family="vllm", vllm=serving)
    environment = {name: value for name, value in environment_of(stack).items() if name.startswith("SM_VLLM_")}
    assert environment == {
        "SM_VLLM_TENSOR_PARALLEL_SIZE": "1",
        "SM_VLLM_MAX_MODEL_LEN": "4096",
        "SM_VLLM_GPU_MEMORY_UTILIZATION": "0.85",
        "SM_VLLM_ENABLE_AUTO_TOOL_CHOICE": "true",
        "SM_VLLM_TOOL_CALL_PARSER": "hermes",
    }
    (config,) = Template.from_stack(stack).find_resources("AWS::SageMaker::EndpointConfig").values()
    (variant,) = config["Properties"]["ProductionVariants"]
    assert variant["InferenceAmiVersion"].startswith("al2023-")  # CUDA 13 needs its driver


def test_the_revision_and_code_of_the_model_reach_vllm_under_its_own_names(stack: Stack) -> None:
    model = HubModel("org/model", "a" * 40, task="text-generation", trust_remote_code=True)
    endpoint_in(stack, family="vllm", model=model)
    environment = environment_of(stack)
    assert environment["SM_VLLM_REVISION"] == environment["SM_VLLM_TOKENIZER_REVISION"] == "a" * 40
    assert environment["SM_VLLM_TRUST_REMOTE_CODE"] == "true"


def test_the_proof_of_vllm_asks_as_openais_clients_do(stack: Stack) -> None:
    endpoint_in(stack, family="vllm", verify=Proof())
    proofs = Template.from_stack(stack).find_resources("Custom::ExtendedDlcProof").values()
    (body,) = [each["Properties"]["Body"] for each in proofs if "Body" in each["Properties"]]
    assert json.loads(base64.b64decode(body)) == {"prompt": "Hello", "max_tokens": 8}


def test_an_image_of_ones_own_is_vllms_where_the_endpoint_says_how_vllm_serves(stack: Stack) -> None:
    image = EcrImage(ecr.Repository(stack, "Own"), "1")
    endpoint_in(stack, image=image, hosting=RealTime(instance_type="ml.g6.12xlarge"), vllm=VllmServing())
    assert environment_of(stack)["SM_VLLM_TENSOR_PARALLEL_SIZE"] == "4"


def test_the_native_server_stays_where_no_vllm_image_carries_the_release(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="4.51.3")
    endpoint = endpoint_in(
        stack, image=image, model=HubModel("bigscience/bloom"), hosting=RealTime(instance_type="ml.p4de.24xlarge")
    )
    assert not endpoint.speaks_openai
    Annotations.from_stack(stack).has_warning("/Test/Image", Match.string_like_regexp("the native server is taken"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a task": (
        {"model": HubModel("whisper", task="automatic-speech-recognition")},
        r"'task' \(automatic-speech-recognition\) is none of vLLM's.*family=\"inference\"",
    ),
    "code": (
        {"model": HubModel("org/model", code=InferenceCode(requirements=["einops"]))},
        r"'code' \(InferenceCode\) is not run by vLLM",
    ),
    "an instance without GPU": (
        {"hosting": RealTime(instance_type="ml.m5.xlarge")},
        r"'instance_type' \(ml.m5.xlarge\) computes with cpu.*take one with NVIDIA GPUs",
    ),
    "serverless": ({"hosting": Serverless()}, r"computes with cpu.*take one with NVIDIA GPUs"),
    "more GPUs than there are": (
        {"vllm": VllmServing(tensor_parallel_size=2)},
        r"'tensor_parallel_size' \(2\) must be from 1 to 1: take an instance type with more GPUs",
    ),
    "types with different numbers of GPUs": (
        {"hosting": RealTime(instance_type=["ml.g6.xlarge", "ml.g6.12xlarge"])},
        r"'instance_type' \(ml.g6.xlarge with 1, ml.g6.12xlarge with 4\) must have as many GPUs each",
    ),
    "a variable that an option sets": (
        {"environment": {"SM_VLLM_TENSOR_PARALLEL_SIZE": "2"}},
        "'SM_VLLM_TENSOR_PARALLEL_SIZE' is set by VllmServing",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_vllm_refuses_what_it_does_not_serve(stack: Stack, what: str) -> None:
    options, message = REFUSED[what]
    model = {"model": HubModel("org/model")} if "hosting" in options else {}
    with pytest.raises(ValueError, match=message):
        endpoint_in(stack, family="vllm", **{**model, **options})


def test_vllm_refuses_a_secret_that_its_server_does_not_read(stack: Stack) -> None:
    token = secretsmanager.Secret.from_secret_name_v2(stack, "Token", "hub")
    with pytest.raises(ValueError, match="vLLM's server does not read secrets: let MirroredModel copy"):
        endpoint_in(stack, family="vllm", model=HubModel("org/model", token=token))


def test_options_of_vllm_are_refused_for_the_native_server(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'vllm' needs an image whose server is vLLM: pass family=\"vllm\""):
        endpoint_in(stack, family="inference", vllm=VllmServing())


@pytest.mark.parametrize(("option", "value"), [("accelerator", "cpu"), ("server", "stock")])
def test_what_contradicts_the_family_is_refused(stack: Stack, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"'{option}' \({value}\) does not go with the vLLM family"):
        ExtendedDlc(stack, "Image", transformers="5.23.0", family="vllm", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_of_the_memory_is_above_0_and_at_most_1(share: float) -> None:
    with pytest.raises(ValueError, match=r"'gpu_memory_utilization' \(.*\) must be above 0 and at most 1"):
        VllmServing(gpu_memory_utilization=share)


def test_a_given_vllm_base_says_its_family_and_is_not_moved_back(stack: Stack) -> None:
    base = "registry.example.com/huggingface-vllm:0.29.0-transformers5.15.0-gpu-py312-cu130-ubuntu24.04-v1.0"
    ExtendedDlc(stack, "Image", transformers="5.23.0", base=base)
    assert build_of(stack) == ("vllm", {"BASE_IMAGE": base, "TRANSFORMERS_VERSION": "5.23.0"})
    with pytest.raises(ValueError, match=r"newer transformers 5\.15\.0, and vLLM is not moved back"):
        ExtendedDlc(stack, "Older", transformers="5.10.2", base=base)
    with pytest.raises(ValueError, match=r"'family' \(inference\) contradicts base"):
        ExtendedDlc(stack, "Other", transformers="5.23.0", base=base, family="inference")
    assert check_vllm(base, "5.15.0") == ()


def test_a_variant_is_told_of_its_own_gpus(stack: Stack) -> None:
    shadow = Variant(name="Wide", instance_type="ml.g6.12xlarge")
    endpoint_in(stack, family="vllm", hosting=RealTime(instance_type="ml.g6.xlarge", shadow=shadow))
    models = Template.from_stack(stack).find_resources("AWS::SageMaker::Model").values()
    sizes = [each["Properties"]["PrimaryContainer"]["Environment"]["SM_VLLM_TENSOR_PARALLEL_SIZE"] for each in models]
    assert sorted(sizes) == ["1", "4"]


def test_a_component_is_told_of_the_gpus_that_its_copies_have(stack: Stack) -> None:
    part = Component(name="Half", memory_mb=4096, accelerators=2)
    endpoint_in(stack, family="vllm", hosting=Components(instance_type="ml.g6.12xlarge", components=[part], maximum=1))
    assert environment_of(stack)["SM_VLLM_TENSOR_PARALLEL_SIZE"] == "2"


@pytest.mark.parametrize("tag", ["pytorch:2.13.0-cu133-amzn2023-sagemaker", "pytorch-inference:2.6.0-gpu-py312-cu124"])
def test_a_base_of_the_public_registry_gets_transformers_and_our_server_without_a_login(stack: Stack, tag: str) -> None:
    (base, *_) = [name for name in PUBLIC if f"/{tag}" in name]
    assert ecr_registries([base]) == []
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", base=base)
    endpoint_in(stack, image=image)
    assert build_of(stack) == ("native", {"BASE_IMAGE": base, "TRANSFORMERS_VERSION": "5.23.0"})
    (config,) = Template.from_stack(stack).find_resources("AWS::SageMaker::EndpointConfig").values()
    (variant,) = config["Properties"]["ProductionVariants"]
    assert variant["InferenceAmiVersion"]  # by the CUDA in the tag


def test_a_public_base_without_gpu_refuses_an_instance_with_one(stack: Stack) -> None:
    (base,) = [name for name in PUBLIC if name.endswith("/pytorch:2.13.0-cpu-amzn2023-sagemaker")]
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", base=base)
    with pytest.raises(ValueError, match="the image is built for cpu"):
        endpoint_in(stack, image=image)


BLOOM = {"model": HubModel("bigscience/bloom"), "hosting": RealTime(instance_type="ml.p4de.24xlarge")}
WHISPER = {"model": HubModel("whisper"), "hosting": RealTime(instance_type="ml.g5.xlarge")}


@pytest.mark.parametrize(
    ("first", "second", "refusal"),
    [
        (WHISPER, BLOOM, r'contradicts what Test/First settled .*: say family="inference" or family="vllm"'),
        (BLOOM, WHISPER, r"'task' \(automatic-speech-recognition\) is none of vLLM's .*family=\"inference\""),
    ],
)
def test_a_later_endpoint_that_contradicts_the_family_that_was_left_open_is_refused(
    stack: Stack, first: dict[str, Any], second: dict[str, Any], refusal: str
) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0")
    HuggingFaceEndpoint(stack, "First", image=image, **first)
    with pytest.raises(ValueError, match=refusal):
        HuggingFaceEndpoint(stack, "Second", image=image, **second)
    said = ExtendedDlc(stack, "Said", transformers="5.23.0", family="inference")
    for name, options in (("Third", first), ("Fourth", second)):
        assert not HuggingFaceEndpoint(stack, name, image=said, **options).speaks_openai


def test_two_endpoints_decide_together_whatever_their_order() -> None:
    """BLOOM alone is vLLM's; Whisper is not, and one image serves both."""
    bloom = {"model": "bigscience/bloom", "hosting": {"instance_type": "ml.p4de.24xlarge"}}
    whisper = {"model": "whisper", "hosting": {"instance_type": "ml.g5.xlarge"}}
    image = {"transformers": "5.23.0"}
    alone = plan_of({"region": "us-east-1", "image": image, "endpoints": {"bloom": bloom}})
    assert alone["image"]["family"] == "vllm"
    for endpoints in ({"a": bloom, "b": whisper}, {"a": whisper, "b": bloom}, {"b": whisper, "a": bloom}):
        both = plan_of({"region": "us-east-1", "image": image, "endpoints": endpoints})
        assert both["problems"] == []
        assert both["image"]["family"] == "inference"
        assert any("one image serves all, and endpoints." in warning for warning in both["warnings"])
