"""Which weights: what the container and its role are told, and what is refused."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Environment, Stack, Stage
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk.assertions import Template
from constructs import Construct

from extended_dlc import (
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    InferenceCode,
    PlacedModel,
    S3Model,
    ServedModel,
    StockDlc,
)

COMMIT = "0" * 40
BASE = "registry.example.com/huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04-v1.2"
TUTORIAL = "registry.example.com/huggingface-pytorch-inference:1.10.2-transformers4.17.0-cpu-py38-ubuntu20.04"


def role_in(stack: Construct) -> iam.Role:
    return iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"))


def placed(stack: Stack, model: ServedModel) -> PlacedModel:
    return model.place_for(stack, role_in(stack))


def granted(stack: Stack) -> list[dict[str, Any]]:
    policies = Template.from_stack(stack).find_resources("AWS::IAM::Policy").values()
    return [statement for policy in policies for statement in policy["Properties"]["PolicyDocument"]["Statement"]]


def container_in(stack: Stack, **options: Any) -> dict[str, Any]:
    HuggingFaceEndpoint(stack, "Endpoint", **options)
    (model,) = Template.from_stack(stack).find_resources("AWS::SageMaker::Model").values()
    container: dict[str, Any] = model["Properties"]["PrimaryContainer"]
    return container


def secret_in(stack: Stack) -> secretsmanager.ISecret:
    return secretsmanager.Secret.from_secret_name_v2(stack, "Token", "hub-token")


def assets_of(stack: Stack) -> list[Path]:
    app = stack.node.root
    assert isinstance(app, App)
    assembly = app.synth()
    (manifest,) = Path(assembly.directory).glob("*.assets.json")
    files = json.loads(manifest.read_text())["files"].values()
    return [Path(assembly.directory) / f["source"]["path"] for f in files if f["source"]["path"].endswith(".tar.gz")]


# -- the Hub -----------------------------------------------------------------------------------------------------------


def test_a_token_reaches_the_container_as_the_arn_of_a_secret_that_its_role_may_read(stack: Stack) -> None:
    found = placed(stack, HubModel("acme/private", COMMIT, token=secret_in(stack)))
    assert stack.resolve(found.environment["HF_TOKEN_SECRET_ARN"])["Fn::Join"][1][-1].endswith(":secret:hub-token")
    (statement,) = granted(stack)
    assert statement["Action"] == ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    assert statement["Resource"]["Fn::Join"][1][-1].endswith(":secret:hub-token-??????")


def test_a_token_as_text_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"'token' is a text.*store the text in Secrets Manager") as error:
        HubModel("bloom", token="hf_abcdefghijklmnopqrstuvwxyz")  # type: ignore[arg-type]
    assert "hf_abc" not in str(error.value)


@pytest.mark.parametrize("server", ["stock", "stock-extended"])
def test_a_server_that_does_not_read_secrets_gets_none(stack: Stack, server: str) -> None:
    images = {"stock": lambda: StockDlc(transformers="4.51.3"), "stock-extended": lambda: _stock_extended(stack)}
    with pytest.raises(ValueError, match="a secret that the stock server does not read: take the native server"):
        container_in(stack, model=HubModel("bloom", COMMIT, token=secret_in(stack)), image=images[server]())


def _stock_extended(stack: Stack) -> ExtendedDlc:
    return ExtendedDlc(stack, "Image", transformers="4.24.0", base=TUTORIAL, server="stock")


def test_code_of_the_model_runs_only_where_it_is_said(stack: Stack) -> None:
    assert "HF_TRUST_REMOTE_CODE" not in placed(stack, HubModel("bloom", COMMIT)).environment
    assert HubModel("bloom", COMMIT, trust_remote_code=True).environment()["HF_TRUST_REMOTE_CODE"] == "true"


def noted(stack: Stack, model: HubModel) -> list[str]:
    """What an endpoint of the model is annotated with, beside what its image is."""
    HuggingFaceEndpoint(stack, "Endpoint", model=model, image=StockDlc(transformers="4.51.3"))
    stage = Stage.of(stack)
    assert stage is not None
    assembly = stage.synth()
    file = Path(assembly.directory) / f"{stack.artifact_id}.metadata.json"
    entries = [entry for found in json.loads(file.read_text()).values() for entry in found]
    return [str(entry["data"]) for entry in entries if entry["type"] in ("aws:cdk:info", "aws:cdk:warning")]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "has no revision: a container that starts later may serve other weights"),
        ({"revision": "v1.0"}, "revision 'v1.0' of model 'acme/x' is no commit and can move"),
        ({"trust_remote_code": True}, "may run other code"),
    ],
)
def test_what_can_move_is_annotated(stack: Stack, options: dict[str, Any], text: str) -> None:
    assert any(text in note for note in noted(stack, HubModel("acme/x", **options)))


def test_a_commit_is_not_annotated(stack: Stack) -> None:
    assert not [note for note in noted(stack, HubModel("acme/x", COMMIT)) if "revision" in note]


@pytest.mark.parametrize(
    ("model", "licence"),
    [
        (HubModel("bloom", COMMIT), "bigscience-bloom-rail-1.0"),
        (HubModel("whisper", COMMIT), "apache-2.0"),
        (HubModel("acme/x", COMMIT, licence="mit"), "mit"),
    ],
)
def test_the_licence_is_noted(stack: Stack, model: HubModel, licence: str) -> None:
    assert any(f"is under the licence {licence}" in note for note in noted(stack, model))


# -- S3 ----------------------------------------------------------------------------------------------------------------


def test_an_archive_is_unpacked_and_only_its_key_is_granted(stack: Stack) -> None:
    bucket = s3.Bucket.from_bucket_name(stack, "Bucket", "weights")
    found = placed(stack, S3Model(bucket, "bert/model.tar.gz", task="fill-mask"))
    assert found.environment == {"HF_TASK": "fill-mask"}
    assert data_of(found) == ("s3://weights/bert/model.tar.gz", "S3Object", "Gzip")
    (statement,) = granted(stack)
    assert statement["Action"] == "s3:GetObject"
    assert statement["Resource"]["Fn::Join"][1][-1] == ":s3:::weights/bert/model.tar.gz"


def test_a_prefix_is_taken_as_it_is_and_granted_to_its_end(stack: Stack) -> None:
    key = kms.Key(stack, "Key")
    bucket = s3.Bucket.from_bucket_attributes(stack, "Bucket", bucket_name="weights", encryption_key=key)
    found = placed(stack, S3Model(bucket, "bert/"))
    assert data_of(found) == ("s3://weights/bert/", "S3Prefix", "None")
    read, listing, decrypt = granted(stack)
    assert read["Action"] == "s3:GetObject"
    assert read["Resource"]["Fn::Join"][1][-1] == ":s3:::weights/bert/*"
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["bert/*"]}}
    assert listing["Resource"]["Fn::Join"][1][-1] == ":s3:::weights"
    assert decrypt["Action"] == "kms:Decrypt"


def data_of(found: PlacedModel) -> tuple[str, str, str]:
    assert found.data is not None
    source: Any = found.data.s3_data_source
    return source.s3_uri, source.s3_data_type, source.compression_type


@pytest.mark.parametrize("key", ["model.zip", "bert", "s3://weights/bert/", "/bert/"])
def test_a_key_that_is_neither_is_refused(stack: Stack, key: str) -> None:
    with pytest.raises(ValueError, match=f"'key' \\({key}\\) is neither an archive nor a prefix"):
        S3Model(s3.Bucket.from_bucket_name(stack, "Bucket", "weights"), key)


@pytest.mark.parametrize("key", ["*/", "bert-v?.tar.gz"])
def test_a_key_that_would_grant_others_is_refused(stack: Stack, key: str) -> None:
    with pytest.raises(ValueError, match=r"has a '[*?]', for which a role's policy would take any characters"):
        S3Model(s3.Bucket.from_bucket_name(stack, "Bucket", "weights"), key)


def test_the_containers_data_source_reaches_the_template(stack: Stack) -> None:
    bucket = s3.Bucket.from_bucket_name(stack, "Bucket", "weights")
    container = container_in(stack, model=S3Model(bucket, "bert/"), image=StockDlc(transformers="4.51.3"))
    assert container["ModelDataSource"]["S3DataSource"]["S3Uri"] == "s3://weights/bert/"
    assert "HF_MODEL_ID" not in container["Environment"]


def test_a_folder_becomes_an_archive_that_is_the_same_on_every_machine(tmp_path: Path) -> None:
    archives = []
    for name in ("one", "other"):
        folder = tmp_path / name
        (folder / ".cache").mkdir(parents=True)
        (folder / ".cache" / "log").write_text(name)
        (folder / "config.json").write_text('{"model_type": "bert"}')
        (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
        (folder / "config.json").chmod(0o600 if name == "one" else 0o644)
        stack = Stack(App(outdir=str(tmp_path / f"{name}.out")), "Test", env=Environment(region="us-east-1"))
        model = S3Model.from_local(str(folder))
        assert model.model_type == "bert"
        found = placed(stack, model)
        (archive,) = assets_of(stack)
        archives.append(archive)
        uri, kind, compression = data_of(found)
        assert (kind, compression) == ("S3Object", "Gzip")
        assert stack.resolve(uri)["Fn::Join"][1][-1] == f"/{archive.name.removeprefix('asset.')}"
    assert archives[0].name == archives[1].name
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as packed:
        assert packed.getnames() == ["config.json", "model.safetensors"]


def test_a_folder_in_a_stage_is_uploaded_from_where_the_assembly_says(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    app = App(outdir=str(tmp_path / "out"))
    stack = Stack(Stage(app, "Stage", env=Environment(region="us-east-1")), "Test")
    placed(stack, S3Model.from_local(str(tmp_path)))
    app.synth()
    (manifest,) = (tmp_path / "out").glob("assembly-*/*.assets.json")
    paths = [f["source"]["path"] for f in json.loads(manifest.read_text())["files"].values()]
    assert all((manifest.parent / path).is_file() for path in paths)
    assert any(path.endswith(".tar.gz") for path in paths)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config.json: give the folder that save_pretrained"):
        S3Model.from_local(str(tmp_path))


def test_a_folder_that_is_too_large_to_upload_each_time_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(3 * 1024**3)  # takes no disk
    with pytest.raises(ValueError, match=r"holds 3.0 GiB, and at most 2 are packed.*aws s3 sync"):
        S3Model.from_local(str(tmp_path))


# -- code beside weights -----------------------------------------------------------------------------------------------


def folder_with(tmp_path: Path, **files: str) -> str:
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return str(tmp_path)


def test_code_goes_beside_the_weights_in_an_archive_of_some_hundred_bytes(stack: Stack, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, inference__py="def predict_fn(data, model):\n    return 1\n", helper__py="X = 1\n")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "helper.pyc").write_bytes(b"compiled")
    code = InferenceCode(folder, requirements=["pydub"])
    found = placed(stack, HubModel("bloom", COMMIT, code=code))
    assert found.environment["HF_MODEL_ID"] == "bigscience/bloom-560m"
    assert data_of(found)[1:] == ("S3Object", "Gzip")
    (archive,) = assets_of(stack)
    assert archive.stat().st_size < 1000
    with tarfile.open(archive) as packed:
        assert packed.getnames() == ["code/helper.py", "code/inference.py", "code/requirements.txt"]
        requirements = packed.extractfile("code/requirements.txt")
        assert requirements is not None
        assert requirements.read() == b"pydub\n"


def test_the_tutorials_workaround_needs_no_repackaged_weights(stack: Stack) -> None:
    code = InferenceCode(requirements=["transformers==4.24.0", "huggingface_hub<0.26"])
    container = container_in(stack, model=HubModel("bloom", COMMIT, code=code), image=StockDlc(base=TUTORIAL))
    assert container["Environment"]["HF_MODEL_ID"] == "bigscience/bloom-560m"
    assert container["ModelDataSource"]["S3DataSource"]["CompressionType"] == "Gzip"


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        (["transformers==4.24.0"], "only with huggingface_hub<0.26: add that"),
        (["transformers==4.46.3", "huggingface_hub<0.26"], "'transformers==4.46.3' cannot run on the stock server"),
        (["sentencepiece"], "transformers 4.17.0 .*cannot load model type 'bloom'"),
    ],
)
def test_an_injection_that_would_fail_in_the_container_is_refused(
    stack: Stack, requirements: list[str], text: str
) -> None:
    model = HubModel("bloom", COMMIT, code=InferenceCode(requirements=requirements))
    with pytest.raises(ValueError, match=text):
        container_in(stack, model=model, image=StockDlc(base=TUTORIAL))


def test_requirements_may_not_contradict_the_image(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", base=BASE)
    model = HubModel("bloom", COMMIT, code=InferenceCode(requirements=["transformers>=4.50,<5"]))
    with pytest.raises(ValueError, match=r"\(transformers>=4.50,<5\) is not the image's transformers 5.23.0"):
        container_in(stack, model=model, image=image)


def test_requirements_that_the_image_fulfils_pass(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", base=BASE)
    model = HubModel("bloom", COMMIT, code=InferenceCode(requirements=["Transformers[torch] >= 5.1", "pydub"]))
    assert container_in(stack, model=model, image=image)["Environment"]["HF_MODEL_ID"] == "bigscience/bloom-560m"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"inference__py": "def predict_fn(data, model:\n"}, r"inference.py line 1 does not compile"),
        ({"inference__py": "def prediction_fn(data, model): ...\n"}, "no server calls; did you mean 'predict_fn'"),
        ({"inference__py": "def input_fn(data): ...\n"}, "takes 1 arguments: make it 2, or 3 with context"),
        ({"inference__py": "async def model_fn(path): ...\n"}, "is 'async'"),
        (
            {"inference__py": "def transform_fn(m, d, c, a): ...\ndef input_fn(d, c): ...\n"},
            "defines transform_fn, which replaces input_fn",
        ),
        ({"requirements__txt": "pydub=1\n"}, r"requirement 'pydub=1' cannot be read"),
        ({"readme__md": "nothing\n"}, "has neither inference.py nor requirements.txt"),
        ({"inference__py": "", "model__bin": "x" * 6_000_000}, "holds 6 MB and code at most 5: take the weights out"),
    ],
)
def test_code_that_cannot_work_is_refused_at_synth(tmp_path: Path, files: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        InferenceCode(folder_with(tmp_path, **files))


def test_code_that_may_work_is_not_refused(tmp_path: Path) -> None:
    folder_with(
        tmp_path,
        inference__py="from helper import *\n\ndef model_fn(model_dir, context): ...\n\ndef _my_fn(): ...\n",
        requirements__txt="-r more.txt\n--index-url https://example.com\npydub ; python_version > '3.9'  # sound\n"
        "git-package @ git+https://example.com/x.git\n\n",
    )
    assert set(InferenceCode(str(tmp_path)).files()) == {"code/inference.py", "code/requirements.txt"}


def test_code_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="InferenceCode has nothing: give a folder"):
        InferenceCode()


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'folder' \(nowhere\) is not a folder"):
        InferenceCode("nowhere")
