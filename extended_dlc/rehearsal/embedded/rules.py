"""What AWS refuses beyond the shapes of botocore's service models: a table with one row for each rule.

The rows of SageMaker are here, those of what a request names elsewhere in `rules_existing.py`, those of the services
around SageMaker in `rules_around.py` and `rules_services.py`, and those of the form of policies, expressions and
templates in `rules_forms.py`. A row has a name, its operations, what it refuses as a phrase for `docs/fidelity.md`, the
source, and a check that returns AWS's error message or None. Where no source has AWS's message, it is this project's,
and the row says so with `own_words`. `tests/rehearsal/embedded/rule_cases.py` has two requests for each row: one is
refused, one is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moto.utilities.utils import get_partition

from extended_dlc.decisions.access import check_zero_instances
from extended_dlc.facts.gpus import gpu_of, host_images
from extended_dlc.facts.instances import Instance, find_instance
from extended_dlc.facts.limits import limit
from extended_dlc.rehearsal.embedded.calls import Call, Parameters
from extended_dlc.rehearsal.embedded.rule import API, GUIDE, Check, Rule, World
from extended_dlc.rehearsal.embedded.rules_around import RULES as AROUND
from extended_dlc.rehearsal.embedded.rules_existing import RULES as EXISTING
from extended_dlc.rehearsal.embedded.rules_existing import containers_of
from extended_dlc.rehearsal.embedded.rules_forms import RULES as FORMS
from extended_dlc.rehearsal.embedded.rules_services import RULES as SERVICES
from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.embedded.shapes import Refusal

# parts of requests


def _variants(given: Parameters) -> list[Parameters]:
    return [*given.get("ProductionVariants", ()), *given.get("ShadowProductionVariants", ())]


def _types(variant: Parameters) -> list[str]:
    pools = [each["InstanceType"] for each in variant.get("InstancePools", ())]
    return [*([variant["InstanceType"]] if variant.get("InstanceType") else []), *pools]


def _instances(variant: Parameters) -> Iterator[Instance]:
    for name in _types(variant):
        try:
            yield find_instance(name)
        except ValueError:  # the shapes refuse the type
            continue


# models


def _role(world: World, given: Parameters) -> str | None:
    arn = given.get("ExecutionRoleArn") or given.get("RoleArn")
    if not arn or world.trusts(arn, "sagemaker.amazonaws.com"):
        return None
    return (
        f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )


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


def _tags(world: World, given: Parameters) -> str | None:
    keys = [each["Key"] for each in given.get("Tags", ())]
    if twice := sorted({each for each in keys if keys.count(each) > 1}):
        return f"Tag keys must be unique per resource: {', '.join(twice)}."
    if reserved := [each for each in keys if each.lower().startswith("aws:")]:
        return f"The tag key {reserved[0]} is invalid: keys that begin with aws: are reserved."
    return None


# endpoint configurations


def _variant_names(world: World, given: Parameters) -> str | None:
    names = [each["VariantName"] for each in _variants(given)]
    twice = sorted({each for each in names if names.count(each) > 1})
    return f"Duplicate variant name(s) found: {', '.join(twice)}." if twice else None


def _prefix_routing(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        routing = variant.get("RoutingConfig", {})
        options = routing.get("PrefixAwareRoutingConfig")
        if routing.get("RoutingStrategy") != "PREFIX_AWARE":
            if options is not None:
                return "PrefixAwareRoutingConfig is only supported with RoutingStrategy PREFIX_AWARE."
        elif missing := [each for each in ("PrefixLength", "ConcurrencyThreshold") if each not in (options or {})]:
            return f"{missing[0]} is required when RoutingStrategy is PREFIX_AWARE."
    return None


def _shadows(world: World, given: Parameters) -> str | None:
    if given.get("ShadowProductionVariants") and len(_variants(given)) != 2:
        return "With ShadowProductionVariants specify one production variant and one shadow variant."
    return None


def _shadow_excludes(world: World, given: Parameters) -> str | None:
    if not given.get("ShadowProductionVariants"):
        return None
    if given.get("AsyncInferenceConfig"):
        return "AsyncInferenceConfig is not supported with ShadowProductionVariants."
    for variant in _variants(given):
        name = variant["VariantName"]
        containers = containers_of(world.model(variant.get("ModelName")))
        if variant.get("ServerlessConfig"):
            return f"ServerlessConfig of variant {name} is not supported with ShadowProductionVariants."
        if len(containers) > 1 or any(each.get("Mode") == "MultiModel" for each in containers):
            return f"The model of variant {name} hosts several models: ShadowProductionVariants do not support it."
        if inf1 := [each for each in _types(variant) if each.startswith("ml.inf1.")]:
            return f"Instance type {inf1[0]} of variant {name} is not supported with ShadowProductionVariants."
    return None


def _initial_count(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        managed = variant.get("ManagedInstanceScaling", {}).get("Status") == "ENABLED"
        if _types(variant) and variant.get("ModelName") and not (variant.get("InitialInstanceCount") or managed):
            return f"InitialInstanceCount is required for variant {variant['VariantName']}, which runs on instances."
    return None


def _other_regions(world: World, given: Parameters) -> str | None:
    if not given.get("CrossRegionTrafficConfig"):
        return None
    if given.get("AsyncInferenceConfig"):
        return "CrossRegionTrafficConfig is not supported with AsyncInferenceConfig."
    if any(each.get("ServerlessConfig") for each in _variants(given)):
        return "CrossRegionTrafficConfig is not supported for serverless endpoints."
    return None


_OLD_DRIVERS = {f"al2-ami-sagemaker-inference-gpu-{each}": [535] for each in ("2", "2-1")}
"""The drivers of host images that the project itself never uses."""


def _host_image(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        ami = variant.get("InferenceAmiVersion")
        if not ami:
            continue
        wanted = "neuron" if "-neuron-" in ami else "gpu"
        kinds = list(_instances(variant))
        for each in kinds:
            if each.accelerator != wanted:
                return f"InferenceAmiVersion {ami} is not supported for instance type {each.name}."
            drivers = [row.driver for row in host_images() if row.inference_ami_version == ami]
            drivers += _OLD_DRIVERS.get(ami, [])
            gpu = gpu_of(each)
            first = gpu.first_driver if gpu else None
            if drivers and first is not None and drivers[0] < first:
                return f"InferenceAmiVersion {ami} is not supported for instance type {each.name}."
        if variant.get("ServerlessConfig"):
            return f"InferenceAmiVersion {ami} is not supported for serverless variants."
    return None


def _volume(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        for each in _instances(variant):
            if variant.get("VolumeSizeInGB") and each.local_storage_gb:
                return (
                    f"VolumeSizeInGB is not supported for instance type {each.name} of variant "
                    f"{variant['VariantName']}, which has local instance storage."
                )
    return None


def _volume_key(world: World, given: Parameters) -> str | None:
    for variant in _variants(given) if given.get("KmsKeyId") else ():
        for each in _instances(variant):
            if each.local_storage_gb:
                return (
                    f"KmsKeyId is not supported for instance type {each.name} of variant {variant['VariantName']}, "
                    "which has local instance storage."
                )
    return None


def _serverless(world: World, given: Parameters) -> str | None:
    serverless = [each for each in _variants(given) if each.get("ServerlessConfig")]
    if not serverless:
        return None
    if len(_variants(given)) > 1:
        return "Serverless endpoints support one production variant only."
    for name in ("DataCaptureConfig", "AsyncInferenceConfig", "VpcConfig", "KmsKeyId"):
        if given.get(name):
            return f"{name} is not supported for serverless endpoints."
    variant = serverless[0]
    for name in ("InstanceType", "InitialInstanceCount", "VolumeSizeInGB", "InstancePools", "ManagedInstanceScaling"):
        if variant.get(name):
            return f"Variant {variant['VariantName']} has a ServerlessConfig, and {name} is not supported with it."
    model = world.model(variant.get("ModelName"))
    if model.get("VpcConfig"):
        return f"VpcConfig of model {variant.get('ModelName')} is not supported for serverless endpoints."
    if model.get("EnableNetworkIsolation") or given.get("EnableNetworkIsolation"):
        return "EnableNetworkIsolation is not supported for serverless endpoints."
    if len(containers_of(model)) > 1:
        return f"Model {variant.get('ModelName')} has several containers: serverless endpoints support one."
    return None


def _serverless_size(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        config = variant.get("ServerlessConfig")
        if not config:
            continue
        memory = config["MemorySizeInMB"]
        if memory % 1024:
            return f"MemorySizeInMB {memory} must be in 1 GB increments: 1024, 2048, 3072, 4096, 5120 or 6144."
        if config.get("ProvisionedConcurrency", 0) > config["MaxConcurrency"]:
            return (
                f"ProvisionedConcurrency {config['ProvisionedConcurrency']} must be less than or equal to "
                f"MaxConcurrency {config['MaxConcurrency']}."
            )
    return None


def _serverless_data(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        model = world.model(variant.get("ModelName"))
        if variant.get("ServerlessConfig") and any(each.get("ModelDataSource") for each in containers_of(model)):
            return (
                f"ModelDataSource of model {variant.get('ModelName')} is not supported by serverless endpoints: use "
                "ModelDataUrl."
            )
    return None


def _something_to_run_on(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        if not (variant.get("ServerlessConfig") or _types(variant)):
            return f"Variant {variant['VariantName']} needs an InstanceType, InstancePools or a ServerlessConfig."
        if variant.get("InstanceType") and variant.get("InstancePools"):
            return f"Variant {variant['VariantName']} cannot have both InstanceType and InstancePools."
    return None


def _pool_priorities(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        pools = variant.get("InstancePools", ())
        for name in ("Priority", "InstanceType"):
            values = [each.get(name) for each in pools]
            if len(set(values)) != len(values):
                return f"The instance pools of variant {variant['VariantName']} must differ in {name}."
    return None


def _managed_scaling(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        managed = variant.get("ManagedInstanceScaling", {})
        if managed.get("Status") != "ENABLED":
            continue
        if variant.get("ModelName"):
            return (
                "ManagedInstanceScaling is only supported for inference component endpoints: variant "
                f"{variant['VariantName']} has a ModelName."
            )
        least, most = managed.get("MinInstanceCount"), managed.get("MaxInstanceCount")
        if least is not None and most is not None and least > most:
            return f"MinInstanceCount {least} must be less than or equal to MaxInstanceCount {most}."
    return None


def _zero_instances(world: World, given: Parameters) -> str | None:
    for variant in _variants(given):
        managed = variant.get("ManagedInstanceScaling", {})
        if managed.get("Status") != "ENABLED" or managed.get("MinInstanceCount") != 0:
            continue
        try:
            check_zero_instances(world.region)
        except ValueError:
            return "Min instance count needs to be greater than 0 for enabled managed instance scaling."
    return None


def _component_role(world: World, given: Parameters) -> str | None:
    if given.get("ExecutionRoleArn"):
        return None
    for variant in _variants(given):
        if not variant.get("ModelName"):
            return f"ExecutionRoleArn is required: variant {variant['VariantName']} has no ModelName."
    return None


# deployments


def _name_by_case(world: World, given: Parameters) -> str | None:
    name = given["EndpointName"]
    for other in list(world.sagemaker.endpoints.values()):
        if other.endpoint_name != name and other.endpoint_name.lower() == name.lower():
            return f'Cannot create already existing endpoint "{other.arn}".'
    return None


def _fleet(world: World, given: Parameters) -> list[Parameters]:
    return world.variants_of(given["EndpointConfigName"])


def _share(size: Parameters, variant: Parameters) -> float:
    """The share of a variant's instances in a batch, in percent."""
    if size["Type"] == "CAPACITY_PERCENT":
        return float(size["Value"])
    return 100.0 * float(size["Value"]) / max(int(variant.get("InitialInstanceCount", 1)), 1)


