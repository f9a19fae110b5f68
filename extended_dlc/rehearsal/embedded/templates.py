"""The API operation of each resource type, and the conversion of its properties to the operation's parameters.

CloudFormation's handlers call the services' APIs, so the calls of a template are checked with the same shapes and rules
as boto3's. A type that is not in `KINDS` is checked only by its own implementation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded import resource_schemas
from extended_dlc.rehearsal.embedded.calls import Call, Parameters
from extended_dlc.rehearsal.embedded.shapes import TemplateFault, parameters_of

Further = tuple[str, str, Parameters]
"""A further call of a resource: the service, the operation and its parameters."""


class Wanted(Protocol):
    """One resource as its template declares it."""

    @property
    def account_id(self) -> str:
        """The stack's account."""

    @property
    def region(self) -> str:
        """The stack's region."""

    @property
    def logical_id(self) -> str:
        """Its logical ID."""

    @property
    def type(self) -> str:
        """The resource's type."""

    @property
    def name(self) -> str:
        """Its physical name."""

    @property
    def properties(self) -> Parameters:
        """Its properties with all intrinsic functions resolved."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One resource type."""

    service: str
    create: str
    update: str | None = None
    """The operation of an update; None where `create` is called again, `""` where no call is checked."""

    name: str = ""
    """The parameter with the physical name."""

    only_create: frozenset[str] = frozenset()
    """Parameters that the update lacks."""

    only_update: frozenset[str] = frozenset()
    """Properties that only the update has as parameters."""

    elsewhere: frozenset[str] = frozenset()
    """Properties that are parameters of other operations."""

    convert: Callable[[Parameters], Parameters] | None = None
    """Converts the properties to the API's form, where it differs."""


def _first_small(name: str) -> str:
    return f"{name[0].lower()}{name[1:]}"


def _camel(value: Any) -> Any:
    """A structure whose names start in lower case, as in some APIs."""
    if isinstance(value, Mapping):
        return {_first_small(key): _camel(each) for key, each in value.items()}
    return [_camel(each) for each in value] if isinstance(value, list) else value


def _log_group(given: Parameters) -> Parameters:
    tags = {each["Key"]: each["Value"] for each in given.get("Tags", ())}
    rest = _camel({key: each for key, each in given.items() if key != "Tags"})
    return {**rest, **({"tags": tags} if tags else {})}


def stack_parameters(given: Parameters) -> list[Parameters]:
    """A nested stack's parameters in the form of the API; a list is written as text."""
    return [
        {"ParameterKey": key, "ParameterValue": ",".join(map(str, each)) if isinstance(each, list) else str(each)}
        for key, each in given.get("Parameters", {}).items()
    ]


def _nested_stack(given: Parameters) -> Parameters:
    """The parent's capabilities hold for its nested stacks, and the parent was refused without them."""
    changed = {key: each for key, each in given.items() if key not in ("NotificationARNs", "TimeoutInMinutes")}
    capabilities = ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
    return {**changed, "Parameters": stack_parameters(given), "Capabilities": capabilities}


def _metric_filter(given: Parameters) -> Parameters:
    changed = _camel(given)
    for each in changed.get("metricTransformations", ()):
        if isinstance(each.get("dimensions"), list):
            each["dimensions"] = {pair["key"]: pair["value"] for pair in each["dimensions"]}
    return dict(changed)


def _repository(given: Parameters) -> Parameters:
    tags = given.get("Tags")
    changed = _camel({key: each for key, each in given.items() if key not in ("Tags", _EXCLUSIONS)})
    excluded = [
        {_first_small(key.removeprefix("ImageTagMutabilityExclusion")): value for key, value in each.items()}
        for each in given.get(_EXCLUSIONS, ())
    ]
    filters = [{"filterType": each.get("filterType"), "filter": each.get("filterValue")} for each in excluded]
    return {
        **changed,
        **({"imageTagMutabilityExclusionFilters": filters} if filters else {}),
        **({"tags": tags} if tags else {}),
    }


_EXCLUSIONS = "ImageTagMutabilityExclusionFilters"


def _role(given: Parameters) -> Parameters:
    return {**given, "AssumeRolePolicyDocument": _text(given.get("AssumeRolePolicyDocument"))}


def _text(policy: Any) -> str:
    # a version of a policy that YAML reads as a date is written as its text
    return policy if isinstance(policy, str) else json.dumps(policy, default=str)


def _scaling_policy(given: Parameters) -> Parameters:
    target = str(given.get("ScalingTargetId", ""))
    rest = {key: each for key, each in given.items() if key != "ScalingTargetId"}
    if target.count("|") != 2:
        return rest
    resource, dimension, namespace = target.split("|")
    return {**rest, "ResourceId": resource, "ScalableDimension": dimension, "ServiceNamespace": namespace}


