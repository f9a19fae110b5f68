"""Endpoints of an embedded AWS, created as a client does."""

from __future__ import annotations

from typing import Any

from tests.support.embedded import ACCOUNT, Aws, Image, uri, wait_for

ROLE = f"arn:aws:iam::{ACCOUNT}:role/execution"


def image(aws: Aws, name: str) -> str:
    """A pushed image, as a model names it."""
    repositories = aws.client("ecr").describe_repositories()["repositories"]
    if name not in [each["repositoryName"] for each in repositories]:
        aws.client("ecr").create_repository(repositoryName=name)
        Image(name).push(aws, name, "v1")
    return uri(name, "v1")


def configuration(aws: Aws, name: str, **options: Any) -> str:
    """A model and its configuration, both of this name; options are the role, environment or the variant's."""
    variant = {key: options.pop(key) for key in list(options) if key[0].isupper() and key[1].islower()}
    role = options.pop("role", ROLE)
    rest = {key: variant.pop(key) for key in ("AsyncInferenceConfig", "DataCaptureConfig") if key in variant}
    container: dict[str, Any] = {"Image": image(aws, "served"), "Environment": options}
    if data := variant.pop("ModelDataUrl", None):
        container["ModelDataUrl"] = data
    sagemaker = aws.client("sagemaker", parameter_validation=False)
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    production = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": "ml.m5.xlarge",
        "InitialInstanceCount": 1,
        **variant,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[production], **rest)
    return name


def endpoint(aws: Aws, name: str, **options: Any) -> dict[str, Any]:
    """An endpoint that has come up, or not."""
    config = configuration(aws, name, **options)
    aws.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=config)
    return settled(aws, name)


def endpoint_of_components(aws: Aws, name: str) -> None:
    """An endpoint that hosts inference components, without one yet."""
    sagemaker = aws.client("sagemaker")
    variant = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ExecutionRoleArn=ROLE, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    settled(aws, name)


def component(aws: Aws, name: str, *, on: str, model: str) -> None:
    """One copy of a model on such an endpoint."""
    aws.client("sagemaker").create_inference_component(
        InferenceComponentName=name,
        EndpointName=on,
        VariantName="AllTraffic",
        Specification={"ModelName": model, "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1024}},
        RuntimeConfig={"CopyCount": 1},
    )


def settled(aws: Aws, name: str) -> dict[str, Any]:
    sagemaker = aws.client("sagemaker")
    wait_for(lambda: not sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"].endswith("ing"))
    described: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
    return described


def answer(aws: Aws, name: str, body: bytes = b"{}") -> str:
    got = aws.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body)
    return str(got["Body"].read().decode())