def _batch(name: str, where: str, least: float, most: float) -> Check:
    def check(world: World, given: Parameters) -> str | None:
        policy: Any = given.get("DeploymentConfig", {})
        for part in where.split("."):
            policy = policy.get(part, {})
        size = policy.get(name)
        for variant in _fleet(world, given) if size else ():
            share = _share(size, variant)
            if not least <= share <= most:
                what = f"{least:g}% to {most:g}%" if least else f"at most {most:g}%"
                return (
                    f"Invalid {name}: {size['Value']} ({size['Type']}) is {share:g}% of variant "
                    f"{variant['VariantName']}, and must be {what} of its total instance count."
                )
        return None

    return check


def _routing(world: World, given: Parameters) -> str | None:
    routing = given.get("DeploymentConfig", {}).get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    needs = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
    kind = routing.get("Type")
    for each, member in needs.items():
        if (kind == each) != bool(routing.get(member)):
            return (
                f"{member} is required for traffic routing type {each}, and for no other; the type is {kind}."
                if (kind in ("ALL_AT_ONCE", "CANARY", "LINEAR"))
                else None
            )
    return None


def _one_policy(world: World, given: Parameters) -> str | None:
    deployment = given.get("DeploymentConfig", {})
    if deployment.get("BlueGreenUpdatePolicy") and deployment.get("RollingUpdatePolicy"):
        return "Specify only one of BlueGreenUpdatePolicy and RollingUpdatePolicy."
    return None


