"""The resources of an endpoint after its Models: EndpointConfig, Endpoint, components, scaling, proofs and switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aws_cdk import CustomResource
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct, IConstruct

from extended_dlc.constructs.dependencies import depend_on_policies_alone
from extended_dlc.decisions.vllm import COMPLETION
from extended_dlc.endpoint.config import inference_component, managed_variant, metrics_config
from extended_dlc.endpoint.parts import ServedPart
from extended_dlc.endpoint.rollout import deployment_config
from extended_dlc.endpoint.scaling import scale
from extended_dlc.options.hosting import Components, Serverless
from extended_dlc.options.proof import Proof
from extended_dlc.options.rollout import Rolling, Rollout

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms

    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint
    from extended_dlc.endpoint.monitoring import Watch
    from extended_dlc.endpoint.schedule import Schedule, Switch
    from extended_dlc.options.monitoring import Metrics, Monitoring

_Config = sagemaker.CfnEndpointConfig


def endpoint_config(
    endpoint: HuggingFaceEndpoint,
    parts: Sequence[ServedPart],
    *,
    queue: sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty | None,
    capture: sagemaker.CfnEndpointConfig.DataCaptureConfigProperty | None,
    metrics: Metrics | None,
    key_arn: str | None,
    vpc: sagemaker.CfnModel.VpcConfigProperty | None,
) -> sagemaker.CfnEndpointConfig:
    """The EndpointConfig; with components it sets the role, the VPC and the isolation, instead of their Models."""
    hosting = endpoint.hosting
    shared = isinstance(hosting, Components)
    if isinstance(hosting, Components):
        variants = [managed_variant(hosting, cudas=[part.decision.image.cuda for part in parts])]
    else:
        variants = [part.production_variant() for part in parts if not part.is_shadow]
    config = _Config(
        endpoint,
        "Config",
        production_variants=variants,
        shadow_production_variants=[part.production_variant() for part in parts if part.is_shadow] or None,
        async_inference_config=queue,
        data_capture_config=capture,
        **metrics_config(metrics),
        kms_key_id=key_arn,
        execution_role_arn=endpoint.role.role_arn if shared else None,
        vpc_config=_Config.VpcConfigProperty(security_group_ids=vpc.security_group_ids, subnets=vpc.subnets)
        if shared and vpc
        else None,
        enable_network_isolation=all(part.model.enable_network_isolation for part in parts) or None if shared else None,
    )
    if shared:
        config.node.add_dependency(endpoint.role)
        depend_on_policies_alone(config)
    return config


def watch_over(
    endpoint: HuggingFaceEndpoint, parts: Sequence[ServedPart], monitoring: Monitoring, key: kms.IKey | None
) -> Watch:
    """The log groups, alarms and dashboard of an endpoint."""
    # Imported here, because the CDK's CloudWatch and Logs classes take long to load.
    from extended_dlc.endpoint.monitoring import Watch

    return Watch(
        endpoint,
        "Watch",
        monitoring=monitoring,
        endpoint_name=endpoint.endpoint_name,
        hosting=endpoint.hosting,
        parts=parts,
        key=key,
    )


def deploy(
    endpoint: HuggingFaceEndpoint, parts: Sequence[ServedPart], rollout: Rollout | None
) -> sagemaker.CfnEndpoint:
    """The Endpoint; where a part scales, an update keeps the current number of instances."""
    hosting, watch = endpoint.hosting, endpoint.watch
    counted = any(part.scaling for part in parts) and not isinstance(hosting, Serverless | Components)
    kind = sagemaker.CfnEndpoint
    return kind(
        endpoint,
        "Endpoint",
        endpoint_name=endpoint.endpoint_name,
        endpoint_config_name=endpoint.config.attr_endpoint_config_name,
        deployment_config=deployment_config(rollout, default_alarms=watch.rollback_alarms() if watch else ())
        if rollout and not isinstance(hosting, Components)
        else None,
        # Without this an update resets the number of instances to the config's; weights do follow the config.
        # DataCaptureConfig cannot be excluded: it is "not currently supported" (SageMaker API, VariantProperty).
        retain_all_variant_properties=True if counted else None,
        exclude_retained_variant_properties=[kind.VariantPropertyProperty(variant_property_type="DesiredWeight")]
        if counted
        else None,
    )


def place_components(
    endpoint: HuggingFaceEndpoint, parts: Sequence[ServedPart], rollout: Rollout | None
) -> dict[str, sagemaker.CfnInferenceComponent]:
    """The inference components by name."""
    watch = endpoint.watch
    return {
        part.name: inference_component(
            part.home,
            part.component,
            endpoint=endpoint.endpoint,
            endpoint_name=endpoint.endpoint_name,
            model_name=part.model.attr_model_name,
            rollout=rollout if isinstance(rollout, Rolling) else None,
            default_alarms=watch.rollback_alarms(part.name) if watch else (),
        )
        for part in parts
        if part.component is not None
    }


def scale_parts(endpoint: HuggingFaceEndpoint, parts: Sequence[ServedPart]) -> list[Construct]:
    """Make the scaling of the variants or components that have scaling options."""
    homes = []
    for part in parts:
        if part.scaling is not None:
            homes.append(Construct(part.home, "Scaling"))
            after = endpoint.components.get(part.name, endpoint.endpoint)
            scale(homes[-1], part.scaling, endpoint_name=endpoint.endpoint_name, variant=part.name, after=after)
    return homes


def prove(
    endpoint: HuggingFaceEndpoint, parts: Sequence[ServedPart], verify: Proof | bool, *, after: Sequence[Construct]
) -> list[CustomResource]:
    """The custom resources that check the endpoint, or each of its components, after all else is deployed."""
    from extended_dlc.endpoint.prover import Prover

    if not verify:
        return []
    proof = verify if isinstance(verify, Proof) else None
    prover, config_name = Prover.of(endpoint), endpoint.config.attr_endpoint_config_name
    proofs = [
        prover.component(
            part.home,
            component=part.component,
            model_name=part.model.attr_model_name,
            proof=_request(proof, [part]),
            endpoint=endpoint,
            config_name=config_name,
            task=part.task,
        )
        for part in parts
        if part.component is not None
    ]
    if not proofs:
        asked = [part for part in parts if not part.is_shadow]
        proofs = [
            prover.endpoint(
                endpoint,
                proof=_request(proof, asked),
                endpoint=endpoint,
                config_name=config_name,
                variants=[part.name for part in asked],
                task=parts[0].task,
                queue=endpoint.bucket.s3_url_for_object(f"{endpoint.endpoint_name}/input") if endpoint.bucket else None,
            )
        ]
    for proved in proofs:
        proved.node.add_dependency(endpoint.endpoint, *endpoint.components.values(), *after)
    return proofs


def _request(proof: Proof | None, parts: Sequence[ServedPart]) -> Proof | None:
    """The proof with its request; None where no request is known for one of the parts."""
    if proof is None or proof.request is not None:
        return proof
    if parts[0].speaks_openai:
        return replace(proof, request=COMPLETION)
    return proof if all(part.decision.asked for part in parts) else None


def switched_by(
    endpoint: HuggingFaceEndpoint, schedule: Schedule | None, *, with_endpoint: Sequence[IConstruct]
) -> Switch | None:
    """The switch that turns the endpoint off and on, with the resources that cannot exist without it; None without."""
    if schedule is None:
        return None
    from extended_dlc.endpoint.schedule import Switch
    from extended_dlc.options._values import is_token

    if not isinstance(schedule, Switch):
        # A parameter's description cannot contain a token.
        what = endpoint.node.path if is_token(endpoint.endpoint_name) else endpoint.endpoint_name
        schedule = Switch(endpoint, "Switch", schedule=schedule, what=what)
    watched = endpoint.watch.of_use_with_endpoint if endpoint.watch else ()
    schedule.turns(endpoint.endpoint, *with_endpoint, *watched)
    return schedule
