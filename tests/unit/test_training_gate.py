"""The training's function, against moto's S3 and CloudFormation: what may be served, and what is good enough."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from extended_dlc.facts.checks import is_same_model
from extended_dlc.programs.functions import gate
from extended_dlc.training import model

BUCKET = "results"
MODELS = f"s3://{BUCKET}/models/"
TEMPLATE = {
    "Parameters": {"Artifact": {"Type": "String", "Default": model.UNTRAINED}},
    "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
}


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    """A bucket, and a stack that serves nothing trained yet."""
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        boto3.client("cloudformation").create_stack(StackName="Bloom", TemplateBody=json.dumps(TEMPLATE))
        yield client


@pytest.fixture
def s3(aws: Any) -> Any:
    """The bucket, emptied."""
    for page in aws.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for each in page.get("Contents", ()):
            aws.delete_object(Bucket=BUCKET, Key=each["Key"])
    return aws


def put(s3: Any, run: str, **files: Any) -> str:
    """A trained model, by the address that SageMaker gives."""
    if "config__json" in files:
        files = {"model__safetensors": b"", **files}
    for name, content in files.items():
        body = content if isinstance(content, bytes) else json.dumps(content)
        key = f"models/{run}/output/model/{name.replace('__', '.')}"
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    return f"{MODELS}{run}/output/model"


def look(artifact: str, serving: str = "5.24.0", stack: str = "Bloom", **more: str) -> dict[str, Any]:
    event = {"do": "look", "Artifact": artifact, "Models": MODELS, "Serving": serving, **more}
    return gate.handle({**event, "Stack": stack, "Parameter": "Artifact"}, None)


def measured(s3: Any, run: str, content: Any, *, packed: bool = True) -> str:
    """What an evaluation left, by the prefix of its output."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    prefix = f"evaluations/{run}/output/"
    if not packed:
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}data/metrics.json", Body=body)
        return f"s3://{BUCKET}/{prefix}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("metrics.json")
        entry.size = len(body)
        tar.addfile(entry, io.BytesIO(body))
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}output.tar.gz", Body=archive.getvalue())
    return f"s3://{BUCKET}/{prefix}"


def judge(output: str, beside: str | None = None, **bounds: float) -> dict[str, Any]:
    event = {"do": "judge", "Gate": {"metric": "loss", **bounds}, "Output": output, "BesideOutput": beside}
    return gate.handle(event, None)


def test_a_trained_model_may_be_served_and_its_address_ends_in_a_slash(s3: Any) -> None:
    found = look(put(s3, "one", config__json={"model_type": "bloom"}))
    assert found == {"artifact": f"{MODELS}one/output/model/", "live": "", "refused": ""}


def test_the_live_one_is_the_parameter_of_the_endpoints_stack(s3: Any) -> None:
    live = f"{MODELS}zero/output/model/"
    parameters = [{"ParameterKey": "Artifact", "ParameterValue": live}]
    boto3.client("cloudformation").create_stack(
        StackName="Serves", TemplateBody=json.dumps(TEMPLATE), Parameters=parameters
    )
    assert look(put(s3, "one", config__json={}), stack="Serves")["live"] == live


def test_an_adapter_is_a_model_and_an_empty_folder_is_none(s3: Any) -> None:
    assert look(put(s3, "one", adapter_config__json={}, adapter_model__bin=b""))["refused"] == ""
    empty = look(f"{MODELS}nothing/output/model/")["refused"]
    assert "holds nothing: save the model with trainer.save_model" in empty
    assert empty.endswith("or give the artefact that an earlier run said at its end")
    logs = look(put(s3, "logs", trainer__log={}))["refused"]
    assert "holds trainer.log, and no config.json" in logs


