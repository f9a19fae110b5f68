"""What `cdk destroy` leaves: what the templates keep by a DeletionPolicy, and what it was to delete.

Everything is asked of AWS's own APIs: the stacks' resources before, their events and the services' lists after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Service = Callable[..., Any]
"""`Client.service`: a boto3 client of a service, in the region `region`."""

KEEPS = ("Retain", "RetainExceptOnCreate")
"""The policies by which a resource of a deleted stack stays."""

STACK = "AWS::CloudFormation::Stack"
CONTAINED = ("AWS::SageMaker::Endpoint", "AWS::SageMaker::InferenceComponent")
"""The types whose resources run containers."""

_BOOTSTRAP = "CDKToolkit"


@dataclass(frozen=True, kw_only=True, order=True)
class Resource:
    """A resource by its physical ID."""

    type: str
    name: str
    region: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """How a service lists the resources of a type."""

    type: str
    service: str
    operation: str
    result: str
    name: str = ""
    """The name's field; empty where the result is a list of names."""

    only_of_stacks: bool = True
    """Whether others than those of a stack may exist, such as log groups that containers make."""


_LISTED = (
    _Listed(
        type="AWS::SageMaker::Endpoint",
        service="sagemaker",
        operation="list_endpoints",
        result="Endpoints",
        name="EndpointName",
        only_of_stacks=False,
    ),
    _Listed(
        type="AWS::SageMaker::EndpointConfig",
        service="sagemaker",
        operation="list_endpoint_configs",
        result="EndpointConfigs",
        name="EndpointConfigName",
        only_of_stacks=False,
    ),
    _Listed(
        type="AWS::SageMaker::Model",
        service="sagemaker",
        operation="list_models",
        result="Models",
        name="ModelName",
        only_of_stacks=False,
    ),
    _Listed(
        type="AWS::ECR::Repository",
        service="ecr",
        operation="describe_repositories",
        result="repositories",
        name="repositoryName",
        only_of_stacks=False,
    ),
    _Listed(type="AWS::IAM::Role", service="iam", operation="list_roles", result="Roles", name="RoleName"),
    _Listed(type="AWS::S3::Bucket", service="s3", operation="list_buckets", result="Buckets", name="Name"),
    _Listed(
        type="AWS::Logs::LogGroup",
        service="logs",
        operation="describe_log_groups",
        result="logGroups",
        name="logGroupName",
    ),
    _Listed(type="AWS::DynamoDB::Table", service="dynamodb", operation="list_tables", result="TableNames"),
    _Listed(type="AWS::KMS::Key", service="kms", operation="list_keys", result="Keys", name="KeyId"),
)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The stacks' resources before they are destroyed."""

    stacks: tuple[tuple[str, str], ...]
    """Region and ID of each stack."""

    resources: frozenset[Resource]
    kept: frozenset[Resource]
    """Those that a template keeps."""

    bootstrap: frozenset[Resource]
    """Those of the CDK's bootstrap stack, which stays."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What exists after `cdk destroy`."""

    kept: tuple[Resource, ...]
    """What the templates keep."""

    others: tuple[Resource, ...]
    """What was to be deleted."""

    @property
    def proof(self) -> str:
        """What a report says of an app that left nothing else."""
        nothing = "no stack, endpoint, config, model, repository, role or container but the CDK's own bootstrap"
        if not self.kept:
            return nothing
        kept = (
            "kept by the template's DeletionPolicy; it ends with this rehearsal, and in an account when you delete it:"
        )
        return "\n".join([nothing, kept, *(f"- {each}" for each in self.kept)])


def deployed(service: Service, regions: Iterable[str]) -> Deployed:
    """The resources of all stacks, nested ones among them."""
    stacks: list[tuple[str, str]] = []
    resources: set[Resource] = set()
    kept: set[Resource] = set()
    bootstrap: set[Resource] = set()
    for region in regions:
        cloudformation = service("cloudformation", region=region)
        found: dict[tuple[str, str], list[tuple[Resource, bool]]] = {}
        for stack in _stacks(cloudformation):
            of_stack = list(_resources(cloudformation, stack["StackId"], region))
            if stack["StackName"] == _BOOTSTRAP:
                bootstrap.update(each for each, _ in of_stack)
            else:
                found[stack["StackId"], stack["StackName"]] = of_stack
        stacks += [(region, stack_id) for stack_id, _ in found]
        resources.update(each for of_stack in found.values() for each, _ in of_stack)
        kept.update(_kept(found))
    return Deployed(
        stacks=tuple(stacks), resources=frozenset(resources), kept=frozenset(kept), bootstrap=frozenset(bootstrap)
    )


def left(service: Service, regions: Iterable[str], before: Deployed) -> Left:
    """What still exists, apart from the CDK's bootstrap."""
    skipped = {each for region, stack in before.stacks for each in _skipped(service, region, stack)}
    kept = before.kept | skipped
    others: set[Resource] = set()
    for region in regions:
        for stack in _stacks(service("cloudformation", region=region)):
            named = {Resource(type=STACK, name=stack[key], region=region) for key in ("StackId", "StackName")}
            if stack["StackName"] != _BOOTSTRAP and not named & kept:
                others.add(Resource(type=STACK, name=stack["StackName"], region=region))
        for row in _LISTED:
            found = {Resource(type=row.type, name=name, region=region) for name in _names(service, row, region)}
            others |= found & before.resources if row.only_of_stacks else found
    return Left(kept=tuple(sorted(kept)), others=tuple(sorted(others - kept - before.bootstrap)))


def _kept(found: dict[tuple[str, str], list[tuple[Resource, bool]]]) -> set[Resource]:
    """What the templates keep: resources with such a policy, and everything in a nested stack that has one."""
    kept = {each for of_stack in found.values() for each, keeps in of_stack if keeps}
    for _ in found:  # each turn goes one stack deeper
        stacks = {each.name for each in kept if each.type == STACK}
        kept |= {each for names, of_stack in found.items() if stacks & set(names) for each, _ in of_stack}
    return kept


def _stacks(cloudformation: Any) -> Iterator[Any]:
    for page in cloudformation.get_paginator("describe_stacks").paginate():
        yield from (stack for stack in page["Stacks"] if stack["StackStatus"] != "REVIEW_IN_PROGRESS")


def _resources(cloudformation: Any, stack: str, region: str) -> Iterator[tuple[Resource, bool]]:
    """The resources of a stack, and whether its template keeps them."""
    template = cloudformation.get_template(StackName=stack)["TemplateBody"]
    declared = template.get("Resources", {}) if isinstance(template, dict) else {}
    for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack):
        for each in page["StackResourceSummaries"]:
            policy = declared.get(each["LogicalResourceId"], {}).get("DeletionPolicy")
            name = each.get("PhysicalResourceId", "")
            yield Resource(type=each["ResourceType"], name=name, region=region), policy in KEEPS


def _skipped(service: Service, region: str, stack: str) -> Iterator[Resource]:
    """What the stack's operations did not delete, such as a resource that an earlier update replaced."""
    events = service("cloudformation", region=region).get_paginator("describe_stack_events")
    for page in events.paginate(StackName=stack):
        for each in page["StackEvents"]:
            if each["ResourceStatus"] == "DELETE_SKIPPED":
                yield Resource(type=each["ResourceType"], name=each["PhysicalResourceId"], region=region)


def _names(service: Service, row: _Listed, region: str) -> Iterator[str]:
    for page in service(row.service, region=region).get_paginator(row.operation).paginate():
        yield from (str(each[row.name] if row.name else each) for each in page[row.result])
