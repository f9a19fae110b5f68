"""The resource types with an implementation of this project, one row each; others are moto's or only recorded."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import moto.logs.models  # noqa: F401 - moto lists the resource types of imported modules only
from moto.cloudformation import parsing
from moto.ecr.models import Repository, ecr_backends
from moto.iam.models import Role, iam_backends
from moto.s3.exceptions import BucketNotEmpty
from moto.s3.models import s3_backends
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends
from moto.sns.models import sns_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded import components, managed_secrets, networks, scaling, sharing, states, watching
from extended_dlc.rehearsal.embedded.custom_resources import copy_image, empty_bucket, empty_repository
from extended_dlc.rehearsal.embedded.door import Door
from extended_dlc.rehearsal.embedded.iam import TEMPLATE_POLICY, attach_policy
from extended_dlc.rehearsal.embedded.resources import (
    CustomHandler,
    CustomResource,
    MotoType,
    Properties,
    Record,
    Recorded,
    ResourceFailed,
    ResourceType,
    Row,
    Wish,
)
from extended_dlc.rehearsal.embedded.run_copy import forget_project, make_project
from extended_dlc.rehearsal.embedded.sagemaker import Endpoint, SageMaker
from extended_dlc.rehearsal.embedded.store import BlobStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResourceTypes:
    """Every resource type by its name."""

    defined: Mapping[str, ResourceType]
    custom: Mapping[str, CustomHandler]
    door: Door
    """Checks the calls that a template's resources make."""

    def __getitem__(self, name: str) -> ResourceType:
        """The type: this project's, a custom resource, moto's, or one that is only recorded."""
        if name in self.defined:
            return self.defined[name]
        if name.startswith("Custom::") or name == "AWS::CloudFormation::CustomResource":
            return CustomResource(self.custom.get(name))
        if model := parsing.get_model_map().get(name):
            return MotoType(model, _REMOVED.get(name))
        _log.warning("%s is recorded only: the embedded AWS has no such service", name)
        return Recorded()


def resource_types(
    control: SageMaker, blobs: BlobStore, custom: Mapping[str, CustomHandler], *, door: Door, port: int
) -> ResourceTypes:
    """The resource types; `custom` has the handlers of further custom resources."""
    parsing.get_model_list.cache_clear()
    parsing.get_model_map.cache_clear()
    handlers = {
        **custom,
        "Custom::CDKECRDeployment": copy_image(blobs, door.iam, port=port),
        "Custom::ECRAutoDeleteImages": empty_repository,
        "Custom::S3AutoDeleteObjects": empty_bucket,
    }
    return ResourceTypes(defined=_rows(control), custom=handlers, door=door)


def own_names() -> list[str]:
    """The names of the types with an implementation of this project."""
    return sorted(_rows(cast(SageMaker, None)))  # the rows use the control plane only when they are asked


def _rows(control: SageMaker) -> dict[str, ResourceType]:
    return {
        "AWS::ApplicationAutoScaling::ScalableTarget": Row(
            named_by=None,
            replaced_by=("ResourceId", "ScalableDimension", "ServiceNamespace"),
            make=scaling.register_target,
            change=scaling.change_target,
            remove=scaling.deregister_target,
        ),
        "AWS::ApplicationAutoScaling::ScalingPolicy": Row(
            named_by="PolicyName",
            replaced_by=("ScalingTargetId", "ResourceId", "ScalableDimension", "ServiceNamespace"),
            make=scaling.put_policy,
            remove=scaling.delete_policy,
        ),
        "AWS::CDK::Metadata": Recorded(),
        "AWS::CloudWatch::Alarm": Row(named_by="AlarmName", make=scaling.put_alarm, remove=scaling.delete_alarm),
        "AWS::CloudWatch::Dashboard": Row(
            named_by="DashboardName", make=watching.put_dashboard, remove=watching.delete_dashboard
        ),
        "AWS::CodeBuild::Project": Row(named_by="Name", make=make_project, remove=forget_project),
        "AWS::ECR::Repository": Row(
            named_by="RepositoryName",
            replaced_by=("EncryptionConfiguration",),
            make=_create_repository,
            change=_change_repository,
            remove=_delete_repository,
        ),
        "AWS::IAM::Role": IamRole(),
        "AWS::Logs::MetricFilter": Row(
            named_by="FilterName",
            replaced_by=("LogGroupName",),
            make=watching.put_metric_filter,
            remove=watching.delete_metric_filter,
        ),
        "AWS::RAM::ResourceShare": Row(
            named_by="Name", make=sharing.create_share, change=sharing.change_share, remove=sharing.delete_share
        ),
        "AWS::S3::BucketPolicy": Row(
            named_by=None, replaced_by=("Bucket",), make=_put_bucket_policy, remove=_delete_bucket_policy
        ),
        "AWS::SNS::TopicPolicy": Row(named_by=None, make=_put_topic_policy, remove=lambda wish, model: None),
        "AWS::SageMaker::Endpoint": Row(
            named_by="EndpointName",
            make=lambda wish: _create_endpoint(control, wish),
            change=lambda wish, model, old: _update_endpoint(control, wish, model),
            remove=lambda wish, model: control.delete_endpoint(_sagemaker(wish), model.endpoint_name).settled.wait(),
        ),
        "AWS::SageMaker::EndpointConfig": Row(
            named_by="EndpointConfigName",
            only_changes=("Tags",),
            make=lambda wish: control.create_endpoint_config(_sagemaker(wish), _named(wish, "EndpointConfigName")),
            change=_set_tags,
            remove=lambda wish, model: _sagemaker(wish).delete_endpoint_config(model.endpoint_config_name),
        ),
        "AWS::SageMaker::InferenceComponent": Row(
            named_by="InferenceComponentName",
            replaced_by=("EndpointName",),
            make=lambda wish: components.make(control, wish),
            change=lambda wish, model, old: components.change(control, wish),
            remove=lambda wish, model: components.delete(control, _sagemaker(wish), wish.name),
        ),
        "AWS::SageMaker::Model": Row(
            named_by="ModelName",
            only_changes=("Tags",),
            make=lambda wish: control.create_model(_sagemaker(wish), _named(wish, "ModelName")),
            change=_set_tags,
            remove=lambda wish, model: _sagemaker(wish).delete_model(model.model_name),
        ),
        "AWS::Scheduler::Schedule": Row(
            named_by="Name",
            replaced_by=("GroupName",),
            make=watching.create_schedule,
            change=watching.change_schedule,
            remove=watching.delete_schedule,
        ),
        "AWS::SecretsManager::Secret": Row(
            named_by="Name",
            make=managed_secrets.create_secret,
            change=managed_secrets.change_secret,
            remove=managed_secrets.delete_secret,
        ),
        "AWS::StepFunctions::StateMachine": Row(
            named_by="StateMachineName",
            replaced_by=("StateMachineType",),
            make=states.create_machine,
            change=states.update_machine,
            remove=states.delete_machine,
        ),
    }


