"""`Network`: the VPC of an endpoint's containers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import within_limit

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2


@check_types
@dataclass(frozen=True, kw_only=True)
class Network:
    """The VPC in which the containers run.

    Downloads from the Hub need a route to the internet, such as a NAT gateway; `PrivateAccess` gives a VPC without one
    access to the AWS services that an endpoint uses.
    """

    vpc: ec2.IVpc
    """The VPC."""

    subnets: Sequence[ec2.ISubnet] = ()
    """The subnets, two or more in different zones, 16 at most. Default: the private ones."""

    security_groups: Sequence[ec2.ISecurityGroup] = ()
    """The security groups of the containers, 5 at most; those of a training on several instances have to allow inbound
    traffic among their members. Default: a new group that allows outbound traffic, and that traffic where it is needed.
    """

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        if self.subnets:
            within_limit("subnets", len(self.subnets), "network.subnets", "one in each zone will do")
        if self.security_groups:
            groups = len(self.security_groups)
            within_limit("security_groups", groups, "network.security_groups", "merge their rules")
