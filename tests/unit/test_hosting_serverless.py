"""Serverless hosting: memory, concurrency, archives, and what it does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Annotations, Match

from extended_dlc import (
    DataCapture,
    HubModel,
    InferenceCode,
    MirroredModel,
    Network,
    ProvisionedScaling,
    RealTime,
    S3Model,
    Serverless,
)
from tests.support.hosting import GPU, Json, endpoint_in, properties, statements, variant

ARN = {"Fn::GetAtt": Match.any_value()}


def test_a_serverless_endpoint_has_memory_and_concurrency_and_no_instances(stack: Stack) -> None:
    endpoint_in(stack, hosting=Serverless(memory_mb=4096, max_concurrency=10, provisioned_concurrency=2))
    assert variant(stack) == {
        "VariantName": "AllTraffic",
        "ModelName": {"Fn::GetAtt": ["BloomModelFD5979C8", "ModelName"]},
        "InitialVariantWeight": 1,
        "ServerlessConfig": {"MemorySizeInMB": 4096, "MaxConcurrency": 10, "ProvisionedConcurrency": 2},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_mb": 8192}, r"'memory_mb' \(8192\) must be from 1024 to 6144: a model that needs more runs on inst"),
        ({"memory_mb": 3000}, r"'memory_mb' \(3000\) must be a multiple of 1024"),
        ({"max_concurrency": 201}, r"'max_concurrency' \(201\) must be from 1 to 200"),
        ({"max_concurrency": 2, "provisioned_concurrency": 3}, r"'provisioned_concurrency' \(3\) must be from 1 to 2"),
        ({"scaling": ProvisionedScaling(maximum=2)}, "there is none: set provisioned_concurrency"),
        (
            {"provisioned_concurrency": 1, "scaling": ProvisionedScaling(maximum=9)},
            r"'scaling.maximum' \(9\) must be from 1 to 5: raise max_concurrency",
        ),
    ],
)
def test_serverless_hosting_that_cannot_be_is_refused(options: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Serverless(**options)


def test_what_serverless_endpoints_do_not_have_is_refused_with_the_way_out(stack: Stack) -> None:
    vpc = ec2.Vpc(stack, "Vpc")
    weights = S3Model(s3.Bucket.from_bucket_name(stack, "Weights", "weights"), "bloom/")
    for construct_id, option, given, what in (
        ("A", "network", {"network": Network(vpc=vpc)}, "a VPC"),
        ("B", "network_isolation", {"network_isolation": True}, "network isolation"),
        ("C", "data_capture", {"data_capture": DataCapture()}, "data capture"),
    ):
        with pytest.raises(
            ValueError, match=f"'{option}' does not go with Serverless, which has not {what}: take Real"
        ):
            endpoint_in(stack, construct_id, hosting=Serverless(), **given)
    with pytest.raises(ValueError, match=r"'model' \(files in S3 as they are\) .*into a \.tar\.gz.*HubModel"):
        endpoint_in(stack, "D", hosting=Serverless(), model=weights)
    with pytest.raises(ValueError, match=r"\(serverless\) computes with cpu and the image is built for gpu"):
        endpoint_in(stack, "E", hosting=Serverless(), base=GPU)


def archives(stack: Stack, folder: Path) -> dict[str, Any]:
    """Models that bring an archive, each in the way of its own."""
    (folder / "config.json").write_text("{}")
    bucket = s3.Bucket.from_bucket_name(stack, "Archives", "archives")
    return {
        "in-s3": S3Model(bucket, "bert/model.tar.gz"),
        "a-local-folder": S3Model.from_local(str(folder)),
        "code-beside-the-hub": HubModel("bloom", "a" * 40, code=InferenceCode(requirements=["pydub"])),
    }


@pytest.mark.parametrize("kind", ["in-s3", "a-local-folder", "code-beside-the-hub"])
def test_a_serverless_endpoint_gets_an_archive_by_its_address(stack: Stack, tmp_path: Path, kind: str) -> None:
    endpoint_in(stack, hosting=Serverless(), model=archives(stack, tmp_path)[kind])
    container = properties(stack, "AWS::SageMaker::Model")["PrimaryContainer"]
    assert "ModelDataSource" not in container
    url = container["ModelDataUrl"]
    assert (url if isinstance(url, str) else url["Fn::Join"][1][-1]).endswith(".tar.gz")
    assert "s3:GetObject" in json.dumps(statements(stack))


def test_instances_get_an_archive_as_before(stack: Stack, tmp_path: Path) -> None:
    endpoint_in(stack, hosting=RealTime(), model=archives(stack, tmp_path)["in-s3"])
    container = properties(stack, "AWS::SageMaker::Model")["PrimaryContainer"]
    assert container["ModelDataSource"]["S3DataSource"]["S3Uri"] == "s3://archives/bert/model.tar.gz"
    assert "ModelDataUrl" not in container


def test_a_mirrored_model_is_refused_as_what_it_is_and_not_for_its_isolation(stack: Stack) -> None:
    mirrored = MirroredModel(stack, "Weights", model="bloom", revision="a" * 40)
    with pytest.raises(ValueError, match=r"'model' \(files in S3 as they are\) does not go with Serverless"):
        endpoint_in(stack, hosting=Serverless(), model=mirrored)


def test_that_nothing_is_known_of_a_serverless_images_size_is_said(stack: Stack) -> None:
    endpoint_in(stack, hosting=Serverless())
    said = Match.string_like_regexp("images of 10 GB at most, and nothing is known of this one's size")
    Annotations.from_stack(stack).has_warning("/Test/Bloom", said)
