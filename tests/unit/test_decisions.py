"""The decisions in the constructs: what stands in the template, what is annotated, what raises."""

from __future__ import annotations

from typing import Any

import pytest
from aws_cdk import App, CfnParameter, Environment, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    InferenceCode,
    MirroredModel,
    Network,
    RealTime,
    S3Model,
    Serverless,
    StockDlc,
    Variant,
)
from extended_dlc.decisions.environment import ADAPTERS
from tests.support.settings import SettingsError, read_settings

GIB_7 = "bigscience/bloom-7b1"


def endpoint_in(stack: Stack, model: HubModel, **options: Any) -> HuggingFaceEndpoint:
    options.setdefault("image", StockDlc(transformers="4.51.3"))
    return HuggingFaceEndpoint(stack, "Endpoint", model=model, **options)


def variant_of(stack: Stack) -> dict[str, Any]:
    (config,) = Template.from_stack(stack).find_resources("AWS::SageMaker::EndpointConfig").values()
    found: dict[str, Any] = config["Properties"]["ProductionVariants"][-1]
    return found


def environment_of(stack: Stack) -> dict[str, str]:
    (model,) = Template.from_stack(stack).find_resources("AWS::SageMaker::Model").values()
    found: dict[str, str] = model["Properties"]["PrimaryContainer"]["Environment"]
    return found


def warnings_of(stack: Stack, words: str) -> int:
    return len(Annotations.from_stack(stack).find_warning("*", Match.string_like_regexp(f".*{words}.*")))


def looked_up(**answer: Any) -> Stack:
    """A stack whose context has the Hub's answer about someone/model."""
    context = {"extended-dlc:model:someone/model": {"asked": "main", "revision": "c0ffee", **answer}}
    return Stack(App(context=context), "Test", env=Environment(region="us-east-1"))


def test_time_out_and_volume_follow_the_size_where_nothing_is_given(stack: Stack) -> None:
    endpoint_in(stack, HubModel("bloom"))
    variant = variant_of(stack)
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 660
    assert variant["VolumeSizeInGB"] == 32


def test_what_is_given_stays(stack: Stack) -> None:
    endpoint_in(stack, HubModel("bloom"), hosting=RealTime(startup_timeout_seconds=100, volume_gb=77))
    variant = variant_of(stack)
    assert (variant["ContainerStartupHealthCheckTimeoutInSeconds"], variant["VolumeSizeInGB"]) == (100, 77)


def test_nothing_is_chosen_for_a_model_whose_size_nobody_knows(stack: Stack) -> None:
    endpoint_in(stack, HubModel("someone/model"))
    variant = variant_of(stack)
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 900
    assert "VolumeSizeInGB" not in variant
    assert "ModelDataDownloadTimeoutInSeconds" not in variant


def test_a_type_with_storage_of_its_own_gets_no_volume(stack: Stack) -> None:
    endpoint_in(stack, HubModel("bloom"), hosting=RealTime(instance_type="ml.g5.xlarge"))
    assert "VolumeSizeInGB" not in variant_of(stack)


def test_a_variant_is_sized_for_its_own_model(stack: Stack) -> None:
    large = Variant(name="Large", model=HubModel(GIB_7), instance_type="ml.m5.4xlarge")
    endpoint_in(stack, HubModel("bloom"), hosting=RealTime(variants=[large]))
    variant = variant_of(stack)
    assert variant["VariantName"] == "Large"
    assert (variant["ContainerStartupHealthCheckTimeoutInSeconds"], variant["VolumeSizeInGB"]) == (1080, 46)


def test_a_speech_model_gets_its_task_and_others_none(stack: Stack) -> None:
    endpoint_in(stack, HubModel("whisper"))
    assert environment_of(stack)["HF_TASK"] == "automatic-speech-recognition"
    other = Stack(App(), "Other", env=Environment(region="us-east-1"))
    endpoint_in(other, HubModel("bloom"))
    assert "HF_TASK" not in environment_of(other)


