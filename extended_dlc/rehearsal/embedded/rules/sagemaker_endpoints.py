"""Rules of SageMaker's endpoints: names, quotas, and deployment configurations of updates."""

from __future__ import annotations

from typing import Any

from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import API, GUIDE, Check, Rule, World


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


_DEPLOY = ("sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint")


_ROLLING = "RollingUpdatePolicy"


_TRAFFIC = "BlueGreenUpdatePolicy.TrafficRoutingConfiguration"


RULES: tuple[Rule, ...] = (
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
)