def _rolling_excludes(world: World, given: Parameters) -> str | None:
    if not given.get("DeploymentConfig", {}).get("RollingUpdatePolicy"):
        return None
    variants = _fleet(world, given)
    if len(variants) > 1:
        return "Rolling deployments are not supported for endpoints with several production variants."
    if any(each.get("ServerlessConfig") for each in variants):
        return "Rolling deployments are not supported for serverless endpoints."
    return None


def _same_variants(world: World, given: Parameters) -> str | None:
    endpoint = world.sagemaker.endpoints.get(given["EndpointName"])
    if endpoint is None or not (given.get("DeploymentConfig") or getattr(endpoint, "deployment_config", None)):
        return None
    old = {each["VariantName"] for each in world.variants_of(endpoint.endpoint_config_name)}
    new = {each["VariantName"] for each in _fleet(world, given)}
    if old and new and old != new:
        return (
            "The new endpoint configuration must have the same variant name as the old endpoint configuration: "
            f"{', '.join(sorted(new))} and {', '.join(sorted(old))}."
        )
    return None


def _alarms(world: World, given: Parameters) -> str | None:
    for each in given.get("DeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", ()):
        if not world.has_alarm(each.get("AlarmName", "")):
            return f"Alarm {each.get('AlarmName')} of AutoRollbackConfiguration was not found."
    return None