def test_an_instance_that_is_too_small_raises_and_one_that_is_tight_is_annotated(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'instance_type' \(ml\.m5\.xlarge\) cannot hold bigscience/bloom-7b1"):
        endpoint_in(stack, HubModel(GIB_7))
    tight = Stack(App(), "Tight", env=Environment(region="us-east-1"))
    endpoint_in(tight, HubModel(GIB_7), hosting=RealTime(instance_type="ml.g4dn.xlarge"))
    assert warnings_of(tight, "may be too large for ml.g4dn.xlarge") == 1


def test_the_number_of_parameters_that_is_said_decides(stack: Stack) -> None:
    endpoint_in(stack, HubModel(GIB_7, parameters=1_000_000))
    other = Stack(App(), "Other", env=Environment(region="us-east-1"))
    with pytest.raises(ValueError, match="cannot hold someone/model: 9,000,000,000 parameters x 4 bytes"):
        endpoint_in(other, HubModel("someone/model", parameters=9_000_000_000))


def test_the_precision_that_the_server_is_told_decides(stack: Stack) -> None:
    endpoint_in(stack, HubModel(GIB_7), environment={"EXTENDED_DLC_DTYPE": "bfloat16"})
    assert warnings_of(stack, "may be too large") == 1  # and in float32 it would be refused


def test_several_gpus_count_for_code_of_ones_own_and_not_for_the_stock_server(stack: Stack) -> None:
    hosting = RealTime(instance_type="ml.p4de.24xlarge")
    with pytest.raises(ValueError, match="and AWS's server does not split a model"):
        endpoint_in(stack, HubModel("bigscience/bloom"), hosting=hosting)
    other = Stack(App(), "Other", env=Environment(region="us-east-1"))
    code = InferenceCode(requirements=["accelerate"])
    endpoint_in(other, HubModel("bigscience/bloom", code=code), hosting=hosting)
    assert warnings_of(other, "the start-up may take 8,002 s") == 1


def test_a_serverless_container_is_judged_by_its_memory_and_its_disk(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'memory_mb' \(1024\) cannot hold bigscience/bloom-560m"):
        endpoint_in(stack, HubModel("bloom"), hosting=Serverless(memory_mb=1024))
    with pytest.raises(ValueError, match=r"has 5 GB of disk, and the model.s files are 6\.0 GB"):
        endpoint_in(
            Stack(App(), "Disk", env=Environment(region="us-east-1")),
            HubModel("bigscience/bloom-3b"),
            hosting=Serverless(),
            environment={"EXTENDED_DLC_DTYPE": "int8"},
        )


def test_what_the_hub_said_is_read_from_the_context() -> None:
    with pytest.raises(ValueError, match="cannot load model type 'qwen3_5'"):
        endpoint_in(looked_up(model_type="qwen3_5"), HubModel("someone/model"))
    sized = looked_up(model_type="bert", parameters=10**8, dtype="float32", weight_bytes=4 * 10**8)
    endpoint_in(sized, HubModel("someone/model"))
    assert variant_of(sized)["VolumeSizeInGB"] == 31


def test_a_gated_model_needs_a_token() -> None:
    with pytest.raises(ValueError, match=r"'model' \(someone/model\) is private or gated on the Hub"):
        endpoint_in(looked_up(gated=True), HubModel("someone/model"))
    stack = looked_up(gated=False)
    endpoint_in(stack, HubModel("someone/model"))
    assert len(environment_of(stack)) == 1


def test_an_isolated_container_with_weights_of_the_hub_is_refused(stack: Stack) -> None:
    with pytest.raises(ValueError, match="'network_isolation' leaves the container no way to the Hub"):
        endpoint_in(stack, HubModel("bloom"), network_isolation=True)


@pytest.mark.parametrize(
    ("kind", "warned"), [(ec2.SubnetType.PRIVATE_ISOLATED, 1), (ec2.SubnetType.PRIVATE_WITH_EGRESS, 0)]
)
def test_a_vpc_without_a_way_to_the_hub_is_annotated(stack: Stack, kind: ec2.SubnetType, warned: int) -> None:
    subnets = [ec2.SubnetConfiguration(name="Own", subnet_type=kind)]
    if not warned:
        subnets.append(ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC))
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2, subnet_configuration=subnets)
    subnets_of_kind = vpc.select_subnets(subnet_type=kind).subnets
    endpoint_in(stack, HubModel("bloom"), network=Network(vpc=vpc, subnets=subnets_of_kind))
    assert warnings_of(stack, "the subnets have no way to the internet") == warned