def _put_bucket_policy(wish: Wish) -> Record:
    """PutBucketPolicy, for this project's evaluation alone: moto's applies a Deny without its Condition."""
    bucket = s3_backends[wish.account_id][get_partition(wish.region)].head_bucket(wish.properties["Bucket"])
    setattr(bucket, TEMPLATE_POLICY, wish.properties["PolicyDocument"])
    return Record(wish.name, wish.properties)


def _delete_bucket_policy(wish: Wish, model: Any) -> None:
    """DeleteBucketPolicy."""
    buckets = s3_backends[wish.account_id][get_partition(wish.region)].buckets
    if (bucket := buckets.get(wish.properties["Bucket"])) is not None:
        setattr(bucket, TEMPLATE_POLICY, None)


def _put_topic_policy(wish: Wish) -> Record:
    """SetTopicAttributes of each topic."""
    for arn in wish.properties["Topics"]:
        topic = sns_backends[wish.account_id][arn.split(":")[3]].get_topic(arn)
        topic.policy = json.dumps(wish.properties["PolicyDocument"])
    return Record(wish.name, wish.properties)


def _named(wish: Wish, name: str) -> Properties:
    return {**wish.properties, name: wish.name}


def _sagemaker(wish: Wish) -> SageMakerModelBackend:
    return sagemaker_backends[wish.account_id][wish.region]


def _set_tags(wish: Wish, model: Any, old: Properties) -> Any:
    model.tags = wish.properties.get("Tags", [])
    return model


def _create_endpoint(control: SageMaker, wish: Wish) -> Endpoint:
    """CreateEndpoint; CloudFormation waits until the endpoint is in service."""
    endpoint = control.create_endpoint(_sagemaker(wish), _named(wish, "EndpointName"))
    endpoint.settled.wait()
    if endpoint.endpoint_status != "InService":
        raise ResourceFailed(str(endpoint.failure_reason), endpoint)
    return endpoint


def _update_endpoint(control: SageMaker, wish: Wish, model: Endpoint) -> Endpoint:
    """UpdateEndpoint, with a wait. In a rollback the old configuration is in service already, so nothing is done."""
    model.tags = wish.properties.get("Tags", [])
    if model.endpoint_config_name == wish.properties["EndpointConfigName"]:
        return model
    control.update_endpoint(_sagemaker(wish), {**wish.properties, "EndpointName": model.endpoint_name})
    model.settled.wait()
    if model.failure_reason or model.endpoint_status != "InService":
        raise ResourceFailed(str(model.failure_reason), model)
    return model


