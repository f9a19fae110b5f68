"""The API operation of each resource type, and the conversion of its properties to the operation's parameters.

CloudFormation's handlers call the services' APIs, so the calls of a template are checked with the same shapes and rules
as boto3's. A type that is not in `KINDS` is checked only by its own implementation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from extended_dlc.rehearsal.embedded.calls import Call, Parameters
from extended_dlc.rehearsal.embedded.shapes import TemplateFault, parameters_of


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


def _camel(value: Any) -> Any:
    """A structure whose names start in lower case, as in some APIs."""
    if isinstance(value, Mapping):
        return {f"{key[0].lower()}{key[1:]}": _camel(each) for key, each in value.items()}
    return [_camel(each) for each in value] if isinstance(value, list) else value


def _log_group(given: Parameters) -> Parameters:
    tags = {each["Key"]: each["Value"] for each in given.get("Tags", ())}
    rest = _camel({key: each for key, each in given.items() if key != "Tags"})
    return {**rest, **({"tags": tags} if tags else {})}


def _metric_filter(given: Parameters) -> Parameters:
    changed = _camel(given)
    for each in changed.get("metricTransformations", ()):
        if isinstance(each.get("dimensions"), list):
            each["dimensions"] = {pair["key"]: pair["value"] for pair in each["dimensions"]}
    return dict(changed)


def _repository(given: Parameters) -> Parameters:
    tags = given.get("Tags")
    changed = _camel({key: each for key, each in given.items() if key != "Tags"})
    return {**changed, **({"tags": tags} if tags else {})}


def _role(given: Parameters) -> Parameters:
    trust = given.get("AssumeRolePolicyDocument")
    return {**given, "AssumeRolePolicyDocument": trust if isinstance(trust, str) else json.dumps(trust)}


KINDS: Mapping[str, Kind] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": Kind(
        service="application-autoscaling", create="RegisterScalableTarget", elsewhere=frozenset({"ScheduledActions"})
    ),
    "AWS::CloudWatch::Alarm": Kind(service="cloudwatch", create="PutMetricAlarm", name="AlarmName"),
    "AWS::CloudWatch::Dashboard": Kind(service="cloudwatch", create="PutDashboard", name="DashboardName"),
    "AWS::ECR::Repository": Kind(
        service="ecr",
        create="CreateRepository",
        name="repositoryName",
        convert=_repository,
        elsewhere=frozenset({"EmptyOnDelete", "LifecyclePolicy", "RepositoryPolicyText"}),
    ),
    "AWS::IAM::Role": Kind(
        service="iam",
        create="CreateRole",
        name="RoleName",
        convert=_role,
        elsewhere=frozenset({"ManagedPolicyArns", "Policies"}),
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
    "AWS::Scheduler::Schedule": Kind(
        service="scheduler", create="CreateSchedule", update="UpdateSchedule", name="Name"
    ),
}
"""The types by their names."""


def calls_to_create(wish: Wanted) -> Iterator[Call]:
    """The calls that create a resource, and those of its scheduled actions."""
    kind = KINDS.get(wish.type)
    if kind is None:
        return
    yield _call(kind, kind.create, wish, without=kind.only_update)
    for each in wish.properties.get("ScheduledActions", ()) if "ScheduledActions" in kind.elsewhere else ():
        target = {key: wish.properties[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
        yield _of(kind, "PutScheduledAction", wish, {**each, **target})


def calls_to_update(wish: Wanted) -> Iterator[Call]:
    """The calls that update a resource in place."""
    kind = KINDS.get(wish.type)
    if kind is None or kind.update == "":
        return
    if kind.update is None:
        yield from calls_to_create(wish)
    else:
        yield _call(kind, kind.update, wish, without=kind.only_create)


def _call(kind: Kind, operation: str, wish: Wanted, *, without: frozenset[str]) -> Call:
    dropped = without | kind.elsewhere
    given = {key: each for key, each in wish.properties.items() if key not in dropped and each is not None}
    given = kind.convert(given) if kind.convert else given
    return _of(kind, operation, wish, {**given, **({kind.name: wish.name} if kind.name else {})})


def _of(kind: Kind, operation: str, wish: Wanted, given: Parameters) -> Call:
    try:
        parameters = parameters_of(kind.service, operation, given)
    except TemplateFault as fault:
        message = f"Properties validation failed for resource {wish.logical_id} with message: [{fault.message}]"
        raise TemplateFault(message) from None
    return Call(
        service=kind.service,
        operation=operation,
        parameters=parameters,
        account_id=wish.account_id,
        region=wish.region,
        template=True,
    )