def test_a_task_that_the_image_does_not_have_raises_and_one_that_nobody_knows_is_annotated(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'task' \(summarization\) is no task of transformers 5\.5\.3"):
        endpoint_in(stack, HubModel("google-t5/t5-small", task="summarization"), image=StockDlc(transformers="5.5.3"))
    known = Stack(App(), "Known", env=Environment(region="us-east-1"))
    endpoint_in(known, HubModel("google-t5/t5-small", task="summarization"))
    assert warnings_of(known, "task") == 0
    unknown = Stack(App(), "Unknown", env=Environment(region="us-east-1"))
    endpoint_in(unknown, HubModel("someone/model", task="sentence-similarity"))
    assert warnings_of(unknown, "is no pipeline of a transformers release read here") == 1


def test_requirements_that_the_images_transformers_does_not_take_raise(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", accelerator="cpu")
    code = InferenceCode(requirements=["tokenizers==0.20.0"])
    with pytest.raises(
        ValueError, match=r"'requirements' \(tokenizers==0\.20\.0\) does not go with transformers 5\.23\.0"
    ):
        endpoint_in(stack, HubModel("bloom", code=code), image=image)
    HuggingFaceEndpoint(
        stack, "Other", model=HubModel("bloom", code=InferenceCode(requirements=["pydub"])), image=image
    )


def test_the_settings_name_what_does_not_fit_before_anything_is_made(shipped_settings: dict[str, Any]) -> None:
    shipped_settings["endpoints"]["model"].update(model=GIB_7, task="summarization")
    with pytest.raises(SettingsError) as refused:
        read_settings({"extended-dlc": shipped_settings})
    text = str(refused.value)
    assert "endpoints.model.hosting.instance_type (ml.m5.xlarge): cannot hold bigscience/bloom-7b1" in text
    assert "endpoints.model.task (summarization): is no task of transformers 5.24.0" in text
    shipped_settings["endpoints"]["model"].update(task=None, parameters=1_000_000)
    assert read_settings({"extended-dlc": shipped_settings}).endpoints["model"].parameters == 1_000_000


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_adapters_of_the_hub_that_can_move_are_annotated_and_those_that_cannot_be_had_refused(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0")
    moving = f"sql=someone/sql, poems=someone/poems@main, kept=someone/kept@{COMMIT}"
    endpoint_in(stack, HubModel("bloom", revision=COMMIT), image=image, environment={ADAPTERS: moving})
    assert warnings_of(stack, f"the adapters sql and poems of {ADAPTERS} have no commit") == 1

    mirrored = MirroredModel(stack, "Mirrored", model="bigscience/bloom-560m", revision=COMMIT)
    pinned = {ADAPTERS: f"sql=someone/sql@{COMMIT}"}
    with pytest.raises(ValueError, match=rf"'environment' \({ADAPTERS}\) names adapters on the Hub, which the"):
        HuggingFaceEndpoint(stack, "Offline", model=mirrored, image=image, environment=pinned)
    files = S3Model(s3.Bucket(stack, "Bucket"), "model/", model_type="bloom", task="text-generation")
    with pytest.raises(ValueError, match=r"no way to the Hub, where the adapters are: .*adapters/NAME/"):
        HuggingFaceEndpoint(stack, "Isolated", model=files, image=image, environment=pinned, network_isolation=True)
    model = HubModel("gpt2", revision=COMMIT)
    with pytest.raises(ValueError, match="names an adapter 'gpt2', which is the model itself"):
        HuggingFaceEndpoint(stack, "Same", model=model, image=image, environment={ADAPTERS: f"gpt2=a/b@{COMMIT}"})


@pytest.mark.parametrize("variable", [ADAPTERS, "EXTENDED_DLC_BATCH_SIZE", "EXTENDED_DLC_DTYPE"])
def test_a_variable_whose_value_only_cloudformation_knows_is_taken(stack: Stack, variable: str) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0")
    value = CfnParameter(stack, "Value").value_as_string
    endpoint_in(stack, HubModel("bloom", revision=COMMIT), image=image, environment={variable: value})
    assert environment_of(stack)[variable] == {"Ref": "Value"}