def _key(given: Parameters) -> Parameters:
    policy = given.get("KeyPolicy")
    known: Parameters = {
        key: given[key] for key in ("Description", "KeySpec", "KeyUsage", "MultiRegion") if key in given
    }
    return {**known, **({"Policy": _text(policy)} if policy else {})}


def _function(given: Parameters) -> Parameters:
    known: Parameters = {key: given[key] for key in _OF_FUNCTION if key in given}
    return {**known, **({"Code": {}} if "Code" in given else {})}


_OF_FUNCTION = (
    *("Architectures", "Description", "Environment", "EphemeralStorage", "FunctionName", "Handler", "MemorySize"),
    *("PackageType", "Role", "Runtime", "Timeout", "TracingConfig"),
)
"""The properties of a function that its operations have under the same names."""


def _machine(given: Parameters) -> Parameters:
    definition = _text(given.get("DefinitionString") or given.get("Definition") or {})
    for name, value in (given.get("DefinitionSubstitutions") or {}).items():
        definition = definition.replace(f"${{{name}}}", str(value))
    kind = {"type": given["StateMachineType"]} if "StateMachineType" in given else {}
    return {"name": given.get("StateMachineName"), "definition": definition, "roleArn": given.get("RoleArn"), **kind}


def _project(given: Parameters) -> Parameters:
    build = given.get("Source", {}).get("BuildSpec")
    environment = given.get("Environment", {})
    return {
        **{_first_small(key): given[key] for key in _OF_PROJECT if key in given},
        "source": {"type": given.get("Source", {}).get("Type"), **({"buildspec": build} if build else {})},
        "artifacts": {"type": given.get("Artifacts", {}).get("Type")},
        "environment": {_first_small(key): environment[key] for key in _OF_ENVIRONMENT if key in environment},
    }


_OF_PROJECT = ("Description", "EncryptionKey", "QueuedTimeoutInMinutes", "ServiceRole", "TimeoutInMinutes")
_OF_ENVIRONMENT = ("ComputeType", "Image", "ImagePullCredentialsType", "PrivilegedMode", "Type")


def _of_names(*names: str) -> Callable[[Parameters], Parameters]:
    """A conversion that keeps these properties, whose operation has them under the same names."""
    return lambda given: {key: given[key] for key in names if key in given}


def _rule(given: Parameters) -> Parameters:
    pattern = given.get("EventPattern")
    known = _of_names("Description", "ScheduleExpression", "State", "RoleArn")(given)
    return {**known, **({"EventPattern": _text(pattern)} if pattern else {})}