INDEX = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"config.json": {}}, "has config.json and no weights: save the model with trainer.save_model"),
        ({"adapter_config.json": {}}, "has adapter_config.json and no weights: save the model"),
        ({"checkpoint-2/config.json": {}, "runs/a": {}}, "holds checkpoint-2/, runs/, and no config.json"),
        ({"config.json": {}, "model.safetensors.index.json": INDEX, "model-1.safetensors": {}}, "lacks model-2.safe"),
        (
            {"config.json": {}, "model.safetensors.index.json": INDEX},
            "lacks model-1.safetensors, model-2.safetensors of",
        ),
        (
            {"config.json": {}, "pytorch_model.bin.index.json": INDEX},
            "2 files that its pytorch_model.bin.index.json na",
        ),
        ({"config.json": {}, "model.safetensors.index.json": INDEX, "model.safetensors": {}}, ""),
        ({"config.json": {}, "model.safetensors.index.json": [1]}, ""),
        ({"config.json": {}, "model.safetensors.index.json": {"weight_map": 1}}, ""),
        (
            {"config.json": {}, "model.safetensors.index.json": INDEX}
            | {"model-1.safetensors": {}, "model-2.safetensors": {}},
            "",
        ),
        # what S3 lists first are the files of checkpoints, a thousand at a time
        pytest.param(
            {"config.json": {}, "weights.pt": {}, **{f"checkpoint-1/{number}": {} for number in range(1001)}},
            "",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_files_that_no_endpoint_could_load_are_refused_before_one_starts(
    s3: Any, files: dict[str, Any], says: str
) -> None:
    refused = look(put(s3, "odd", **files))["refused"]
    assert says in refused
    assert bool(refused) == bool(says)


ONE, OTHER = "1" * 40, "2" * 40
CHANNEL = "/opt/ml/input/data/model"


@pytest.mark.parametrize(
    ("trained", "served", "says"),
    [
        (("me/base", ONE), ("me/base", ONE), ""),
        (("Me/Base", ""), ("me/base", ONE), ""),
        (("gpt2", ""), ("openai-community/gpt2", ""), ""),
        (("me/base", "main"), ("me/base", ONE), ""),
        ((CHANNEL, ""), ("me/base", ONE), ""),
        (("you/base", ""), ("me/base", ""), "is an adapter of you/base, and the endpoint would load it beside me/base"),
        (("gpt2", ""), ("distilgpt2", ""), "is an adapter of gpt2, and the endpoint would load it beside distilgpt2"),
        (("me/base", OTHER), ("me/base", ONE), f"is an adapter of me/base at {OTHER}, and the endpoint would load it"),
        (("me/base", OTHER), None, ""),
        ((CHANNEL, ""), None, f"is an adapter of {CHANNEL}, which no endpoint can download: merge it in the training"),
    ],
)
def test_an_adapter_is_compared_with_the_base_beside_which_the_endpoint_loads_it(
    s3: Any, trained: tuple[str, str], served: tuple[str, str] | None, says: str
) -> None:
    config = {"base_model_name_or_path": trained[0], "revision": trained[1] or None}
    beside = dict(zip(("Base", "Revision"), served, strict=True)) if served else {}
    refused = look(put(s3, "one", adapter_config__json=config, adapter_model__safetensors=b""), **beside)["refused"]
    assert says in refused
    assert bool(refused) == bool(says)
    whole = put(s3, "two", config__json={}, model__safetensors=b"", adapter_config__json=config)
    assert look(whole, **beside)["refused"] == "", "beside whole weights, an adapter's base is in the same folder"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Me/Base", "me/base", True),
        ("gpt2", "openai-community/gpt2", True),
        ("me/base", "you/base", False),
        ("gpt2", "GPT2", True),
        ("gpt2", "distilgpt2", False),
    ],
)
def test_the_function_and_the_synth_call_the_same_ids_one_model(one: str, other: str, same: bool) -> None:
    assert is_same_model(one, other) is same
    assert gate._names_differ(one, other) is not same


def test_what_the_endpoint_may_not_read_is_refused_before_it_fails_there(s3: Any) -> None:
    for artifact in ("s3://other/models/one/", "nothing", 5, None, ""):
        refused = look(artifact)["refused"]  # type: ignore[arg-type]
        assert refused.startswith(f"{artifact or 'nothing'} is not below {MODELS}")


@pytest.mark.parametrize(
    ("trained", "serving", "refused"),
    [
        ("5.24.0", "5.23.0", False),
        ("5.24.0", "4.51.3", True),
        ("4.51.3", "5.24.0", False),
        ("5.0.0.dev0", "4.57.6", True),
        (None, "4.51.3", False),
        ("unknown", "4.51.3", False),
    ],
)
def test_the_release_that_trained_is_compared_with_the_one_that_serves(
    s3: Any, trained: str | None, serving: str, refused: bool
) -> None:
    artifact = put(s3, "one", config__json={}, extended_dlc_training__json={"transformers": trained})
    refusal = look(artifact, serving)["refused"]
    assert bool(refusal) == refused
    if refused:
        assert f"build the endpoint's image with transformers {trained}" in refusal


@pytest.mark.parametrize("packed", [True, False])
def test_a_bound_accepts_and_refuses_on_its_own_side(s3: Any, packed: bool) -> None:
    output = measured(s3, "one", {"loss": 2.5}, packed=packed)
    assert judge(output, at_most=3.0) == {"accepted": True, "value": 2.5, "refused": ""}
    assert judge(output, at_most=2.5)["accepted"] is True
    refused = judge(output, at_most=2.0)
    assert refused["accepted"] is False
    assert refused["refused"] == "loss is 2.5 and must be at most 2: the endpoint stays as it is"
    assert judge(output, at_least=2.0)["accepted"] is True
    assert "must be at least 3" in judge(output, at_least=3.0)["refused"]