def _execution_time(world: World, given: Parameters) -> str | None:
    policy = given.get("DeploymentConfig", {}).get("BlueGreenUpdatePolicy", {})
    longest = policy.get("MaximumExecutionTimeoutInSeconds")
    waits = policy.get("TerminationWaitInSeconds", 0)
    waits += policy.get("TrafficRoutingConfiguration", {}).get("WaitIntervalInSeconds", 0)
    if longest is not None and longest <= waits:
        return f"MaximumExecutionTimeoutInSeconds {longest} must be larger than the waits, {waits} s."
    return None


def _present_config(world: World, given: Parameters) -> str | None:
    endpoint = world.sagemaker.endpoints.get(given["EndpointName"])
    if endpoint is None or endpoint.endpoint_config_name in world.sagemaker.endpoint_configs:
        return None
    arn = f"arn:{get_partition(world.region)}:sagemaker:{world.region}:{world.account_id}:endpoint-config"
    return f'Could not find endpoint configuration "{arn}/{endpoint.endpoint_config_name}".'


def _retained(world: World, given: Parameters) -> str | None:
    excluded = [each.get("VariantPropertyType") for each in given.get("ExcludeRetainedVariantProperties", ())]
    if "DataCaptureConfig" in excluded:
        return "VariantPropertyType DataCaptureConfig is not currently supported."
    if excluded and not given.get("RetainAllVariantProperties"):
        return "ExcludeRetainedVariantProperties can be specified only when RetainAllVariantProperties is true."
    return None


def _same_variant_twice(world: World, given: Parameters) -> str | None:
    names = [each["VariantName"] for each in given.get("DesiredWeightsAndCapacities", ())]
    twice = sorted({each for each in names if names.count(each) > 1})
    return f'The variant name "{twice[0]}" was non-unique within the request.' if twice else None


def _quota(world: World, given: Parameters) -> str | None:
    delta: dict[str, int] = {}
    for variant in _fleet(world, given):
        if kind := variant.get("InstanceType"):
            delta[kind] = delta.get(kind, 0) + int(variant.get("InitialInstanceCount", 1))
    for kind, count in delta.items():
        quota, used = world.scenarios.quotas.get(kind), world.instances_in_use(kind)
        if quota is not None and used + count > quota:
            world.scenarios.meet(f"quotas: {kind}")
            return (
                f"The account-level service limit '{kind} for endpoint usage' is {quota} Instances, with current "
                f"utilization of {used} Instances and a request delta of {count} Instances. Please use AWS Service "
                "Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact AWS "
                "support to request an increase for this quota."
            )
    return None


# components


def _component_environment(world: World, given: Parameters) -> str | None:
    entries = given.get("Specification", {}).get("Container", {}).get("Environment", {})
    if len(entries) <= 16:
        return None
    return f"Specification.Container.Environment has {len(entries)} entries: up to 16 are supported."


