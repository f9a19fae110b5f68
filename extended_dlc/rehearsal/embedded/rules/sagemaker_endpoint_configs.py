"""Rules of SageMaker's endpoint configurations: variants, instances, serverless and shadow variants."""

from __future__ import annotations

from extended_dlc.decisions.access import check_zero_instances
from extended_dlc.facts.gpus import gpu_of, host_images
from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import API, GUIDE, Rule, World
from extended_dlc.rehearsal.embedded.rules._requests import containers_of, instances_of, types_of, variants_of


def _variant_names(world: World, given: Parameters) -> str | None:
    names = [each["VariantName"] for each in variants_of(given)]
    twice = sorted({each for each in names if names.count(each) > 1})
    return f"Duplicate variant name(s) found: {', '.join(twice)}." if twice else None


def _prefix_routing(world: World, given: Parameters) -> str | None:
    for variant in variants_of(given):
        routing = variant.get("RoutingConfig", {})
        options = routing.get("PrefixAwareRoutingConfig")
        if routing.get("RoutingStrategy") != "PREFIX_AWARE":
            if options is not None:
                return "PrefixAwareRoutingConfig is only supported with RoutingStrategy PREFIX_AWARE."
        elif missing := [each for each in ("PrefixLength", "ConcurrencyThreshold") if each not in (options or {})]:
            return f"{missing[0]} is required when RoutingStrategy is PREFIX_AWARE."
    return None


def _shadows(world: World, given: Parameters) -> str | None:
    if given.get("ShadowProductionVariants") and len(variants_of(given)) != 2:
        return "With ShadowProductionVariants specify one production variant and one shadow variant."
    return None


def _shadow_excludes(world: World, given: Parameters) -> str | None:
    if not given.get("ShadowProductionVariants"):
        return None
    if given.get("AsyncInferenceConfig"):
        return "AsyncInferenceConfig is not supported with ShadowProductionVariants."
    for variant in variants_of(given):
        name = variant["VariantName"]
        containers = containers_of(world.model(variant.get("ModelName")))
        if variant.get("ServerlessConfig"):
            return f"ServerlessConfig of variant {name} is not supported with ShadowProductionVariants."
        if len(containers) > 1 or any(each.get("Mode") == "MultiModel" for each in containers):
            return f"The model of variant {name} hosts several models: ShadowProductionVariants do not support it."
        if inf1 := [each for each in types_of(variant) if each.startswith("ml.inf1.")]:
            return f"Instance type {inf1[0]} of variant {name} is not supported with ShadowProductionVariants."
    return None


def _initial_count(world: World, given: Parameters) -> str | None:
    for variant in variants_of(given):
        managed = variant.get("ManagedInstanceScaling", {}).get("Status") == "ENABLED"
        if types_of(variant) and variant.get("ModelName") and not (variant.get("InitialInstanceCount") or managed):
            return f"InitialInstanceCount is required for variant {variant['VariantName']}, which runs on instances."
    return None


def _other_regions(world: World, given: Parameters) -> str | None:
    if not given.get("CrossRegionTrafficConfig"):
        return None
    if given.get("AsyncInferenceConfig"):
        return "CrossRegionTrafficConfig is not supported with AsyncInferenceConfig."
    if any(each.get("ServerlessConfig") for each in variants_of(given)):
        return "CrossRegionTrafficConfig is not supported for serverless endpoints."
    return None


_OLD_DRIVERS = {f"al2-ami-sagemaker-inference-gpu-{each}": [535] for each in ("2", "2-1")}
"""The drivers of host images that the project itself never uses."""


def _host_image(world: World, given: Parameters) -> str | None:
    for variant in variants_of(given):
        ami = variant.get("InferenceAmiVersion")
        if not ami:
            continue
        wanted = "neuron" if "-neuron-" in ami else "gpu"
        kinds = list(instances_of(variant))
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
    for variant in variants_of(given):
        for each in instances_of(variant):
            if variant.get("VolumeSizeInGB") and each.local_storage_gb:
                return (
                    f"VolumeSizeInGB is not supported for instance type {each.name} of variant "
                    f"{variant['VariantName']}, which has local instance storage."
                )
    return None


def _volume_key(world: World, given: Parameters) -> str | None:
    for variant in variants_of(given) if given.get("KmsKeyId") else ():
        for each in instances_of(variant):
            if each.local_storage_gb:
                return (
                    f"KmsKeyId is not supported for instance type {each.name} of variant {variant['VariantName']}, "
                    "which has local instance storage."
                )
    return None


def _serverless(world: World, given: Parameters) -> str | None:
    serverless = [each for each in variants_of(given) if each.get("ServerlessConfig")]
    if not serverless:
        return None
    if len(variants_of(given)) > 1:
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
    for variant in variants_of(given):
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
    for variant in variants_of(given):
        model = world.model(variant.get("ModelName"))
        if variant.get("ServerlessConfig") and any(each.get("ModelDataSource") for each in containers_of(model)):
            return (
                f"ModelDataSource of model {variant.get('ModelName')} is not supported by serverless endpoints: use "
                "ModelDataUrl."
            )
    return None


def _something_to_run_on(world: World, given: Parameters) -> str | None:
    for variant in variants_of(given):
        if not (variant.get("ServerlessConfig") or types_of(variant)):
            return f"Variant {variant['VariantName']} needs an InstanceType, InstancePools or a ServerlessConfig."
        if variant.get("InstanceType") and variant.get("InstancePools"):
            return f"Variant {variant['VariantName']} cannot have both InstanceType and InstancePools."
    return None


def _pool_priorities(world: World, given: Parameters) -> str | None:
    for variant in variants_of(given):
        pools = variant.get("InstancePools", ())
        for name in ("Priority", "InstanceType"):
            values = [each.get(name) for each in pools]
            if len(set(values)) != len(values):
                return f"The instance pools of variant {variant['VariantName']} must differ in {name}."
    return None


def _managed_scaling(world: World, given: Parameters) -> str | None:
    for variant in variants_of(given):
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
    for variant in variants_of(given):
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
    for variant in variants_of(given):
        if not variant.get("ModelName"):
            return f"ExecutionRoleArn is required: variant {variant['VariantName']} has no ModelName."
    return None


_CREATE_CONFIG = ("sagemaker:CreateEndpointConfig",)

RULES: tuple[Rule, ...] = (
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
)