def test_the_new_model_must_not_be_worse_than_the_live_one_but_by_the_margin(s3: Any) -> None:
    new, live = measured(s3, "new", {"loss": 2.5}), measured(s3, "live", {"loss": 2.3})
    assert "worse than the live model's 2.3" in judge(new, live, at_most=3.0, margin=0)["refused"]
    assert judge(new, live, at_most=3.0, margin=0.5)["accepted"] is True
    assert judge(live, new, at_most=3.0)["accepted"] is True
    assert judge(live, measured(s3, "same", {"loss": 2.3}), at_most=3.0, margin=0)["accepted"] is True
    # where larger is better, the larger one is
    assert judge(new, live, at_least=1.0)["accepted"] is True
    assert "by more than 0.1" in judge(live, new, at_least=1.0, margin=0.1)["refused"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"accuracy": 1}, "has no 'loss', but accuracy: name one of those"),
        ({"loss": "0.5"}, "'loss' is \"0.5\", and no number"),
        ({"loss": True}, "'loss' is true, and no number"),
        ({"loss": None}, "'loss' is null, and no number"),
        ({"loss": [0.5]}, "'loss' is [0.5], and no number"),
        (b'{"loss": NaN}', "'loss' is NaN, and no number"),
        (b'{"loss": -Infinity}', "'loss' is -Infinity, and no number"),
        (b'{"loss": 1e999}', "'loss' is Infinity, and no number"),
        (b'{"loss": 1%s}' % (b"0" * 400), "and no number"),
        (b"[" * 100_000, "metrics.json is no JSON"),
        (b"\xff\xfe", "metrics.json is no JSON"),
        (b"", "metrics.json is no JSON"),
        (b"loss: 2", "metrics.json is no JSON"),
        ([1], "has no 'loss', but no object"),
    ],
)
def test_what_is_no_measurement_is_refused_with_what_was_found(s3: Any, content: Any, says: str) -> None:
    found = judge(measured(s3, "one", content), at_most=3.0)
    assert found["accepted"] is False
    assert says in found["refused"]


def test_an_evaluation_that_wrote_nothing_is_told_where_to_write(s3: Any) -> None:
    refusal = judge(f"s3://{BUCKET}/evaluations/none/output/", at_most=3.0)["refused"]
    assert "wrote no metrics.json into /opt/ml/output/data" in refusal


@pytest.mark.parametrize("kind", ["a link to nowhere", "a link", "half an archive", "a folder", "too large"])
def test_an_odd_archive_of_an_evaluation_is_no_failure_of_the_function(s3: Any, kind: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        content = tarfile.TarInfo("data/loss.json")
        content.size = 13
        tar.addfile(content, io.BytesIO(b'{"loss": 2.5}'))
        entry = tarfile.TarInfo("data/metrics.json")
        if "link" in kind:
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname" if "nowhere" in kind else "loss.json"
        elif kind == "a folder":
            entry.type = tarfile.DIRTYPE
        elif kind == "too large":
            entry.size = 2 * gate.LARGEST_BYTES
        tar.addfile(entry, io.BytesIO(b" " * entry.size))
    body = archive.getvalue()
    body = body[: len(body) // 2] if kind == "half an archive" else body
    s3.put_object(Bucket=BUCKET, Key="evaluations/odd/output/output.tar.gz", Body=body)
    found = judge(f"s3://{BUCKET}/evaluations/odd/output/", at_most=3.0)
    assert found["accepted"] == (kind == "a link")
    assert kind == "a link" or "wrote no metrics.json" in found["refused"]


def test_why_an_endpoint_stays_is_the_first_failure_of_the_last_update(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(name: str, status: str, reason: str = "") -> dict[str, str]:
        because = {"ResourceStatusReason": reason} if reason else {}
        return {"StackName": "Bloom", "LogicalResourceId": name, "ResourceStatus": status, **because}

    pages = [
        [
            event("Bloom", "UPDATE_ROLLBACK_IN_PROGRESS"),
            event("Other", "UPDATE_FAILED", "Resource update cancelled"),
        ],
        [
            event("BloomCheck", "CREATE_FAILED", "the endpoint answers with 500"),
            event("Bloom", "UPDATE_IN_PROGRESS", "User Initiated"),
            event("Older", "UPDATE_FAILED", "of another update"),
        ],
    ]

    class CloudFormation:
        def get_paginator(self, name: str) -> CloudFormation:
            assert name == "describe_stack_events"
            return self

        def paginate(self, StackName: str) -> list[dict[str, Any]]:
            return [{"StackEvents": page} for page in pages]

    monkeypatch.setattr(gate.boto3, "client", lambda *_: CloudFormation())
    refusal = gate.handle({"do": "why", "Stack": "Bloom", "Status": "UPDATE_ROLLBACK_IN_PROGRESS"}, None)["refused"]
    assert refusal.endswith("went back: BloomCheck: the endpoint answers with 500")


def test_the_function_and_the_construct_call_an_untrained_model_the_same() -> None:
    assert gate.UNTRAINED == model.UNTRAINED