KINDS: Mapping[str, Kind] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": Kind(
        service="application-autoscaling", create="RegisterScalableTarget", elsewhere=frozenset({"ScheduledActions"})
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": Kind(
        service="application-autoscaling", create="PutScalingPolicy", convert=_scaling_policy
    ),
    "AWS::CloudFormation::Stack": Kind(
        service="cloudformation", create="CreateStack", update="UpdateStack", name="StackName", convert=_nested_stack
    ),
    "AWS::CloudWatch::Alarm": Kind(service="cloudwatch", create="PutMetricAlarm", name="AlarmName"),
    "AWS::CloudWatch::Dashboard": Kind(service="cloudwatch", create="PutDashboard", name="DashboardName"),
    "AWS::CodeBuild::Project": Kind(
        service="codebuild", create="CreateProject", update="UpdateProject", name="name", convert=_project
    ),
    "AWS::ECR::Repository": Kind(
        service="ecr",
        create="CreateRepository",
        name="repositoryName",
        convert=_repository,
        elsewhere=frozenset({"EmptyOnDelete", "LifecyclePolicy", "RepositoryPolicyText"}),
    ),
    "AWS::Events::Rule": Kind(service="events", create="PutRule", name="Name", convert=_rule),
    "AWS::IAM::Role": Kind(
        service="iam",
        create="CreateRole",
        name="RoleName",
        convert=_role,
        elsewhere=frozenset({"ManagedPolicyArns", "Policies"}),
    ),
    "AWS::KMS::Alias": Kind(
        service="kms",
        create="CreateAlias",
        update="UpdateAlias",
        convert=_of_names("AliasName", "TargetKeyId"),
    ),
    "AWS::KMS::Key": Kind(service="kms", create="CreateKey", update="", convert=_key),
    "AWS::Lambda::Function": Kind(
        service="lambda",
        create="CreateFunction",
        update="UpdateFunctionConfiguration",
        name="FunctionName",
        only_create=frozenset({"Architectures", "Code", "PackageType"}),
        convert=_function,
    ),
    "AWS::Logs::LogGroup": Kind(
        service="logs",
        create="CreateLogGroup",
        update="",
        name="logGroupName",
        convert=_log_group,
        elsewhere=frozenset(
            {"DataProtectionPolicy", "FieldIndexPolicies", "ResourcePolicyDocument", "RetentionInDays"}
        ),
    ),
    "AWS::Logs::MetricFilter": Kind(
        service="logs", create="PutMetricFilter", name="filterName", convert=_metric_filter
    ),
    "AWS::S3::Bucket": Kind(service="s3", create="CreateBucket", update="", name="Bucket", convert=_of_names()),
    "AWS::SNS::Topic": Kind(service="sns", create="CreateTopic", update="", name="Name", convert=_of_names()),
    "AWS::SSM::Parameter": Kind(
        service="ssm",
        create="PutParameter",
        name="Name",
        convert=_of_names("AllowedPattern", "DataType", "Description", "Tier", "Type", "Value"),
    ),
    "AWS::SageMaker::Endpoint": Kind(
        service="sagemaker",
        create="CreateEndpoint",
        update="UpdateEndpoint",
        name="EndpointName",
        only_create=frozenset({"Tags"}),
        only_update=frozenset(
            {"ExcludeRetainedVariantProperties", "RetainAllVariantProperties", "RetainDeploymentConfig"}
        ),
    ),
    "AWS::SageMaker::EndpointConfig": Kind(
        service="sagemaker",
        create="CreateEndpointConfig",
        update="",
        name="EndpointConfigName",
    ),
    "AWS::SageMaker::InferenceComponent": Kind(
        service="sagemaker",
        create="CreateInferenceComponent",
        update="UpdateInferenceComponent",
        name="InferenceComponentName",
        only_create=frozenset({"EndpointName", "VariantName", "Tags"}),
        only_update=frozenset({"DeploymentConfig"}),
        elsewhere=frozenset({"EndpointArn"}),
    ),
    "AWS::SageMaker::Model": Kind(service="sagemaker", create="CreateModel", update="", name="ModelName"),
    "AWS::SageMaker::ModelPackageGroup": Kind(
        service="sagemaker",
        create="CreateModelPackageGroup",
        update="",
        convert=_of_names("ModelPackageGroupName", "ModelPackageGroupDescription", "Tags"),
    ),
    "AWS::Scheduler::Schedule": Kind(
        service="scheduler", create="CreateSchedule", update="UpdateSchedule", name="Name"
    ),
    "AWS::SecretsManager::Secret": Kind(
        service="secretsmanager",
        create="CreateSecret",
        update="",
        name="Name",
        convert=_of_names("Description", "KmsKeyId", "SecretString"),
    ),
    "AWS::StepFunctions::StateMachine": Kind(
        service="stepfunctions", create="CreateStateMachine", name="name", convert=_machine
    ),
}
"""The types by their names."""


def check_properties(wish: Wanted) -> None:
    """Raise `TemplateFault` for properties that violate the schema of their type.

    Properties that are the parameters of an operation are compared with its shape instead, which has AWS's own words.
    """
    kind = KINDS.get(wish.type)
    if kind is None or kind.convert is not None:
        resource_schemas.check(wish.logical_id, wish.type, wish.properties)


def calls_to_create(wish: Wanted) -> Iterator[Call]:
    """The calls that create a resource, and those of its further properties."""
    kind = KINDS.get(wish.type)
    if kind is not None:
        yield _call(kind, kind.create, wish, without=kind.only_update)
    yield from _further_calls(wish)


def _further_calls(wish: Wanted) -> Iterator[Call]:
    """The calls of properties that have operations of their own, again at each update."""
    for service, operation, given in _FURTHER.get(wish.type, _nothing)(wish):
        yield _of(service, operation, wish, given)


def _nothing(wish: Wanted) -> Iterator[Further]:
    yield from ()


