"""Each example synthesises as its first lines say, to what its name promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint

# a process with the CDK each; cdk-nag's test synthesises the same examples in one
pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SETTINGS = (
    "tutorial.yaml",
    "two-endpoints.yaml",
    "stock.yaml",
    "injected.yaml",
    "mirrored.yaml",
    "vllm.yaml",
    "shared.yaml",
    "training.yaml",
)

Json = dict[str, Any]


def run(out: Path, *command: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CDK_OUTDIR": str(out), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def synth(out: Path, settings: str) -> Json:
    """The resources that `python app.py` makes of a settings file, type -> properties of each."""
    run(out, "app.py", CDK_CONTEXT_JSON=json.dumps({"settings": f"examples/{settings}"}))
    return resources(out / "EndpointStack.template.json")


def resources(template: Path) -> Json:
    found: Json = {}
    for resource in json.loads(template.read_text())["Resources"].values():
        found.setdefault(resource["Type"], []).append(resource.get("Properties", {}))
    return found


def docker_assets(out: Path) -> list[Json]:
    (manifest,) = out.glob("*.assets.json")
    return [asset["source"] for asset in json.loads(manifest.read_text())["dockerImages"].values()]


def variant(found: Json) -> Json:
    (config,) = found["AWS::SageMaker::EndpointConfig"]
    (only,) = config["ProductionVariants"]
    return dict(only)


def environments(found: Json) -> list[Json]:
    return [model["PrimaryContainer"]["Environment"] for model in found["AWS::SageMaker::Model"]]


def test_every_example_is_tested() -> None:
    names = {file.name for file in EXAMPLES.iterdir() if file.is_file()}
    assert names == {*SETTINGS, "own_stack.py", "citizen.py"}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_example_says_how_it_is_deployed(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert f"npx cdk deploy --all -c settings=examples/{name}" in text


def test_the_tutorials_pair_keeps_the_servers_of_its_base_and_gets_what_that_needs(tmp_path: Path) -> None:
    found = synth(tmp_path, "tutorial.yaml")
    (asset,) = docker_assets(tmp_path)
    assert asset["dockerBuildTarget"] == "stock"
    arguments = asset["dockerBuildArgs"]
    assert arguments["BASE_IMAGE"].endswith(
        "/huggingface-pytorch-inference:1.10.2-transformers4.17.0-gpu-py38-cu113-ubuntu20.04"
    )
    assert arguments["TRANSFORMERS_VERSION"] == "4.24.0"
    assert arguments["STOCK_REQUIREMENTS"] == "huggingface_hub<0.26"
    assert arguments["MODEL_TYPES"] == "bloom,whisper"
    assert variant(found)["InstanceType"] == "ml.g4dn.xlarge"
    assert "InferenceAmiVersion" not in variant(found)  # CUDA 11 runs on SageMaker's own driver
    (environment,) = environments(found)
    assert environment["HF_MODEL_ID"] == "bigscience/bloom-560m"
    assert environment["HF_TASK"] == "text-generation"


def test_two_endpoints_share_one_image(tmp_path: Path) -> None:
    found = synth(tmp_path, "two-endpoints.yaml")
    (asset,) = docker_assets(tmp_path)
    assert "dockerBuildTarget" not in asset
    assert len(found["AWS::ECR::Repository"]) == 1
    assert len(found["Custom::CDKECRDeployment"]) == 1
    models = found["AWS::SageMaker::Model"]
    assert {model["PrimaryContainer"]["Environment"]["HF_MODEL_ID"] for model in models} == {
        "bigscience/bloom-560m",
        "openai/whisper-base",
    }
    images = {json.dumps(model["PrimaryContainer"]["Image"]) for model in models}
    assert len(images) == 1
    assert len(found["AWS::SageMaker::Endpoint"]) == 2


def test_the_stock_image_is_pulled_from_aws_and_nothing_is_built(tmp_path: Path) -> None:
    found = synth(tmp_path, "stock.yaml")
    assert docker_assets(tmp_path) == []
    assert "AWS::ECR::Repository" not in found
    (model,) = found["AWS::SageMaker::Model"]
    image = model["PrimaryContainer"]["Image"]
    assert image.startswith("763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference:")
    assert "-transformers4.51.3-cpu-" in image


def test_the_injected_requirements_go_beside_weights_that_stay_on_the_hub(tmp_path: Path) -> None:
    found = synth(tmp_path, "injected.yaml")
    assert docker_assets(tmp_path) == []
    (archive,) = tmp_path.glob("asset.*.tar.gz")
    assert archive.stat().st_size < 1000
    with tarfile.open(archive) as packed:
        requirements = packed.extractfile("code/requirements.txt")
        assert requirements is not None
        assert requirements.read().split() == [b"transformers==4.24.0", b"huggingface_hub<0.26"]
    (environment,) = environments(found)
    assert environment["HF_MODEL_ID"] == "bigscience/bloom-560m"


def test_the_mirrored_model_is_copied_by_codebuild_and_served_without_a_network(tmp_path: Path) -> None:
    found = synth(tmp_path, "mirrored.yaml")
    assert len(found["Custom::ExtendedDlcMirror"]) == len(found["AWS::CloudFormation::WaitCondition"]) == 1
    (model,) = found["AWS::SageMaker::Model"]
    assert model["EnableNetworkIsolation"] is True
    assert "HF_MODEL_ID" not in model["PrimaryContainer"]["Environment"]


def test_bloom_176b_is_served_by_vllm_over_the_eight_gpus_of_its_instance(tmp_path: Path) -> None:
    found = synth(tmp_path, "vllm.yaml")
    (asset,) = docker_assets(tmp_path)
    assert "/huggingface-vllm:" in asset["dockerBuildArgs"]["BASE_IMAGE"]
    (environment,) = environments(found)
    assert environment["SM_VLLM_TENSOR_PARALLEL_SIZE"] == "8"
    assert environment["SM_VLLM_MAX_MODEL_LEN"] == "2048"
    assert variant(found)["InstanceType"] == "ml.p4de.24xlarge"
    outputs = json.loads((tmp_path / "EndpointStack.template.json").read_text())["Outputs"]
    assert '"max_tokens": 20' in json.dumps(outputs["bloomInvoke"]).replace("\\", "")


def test_components_share_instances_and_are_asked_by_their_names(tmp_path: Path) -> None:
    found = synth(tmp_path, "shared.yaml")
    names = [each["InferenceComponentName"] for each in found["AWS::SageMaker::InferenceComponent"]]
    assert sorted(names) == ["shared-speech-bloom", "shared-speech-whisper"]
    assert {each["HF_MODEL_ID"] for each in environments(found)} == {"bigscience/bloom-560m", "openai/whisper-base"}
    assert variant(found)["ManagedInstanceScaling"] == {
        "MinInstanceCount": 0,
        "MaxInstanceCount": 2,
        "Status": "ENABLED",
    }
    assert {each["Component"] for each in found["Custom::ExtendedDlcProof"] if "Component" in each} == set(names)
    targets = found["AWS::ApplicationAutoScaling::ScalableTarget"]
    assert [(each["MinCapacity"], each["MaxCapacity"]) for each in targets] == [(0, 2), (0, 2)]
    template = (tmp_path / "EndpointStack.template.json").read_text()
    outputs = json.loads(template)["Outputs"]
    assert "speechInvoke" not in outputs, "SageMaker refuses a request that names no component"
    assert "--inference-component-name shared-speech-bloom " in outputs["speechInvokebloom"]["Value"]
    assert "--content-type audio/wav" in outputs["speechInvokewhisper"]["Value"]
    assert [str(match) for match in lint(template, regions=["us-east-1"]) if match.rule.severity == "error"] == []


def test_the_training_is_beside_the_endpoints_and_updates_their_stack(tmp_path: Path) -> None:
    found = synth(tmp_path, "training.yaml")
    (model,) = found["AWS::SageMaker::Model"]
    assert "Fn::If" in model["PrimaryContainer"]["ModelDataSource"], "the first model, until one is accepted"
    template = tmp_path / "TrainingStack.template.json"
    trains = resources(template)
    (machine,) = trains["AWS::StepFunctions::StateMachine"]
    definition = "".join(each for each in machine["DefinitionString"]["Fn::Join"][1] if isinstance(each, str))
    assert '"EnableManagedSpotTraining":true' in definition
    assert '"EXTENDED_DLC_MERGE_ADAPTER":"true"' in definition
    assert '"InstanceType":"ml.g6.xlarge"' in definition
    assert '"StackName":"tuned"' in definition
    assert '"Gate":{"metric":"eval_loss","at_most":4' in definition
    (asset,) = [
        each["source"]
        for each in json.loads((tmp_path / "TrainingStack.assets.json").read_text())["dockerImages"].values()
    ]
    assert asset["dockerBuildArgs"]["TRANSFORMERS_VERSION"] == "5.24.0"
    assert (
        "-training:" in asset["dockerBuildArgs"]["BASE_IMAGE"] or "/pytorch" in asset["dockerBuildArgs"]["BASE_IMAGE"]
    )
    errors = [each for each in lint(template.read_text(), regions=["us-east-1"]) if each.rule.severity == "error"]
    assert [str(match) for match in errors] == []


def test_the_stack_of_ones_own_lets_its_caller_invoke_both(tmp_path: Path) -> None:
    run(tmp_path, "examples/own_stack.py")
    found = resources(tmp_path / "Speech.template.json")
    assert len(found["AWS::SageMaker::Endpoint"]) == 2
    (policy,) = [
        policy["PolicyDocument"]["Statement"]
        for policy in found["AWS::IAM::Policy"]
        if any("Caller" in role["Ref"] for role in policy["Roles"])
    ]
    assert len(policy) == 2
    assert all("sagemaker:InvokeEndpoint" in statement["Action"] for statement in policy)


def test_the_stack_of_ones_own_uses_public_names_only() -> None:
    lines = (EXAMPLES / "own_stack.py").read_text().splitlines()
    ours = [line for line in lines if "extended_dlc" in line and line.startswith(("from", "import"))]
    assert ours == ["from extended_dlc import ExtendedDlc, HubModel, HuggingFaceEndpoint, RealTime"]
