"""Permissions of the containers' role besides image and weights, and permissions on the endpoint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aws_cdk import aws_iam as iam

from extended_dlc.constructs.buckets import grant_key
from extended_dlc.constructs.helpers import target_of
from extended_dlc.decisions.part import other_variants
from extended_dlc.endpoint.invokable import INVOKE_ACTIONS, InvokableEndpoint
from extended_dlc.facts.names import COMPONENT_LOGS, ENDPOINT_LOGS, REQUEST_METRICS
from extended_dlc.options._values import OptionError
from extended_dlc.options.hosting import Components, Hosting, Instances, Serverless, find_instances

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms


def grant_observability(endpoint: InvokableEndpoint, hosting: Hosting) -> None:
    """Let the role write logs and metrics of this endpoint alone (developer guide, roles, CreateModel API)."""
    role = endpoint.grant_principal
    groups, namespaces = [f"{ENDPOINT_LOGS}/{endpoint.endpoint_name}"], [ENDPOINT_LOGS, REQUEST_METRICS]
    if isinstance(hosting, Components):
        groups += [f"{COMPONENT_LOGS}/{each.name}" for each in hosting.components]
        namespaces.append(COMPONENT_LOGS)
    log_groups = [target_of(endpoint).arn("logs", f"log-group:{each}") for each in groups]
    # Grants, because making and adding a PolicyStatement costs four calls to the CDK's process and a grant costs one.
    iam.Grant.add_to_principal(
        grantee=role,
        actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
        resource_arns=[arn for each in log_groups for arn in (each, f"{each}:*")],
    )
    iam.Grant.add_to_principal(
        grantee=role,
        actions=["cloudwatch:PutMetricData"],
        resource_arns=["*"],  # the action supports no resource; the condition limits it
        conditions={"StringEquals": {"cloudwatch:namespace": namespaces}},
    )
    if has_ssm_access(hosting):
        # The SSM agent's actions support no resource (SageMaker developer guide, "Access containers through SSM").
        channels = [f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")]
        iam.Grant.add_to_principal(grantee=role, actions=channels, resource_arns=["*"])


def has_ssm_access(hosting: Hosting) -> bool:
    """Whether Systems Manager has access to any of the instances."""
    fleets = [] if isinstance(hosting, Serverless) else [hosting, *other_variants(hosting)]
    return any(each.ssm_access for each in fleets)


def grant_components(endpoint: InvokableEndpoint, grantee: iam.IGrantable, components: Iterable[str]) -> None:
    """Let `grantee` send requests to components: IAM also compares them with the component's ARN."""
    arns = [arn for name in components for arn in target_of(endpoint).sagemaker_arns("inference-component", name)]
    if not arns:
        return
    actions = [each for each in INVOKE_ACTIONS if not each.endswith("Async")]
    iam.Grant.add_to_principal(grantee=grantee, actions=actions, resource_arns=arns)


def grant_shell(endpoint: InvokableEndpoint, hosting: Hosting, grantee: iam.IGrantable) -> iam.Grant:
    """Let `grantee` open and close a shell in a container; ValueError without `ssm_access`."""
    if not has_ssm_access(hosting):
        raise OptionError("grant_shell", rule="needs instances with 'ssm_access': set it in the hosting")
    sessions = target_of(endpoint).arn("ssm", "session/*")
    ends = iam.Grant.add_to_principal(grantee=grantee, actions=["ssm:TerminateSession"], resource_arns=[sessions])
    return endpoint.grant(grantee, "ssm:StartSession").combine(ends)


def volume_key(key: kms.IKey | None, hosting: Hosting, role: iam.IRole) -> str | None:
    """The key for the volumes, or None where a type has local storage; the role is granted use of the key."""
    if key is None:
        return None
    grant_key(key, role)
    if isinstance(hosting, Serverless):
        return None
    fleets: list[Instances] = [hosting, *other_variants(hosting)]
    instances = [instance for fleet in fleets for instance in find_instances(fleet)]
    if any(each.local_storage_gb for each in instances):
        return None
    role.add_to_principal_policy(
        iam.PolicyStatement(
            actions=["kms:CreateGrant"],
            resources=[key.key_arn],
            conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
        )
    )
    return key.key_arn
