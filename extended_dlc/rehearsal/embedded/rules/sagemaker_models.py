"""Rules of SageMaker's models: their containers, environment and model data."""

from __future__ import annotations

from extended_dlc.facts.limits import limit
from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import API, Rule, World
from extended_dlc.rehearsal.embedded.rules._requests import containers_of


def _prefix(world: World, given: Parameters) -> str | None:
    for container in containers_of(given):
        source = container.get("ModelDataSource", {}).get("S3DataSource", {})
        if source.get("S3DataType") == "S3Prefix" and not source.get("S3Uri", "").endswith("/"):
            return f"S3Uri {source.get('S3Uri')} of S3DataType S3Prefix must end with a forward slash (/)."
        if source.get("S3DataType") == "S3Prefix" and source.get("CompressionType") == "Gzip":
            return "CompressionType Gzip is not allowed for S3DataType S3Prefix: use S3Object."
    return None


def _environment(world: World, given: Parameters) -> str | None:
    sizes = [
        len(key.encode()) + len(value.encode())
        for container in containers_of(given)
        for key, value in container.get("Environment", {}).items()
    ]
    most = int(limit("environment.total_bytes").max or 0)
    return f"The environment variables have {sum(sizes)} bytes: the limit is {most}." if sum(sizes) > most else None


def _one_or_more(world: World, given: Parameters) -> str | None:
    if bool(given.get("PrimaryContainer")) == bool(given.get("Containers")):
        return "Specify either PrimaryContainer or Containers, and not both."
    return None


def _container_names(world: World, given: Parameters) -> str | None:
    containers = list(given.get("Containers", ()))
    names = [each["ContainerHostname"] for each in containers if each.get("ContainerHostname")]
    if names and len(names) < len(containers):
        return "Specify a ContainerHostname for every container of the model, or for none."
    if len(set(names)) < len(names):
        return f"The ContainerHostname of each container must be unique: {', '.join(names)}."
    direct = given.get("InferenceExecutionConfig", {}).get("Mode") == "Direct"
    return "Specify a ContainerHostname for every container: the Mode is Direct." if direct and not names else None


def _several_models(world: World, given: Parameters) -> str | None:
    if any(each.get("Mode") == "MultiModel" and each.get("ModelDataSource") for each in containers_of(given)):
        return "ModelDataSource is not supported for containers of Mode MultiModel."
    return None


RULES: tuple[Rule, ...] = (
    Rule(
        name="model data's form",
        operations=("sagemaker:CreateModel",),
        refuses="a prefix that does not end in a slash, or is said to be compressed",
        source=API + "S3ModelDataSource S3DataType, CompressionType",
        check=_prefix,
        own_words=True,
    ),
    Rule(
        name="size of the environment",
        operations=("sagemaker:CreateModel",),
        refuses="environment variables of more than 32 KB in all",
        source=API + "ContainerDefinition Environment",
        check=_environment,
        own_words=True,
    ),
    Rule(
        name="one kind of containers",
        operations=("sagemaker:CreateModel",),
        refuses="a model with PrimaryContainer and Containers, or with neither",
        source=API + "CreateModel PrimaryContainer, Containers",
        check=_one_or_more,
        own_words=True,
    ),
    Rule(
        name="names of containers",
        operations=("sagemaker:CreateModel",),
        refuses="containers of which only some have a name, two of one name, and no names where the Mode is Direct",
        source=API + "ContainerDefinition ContainerHostname; InferenceExecutionConfig Mode",
        check=_container_names,
        own_words=True,
    ),
    Rule(
        name="data of several models",
        operations=("sagemaker:CreateModel",),
        refuses="ModelDataSource of a container of Mode MultiModel",
        source=API + "ContainerDefinition ModelDataSource",
        check=_several_models,
        own_words=True,
    ),
)
