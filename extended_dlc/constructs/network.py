"""The VPC of an endpoint's containers, and `PrivateAccess` for a VPC without internet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import is_token
from extended_dlc.options.network import Network

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2

INTERFACE_SERVICES = {
    "ecr.api": "the image's manifest",
    "ecr.dkr": "the image's layers, whose bytes come from S3",
    "logs": "what the container logs",
    "monitoring": "its metrics",
    "secretsmanager": "a Hub token that is a secret",
    "sagemaker.runtime": "requests to the endpoint from within the VPC",
    "sts": "credentials of the caller's role",
}
"""Services that need an interface endpoint in a VPC without internet -> their purpose."""

FUNCTION_SERVICES = {
    "cloudformation": "whether a deployment is rolled back, for a proof",
    "codebuild": "the start of a build or a copy",
    "lambda": "a function that goes on in another invocation",
    "sagemaker.api": "the state of an endpoint, for a proof",
    "states": "the start of a training",
}
"""Services that the functions of a stack need as well, where `Functions` puts them in such a VPC -> their purpose."""

TRACING_SERVICES = {"xray": "the traces of functions"}
"""What `tracing` needs besides, which is made only where `services` names it."""


class PrivateAccess(Construct):
    """The VPC endpoints that an endpoint in a VPC without internet needs. Each VPC needs one, for all its endpoints.

    An interface endpoint costs by the hour, in each zone (`INTERFACE_SERVICES` has the purpose of each); the gateway
    endpoint for S3 costs nothing. SageMaker's guide requires S3 alone; the others are for images, logs, metrics,
    secrets and callers within the VPC.
    """

    @check_types
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet] = (),
        services: Sequence[str] = tuple(INTERFACE_SERVICES),
        functions: bool = False,
    ) -> None:
        """Define the VPC endpoints.

        :param vpc: The VPC. Leave out services that it has an endpoint for: two of the same service conflict.
        :param subnets: Subnets of the interface endpoints. Default: the private ones.
        :param services: Names of the services. ValueError for one that neither endpoints nor functions use. Default:
            those of `INTERFACE_SERVICES`.
        :param functions: Whether the functions of a stack are in the VPC too (`Functions`), and so the services of
            `FUNCTION_SERVICES` are added. Default: they are not.
        """
        super().__init__(scope, construct_id)
        from aws_cdk import aws_ec2 as ec2

        known = {**INTERFACE_SERVICES, **FUNCTION_SERVICES, **TRACING_SERVICES}
        if unknown := sorted(set(services) - set(known)):
            raise ValueError(
                f"'services' ({', '.join(unknown)}) has what no endpoint uses: choose from {', '.join(known)}"
            )
        asked = dict.fromkeys([*services, *(FUNCTION_SERVICES if functions else ())])
        self.gateway: ec2.GatewayVpcEndpoint = ec2.GatewayVpcEndpoint(
            self, "S3", vpc=vpc, service=ec2.GatewayVpcEndpointAwsService.S3
        )
        self.interfaces: Mapping[str, ec2.InterfaceVpcEndpoint] = {
            name: ec2.InterfaceVpcEndpoint(
                self,
                "".join(part.capitalize() for part in name.split(".")),
                vpc=vpc,
                subnets=ec2.SubnetSelection(subnets=list(subnets)) if subnets else None,
                service=ec2.InterfaceVpcEndpointAwsService(name),
            )
            for name in asked
        }


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The subnets and security groups of the containers, which are empty without a VPC."""

    vpc_config: sagemaker.CfnModel.VpcConfigProperty | None = None
    security_groups: tuple[ec2.ISecurityGroup, ...] = ()


def place_in(scope: Construct, network: Network, *, role: iam.IRole, hosts: int = 1) -> Placement:
    """The placement in a network; the role is allowed to create network interfaces there.

    :param hosts: The number of containers that work together, and so connect to each other.
    """
    ids = [each.subnet_id for each in network.subnets] or network.vpc.select_subnets().subnet_ids
    security_groups = tuple(network.security_groups) or (_new_group(scope, network.vpc, hosts),)
    groups = [each.security_group_id for each in security_groups]
    _grant_interfaces(scope, role, subnets=ids, groups=groups)
    config = sagemaker.CfnModel.VpcConfigProperty(subnets=ids, security_group_ids=groups)
    return Placement(vpc_config=config, security_groups=security_groups)


def _new_group(scope: Construct, vpc: ec2.IVpc, hosts: int) -> ec2.ISecurityGroup:
    """A new security group, in which the hosts of one training may connect to each other (guide, training in a VPC)."""
    from aws_cdk import aws_ec2 as ec2

    group = ec2.SecurityGroup(scope, "SecurityGroup", vpc=vpc, description="The containers of the endpoint")
    if is_token(hosts) or hosts > 1:
        group.connections.allow_internally(ec2.Port.all_traffic(), "The hosts of a training")
    return group


def _names(subnets: list[str]) -> list[str]:
    """The subnets by their names; any, where an imported VPC has them as one list that CloudFormation knows."""
    return ["*"] if is_token(subnets) else subnets


def _grant_interfaces(scope: Construct, role: iam.IRole, *, subnets: list[str], groups: list[str]) -> None:
    """Allow what SageMaker does with the role to connect a container (developer guide, roles, CreateModel API)."""
    stack = Stack.of(scope)

    def arn(kind: str, name: str) -> str:
        return stack.format_arn(service="ec2", resource=kind, resource_name=name)

    interfaces = arn("network-interface", "*")
    role.add_to_principal_policy(
        iam.PolicyStatement(
            actions=["ec2:CreateNetworkInterface"],
            resources=[
                interfaces,
                *(arn("subnet", each) for each in _names(subnets)),
                *(arn("security-group", each) for each in groups),
            ],
        )
    )
    role.add_to_principal_policy(
        iam.PolicyStatement(
            actions=[
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            ],
            resources=[interfaces],
        )
    )
    role.add_to_principal_policy(
        iam.PolicyStatement(
            actions=[
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ],
            resources=["*"],  # these actions support no resource
        )
    )
