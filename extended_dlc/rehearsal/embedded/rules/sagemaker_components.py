"""Rules of SageMaker's inference components."""

from __future__ import annotations

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import API, GUIDE, Rule, World


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


RULES: tuple[Rule, ...] = (
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
)