def _scheduled_actions(wish: Wanted) -> Iterator[Further]:
    given = wish.properties
    target: Parameters = {
        key: given[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension") if key in given
    }
    for each in given.get("ScheduledActions", ()):
        yield "application-autoscaling", "PutScheduledAction", {**each, **target}


def _retention(wish: Wanted) -> Iterator[Further]:
    if (days := wish.properties.get("RetentionInDays")) is not None:
        yield "logs", "PutRetentionPolicy", {"logGroupName": wish.name, "retentionInDays": days}


def _repository_policy(wish: Wanted) -> Iterator[Further]:
    if policy := wish.properties.get("RepositoryPolicyText"):
        yield "ecr", "SetRepositoryPolicy", {"repositoryName": wish.name.lower(), "policyText": _text(policy)}


def _lifecycle_policy(wish: Wanted) -> Iterator[Further]:
    yield from _repository_policy(wish)
    if text := wish.properties.get("LifecyclePolicy", {}).get("LifecyclePolicyText"):
        yield "ecr", "PutLifecyclePolicy", {"repositoryName": wish.name.lower(), "lifecyclePolicyText": text}


def _of_bucket(wish: Wanted) -> Iterator[Further]:
    """The calls of a bucket's configurations, without these: their rights are checked, and S3 has no shapes here."""
    for name, operation in _OF_BUCKET.items():
        if wish.properties.get(name):
            yield "s3", operation, {"Bucket": wish.name}


_OF_BUCKET = {
    "BucketEncryption": "PutBucketEncryption",
    "CorsConfiguration": "PutBucketCors",
    "LifecycleConfiguration": "PutBucketLifecycleConfiguration",
    "LoggingConfiguration": "PutBucketLogging",
    "NotificationConfiguration": "PutBucketNotificationConfiguration",
    "OwnershipControls": "PutBucketOwnershipControls",
    "PublicAccessBlockConfiguration": "PutPublicAccessBlock",
    "Tags": "PutBucketTagging",
    "VersioningConfiguration": "PutBucketVersioning",
}
"""A bucket's properties, and the operation of each."""


def _bucket_policy(wish: Wanted) -> Iterator[Further]:
    policy = _text(wish.properties.get("PolicyDocument"))
    yield "s3", "PutBucketPolicy", {"Bucket": wish.properties.get("Bucket"), "Policy": policy}


def _topic_policies(wish: Wanted) -> Iterator[Further]:
    value = _text(wish.properties.get("PolicyDocument"))
    for topic in wish.properties.get("Topics", ()):
        yield (
            "sns",
            "SetTopicAttributes",
            {"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": value},
        )


def _subscription(wish: Wanted) -> Iterator[Further]:
    yield "sns", "Subscribe", _of_names("TopicArn", "Protocol", "Endpoint")(wish.properties)


def _permission(wish: Wanted) -> Iterator[Further]:
    known = _of_names("FunctionName", "Action", "Principal", "SourceArn", "SourceAccount")(wish.properties)
    yield "lambda", "AddPermission", {**known, "StatementId": wish.logical_id}


def _managed_policy(wish: Wanted) -> Iterator[Further]:
    given = wish.properties
    name = given.get("ManagedPolicyName") or wish.name
    yield "iam", "CreatePolicy", {"PolicyName": name, "PolicyDocument": _text(given.get("PolicyDocument"))}
    arn = f"arn:{get_partition(wish.region)}:iam::{wish.account_id}:policy/{name}"
    for role in given.get("Roles", ()):
        yield "iam", "AttachRolePolicy", {"RoleName": role, "PolicyArn": arn}


def _role_policies(wish: Wanted) -> Iterator[Further]:
    yield from _inline_policies(wish)
    for arn in wish.properties.get("ManagedPolicyArns", ()):
        yield "iam", "AttachRolePolicy", {"RoleName": wish.name, "PolicyArn": arn}


def _inline_policies(wish: Wanted) -> Iterator[Further]:
    """PutRolePolicy for each policy of a role, and for each role of a policy."""
    given = wish.properties
    policies = given.get("Policies", ()) if wish.type == "AWS::IAM::Role" else [given]
    roles = [wish.name] if wish.type == "AWS::IAM::Role" else given.get("Roles", ())
    for role in roles:
        for each in policies:
            document = _text(each["PolicyDocument"])
            yield (
                "iam",
                "PutRolePolicy",
                {
                    "RoleName": role,
                    "PolicyName": each["PolicyName"],
                    "PolicyDocument": document,
                },
            )


_FURTHER: Mapping[str, Callable[[Wanted], Iterator[Further]]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": _scheduled_actions,
    "AWS::ECR::Repository": _lifecycle_policy,
    "AWS::IAM::ManagedPolicy": _managed_policy,
    "AWS::IAM::Policy": _inline_policies,
    "AWS::IAM::Role": _role_policies,
    "AWS::Lambda::Permission": _permission,
    "AWS::Logs::LogGroup": _retention,
    "AWS::S3::Bucket": _of_bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SNS::Subscription": _subscription,
    "AWS::SNS::TopicPolicy": _topic_policies,
}


CHECKED = frozenset({*KINDS, *_FURTHER})
"""The types whose calls are checked; what the others do is allowed to every role, and their implementation's matter."""


def calls_to_update(wish: Wanted) -> Iterator[Call]:
    """The calls that update a resource in place."""
    kind = KINDS.get(wish.type)
    if kind is not None and kind.update is None:
        yield _call(kind, kind.create, wish, without=kind.only_update)
    elif kind is not None and kind.update:
        yield _call(kind, kind.update, wish, without=kind.only_create)
    yield from _further_calls(wish)


def _call(kind: Kind, operation: str, wish: Wanted, *, without: frozenset[str]) -> Call:
    dropped = without | kind.elsewhere
    given = {key: each for key, each in wish.properties.items() if key not in dropped and each is not None}
    given = kind.convert(given) if kind.convert else given
    return _of(kind.service, operation, wish, {**given, **({kind.name: wish.name} if kind.name else {})})


def _of(service: str, operation: str, wish: Wanted, given: Parameters) -> Call:
    try:
        parameters = parameters_of(service, operation, given)
    except TemplateFault as fault:
        message = f"Properties validation failed for resource {wish.logical_id} with message: [{fault.message}]"
        raise TemplateFault(message) from None
    return Call(
        service=service,
        operation=operation,
        parameters=parameters,
        account_id=wish.account_id,
        region=wish.region,
        template=True,
    )


def calls_to_delete(wish: Wanted) -> Iterator[Call]:
    """The call that deletes a resource."""
    kind, given = KINDS.get(wish.type), wish.properties
    if wish.type in _DELETED_BY:
        operation, parameters = _DELETED_BY[wish.type]
        known = {**given, "": wish.name, _LOGICAL: wish.logical_id, **_arns(wish)}
        found = {name: known[key] if many is False else [known[key]] for name, (key, many) in parameters.items()}
        yield _of(kind.service if kind else _service(wish.type), operation, wish, found)
    elif kind is not None and kind.name:
        operation = kind.create.replace("Create", "Delete")
        yield _of(kind.service, operation, wish, {kind.name: wish.name})


_LOGICAL = "the logical ID"
_MACHINE = "the state machine's ARN"
_TOPIC = "the topic's ARN"


def _arns(wish: Wanted) -> Mapping[str, str]:
    """The ARNs that a resource of this name has as a state machine and as a topic."""
    suffix = f"{wish.region}:{wish.account_id}"
    partition = get_partition(wish.region)
    return {
        _MACHINE: f"arn:{partition}:states:{suffix}:stateMachine:{wish.name}",
        _TOPIC: f"arn:{partition}:sns:{suffix}:{wish.name}",
    }


def _service(name: str) -> str:
    """botocore's name of the service of a resource type that has no row in `KINDS`."""
    return name.split("::")[1].lower()


_DELETED_BY: Mapping[str, tuple[str, Mapping[str, tuple[str, bool]]]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": (
        "DeregisterScalableTarget",
        {key: (key, False) for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")},
    ),
    "AWS::CloudWatch::Alarm": ("DeleteAlarms", {"AlarmNames": ("", True)}),
    "AWS::CloudWatch::Dashboard": ("DeleteDashboards", {"DashboardNames": ("", True)}),
    "AWS::Events::Rule": ("DeleteRule", {"Name": ("", False)}),
    "AWS::KMS::Alias": ("DeleteAlias", {"AliasName": ("AliasName", False)}),
    "AWS::Lambda::Permission": (
        "RemovePermission",
        {"FunctionName": ("FunctionName", False), "StatementId": (_LOGICAL, False)},
    ),
    "AWS::Logs::MetricFilter": (
        "DeleteMetricFilter",
        {"logGroupName": ("LogGroupName", False), "filterName": ("", False)},
    ),
    "AWS::S3::BucketPolicy": ("DeleteBucketPolicy", {"Bucket": ("Bucket", False)}),
    "AWS::SNS::Topic": ("DeleteTopic", {"TopicArn": (_TOPIC, False)}),
    "AWS::SSM::Parameter": ("DeleteParameter", {"Name": ("", False)}),
    "AWS::SageMaker::ModelPackageGroup": (
        "DeleteModelPackageGroup",
        {"ModelPackageGroupName": ("ModelPackageGroupName", False)},
    ),
    "AWS::SecretsManager::Secret": ("DeleteSecret", {"SecretId": ("", False)}),
    "AWS::StepFunctions::StateMachine": ("DeleteStateMachine", {"stateMachineArn": (_MACHINE, False)}),
}
"""The operation, and of each parameter the property (the physical name without one) and whether it is a list."""
