"""The parts of an EndpointConfig: its variants, its inference components and its `AsyncInferenceConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from extended_dlc.constructs.buckets import grant_objects
from extended_dlc.endpoint.capture import expiring_bucket
from extended_dlc.endpoint.rollout import component_deployment_config
from extended_dlc.facts.compat import inference_ami_version
from extended_dlc.facts.gpus import cuda_version
from extended_dlc.options._values import OptionError, is_token, naming_option
from extended_dlc.options.hosting import (
    DEFAULT_STARTUP_TIMEOUT_SECONDS,
    MAIN_VARIANT,
    Async,
    Component,
    Components,
    Hosting,
    Instances,
    RealTime,
    Serverless,
)
from extended_dlc.options.placement import ROUTING, STRATEGIES, Consolidation, PrefixAware, RoutingStrategy
from extended_dlc.options.rollout import Rolling

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_sns as sns

    from extended_dlc.options.monitoring import Metrics

_Config = sagemaker.CfnEndpointConfig


def production_variant(
    hosting: Instances | Serverless, *, name: str, weight: float, model_name: str, host_image: str | None
) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
    """A `ProductionVariant` on instances or serverless."""
    if isinstance(hosting, Serverless):
        return _Config.ProductionVariantProperty(
            variant_name=name,
            model_name=model_name,
            initial_variant_weight=weight,
            serverless_config=_Config.ServerlessConfigProperty(
                memory_size_in_mb=hosting.memory_mb,
                max_concurrency=hosting.max_concurrency,
                provisioned_concurrency=hosting.provisioned_concurrency,
            ),
        )
    routing = hosting.routing if isinstance(hosting, RealTime) else None
    return _Config.ProductionVariantProperty(
        variant_name=name,
        model_name=model_name,
        **_types(hosting.instance_types),
        initial_instance_count=hosting.instances,
        initial_variant_weight=weight,
        volume_size_in_gb=hosting.volume_gb,
        enable_ssm_access=hosting.ssm_access or None,
        container_startup_health_check_timeout_in_seconds=(
            hosting.startup_timeout_seconds or DEFAULT_STARTUP_TIMEOUT_SECONDS
        ),
        model_data_download_timeout_in_seconds=hosting.download_timeout_seconds,
        routing_config=_routing(routing) if routing else None,
        # The AMI has the driver that the image's CUDA needs: with an older one the container dies without a log.
        inference_ami_version=host_image,
        **_capacity(hosting),
    )


def _host_image(cuda: str | None, types: Sequence[str]) -> str | None:
    if any(map(is_token, types)):
        return None
    return naming_option("instance_type", ", ".join(types), lambda: inference_ami_version(cuda, types))


def managed_variant(
    hosting: Components, *, cudas: Sequence[str | None]
) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
    """The variant that inference components run on: instances without a model."""
    known = [each for each in cudas if each is not None]
    newest = max(known, key=cuda_version, default=None)
    return _Config.ProductionVariantProperty(
        variant_name=MAIN_VARIANT,
        instance_type=hosting.instance_types[0],
        initial_instance_count=hosting.instances,
        volume_size_in_gb=hosting.volume_gb,
        enable_ssm_access=hosting.ssm_access or None,
        managed_instance_scaling=_Config.ManagedInstanceScalingProperty(
            status="ENABLED",
            min_instance_count=hosting.minimum,
            max_instance_count=hosting.maximum,
            **_scale_in(hosting.consolidation),
        ),
        routing_config=_routing(hosting.routing),
        # A driver also runs older CUDA versions, so the image with the newest CUDA decides.
        inference_ami_version=_host_image(newest, hosting.instance_types),
        **_capacity(hosting),
    )


def inference_component(
    scope: Construct,
    component: Component,
    *,
    endpoint: sagemaker.CfnEndpoint,
    endpoint_name: str,
    model_name: str,
    rollout: Rolling | None = None,
    default_alarms: Sequence[cloudwatch.IAlarm] = (),
) -> sagemaker.CfnInferenceComponent:
    """The InferenceComponent of a model, in `scope`.

    :param default_alarms: Alarms of the component, for a rollout that names none.
    """
    kind = sagemaker.CfnInferenceComponent
    made = kind(
        scope,
        "Component",
        inference_component_name=component.name,
        endpoint_name=endpoint_name,
        variant_name=MAIN_VARIANT,
        specification=kind.InferenceComponentSpecificationProperty(
            model_name=model_name,
            compute_resource_requirements=kind.InferenceComponentComputeResourceRequirementsProperty(
                min_memory_required_in_mb=component.memory_mb,
                number_of_cpu_cores_required=component.cpu_cores,
                number_of_accelerator_devices_required=component.accelerators,
            ),
            startup_parameters=kind.InferenceComponentStartupParametersProperty(
                container_startup_health_check_timeout_in_seconds=(
                    component.startup_timeout_seconds or DEFAULT_STARTUP_TIMEOUT_SECONDS
                ),
                model_data_download_timeout_in_seconds=component.download_timeout_seconds,
            ),
            **_placed(component),
        ),
        runtime_config=kind.InferenceComponentRuntimeConfigProperty(copy_count=component.copies),
        deployment_config=component_deployment_config(rollout, default_alarms=default_alarms) if rollout else None,
    )
    made.node.add_dependency(endpoint)
    return made


def _routing(routing: RoutingStrategy | PrefixAware) -> sagemaker.CfnEndpointConfig.RoutingConfigProperty:
    """The `RoutingConfig` of a variant."""
    if not isinstance(routing, PrefixAware):
        return _Config.RoutingConfigProperty(routing_strategy=ROUTING[routing])
    _needs("routing", "PrefixAware", _Config, "PrefixAwareRoutingConfigProperty")
    return _Config.RoutingConfigProperty(
        routing_strategy="PREFIX_AWARE",
        prefix_aware_routing_config=_Config.PrefixAwareRoutingConfigProperty(
            prefix_length=routing.prefix_length, concurrency_threshold=routing.concurrency
        ),
    )


def _scale_in(consolidation: Consolidation | None) -> dict[str, Any]:
    """The policy by which instances are removed, where an option sets it."""
    if consolidation is None:
        return {}
    _needs("consolidation", f"{consolidation.step} at a time", _Config, "ScaleInPolicyProperty")
    policy = _Config.ScaleInPolicyProperty(
        strategy="CONSOLIDATION",
        maximum_step_size=consolidation.step,
        cooldown_in_minutes=consolidation.cooldown_minutes,
    )
    return {"scale_in_policy": policy}


def _placed(component: Component) -> dict[str, Any]:
    """Where the copies of a component go, and what instances keep of it, where options set it."""
    kind, placement = sagemaker.CfnInferenceComponent, component.placement
    members: dict[str, Any] = {}
    if component.cached is not None:
        _needs("cached", component.cached, kind, "InferenceComponentDataCacheConfigProperty")
        members["data_cache_config"] = kind.InferenceComponentDataCacheConfigProperty(enable_caching=component.cached)
    if placement is not None:
        _needs("placement", placement.strategy, kind, "InferenceComponentSchedulingConfigProperty")
        members["scheduling_config"] = kind.InferenceComponentSchedulingConfigProperty(
            placement_strategy=STRATEGIES[placement.strategy],
            availability_zone_balance=kind.InferenceComponentAvailabilityZoneBalanceProperty(
                enforcement_mode="PERMISSIVE", max_imbalance=placement.zone_imbalance
            ),
        )
    return members


def metrics_config(metrics: Metrics | None) -> dict[str, Any]:
    """The `MetricsConfig` as an argument; empty where no option sets it."""
    if metrics is None:
        return {}
    said = {
        "enable_detailed_observability": metrics.detailed,
        "enable_enhanced_metrics": metrics.enhanced,
        "metric_publish_frequency_in_seconds": metrics.interval_seconds,
    }
    given = {name: value for name, value in said.items() if value is not None}
    made = getattr(_Config, "MetricsConfigProperty", None)
    lacking = sorted(given) if made is None else [name for name in given if not hasattr(made, name)]
    if lacking:
        raise _older_cdk("metrics", ", ".join(lacking))
    return {"metrics_config": made(**given)} if made is not None and given else {}


def _capacity(hosting: Instances) -> dict[str, Any]:
    """The capacity reservation and the provisioning timeout of the instances, where options set them."""
    reservation = hosting.capacity_reservation
    members: dict[str, Any] = {}
    if reservation is not None:
        _needs("capacity_reservation", reservation, _Config, "CapacityReservationConfigProperty")
        members["capacity_reservation_config"] = _Config.CapacityReservationConfigProperty(
            capacity_reservation_preference="capacity-reservations-only", ml_reservation_arn=reservation
        )
    if hosting.provision_timeout_seconds is not None:
        option, value = "provision_timeout_seconds", hosting.provision_timeout_seconds
        _needs(option, value, _Config.ProductionVariantProperty, "variant_instance_provision_timeout_in_seconds")
        members["variant_instance_provision_timeout_in_seconds"] = value
    return members


def _needs(option: str, value: object, kind: type, member: str) -> None:
    """Refuse an option whose property the installed CDK lacks."""
    if not hasattr(kind, member):
        raise _older_cdk(option, value)


def _older_cdk(option: str, value: object) -> OptionError:
    rule = "needs an aws-cdk-lib that knows it, and this one is older: upgrade it, or leave the option out"
    return OptionError(option, value, rule)


def _types(types: Sequence[str]) -> dict[str, Any]:
    """One instance type, or several in order of preference."""
    if len(types) == 1:
        return {"instance_type": types[0]}
    _needs("instance_type", ", ".join(types), _Config, "InstancePoolProperty")
    pools = [_Config.InstancePoolProperty(instance_type=each, priority=at) for at, each in enumerate(types, start=1)]
    return {"instance_pools": pools}


@dataclass(frozen=True, kw_only=True)
class Queue:
    """The bucket, the topics and the `AsyncInferenceConfig` of an asynchronous endpoint."""

    config: sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty
    bucket: s3.IBucket
    prefix: str
    """Key prefix of the endpoint's objects in the bucket."""

    success_topic: sns.ITopic | None
    error_topic: sns.ITopic | None

    def grant_use(self, grantee: iam.IGrantable) -> None:
        """Let a caller put requests into the bucket and read the responses."""
        grant_objects(self.bucket, grantee, f"{self.prefix}/input/*", write=True)
        for folder in ("output", "failure"):
            grant_objects(self.bucket, grantee, f"{self.prefix}/{folder}/*", write=False)


