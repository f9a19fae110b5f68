"""Where the containers of an endpoint are in the network: `Network`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extended_dlc.options._values import within_limit

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2


@dataclass(frozen=True, kw_only=True)
class Network:
    """A VPC that the containers are in.

    What comes from the Hub needs a way to the internet, as a NAT gateway; `PrivateAccess` gives a VPC without one
    access to the AWS services that an endpoint uses.
    """

    vpc: ec2.IVpc
    """The VPC."""

    subnets: Sequence[ec2.ISubnet] = ()
    """Its subnets, two or more in different zones, 16 at most. Default: the private ones."""

    security_groups: Sequence[ec2.ISecurityGroup] = ()
    """What the containers may talk to, 5 at most. Default: a new group that lets nothing in and everything out."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        if self.subnets:
            within_limit("subnets", len(self.subnets), "network.subnets", "one in each zone will do")
        if self.security_groups:
            groups = len(self.security_groups)
            within_limit("security_groups", groups, "network.security_groups", "merge their rules")
