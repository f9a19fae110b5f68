"""Permissions of the containers' role besides pulling the image and reading the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import aws_iam as iam

from extended_dlc.constructs.helpers import place_of
from extended_dlc.decisions.part import other_variants
from extended_dlc.endpoint.capture import grant_key
from extended_dlc.facts.names import COMPONENT_LOGS, ENDPOINT_LOGS, REQUEST_METRICS
from extended_dlc.options.hosting import Components, Hosting, Instances, Serverless, find_instances

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms

    from extended_dlc.endpoint.invokable import InvokableEndpoint


def grant_observability(endpoint: InvokableEndpoint, hosting: Hosting) -> None:
    """Let the role write logs and metrics of this endpoint alone (developer guide, roles, CreateModel API)."""
    role = endpoint.grant_principal
    groups, namespaces = [f"{ENDPOINT_LOGS}/{endpoint.endpoint_name}"], [ENDPOINT_LOGS, REQUEST_METRICS]
    if isinstance(hosting, Components):
        groups += [f"{COMPONENT_LOGS}/{each.name}" for each in hosting.components]
        namespaces.append(COMPONENT_LOGS)
    log_groups = [place_of(endpoint).arn("logs", f"log-group:{each}") for each in groups]
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