def queue(scope: Construct, hosting: Hosting, *, name: str, role: iam.IRole, key: kms.IKey | None) -> Queue | None:
    """Make the bucket and the topics of the endpoint `name` if it is asynchronous, and let its role use them."""
    if not isinstance(hosting, Async):
        return None
    bucket = hosting.bucket or expiring_bucket(scope, "Bucket", key=key, expire_days=hosting.expire_days)
    grant_objects(bucket, role, f"{name}/input/*", write=False)
    for folder in ("output", "failure"):
        grant_objects(bucket, role, f"{name}/{folder}/*", write=True)
    # Without it a missing object is reported as access denied (SageMaker developer guide, asynchronous inference).
    role.add_to_principal_policy(
        iam.PolicyStatement(
            actions=["s3:ListBucket"],
            resources=[bucket.bucket_arn],
            conditions={"StringLike": {"s3:prefix": f"{name}/*"}},
        )
    )
    topics = {}
    for construct_id, given in (("SuccessTopic", hosting.success_topic), ("ErrorTopic", hosting.error_topic)):
        topics[construct_id] = _topic(scope, construct_id, given, key=key)
        if topic := topics[construct_id]:
            iam.Grant.add_to_principal_or_resource(
                grantee=role, actions=["sns:Publish"], resource_arns=[topic.topic_arn], resource=topic
            )
    success, error = topics["SuccessTopic"], topics["ErrorTopic"]
    config = _Config.AsyncInferenceConfigProperty(
        output_config=_Config.AsyncInferenceOutputConfigProperty(
            s3_output_path=bucket.s3_url_for_object(f"{name}/output"),
            s3_failure_path=bucket.s3_url_for_object(f"{name}/failure"),
            kms_key_id=key.key_arn if key else None,
            notification_config=_Config.AsyncInferenceNotificationConfigProperty(
                success_topic=success.topic_arn if success else None,
                error_topic=error.topic_arn if error else None,
                include_inference_response_in=_answers_in(success, error) if hosting.answers_in_topics else None,
            )
            if success or error
            else None,
        ),
        client_config=_Config.AsyncInferenceClientConfigProperty(
            max_concurrent_invocations_per_instance=hosting.concurrency
        )
        if hosting.concurrency is not None
        else None,
    )
    return Queue(config=config, bucket=bucket, prefix=name, success_topic=success, error_topic=error)


def _answers_in(success: sns.ITopic | None, error: sns.ITopic | None) -> list[str]:
    topics = {"SUCCESS_NOTIFICATION_TOPIC": success, "ERROR_NOTIFICATION_TOPIC": error}
    return [name for name, topic in topics.items() if topic is not None]


def _topic(
    scope: Construct, construct_id: str, given: sns.ITopic | Literal["new"] | None, *, key: kms.IKey | None
) -> sns.ITopic | None:
    if given != "new":
        return given
    from aws_cdk import aws_sns as sns

    return sns.Topic(scope, construct_id, master_key=key, enforce_ssl=True)