def _component_of(world: World, given: Parameters) -> str | None:
    endpoint = world.sagemaker.endpoints.get(given["EndpointName"])
    if endpoint is None:
        return None  # the operation itself refuses it
    variants = world.variants_of(endpoint.endpoint_config_name)
    names = [each["VariantName"] for each in variants]
    wanted = given.get("VariantName")
    if wanted is not None and names and wanted not in names:
        return f"Could not find variant {wanted} of endpoint {given['EndpointName']}."
    return None


def _component_specification(world: World, given: Parameters) -> str | None:
    asked = given.get("Specification", {})
    if asked.get("ModelName") and asked.get("Container"):
        return "Specification can have ModelName or Container, and not both."
    return None


def _component_copies(world: World, given: Parameters) -> str | None:
    if given.get("RuntimeConfig", {}).get("CopyCount") == 0:
        return "Inference components copy count an integer larger than 0"
    return None


def _component_resources(world: World, given: Parameters) -> str | None:
    asked = given.get("Specification", {})
    if not asked or asked.get("BaseInferenceComponentName"):
        return None
    needs = asked.get("ComputeResourceRequirements")
    if not needs:
        return "ComputeResourceRequirements is required unless the component is an adapter of a base component."
    least, most = needs.get("MinMemoryRequiredInMb"), needs.get("MaxMemoryRequiredInMb")
    if least is not None and most is not None and most < least:
        return f"MaxMemoryRequiredInMb {most} must be at least MinMemoryRequiredInMb {least}."
    return None


def _partition(world: World, given: Parameters) -> str | None:
    needs = given.get("Specification", {}).get("ComputeResourceRequirements", {})
    count = needs.get("NumberOfAcceleratorDevicesRequired")
    if needs.get("AcceleratorPartitionType") and count != 1:
        return f"AcceleratorPartitionType needs NumberOfAcceleratorDevicesRequired 1: it is {count}."
    return None


def _component_endpoint(world: World, given: Parameters) -> str | None:
    endpoint = world.sagemaker.endpoints.get(given["EndpointName"])
    for variant in world.variants_of(endpoint.endpoint_config_name) if endpoint else ():
        if variant.get("ModelName"):
            return f"Variant {variant['VariantName']} has a model: it can host no inference components."
    return None


# training jobs


def _training_volume(world: World, given: Parameters) -> str | None:
    asked = given.get("ResourceConfig", {})
    try:
        kind = find_instance(asked.get("InstanceType", ""))
    except ValueError:  # the shapes refuse the type, or the group of instances has its own
        return None
    if kind.local_storage_gb and asked.get("VolumeKmsKeyId"):
        return f"VolumeKmsKeyId is not supported for instance type {kind.name}, which has local instance storage."
    if not kind.local_storage_gb and not asked.get("VolumeSizeInGB"):
        return f"VolumeSizeInGB is required for instance type {kind.name}, which has no local instance storage."
    return None


def _algorithm(world: World, given: Parameters) -> str | None:
    asked = given.get("AlgorithmSpecification")
    if asked and bool(asked.get("TrainingImage")) == bool(asked.get("AlgorithmName")):
        return "AlgorithmSpecification must have either a TrainingImage or an AlgorithmName, and not both."
    return None


def _training_time(world: World, given: Parameters) -> str | None:
    longest = given.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 0)
    if longest <= _LONGEST_TRAINING:
        return None
    return f"MaxRuntimeInSeconds {longest} must be less than or equal to {_LONGEST_TRAINING}, which are 28 days."


_LONGEST_TRAINING = 28 * 86_400


# the table

_TAGGED = (
    "AddTags",
    "CreateEndpoint",
    "CreateEndpointConfig",
    "CreateInferenceComponent",
    "CreateModel",
    "CreateTrainingJob",
)
_CREATE_CONFIG = ("sagemaker:CreateEndpointConfig",)
_DEPLOY = ("sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint")
_ROLLING = "RollingUpdatePolicy"
_TRAFFIC = "BlueGreenUpdatePolicy.TrafficRoutingConfiguration"

