"""Rules about what a request names elsewhere: buckets, objects, keys, endpoints and images that must exist."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from extended_dlc.rehearsal.embedded import components
from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.references import EcrReference
from extended_dlc.rehearsal.embedded.rule import API, Rule, World, place_of
from extended_dlc.rehearsal.embedded.rules._requests import containers_of

# objects and buckets


def _model_places(given: Parameters) -> Iterator[str]:
    """The S3 URLs that a model's or a component's containers are loaded from."""
    inner = given.get("Specification", {}).get("Container")
    for container in [inner] if inner else containers_of(given):
        sources = [container.get("ModelDataSource", {}), *container.get("AdditionalModelDataSources", ())]
        urls = [each.get("S3DataSource", {}).get("S3Uri") for each in sources]
        yield from filter(None, [container.get("ModelDataUrl"), container.get("ArtifactUrl"), *urls])


def _model_data(world: World, given: Parameters) -> str | None:
    for url in _model_places(given):
        if not world.has_object(url):
            return f"Could not find model data at {url}."
    return None


def _channels(given: Parameters) -> Iterator[tuple[Parameters, Parameters]]:
    """Each channel of a training job that is in S3, and its source."""
    for channel in given.get("InputDataConfig", ()):
        if source := channel.get("DataSource", {}).get("S3DataSource"):
            yield channel, source


def _training_data(world: World, given: Parameters) -> str | None:
    for _, source in _channels(given):
        url = source["S3Uri"]
        if not (world.has_objects(url) if source["S3DataType"] == "S3Prefix" else world.has_object(url)):
            return (
                f'No S3 objects found under S3 URL "{url}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({world.region}), that objects exist under that S3 prefix, and that "
                f'the role "{given["RoleArn"]}" has "s3:ListBucket" permissions on bucket "{place_of(url)[0]}".'
            )
    return None


def _manifests(world: World, given: Parameters) -> str | None:
    whole = given.get("AlgorithmSpecification", {}).get("TrainingInputMode")
    for channel, source in _channels(given):
        mode = channel.get("InputMode", whole)
        if source["S3DataType"] == "AugmentedManifestFile" and mode != "Pipe":
            return f"AugmentedManifestFile of channel {channel['ChannelName']} needs the input mode Pipe: it is {mode}."
    return None


_WRITTEN = (
    "AsyncInferenceConfig.OutputConfig.S3OutputPath",
    "AsyncInferenceConfig.OutputConfig.S3FailurePath",
    "DataCaptureConfig.DestinationS3Uri",
    "OutputDataConfig.S3OutputPath",
    "CheckpointConfig.S3Uri",
    "TensorBoardOutputConfig.S3OutputPath",
    "DebugHookConfig.S3OutputPath",
)
"""Where SageMaker writes."""


def _values(given: Parameters, paths: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The members at these paths that a request has, with their paths."""
    for path in paths:
        value: Any = given
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, str) and value:
            yield path, value


def _output_buckets(world: World, given: Parameters) -> str | None:
    for _, url in _values(given, _WRITTEN):
        if not world.has_bucket(url):
            return f"The specified bucket does not exist: {url}."
    return None


def _same_region(world: World, given: Parameters) -> str | None:
    for url in (*_model_places(given), *(source["S3Uri"] for _, source in _channels(given))):
        bucket = world.bucket(url)
        if bucket is not None and bucket.region_name != world.region:
            return f"The bucket of {url} is in {bucket.region_name}: it must be in {world.region}."
    images = [each.get("Image") for each in containers_of(given)]
    images.append(given.get("AlgorithmSpecification", {}).get("TrainingImage"))
    for image in filter(None, images):
        reference = EcrReference.parse(image, port=0)
        if reference is not None and reference.region not in (None, world.region):
            return f"The image {image} is in {reference.region}: it must be in {world.region}."
    return None


# keys

_ENCRYPTED = (
    "KmsKeyId",
    "AsyncInferenceConfig.OutputConfig.KmsKeyId",
    "DataCaptureConfig.KmsKeyId",
    "OutputDataConfig.KmsKeyId",
    "ResourceConfig.VolumeKmsKeyId",
    "KmsKeyArn",
    "encryptionConfiguration.kmsKey",
    "encryptionConfiguration.kmsKeyId",
)
"""Where requests name the key of something that a service encrypts."""


def _keys(world: World, given: Parameters) -> str | None:
    for path, key in _values(given, _ENCRYPTED):
        if fault := world.fault_of_key(key):
            return f"{path} {key} cannot be used: {fault}"
    return None


def _repository_key(world: World, given: Parameters) -> str | None:
    encryption = given.get("encryptionConfiguration", {})
    if encryption.get("kmsKey") and encryption.get("encryptionType") == "AES256":
        return "Invalid parameter at 'encryptionConfiguration': a kmsKey needs the encryption type KMS or KMS_DSSE."
    return None


def _alias(world: World, given: Parameters) -> str | None:
    fault = world.fault_of_key(given["TargetKeyId"])
    return None if fault is None or fault.endswith("is disabled.") else fault


def _alias_name(world: World, given: Parameters) -> str | None:
    name = given["AliasName"]
    return f"{name} is reserved for keys of AWS." if name.startswith("alias/aws/") else None


# what is scaled

_SCALED = re.compile(
    r"endpoint/(?P<endpoint>[^/]+)/variant/(?P<variant>[^/]+)|inference-component/(?P<component>[^/]+)"
)