class IamRole(MotoType):
    """`AWS::IAM::Role`: moto's update changes only the description."""

    def __init__(self) -> None:
        super().__init__(Role)  # type: ignore[type-abstract]  # moto leaves abstract methods in all its models

    def create(self, wish: Wish) -> Any:
        """Attaches the managed policies as well, which moto omits."""
        role = super().create(wish)
        for arn in wish.properties.get("ManagedPolicyArns", ()):
            attach_policy(wish.account_id, wish.region, role.name, arn)
        return role

    def delete(self, wish: Wish, model: Any) -> None:
        """Detaches the template's managed policies first."""
        for arn in set(wish.properties.get("ManagedPolicyArns", ())) & set(model.managed_policies):
            iam_backends[wish.account_id]["aws"].detach_role_policy(arn, model.name)
        super().delete(wish, model)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Updates the trust policy, the inline policies and the managed policies as well."""
        backend = iam_backends[wish.account_id]["aws"]
        new = wish.properties
        if (trust := new.get("AssumeRolePolicyDocument")) is not None:
            model.assume_role_policy_document = trust if isinstance(trust, str) else json.dumps(trust)
        model.description = new.get("Description", "")
        for policy in old.get("Policies", ()):
            model.policies.pop(policy["PolicyName"], None)
        for policy in new.get("Policies", ()):
            document = policy["PolicyDocument"]
            text = document if isinstance(document, str) else json.dumps(document)
            backend.put_role_policy(model.name, policy["PolicyName"], text)
        for arn in set(old.get("ManagedPolicyArns", ())) - set(new.get("ManagedPolicyArns", ())):
            backend.detach_role_policy(arn, model.name)
        for arn in set(new.get("ManagedPolicyArns", ())) - set(old.get("ManagedPolicyArns", ())):
            attach_policy(wish.account_id, wish.region, model.name, arn)
        return model


# AWS::ECR::Repository: moto's loses policies, ignores `EmptyOnDelete`, and renames the repository in an update


def _create_repository(wish: Wish) -> Repository:
    """CreateRepository, then the lifecycle and repository policies."""
    given = wish.properties
    repository = ecr_backends[wish.account_id][wish.region].create_repository(
        repository_name=wish.name.lower(),
        registry_id=None,
        encryption_config=_camel(given.get("EncryptionConfiguration")),
        image_scan_config=_camel(_booleans(given.get("ImageScanningConfiguration"))),
        image_tag_mutability=given.get("ImageTagMutability", "MUTABLE"),
        image_tag_mutability_exclusion_filters=_filters(given),
        tags=given.get("Tags", []),
    )
    _set_policies(wish, repository)
    return repository


def _change_repository(wish: Wish, model: Repository, old: Properties) -> Repository:
    given = wish.properties
    model._update_image_tag_mutability(given.get("ImageTagMutability", "MUTABLE"), _filters(given))
    scanning = _booleans(given.get("ImageScanningConfiguration")) or {"ScanOnPush": False}
    model.image_scanning_configuration = _camel(scanning)
    _set_policies(wish, model)
    return model


def _delete_repository(wish: Wish, model: Repository) -> None:
    """DeleteRepository, with `force` where `EmptyOnDelete` is set."""
    force = str(wish.properties.get("EmptyOnDelete", False)).lower() == "true"
    ecr_backends[wish.account_id][wish.region].delete_repository(model.name, force=force)


def _filters(given: Properties) -> Any:
    return Repository._convert_cfn_mutability_exclusion_filters(given.get("ImageTagMutabilityExclusionFilters"))


def _set_policies(wish: Wish, repository: Repository) -> None:
    repository.lifecycle_policy = wish.properties.get("LifecyclePolicy", {}).get("LifecyclePolicyText")
    policy = wish.properties.get("RepositoryPolicyText")
    repository.policy = json.dumps(policy) if isinstance(policy, dict) else policy


def _camel(given: Mapping[str, Any] | None) -> Any:
    """A CloudFormation structure with the API's names, whose first letter is lower case."""
    return {key[0].lower() + key[1:]: value for key, value in given.items()} if given else None


def _booleans(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {key: str(value).lower() == "true" for key, value in given.items()} if given else None


def _delete_managed_policy(wish: Wish, model: Any) -> None:
    """DeletePolicy, after it was detached from whoever has it: moto's own model has no deletion."""
    backend = iam_backends[wish.account_id][get_partition(wish.region)]
    holders: list[Any] = [*backend.users.values(), *backend.roles.values(), *backend.groups.values()]
    for each in holders:
        if model.arn in each.managed_policies:
            model.detach_from(each)
    backend.managed_policies.pop(model.arn, None)


def _delete_bucket(wish: Wish, model: Any) -> None:
    """DeleteBucket, which S3 refuses for a bucket with objects; moto's model keeps it then, without a word."""
    if s3_backends[wish.account_id][get_partition(wish.region)].delete_bucket(model.name) is None:
        raise BucketNotEmpty(model.name)


_REMOVED = {
    **dict.fromkeys(networks.PARTS, networks.delete_part),
    "AWS::IAM::ManagedPolicy": _delete_managed_policy,
    "AWS::S3::Bucket": _delete_bucket,
}
"""What deletes a resource of moto's types whose own models do not, or not as AWS does."""