RULES: tuple[Rule, ...] = (
    Rule(
        name="role exists",
        operations=("sagemaker:CreateModel", "sagemaker:CreateEndpointConfig", "sagemaker:CreateTrainingJob"),
        refuses="an execution role that the account does not have (yet), or that does not trust SageMaker",
        source="hashicorp/terraform-provider-aws, internal/service/sagemaker: it repeats on 'Could not assume role'",
        check=_role,
    ),
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
    Rule(
        name="tags",
        operations=tuple(f"sagemaker:{each}" for each in _TAGGED),
        refuses="a tag's key twice, and one that begins with aws:",
        source=API + "Tag Key; AWS General Reference, tag naming limits and requirements",
        check=_tags,
        own_words=True,
    ),
    Rule(
        name="variant names",
        operations=_CREATE_CONFIG,
        refuses="two variants of one name, shadow variants included",
        source=API + "ProductionVariant VariantName; DescribeEndpoint and the runtime tell variants by it",
        check=_variant_names,
        own_words=True,
    ),
    Rule(
        name="prefix-aware routing",
        operations=_CREATE_CONFIG,
        refuses="PREFIX_AWARE without PrefixLength or ConcurrencyThreshold, and these with another strategy",
        source=API + "PrefixAwareRoutingConfig; ProductionVariantRoutingConfig PrefixAwareRoutingConfig",
        check=_prefix_routing,
        own_words=True,
    ),
    Rule(
        name="shadow variants",
        operations=_CREATE_CONFIG,
        refuses="a shadow variant beside more than one production variant, and two of them",
        source=API + "CreateEndpointConfig ShadowProductionVariants",
        check=_shadows,
        own_words=True,
    ),
    Rule(
        name="shadow variants exclude",
        operations=_CREATE_CONFIG,
        refuses="beside a shadow variant: a queue, a serverless variant, several containers or models, and ml.inf1",
        source=GUIDE + "shadow tests, exclusions: 'will lead to validation errors'",
        check=_shadow_excludes,
        own_words=True,
    ),
    Rule(
        name="initial instances",
        operations=_CREATE_CONFIG,
        refuses="a variant with a model on instances without InitialInstanceCount",
        source=API + "ProductionVariant InitialInstanceCount; botocore's model had it as required until serverless "
        "variants came",
        check=_initial_count,
        own_words=True,
    ),
    Rule(
        name="other regions' requests",
        operations=_CREATE_CONFIG,
        refuses="CrossRegionTrafficConfig beside a queue or a serverless variant",
        source=API + "CreateEndpointConfig CrossRegionTrafficConfig",
        check=_other_regions,
        own_words=True,
    ),
    Rule(
        name="host image and instance type",
        operations=_CREATE_CONFIG,
        refuses="a host image for GPUs or Inferentia on a type without, and one whose driver is older than the GPU",
        source=API + "ProductionVariant InferenceAmiVersion: accelerator and driver of each; the drivers of "
        "facts/data/gpus.json",
        check=_host_image,
        own_words=True,
    ),
    Rule(
        name="volume and local storage",
        operations=_CREATE_CONFIG,
        refuses="VolumeSizeInGB on an instance type with local storage",
        source=GUIDE + "host instance storage volumes: the size is fixed where there is local storage",
        check=_volume,
        own_words=True,
    ),
    Rule(
        name="volume key and local storage",
        operations=_CREATE_CONFIG,
        refuses="KmsKeyId on an instance type with local storage",
        source="CloudFormation resource reference, AWS::SageMaker::EndpointConfig KmsKeyId: the call fails for "
        "Nitro-based instances with local storage; the newest API reference says only that it does not encrypt that",
        check=_volume_key,
        own_words=True,
    ),
    Rule(
        name="serverless excludes",
        operations=_CREATE_CONFIG,
        refuses="beside a ServerlessConfig: another variant, a VPC, network isolation, data capture, a queue, a key "
        "for volumes, several containers, and everything about instances",
        source=GUIDE + "serverless inference, feature exclusions",
        check=_serverless,
        own_words=True,
    ),
    Rule(
        name="serverless sizes",
        operations=_CREATE_CONFIG,
        refuses="memory that is no multiple of 1024 MB, and more provisioned than greatest concurrency",
        source=API + "ProductionVariantServerlessConfig",
        check=_serverless_size,
        own_words=True,
    ),
    Rule(
        name="serverless model data",
        operations=_CREATE_CONFIG,
        refuses="a model with ModelDataSource behind a serverless endpoint",
        source=API + "ContainerDefinition ModelDataSource",
        check=_serverless_data,
        own_words=True,
    ),
    Rule(
        name="something to run on",
        operations=_CREATE_CONFIG,
        refuses="a variant with no instance type, pool or serverless configuration, or with type and pools",
        source=API + "ProductionVariant InstanceType, InstancePools, ServerlessConfig",
        check=_something_to_run_on,
        own_words=True,
    ),
    Rule(
        name="instance pools differ",
        operations=_CREATE_CONFIG,
        refuses="pools of one variant with the same priority or type",
        source=API + "InstancePool Priority",
        check=_pool_priorities,
        own_words=True,
    ),
    Rule(
        name="managed instance scaling",
        operations=_CREATE_CONFIG,
        refuses="ManagedInstanceScaling of a variant with a model, and a least above the most",
        source="hashicorp/terraform-provider-aws#45926: 'only supported for inference component endpoints'",
        check=_managed_scaling,
    ),
    Rule(
        name="scale to zero by region",
        operations=_CREATE_CONFIG,
        refuses="MinInstanceCount 0 in the regions that are known to refuse it",
        source="facts/data/zero_instances.json: stdapi-ai/stdapi.ai#43",
        check=_zero_instances,
    ),
    Rule(
        name="role of components",
        operations=_CREATE_CONFIG,
        refuses="a variant without a model in a configuration without ExecutionRoleArn",
        source=GUIDE + "deploy models with inference components: CreateEndpointConfig with ExecutionRoleArn",
        check=_component_role,
        own_words=True,
    ),
    Rule(
        name="an endpoint's name",
        operations=("sagemaker:CreateEndpoint",),
        refuses="a name that differs from another endpoint's only in upper and lower case",
        source=API + "CreateEndpoint EndpointName: 'The name is case-insensitive in CreateEndpoint'; "
        "ministryofjustice/modernisation-platform-environments#9383: the words",
        check=_name_by_case,
    ),
    Rule(
        name="rolling batch",
        operations=_DEPLOY,
        refuses="a rolling batch below 5 % or above 50 % of a variant's instances",
        source=API + "RollingUpdatePolicy MaximumBatchSize",
        check=_batch("MaximumBatchSize", _ROLLING, 5, 50),
        own_words=True,
    ),
    Rule(
        name="canary",
        operations=_DEPLOY,
        refuses="a canary above 50 % of a variant's instances",
        source=API + "TrafficRoutingConfig CanarySize",
        check=_batch("CanarySize", _TRAFFIC, 0, 50),
        own_words=True,
    ),
    Rule(
        name="linear step",
        operations=_DEPLOY,
        refuses="a linear step below 10 % or above 50 % of a variant's instances",
        source=API + "TrafficRoutingConfig LinearStepSize",
        check=_batch("LinearStepSize", _TRAFFIC, 10, 50),
        own_words=True,
    ),
    Rule(
        name="size of the routing",
        operations=_DEPLOY,
        refuses="CANARY without CanarySize, LINEAR without LinearStepSize, and a size of another type",
        source=API + "TrafficRoutingConfig Type",
        check=_routing,
        own_words=True,
    ),
    Rule(
        name="one update policy",
        operations=_DEPLOY,
        refuses="a blue/green and a rolling policy together",
        source=API + "DeploymentConfig",
        check=_one_policy,
        own_words=True,
    ),
    Rule(
        name="rolling excludes",
        operations=_DEPLOY,
        refuses="a rolling deployment of several variants or of a serverless one",
        source=GUIDE + "deployment guardrails, exclusions",
        check=_rolling_excludes,
        own_words=True,
    ),
    Rule(
        name="variant names of an update",
        operations=("sagemaker:UpdateEndpoint",),
        refuses="an update with a deployment configuration whose variants have other names",
        source=GUIDE + "deployment guardrails, exclusions",
        check=_same_variants,
        own_words=True,
    ),
    Rule(
        name="alarms exist",
        operations=_DEPLOY,
        refuses="a rollback alarm that CloudWatch does not have",
        source=API + "AutoRollbackConfig Alarms: 'alarms in your account'",
        check=_alarms,
        own_words=True,
    ),
    Rule(
        name="time of an update",
        operations=_DEPLOY,
        refuses="a greatest duration that the waits alone exceed",
        source=API + "BlueGreenUpdatePolicy MaximumExecutionTimeoutInSeconds",
        check=_execution_time,
        own_words=True,
    ),
    Rule(
        name="present configuration",
        operations=("sagemaker:UpdateEndpoint",),
        refuses="an update of an endpoint whose present configuration was deleted. SageMaker takes the deletion, "
        "though its reference says that one must not",
        source="hashicorp/terraform-provider-aws#48997, #46663; " + API + "DeleteEndpointConfig",
        check=_present_config,
    ),
    Rule(
        name="retained properties",
        operations=("sagemaker:UpdateEndpoint",),
        refuses="DataCaptureConfig among the excluded properties, and exclusions without RetainAllVariantProperties",
        source=API + "VariantProperty VariantPropertyType; UpdateEndpoint ExcludeRetainedVariantProperties",
        check=_retained,
        own_words=True,
    ),
    Rule(
        name="a variant's capacity once",
        operations=("sagemaker:UpdateEndpointWeightsAndCapacities",),
        refuses="the same variant twice",
        source="getmoto/moto, tests/test_sagemaker/test_sagemaker_endpoint.py: the words",
        check=_same_variant_twice,
    ),
    Rule(
        name="quota",
        operations=("sagemaker:CreateEndpoint",),
        refuses="more instances of a type than the quota of the scenario",
        source="aws-samples/sagemaker-custom-project-templates#51: 'The account-level service limit …'",
        check=_quota,
        code="ResourceLimitExceeded",
    ),
    Rule(
        name="a component's environment",
        operations=("sagemaker:CreateInferenceComponent", "sagemaker:UpdateInferenceComponent"),
        refuses="more than 16 variables in the container of a component that has no model",
        source=API + "InferenceComponentContainerSpecification Environment",
        check=_component_environment,
        own_words=True,
    ),
    Rule(
        name="a component's variant",
        operations=("sagemaker:CreateInferenceComponent",),
        refuses="a variant that the endpoint does not have",
        source=API + "CreateInferenceComponent VariantName",
        check=_component_of,
        own_words=True,
    ),
    Rule(
        name="a component's model",
        operations=("sagemaker:CreateInferenceComponent", "sagemaker:UpdateInferenceComponent"),
        refuses="a model and a container together",
        source=API + "InferenceComponentSpecification ModelName, Container",
        check=_component_specification,
        own_words=True,
    ),
    Rule(
        name="a component's copies",
        operations=("sagemaker:CreateInferenceComponent",),
        refuses="a new component without a copy",
        source="stdapi-ai/stdapi.ai#43: measured in an account",
        check=_component_copies,
    ),
    Rule(
        name="a component's resources",
        operations=("sagemaker:CreateInferenceComponent", "sagemaker:UpdateInferenceComponent"),
        refuses="a component that is no adapter and asks for no resources, and less memory at most than at least",
        source=API + "InferenceComponentSpecification ComputeResourceRequirements",
        check=_component_resources,
        own_words=True,
    ),
    Rule(
        name="a component's partition",
        operations=("sagemaker:CreateInferenceComponent", "sagemaker:UpdateInferenceComponent"),
        refuses="a partition of an accelerator for another number of accelerators than 1",
        source=API + "InferenceComponentComputeResourceRequirements AcceleratorPartitionType",
        check=_partition,
        own_words=True,
    ),
    Rule(
        name="a component's endpoint",
        operations=("sagemaker:CreateInferenceComponent",),
        refuses="an endpoint whose variant has a model of its own",
        source=GUIDE + "deploy models with inference components: the configuration's variant has no ModelName",
        check=_component_endpoint,
        own_words=True,
    ),
    Rule(
        name="a training job's volume",
        operations=("sagemaker:CreateTrainingJob",),
        refuses="no volume where the instance has no storage of its own, and a key for a volume where it has",
        source=API + "ResourceConfig VolumeSizeInGB, VolumeKmsKeyId",
        check=_training_volume,
        own_words=True,
    ),
    Rule(
        name="a training job's algorithm",
        operations=("sagemaker:CreateTrainingJob",),
        refuses="an algorithm beside an image, and neither",
        source=API + "AlgorithmSpecification TrainingImage, AlgorithmName: mutually exclusive",
        check=_algorithm,
        own_words=True,
    ),
    Rule(
        name="a training job's time",
        operations=("sagemaker:CreateTrainingJob",),
        refuses="MaxRuntimeInSeconds of more than 28 days",
        source=API + "StoppingCondition MaxRuntimeInSeconds",
        check=_training_time,
        own_words=True,
    ),
    *AROUND,
    *EXISTING,
    *FORMS,
    *SERVICES,
)


def check(call: Call, scenarios: Scenarios, rules: Sequence[Rule] = RULES) -> None:
    """Raise `Refusal` where a rule refuses the call."""
    name = str(call)
    world = World(account_id=call.account_id, region=call.region, scenarios=scenarios, caller=call.caller)
    for rule in _by_operation(rules).get(name, ()):
        if (rule.in_templates or not call.template) and (message := rule.check(world, call.parameters)):
            raise Refusal(rule.code, message)


def _by_operation(rules: Sequence[Rule]) -> Mapping[str, list[Rule]]:
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        for operation in rule.operations:
            found.setdefault(operation, []).append(rule)
    return found