def _scaled(world: World, given: Parameters) -> str | None:
    if given["ServiceNamespace"] != "sagemaker":
        return None
    resource = given["ResourceId"]
    found = _SCALED.fullmatch(resource)
    if found is None:
        return f"ResourceId {resource} must be endpoint/NAME/variant/NAME or inference-component/NAME."
    if component := found["component"]:
        return None if components.exists(world.sagemaker, component) else f"Inference component {component} not found."
    endpoint = world.sagemaker.endpoints.get(found["endpoint"])
    if endpoint is None:
        return f"Endpoint {found['endpoint']} of {resource} not found."
    names = [each["VariantName"] for each in world.variants_of(endpoint.endpoint_config_name)]
    if found["variant"] in names:
        return None
    return f"Variant {found['variant']} of {resource} not found: the endpoint has {', '.join(names)}."


def _adapter(world: World, given: Parameters) -> str | None:
    asked = given.get("Specification", {})
    base = asked.get("BaseInferenceComponentName")
    if not base:
        return None
    if not components.exists(world.sagemaker, base):
        return f"Could not find base inference component {base}."
    if asked.get("ComputeResourceRequirements"):
        return "ComputeResourceRequirements is not allowed for an adapter: it uses those of its base component."
    if not asked.get("Container", {}).get("ArtifactUrl"):
        return "An adapter needs the ArtifactUrl of its Container."
    return None


# the table

_JOB = ("sagemaker:CreateTrainingJob",)

RULES: tuple[Rule, ...] = (
    Rule(
        name="model data exists",
        operations=("sagemaker:CreateModel", "sagemaker:CreateInferenceComponent"),
        refuses="model data, further data and a component's artifact that are not in S3",
        source="aws/sagemaker-python-sdk, issues: 'Could not find model data at s3://…'",
        check=_model_data,
    ),
    Rule(
        name="training data exists",
        operations=_JOB,
        refuses="a channel under whose prefix there is no object, or whose bucket is not there",
        source="aws/amazon-sagemaker-examples#2489, #2267: the words, at CreateTrainingJob",
        check=_training_data,
    ),
    Rule(
        name="augmented manifests",
        operations=_JOB,
        refuses="an augmented manifest in another input mode than Pipe",
        source=API + "S3DataSource S3DataType",
        check=_manifests,
        own_words=True,
    ),
    Rule(
        name="buckets exist",
        operations=("sagemaker:CreateEndpointConfig", *_JOB),
        refuses="a queue's answers, captured data, a training's results or its checkpoints in a bucket that is not "
        "there",
        source=API + "AsyncInferenceOutputConfig, DataCaptureConfig, OutputDataConfig, CheckpointConfig: SageMaker "
        "writes there",
        check=_output_buckets,
        own_words=True,
    ),
    Rule(
        name="one region",
        operations=("sagemaker:CreateModel", *_JOB),
        refuses="model data, training data or an image of ECR in another region",
        source=API + "ContainerDefinition Image, ModelDataUrl: must be in the same region as the model or endpoint; "
        "S3DataSource: in the same region as your training job",
        check=_same_region,
        own_words=True,
    ),
    Rule(
        name="keys can be used",
        operations=(
            "sagemaker:CreateEndpointConfig",
            *_JOB,
            "scheduler:CreateSchedule",
            "scheduler:UpdateSchedule",
            "stepfunctions:CreateStateMachine",
            "stepfunctions:UpdateStateMachine",
        ),
        refuses="a key of the account that does not exist, is disabled or is pending deletion",
        source="KMS developer guide, key states of KMS keys; KMS API reference, GenerateDataKey NotFoundException, "
        "DisabledException, KMSInvalidStateException",
        check=_keys,
        own_words=True,
    ),
    Rule(
        name="a repository's key",
        operations=("ecr:CreateRepository",),
        refuses="a key of the account that does not exist, is disabled or is pending deletion",
        source="ECR API reference, CreateRepository KmsException; EncryptionConfiguration kmsKey",
        check=_keys,
        code="KmsException",
        own_words=True,
    ),
    Rule(
        name="a repository's encryption",
        operations=("ecr:CreateRepository",),
        refuses="a key beside the encryption AES256",
        source="ECR API reference, EncryptionConfiguration encryptionType, kmsKey",
        check=_repository_key,
        code="InvalidParameterException",
        own_words=True,
    ),
    Rule(
        name="an alias's key",
        operations=("kms:CreateAlias", "kms:UpdateAlias"),
        refuses="an alias of a key that does not exist or is pending deletion",
        source="KMS API reference, CreateAlias TargetKeyId: a valid key ID is required; NotFoundException",
        check=_alias,
        code="NotFoundException",
        own_words=True,
    ),
    Rule(
        name="an alias's name",
        operations=("kms:CreateAlias", "kms:UpdateAlias"),
        refuses="a name that begins with alias/aws/",
        source="KMS API reference, CreateAlias AliasName",
        check=_alias_name,
        code="NotAuthorizedException",
        own_words=True,
    ),
    Rule(
        name="what is scaled exists",
        operations=("application-autoscaling:RegisterScalableTarget",),
        refuses="an endpoint, a variant or an inference component that is not there",
        source="Application Auto Scaling API reference, RegisterScalableTarget ResourceId: the resource that you want "
        "to scale",
        check=_scaled,
        own_words=True,
    ),
    Rule(
        name="an adapter",
        operations=("sagemaker:CreateInferenceComponent",),
        refuses="an adapter whose base component is not there, that asks for resources, or has no artifact",
        source=API + "InferenceComponentSpecification BaseInferenceComponentName, ComputeResourceRequirements",
        check=_adapter,
        own_words=True,
    ),
)
