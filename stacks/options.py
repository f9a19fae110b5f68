"""What the settings of an endpoint come to besides its model and its image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_cdk import aws_iam as iam
from constructs import Construct

from extended_dlc import ServedModel, VllmServing
from stacks.hosting import AsyncSettings, ComponentsSettings, DataCaptureSettings, NetworkSettings
from stacks.operating import MonitoringSettings
from stacks.settings import EndpointSettings


def endpoint_options(
    scope: Construct, key: str, settings: EndpointSettings, *, name: str, models: Mapping[str, ServedModel]
) -> dict[str, Any]:
    """The options of `HuggingFaceEndpoint`; what they name in AWS is looked up below `scope`.

    `models` are those of components, by the components' ids.
    """
    hosting, found = settings.hosting, _queue(scope, key, settings.hosting)
    if isinstance(hosting, ComponentsSettings):
        parts = hosting.components.items()
        found["components"] = [each.build(name=f"{name}-{part}", model=models.get(part)) for part, each in parts]
    options: dict[str, Any] = {
        "hosting": hosting.build(**found),
        "network_isolation": settings.network_isolation,
        "role_path": settings.role_path,
        "verify": settings.verify if isinstance(settings.verify, bool) else settings.verify.build(),
    }
    if settings.vllm is not None:
        options["vllm"] = VllmServing(**settings.vllm.model_dump())
    if settings.rollout is not None:
        options["rollout"] = settings.rollout.build()
    if settings.network is not None:
        options["network"] = _network(scope, key, settings.network)
    if settings.encryption_key is not None:
        from aws_cdk import aws_kms as kms

        options["encryption_key"] = kms.Key.from_key_arn(scope, f"{key}Key", settings.encryption_key)
    if settings.data_capture is not None:
        options["data_capture"] = _capture(scope, key, settings.data_capture)
    if settings.monitoring is not None:
        options["monitoring"] = _monitoring(scope, key, settings.monitoring)
    if settings.role is not None:
        options["role"] = iam.Role.from_role_arn(scope, f"{key}GivenRole", settings.role, mutable=False)
    if settings.permissions_boundary is not None:
        options["permissions_boundary"] = iam.ManagedPolicy.from_managed_policy_arn(
            scope, f"{key}Boundary", settings.permissions_boundary
        )
    return options


def _queue(scope: Construct, key: str, hosting: Any) -> dict[str, Any]:
    if not isinstance(hosting, AsyncSettings):
        return {}
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_sns as sns

    found: dict[str, Any] = {}
    if hosting.bucket is not None:
        found["bucket"] = s3.Bucket.from_bucket_name(scope, f"{key}AnswersBucket", hosting.bucket)
    for option, given in (("success_topic", hosting.success_topic), ("error_topic", hosting.error_topic)):
        if given is not None:
            new = given == "new"
            found[option] = given if new else sns.Topic.from_topic_arn(scope, f"{key}_{option}", given)
    return found


def _monitoring(scope: Construct, key: str, monitoring: MonitoringSettings) -> Any:
    found: dict[str, Any] = {}
    if monitoring.alarm_topic == "new":
        found["alarm_topic"] = "new"
    elif monitoring.alarm_topic is not None:
        from aws_cdk import aws_sns as sns

        found["alarm_topic"] = sns.Topic.from_topic_arn(scope, f"{key}AlarmTopic", monitoring.alarm_topic)
    if monitoring.log_key is not None:
        from aws_cdk import aws_kms as kms

        found["log_key"] = kms.Key.from_key_arn(scope, f"{key}LogKey", monitoring.log_key)
    return monitoring.build(**found)


def _capture(scope: Construct, key: str, capture: DataCaptureSettings) -> Any:
    from aws_cdk import aws_s3 as s3

    if capture.bucket is None:
        return capture.build()
    return capture.build(bucket=s3.Bucket.from_bucket_name(scope, f"{key}CaptureBucket", capture.bucket))


def _network(scope: Construct, key: str, network: NetworkSettings) -> Any:
    from aws_cdk import aws_ec2 as ec2

    from extended_dlc import Network

    home = Construct(scope, f"{key}Network")
    return Network(
        # the subnets are named one by one, and their zones are never asked for
        vpc=ec2.Vpc.from_vpc_attributes(home, "Vpc", vpc_id=network.vpc, availability_zones=["unknown"]),
        subnets=[ec2.Subnet.from_subnet_id(home, each, each) for each in network.subnets],
        security_groups=[
            ec2.SecurityGroup.from_security_group_id(home, each, each) for each in network.security_groups
        ],
    )
