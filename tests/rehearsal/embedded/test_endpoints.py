"""SageMaker: refusals, stored requests, and the life of an endpoint's container."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.support.embedded import INDEX, OCI, Aws, Image, digest, uri, wait_for
from tests.support.endpoints import ROLE, answer, configuration, endpoint, image, settled

# refusals


def test_a_model_with_an_absent_image_is_refused(aws: Aws) -> None:
    absent = uri("no-such-repository", "v1")
    with pytest.raises(ClientError, match=f"Requested image {absent} not found"):
        aws.client("sagemaker").create_model(
            ModelName="absent-image", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": absent}
        )
    present = image(aws, "served")
    with pytest.raises(ClientError, match="not found"):
        aws.client("sagemaker").create_model(
            ModelName="absent-tag", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": present.replace(":v1", ":v2")}
        )


def test_a_model_with_an_oci_manifest_or_index_is_refused(aws: Aws) -> None:
    aws.client("ecr").create_repository(repositoryName="oci-model")
    child = Image("oci-model", OCI)
    child.push(aws, "oci-model", "manifest")
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{"digest": digest(child.manifest), "mediaType": OCI}],
    }
    aws.request("PUT", "/v2/oci-model/manifests/index", json.dumps(index), {"Content-Type": INDEX})
    for tag, kind in (("manifest", OCI), ("index", INDEX)):
        named = uri("oci-model", tag)
        with pytest.raises(ClientError) as caught:
            aws.client("sagemaker").create_model(
                ModelName="oci-model", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": named}
            )
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        assert f"Unsupported manifest media type {kind} for image {named}" in str(caught.value)


def test_a_serverless_endpoint_takes_model_data_by_its_address_alone(aws: Aws) -> None:
    aws.client("s3").create_bucket(Bucket="serverless-data")
    aws.client("s3").put_object(Bucket="serverless-data", Key="model.tar.gz", Body=b"x")
    url, sagemaker = "s3://serverless-data/model.tar.gz", aws.client("sagemaker")
    source = {"S3DataSource": {"S3Uri": url, "S3DataType": "S3Object", "CompressionType": "Gzip"}}
    for name, data in (("by-source", {"ModelDataSource": source}), ("by-url", {"ModelDataUrl": url})):
        container = {"Image": image(aws, "served"), **data}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)

    def configure(name: str) -> None:
        serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
        variant = {"VariantName": "AllTraffic", "ModelName": name, "ServerlessConfig": serverless}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])

    with pytest.raises(ClientError, match="ModelDataSource of model by-source is not supported by serverless"):
        configure("by-source")
    configure("by-url")


@pytest.mark.parametrize(("region", "refused"), [("eu-west-3", True), ("us-east-1", False)])
def test_no_instance_is_refused_in_the_regions_that_refuse_it(aws: Aws, region: str, refused: bool) -> None:
    managed = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 1}
    variant = {"VariantName": "A", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    sagemaker = boto3.client(
        *("sagemaker", region), endpoint_url=aws.url, aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    expected = pytest.raises(ClientError, match="Min instance count needs to be greater") if refused else nullcontext()
    with expected:
        sagemaker.create_endpoint_config(
            EndpointConfigName="to-zero",
            ExecutionRoleArn=ROLE,
            ProductionVariants=[{**variant, "ManagedInstanceScaling": managed}],
        )


def test_an_image_of_another_account_or_registry_is_taken_as_it_is(aws: Aws) -> None:
    for number, other in enumerate(("763104351884.dkr.ecr.us-east-1.amazonaws.com/dlc:1", "public.ecr.aws/x/y:1")):
        aws.client("sagemaker").create_model(
            ModelName=f"other-{number}", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": other}
        )


def test_an_update_of_a_missing_endpoint_is_refused(aws: Aws) -> None:
    config = configuration(aws, "update-missing")
    with pytest.raises(ClientError, match=r'Could not find endpoint "arn:aws:sagemaker:.*:endpoint/missing"'):
        aws.client("sagemaker").update_endpoint(EndpointName="missing", EndpointConfigName=config)


def test_an_endpoint_of_a_missing_configuration_and_names_twice_are_refused(aws: Aws) -> None:
    sagemaker = aws.client("sagemaker")
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.create_endpoint(EndpointName="x", EndpointConfigName="missing")
    configuration(aws, "twice")
    with pytest.raises(ClientError, match="Cannot create already existing model"):
        configuration(aws, "twice")


def test_an_unknown_instance_type_is_refused_and_a_new_one_is_not(aws: Aws) -> None:
    configuration(aws, "new-type", InstanceType="ml.g6e.xlarge")
    with pytest.raises(ClientError, match=r"ml\.g66\.xlarge"):
        configuration(aws, "no-type", InstanceType="ml.g66.xlarge")


def test_a_scaled_variant_keeps_its_instance_type(aws: Aws) -> None:
    endpoint(aws, "scaled")
    aws.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/scaled/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=2,
    )
    sagemaker = aws.client("sagemaker")
    other = configuration(aws, "scaled-other", InstanceType="ml.m5.2xlarge")
    with pytest.raises(ClientError, match=r"cannot change from ml.m5.xlarge to ml.m5.2xlarge"):
        sagemaker.update_endpoint(EndpointName="scaled", EndpointConfigName=other)
    same = configuration(aws, "scaled-same", GREETING="again")
    sagemaker.update_endpoint(EndpointName="scaled", EndpointConfigName=same)
    assert settled(aws, "scaled")["EndpointConfigName"] == same


# stored requests


def test_an_update_puts_the_count_back_unless_it_retains_it(aws: Aws) -> None:
    endpoint(aws, "counted")
    sagemaker = aws.client("sagemaker")

    def scale(**desired: float | str) -> None:
        given = {"VariantName": "AllTraffic", **desired}
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="counted", DesiredWeightsAndCapacities=[given])

    def updated(config: str, **options: Any) -> tuple[int, float]:
        sagemaker.update_endpoint(EndpointName="counted", EndpointConfigName=configuration(aws, config), **options)
        (variant,) = settled(aws, "counted")["ProductionVariants"]
        return variant["CurrentInstanceCount"], variant["CurrentWeight"]

    scale(DesiredInstanceCount=3, DesiredWeight=0.5)
    left_out = [{"VariantPropertyType": "DesiredWeight"}]
    retained = updated("counted-2", RetainAllVariantProperties=True, ExcludeRetainedVariantProperties=left_out)
    assert retained == (3, 1)
    scale(DesiredWeight=0.5)
    assert updated("counted-3", RetainAllVariantProperties=True) == (3, 0.5)
    assert updated("counted-4") == (1, 1)
    with pytest.raises(ClientError, match=r"Small.* not present within endpoint configuration"):
        scale(VariantName="Small", DesiredInstanceCount=2)


def test_descriptions_give_back_what_was_given(aws: Aws) -> None:
    sagemaker = aws.client("sagemaker")
    vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    sagemaker.create_model(
        ModelName="kept",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": image(aws, "served"), "Environment": {"A": "1"}},
        EnableNetworkIsolation=True,
        VpcConfig=vpc,
    )
    model = sagemaker.describe_model(ModelName="kept")
    assert (model["EnableNetworkIsolation"], model["VpcConfig"]) == (True, vpc)
    assert (model["ExecutionRoleArn"], model["PrimaryContainer"]["Environment"]) == (ROLE, {"A": "1"})
    variant = {
        "VariantName": "v",
        "ModelName": "kept",
        "InstanceType": "ml.g6.xlarge",
        "InitialInstanceCount": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": 900,
        "InferenceAmiVersion": "al2-ami-sagemaker-inference-gpu-3-1",
    }
    sagemaker.create_endpoint_config(
        EndpointConfigName="kept",
        ProductionVariants=[variant],
        ShadowProductionVariants=[{**variant, "VariantName": "shadow"}],
        ExecutionRoleArn=ROLE,
        VpcConfig=vpc,
        EnableNetworkIsolation=True,
    )
    config = sagemaker.describe_endpoint_config(EndpointConfigName="kept")
    assert config["ProductionVariants"] == [variant]
    assert config["ShadowProductionVariants"][0]["VariantName"] == "shadow"
    assert (config["ExecutionRoleArn"], config["VpcConfig"], config["EnableNetworkIsolation"]) == (ROLE, vpc, True)


# containers


def test_an_endpoint_runs_the_image_by_digest_and_says_which(aws: Aws) -> None:
    described = endpoint(aws, "by-digest", GREETING="hello")
    assert described["EndpointStatus"] == "InService"
    deployed = described["ProductionVariants"][0]["DeployedImages"][0]
    resolved = digest(Image("served").manifest)
    assert deployed["SpecifiedImage"] == uri("served", "v1")
    assert deployed["ResolvedImage"] == f"{uri('served', 'v1').removesuffix(':v1')}@{resolved}"
    assert [f"127.0.0.1:{aws.port}/served@{resolved}"] in [call[-1:] for call in aws.engine_calls("pull")]
    run = next(call for call in aws.engine_calls("run") if "--env=GREETING=hello" in call)
    assert run[-2:] == [f"127.0.0.1:{aws.port}/served@{resolved}", "serve"]
    assert {"--network=host", "--env=PLATFORM=embedded"} <= set(run)
    assert answer(aws, "by-digest").startswith("hello ")


def test_the_models_environment_wins_over_the_platforms(aws: Aws) -> None:
    endpoint(aws, "own-environment", PLATFORM="mine")
    assert any("--env=PLATFORM=mine" in call for call in aws.engine_calls("run"))
    assert not any({"--env=PLATFORM=mine", "--env=PLATFORM=embedded"} <= set(call) for call in aws.engine_calls("run"))


def test_an_endpoint_is_creating_until_its_container_answers_pings(aws: Aws) -> None:
    sagemaker = aws.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="loading", EndpointConfigName=configuration(aws, "loading", LOADING="1.5"))
    assert sagemaker.describe_endpoint(EndpointName="loading")["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError, match=r"Endpoint loading of account 123456789012 not found."):
        answer(aws, "loading")
    assert settled(aws, "loading")["EndpointStatus"] == "InService"


def test_a_container_that_exits_makes_the_endpoint_fail_with_its_last_words(aws: Aws) -> None:
    started = time.monotonic()
    described = endpoint(aws, "crashing", BEHAVIOUR="crash")
    assert time.monotonic() - started < 10
    assert described["EndpointStatus"] == "Failed"
    reason = described["FailureReason"]
    assert reason.startswith("The primary container for production variant AllTraffic did not pass the ping health")
    assert "exited with code 1" in reason
    assert "cannot load the model: out of luck" in reason
    log = Path(next(word for word in reason.split() if word.endswith(".log")))
    assert log.parent == aws.state / "logs"
    assert "serving with ['serve']" in log.read_text()
    assert str(log) not in aws.left()["containers"]


@pytest.mark.parametrize(("behaviour", "last"), [("never-ready", "503"), ("slow-ping", "no answer in 2 s")])
def test_a_container_that_is_never_healthy_fails_in_the_variants_time(
    start_aws: Callable[..., Aws], behaviour: str, last: str
) -> None:
    # the API's minimum is 60 s, which is too long for a test: `--faster=20` shortens it to 3 s
    fresh = start_aws("--engine", "--faster=20")
    described = endpoint(fresh, behaviour, BEHAVIOUR=behaviour, ContainerStartupHealthCheckTimeoutInSeconds=60)
    assert described["EndpointStatus"] == "Failed"
    assert f"The last /ping within 3 s: {last}" in described["FailureReason"]


def test_an_image_that_cannot_be_pulled_makes_the_endpoint_fail(aws: Aws) -> None:
    sagemaker = aws.client("sagemaker")
    gone = image(aws, "soon-gone")
    sagemaker.create_model(ModelName="soon-gone", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": gone})
    variant = {"VariantName": "v", "ModelName": "soon-gone", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="soon-gone", ProductionVariants=[variant])
    aws.client("ecr").delete_repository(repositoryName="soon-gone", force=True)
    sagemaker.create_endpoint(EndpointName="soon-gone", EndpointConfigName="soon-gone")
    described = settled(aws, "soon-gone")
    assert described["EndpointStatus"] == "Failed"
    assert f"The image '{gone}' cannot be pulled" in described["FailureReason"]


def test_an_update_switches_to_a_healthy_container_and_stops_the_old_one(aws: Aws) -> None:
    endpoint(aws, "switched", GREETING="old")
    sagemaker = aws.client("sagemaker")
    new = configuration(aws, "switched-new", GREETING="new", LOADING="1.5")
    sagemaker.update_endpoint(EndpointName="switched", EndpointConfigName=new)
    assert sagemaker.describe_endpoint(EndpointName="switched")["EndpointStatus"] == "Updating"
    assert answer(aws, "switched").startswith("old ")
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.update_endpoint(EndpointName="switched", EndpointConfigName=new)
    assert settled(aws, "switched")["EndpointConfigName"] == new
    assert answer(aws, "switched").startswith("new ")
    wait_for(lambda: len([log for log in aws.left()["containers"] if "/switched." in log]) == 1)


def test_a_failed_update_leaves_the_old_container_serving(aws: Aws) -> None:
    endpoint(aws, "kept-serving", GREETING="old")
    bad = configuration(aws, "kept-serving-bad", BEHAVIOUR="crash")
    aws.client("sagemaker").update_endpoint(EndpointName="kept-serving", EndpointConfigName=bad)
    described = settled(aws, "kept-serving")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "kept-serving")
    assert "out of luck" in described["FailureReason"]
    assert answer(aws, "kept-serving").startswith("old ")


def test_a_deleted_endpoint_leaves_no_container(aws: Aws) -> None:
    endpoint(aws, "deleted")
    assert any("/deleted." in log for log in aws.left()["containers"])
    aws.client("sagemaker").delete_endpoint(EndpointName="deleted")
    wait_for(lambda: "deleted" not in aws.left()["endpoints"])
    assert not any("/deleted." in log for log in aws.left()["containers"])
    name = next(a for call in aws.engine_calls("run") for a in call if a.startswith("--name=")).removeprefix("--name=")
    assert name.startswith("extended-dlc-")
    removed = [call[-1] for call in aws.engine_calls("rm")]
    assert aws.engine_calls("stop")[-1][-1] in removed
    with pytest.raises(ClientError, match="Could not find endpoint"):
        aws.client("sagemaker").delete_endpoint(EndpointName="deleted")


def test_model_data_is_unpacked_where_the_container_looks_for_it(aws: Aws) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"pass"))
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="model.tar.gz", Body=archive.getvalue())
    endpoint(aws, "with-data", ModelDataUrl="s3://models/model.tar.gz")
    volume = next(a for call in aws.engine_calls("run") for a in call if a.startswith("--volume="))
    folder, inside = volume.removeprefix("--volume=").split(":")
    assert inside == "/opt/ml/model"
    assert (Path(folder) / "code" / "inference.py").read_text() == "pass"
    with pytest.raises(ClientError, match="Could not find model data"):
        configuration(aws, "without-data", ModelDataUrl="s3://models/other.tar.gz")


def test_model_data_that_leaves_its_folder_is_refused(aws: Aws) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO(b""))
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="escaping")
    s3.put_object(Bucket="escaping", Key="model.tar.gz", Body=archive.getvalue())
    described = endpoint(aws, "escaping", ModelDataUrl="s3://escaping/model.tar.gz")
    assert described["EndpointStatus"] == "Failed"
    assert "Failed to extract model data" in described["FailureReason"]
    assert not (aws.state / "escaped").exists()


def test_without_an_engine_an_endpoint_is_in_service_and_says_why_it_does_not_answer(
    start_aws: Callable[..., Aws],
) -> None:
    plain = start_aws()
    assert endpoint(plain, "plain")["EndpointStatus"] == "InService"
    with pytest.raises(ClientError, match="runs without a container engine"):
        answer(plain, "plain")


def test_the_end_of_the_process_is_the_end_of_its_containers(start_aws: Callable[..., Aws]) -> None:
    fresh = start_aws("--engine")
    endpoint(fresh, "ended")
    port = next(a for call in fresh.engine_calls("run") for a in call if a.startswith("--env=SAGEMAKER_BIND_TO_PORT="))
    assert fresh.stop() == 0
    assert len(fresh.engine_calls("stop")) == 1
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port.rsplit("=", 1)[1]))) != 0
    assert not (fresh.state / "ready.json").exists()
