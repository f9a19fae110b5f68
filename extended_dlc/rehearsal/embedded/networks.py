"""Deletes the parts of a VPC that moto's CloudFormation only creates: a VPC that still has one cannot be deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moto.ec2.models import EC2Backend, ec2_backends

from extended_dlc.rehearsal.embedded.resources import Wish


def delete_part(wish: Wish, model: Any) -> None:
    """Delete a resource of one of the types in `PARTS`."""
    PARTS[wish.type](ec2_backends[wish.account_id][wish.region], model, wish)


def _disassociate(ec2: EC2Backend, model: Any, wish: Wish) -> None:
    table = ec2.get_route_table(model.route_table_id)
    for association in [name for name, subnet in table._associations.items() if subnet == model.subnet_id]:
        ec2.disassociate_route_table(association)


def _delete_route(ec2: EC2Backend, model: Any, wish: Wish) -> None:
    given = wish.properties
    ec2.delete_route(
        model.route_table.id,
        given.get("DestinationCidrBlock", ""),
        given.get("DestinationIpv6CidrBlock"),
        given.get("DestinationPrefixListId"),
    )


def _detach(ec2: EC2Backend, model: Any, wish: Wish) -> None:
    gateway, vpc = wish.properties.get("InternetGatewayId"), wish.properties["VpcId"]
    if gateway is not None:
        ec2.detach_internet_gateway(gateway, vpc)
    else:
        ec2.detach_vpn_gateway(wish.properties["VpnGatewayId"], vpc)


PARTS: Mapping[str, Callable[[EC2Backend, Any, Wish], object]] = {
    "AWS::EC2::EIP": lambda ec2, model, _: ec2.release_address(allocation_id=model.allocation_id),
    "AWS::EC2::FlowLog": lambda ec2, model, _: ec2.delete_flow_logs([model.id]),
    "AWS::EC2::InternetGateway": lambda ec2, model, _: ec2.delete_internet_gateway(model.id),
    "AWS::EC2::NatGateway": lambda ec2, model, _: ec2.delete_nat_gateway(model.id),
    "AWS::EC2::Route": _delete_route,
    "AWS::EC2::RouteTable": lambda ec2, model, _: ec2.delete_route_table(model.id),
    "AWS::EC2::SubnetRouteTableAssociation": _disassociate,
    "AWS::EC2::VPCEndpoint": lambda ec2, model, _: ec2.delete_vpc_endpoints([model.id]),
    "AWS::EC2::VPCGatewayAttachment": _detach,
    "AWS::EC2::VPCPeeringConnection": lambda ec2, model, _: ec2.delete_vpc_peering_connection(model.id),
    "AWS::EC2::VPNGateway": lambda ec2, model, _: ec2.delete_vpn_gateway(model.id),
}
"""How EC2 deletes each type that moto's own model has no deletion for."""
